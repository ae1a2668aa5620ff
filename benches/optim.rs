//! Optimizer steps: time, rate and share of the bandwidth of an in-place update.
//! `cargo bench --bench optim [-- FILTER]`; see `suite`.

mod suite;
mod workloads;

fn main() {
    suite::main("optim");
}
