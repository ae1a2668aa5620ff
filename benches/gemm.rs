//! Products: time, rate and share of the machine's multiply-add peak (or of its bandwidth).
//! `cargo bench --bench gemm [-- FILTER]`; see `suite`.

mod suite;
mod workloads;

fn main() {
    suite::main("gemm");
}
