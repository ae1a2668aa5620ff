//! The `halfstep` program: what the library can tell about itself from a command line.

#![deny(unsafe_code)]

mod bench;
mod built;
mod chart;
// Values from a seed, and what f64 says: the tests' own.
#[allow(dead_code)]
#[path = "../../../tests/common/data.rs"]
mod data;
mod device;
mod doctor;
mod golden;
mod input;
mod machine;
#[allow(dead_code)]
#[path = "../../../tests/common/oracle_gemm.rs"]
mod oracle;
mod outer;
mod output;
mod plan;
mod scale;
// Its peaks are measured with vector instructions.
#[allow(unsafe_code)]
#[path = "../../../benches/suite/mod.rs"]
mod suite;
mod sweep;
mod verify;
#[path = "../../../benches/workloads/mod.rs"]
mod workloads;

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
    /// Processor, what slows it, toolkits, drivers, devices and images, collective libraries, MPI, environment; each
    /// problem with its cure. Exits with 1 if there is a problem; a machine without a GPU is none.
    Doctor(doctor::Args),
    /// Check that a device computes what it should.
    ///
    /// Without files: golden files that are built in, and a sweep of seeded products, gradients, optimizer steps and
    /// conversions. Every result has to be within its bound of what f64 says; where bits are promised, it has to have
    /// the CPU's: of products those of the definition, of the rest those of one thread. Prints a line for each
    /// group, and for a case that fails how to run it again.
    ///
    /// With files: safetensors in the format golden/1, a line for each case with its worst error over its bound.
    ///
    /// Exits with 1 if a case fails or a file cannot be read.
    #[command(allow_negative_numbers = true)]
    Verify(verify::Args),
    /// Time products, optimizer steps, reductions and conversions.
    ///
    /// Each is checked before it is timed, and printed as a share of what the machine's arithmetic or memory
    /// reaches beside it. Exits with 1 if a case is wrong.
    #[command(allow_negative_numbers = true)]
    Bench(bench::Args),
    /// Explain the kernel of a product, or the buckets of a model's gradients.
    #[command(subcommand)]
    Plan(plan::Plan),
    /// Merge what workers have learnt apart: the outer step of DiLoCo, over safetensors files.
    ///
    /// SGD with Nesterov momentum on an f32 master. The files' bits depend on the workers' files, their weights
    /// and their order alone, so that every site can compute them for itself.
    #[command(allow_negative_numbers = true)]
    Outer(outer::Args),
    /// Simulate data-parallel training of a named model on a named machine.
    ///
    /// For one rank to thousands. Prints what is assumed, the time of a step and what it consists of, and
    /// draws efficiency, this crate's plan beside the usual ones.
    #[command(allow_negative_numbers = true)]
    Scale(scale::Args),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Verify(args) => output::run("verify", |out| verify::run(&args, out)),
        Command::Bench(args) => output::run("bench", |out| bench::run(&args, out)),
        Command::Doctor(args) => output::run("doctor", |out| doctor::run(&args, out)),
        Command::Plan(plan) => output::run("plan", |out| plan::run(&plan, out)),
        Command::Outer(args) => output::run("outer", |out| outer::run(&args, out)),
        Command::Scale(args) => output::run("scale", |out| scale::run(&args, out)),
    }
}
