//! Averages of gradients over ranks: time, rate and share of the bandwidth of an in-place update; then
//! what of it a backward pass hides; then, with the feature `mpi` and a launcher, the same between
//! processes, beside MPI's own all-reduce.
//! `cargo bench --bench reduce [-- FILTER]`; see `suite`, `overlap` and `processes`.

mod overlap;
#[cfg(feature = "mpi")]
mod processes;
mod suite;
mod workloads;

use std::process::ExitCode;

fn main() -> ExitCode {
    // `cargo test --benches` only shows that it runs.
    let timed = std::env::args().any(|argument| argument == "--bench");
    let rounds = match suite::number("HALFSTEP_BENCH_ROUNDS", if timed { 9 } else { 1 }) {
        Ok(rounds) => rounds,
        Err(error) => return told(Err(error)),
    };
    let params = workloads::wav2vec2_base_ctc();
    #[cfg(feature = "mpi")]
    if processes::is_rank() {
        return told(processes::rank(&params, rounds));
    }
    suite::main("reduce");
    let outcome = overlap::threads(&params, rounds).map(|lines| println!("\n{lines}"));
    #[cfg(feature = "mpi")]
    processes::launch();
    told(outcome)
}

fn told(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
