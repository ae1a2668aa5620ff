//! The demonstration's training loop on processes of MPI: the weights of every rank are those of as
//! many threads, to the bit. How it is run: `common::mpi`.
#![allow(missing_docs)]
#![allow(dead_code)] // the demonstration uses the rest

mod common;

#[path = "../examples/train_mnist/data.rs"]
mod data;
#[path = "../examples/train_mnist/loss.rs"]
mod loss;
#[path = "../examples/train_mnist/mode.rs"]
mod mode;
#[path = "../examples/train_mnist/network.rs"]
mod network;
#[path = "../examples/train_mnist/rank.rs"]
mod rank;
#[path = "../examples/train_mnist/run.rs"]
mod run;

use std::process::ExitCode;

use common::mpi::{self, ALL, RANKS};
use halfstep::reduce::{Communicator, Mpi};
use mode::Mode;
use run::Settings;

fn main() -> ExitCode {
    mpi::main(&[("every_mode_has_the_bits_of_threads", every_mode_has_the_bits_of_threads, ALL)])
}

/// A batch of 66: ranks have 16 or 17 rows, and weigh as much. `run_process` compares the ranks.
fn every_mode_has_the_bits_of_threads(mpi: &Mpi) {
    let digits = data::load(data::DIGITS, 0).unwrap();
    let layers = vec![64, 128, 64, 10];
    let settings = Settings { layers, ranks: RANKS, batch: 66, epochs: 2, lr: 1e-3, seed: 1 };
    let connect = || Ok(Box::new(mpi.comm()?) as Box<dyn Communicator>);
    let hashes = Mode::ALL
        .map(|mode| run::run_process(mode, &settings, &digits, &connect, &|_| {}).unwrap().hash);
    println!("rank {}: {hashes:x?}", mpi.rank());
    if mpi.rank() == 0 {
        let threads =
            Mode::ALL.map(|mode| run::run(mode, &settings, &digits, &|_| {}).unwrap().hash);
        assert_eq!(hashes, threads);
        // Modes differ, so that equal hashes are of equal weights and not of no weights.
        (1..hashes.len()).for_each(|i| assert!(!hashes[..i].contains(&hashes[i])));
    }
}
