//! Averages of gradients over ranks: time, rate and share of the bandwidth of an in-place update.
//! `cargo bench --bench reduce [-- FILTER]`; see `suite`.

mod suite;
mod workloads;

fn main() {
    suite::main("reduce");
}
