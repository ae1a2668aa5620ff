//! Conversions of large arrays: time, rate and share of the bandwidth of a copy.
//! `cargo bench --bench convert [-- FILTER]`; see `statistics` and `suite`.

mod statistics;
mod suite;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    statistics::told(statistics::run("convert"))
}
