//! Conversions of large arrays: time, rate and share of the bandwidth of a copy.
//! `cargo bench --bench convert [-- FILTER]`; see `suite`.

mod suite;
mod workloads;

fn main() {
    suite::main("convert");
}
