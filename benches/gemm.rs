//! Products: time, rate and share of the machine's multiply-add peak (or of its bandwidth).
//! `cargo bench --bench gemm [-- FILTER]`; see `statistics` and `suite`.

mod statistics;
mod suite;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    statistics::told(statistics::run("gemm"))
}
