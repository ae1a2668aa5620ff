//! Optimizer steps: time, rate and share of the bandwidth of an in-place update.
//! `cargo bench --bench optim [-- FILTER]`; see `statistics` and `suite`.

mod statistics;
mod suite;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    statistics::told(statistics::run("optim"))
}
