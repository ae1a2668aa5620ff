//! The `halfstep` program: what the library can tell about itself from a command line.

#![deny(unsafe_code)]

mod bench;
mod chart;
mod device;
mod doctor;
mod golden;
mod machine;
mod outer;
mod output;
mod plan;
mod scale;
// Its peaks are measured with vector instructions.
#[allow(unsafe_code)]
#[path = "../../../benches/suite/mod.rs"]
mod suite;
mod verify;
#[path = "../../../benches/workloads/mod.rs"]
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Kernels for mixed-precision training: check them, time them, and see what they would give.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look for what there is to run on, what is missing, and what stands in the way.
    ///
    /// Processor, toolkits, drivers, devices and images, collective libraries, MPI, environment; each
    /// problem with its cure. Exits with 1 if there is a problem; a machine without a GPU is none.
    Doctor(doctor::Args),
    /// Replay golden files on a device.
    ///
    /// Files are safetensors in the format golden/1. Every case is compared with its exact answer. Prints a
    /// line per case with its worst error over its bound; exits with 1 if a case fails or a file cannot be
    /// read.
    Verify {
        /// Golden files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where: `cpu`, `cpu:FORM` of its products (`cpu:portable`), `cuda:N` or `hip:N`.
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: String,
        /// Threads of the CPU backend; as many as there are cores unless given.
        #[arg(long, value_name = "N")]
        threads: Option<std::num::NonZeroUsize>,
    },
    /// Time products, optimizer steps, reductions and conversions.
    ///
    /// Each is checked before it is timed, and printed as a share of what the machine's arithmetic or memory
    /// reaches beside it. Exits with 1 if a case is wrong.
    Bench(bench::Args),
    /// Explain the kernel of a product, or the buckets of a model's gradients.
    #[command(subcommand)]
    Plan(plan::Plan),
    /// Merge what workers have learnt apart: the outer step of DiLoCo, over safetensors files.
    ///
    /// SGD with Nesterov momentum on an f32 master. The files' bits depend on the workers' files, their weights
    /// and their order alone, so that every site can compute them for itself.
    Outer(outer::Args),
    /// Simulate data-parallel training of a named model on a named machine.
    ///
    /// For one rank to thousands. Prints what is assumed, the time of a step and what it consists of, and
    /// draws efficiency, this crate's plan beside the usual ones.
    Scale(scale::Args),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Verify { files, device, threads } => {
            output::run("verify", |out| verify::run(&files, &device, threads, out))
        }
        Command::Bench(args) => output::run("bench", |out| bench::run(&args, out)),
        Command::Doctor(args) => output::run("doctor", |out| doctor::run(&args, out)),
        Command::Plan(plan) => output::run("plan", |out| plan::run(&plan, out)),
        Command::Outer(args) => output::run("outer", |out| outer::run(&args, out)),
        Command::Scale(args) => output::run("scale", |out| scale::run(&args, out)),
    }
}
