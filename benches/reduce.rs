//! Averages of gradients over ranks: time, rate and share of the bandwidth of an in-place update; then
//! what of it a backward pass hides; then, with the feature `mpi` and a launcher, the same between
//! processes, beside MPI's own all-reduce.
//! `cargo bench --bench reduce [-- FILTER]`; see `statistics`, `suite`, `overlap` and `processes`. The rounds of the latter two with
//! `HALFSTEP_BENCH_ROUNDS`.

mod overlap;
#[cfg(feature = "mpi")]
mod processes;
mod statistics;
mod suite;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    statistics::told(run())
}

fn run() -> Result<(), String> {
    let rounds = if statistics::is_timed() { 9 } else { 1 };
    let rounds = statistics::number("HALFSTEP_BENCH_ROUNDS", rounds)?;
    let params = workloads::wav2vec2_base_ctc();
    #[cfg(feature = "mpi")]
    if processes::is_rank() {
        return processes::rank(&params, rounds);
    }
    let suite = statistics::run("reduce");
    if !statistics::is_list() {
        println!("\n{}", overlap::threads(&params, rounds)?);
        #[cfg(feature = "mpi")]
        processes::launch();
    }
    suite
}
