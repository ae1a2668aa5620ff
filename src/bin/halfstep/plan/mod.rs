//! `halfstep plan`: what the library would do, and why, without doing it.

mod buckets;
mod gemm;
mod timeline;

use std::io::Write;

use crate::output::Failure;

/// What is planned.
#[derive(clap::Subcommand)]
pub enum Plan {
    /// The kernel of a matrix product, or the form of the CPU's instructions, its tile, and why they are chosen.
    #[command(allow_negative_numbers = true)]
    Gemm(gemm::Args),
    /// The buckets of a list of gradients, and when each is exchanged.
    #[command(allow_negative_numbers = true)]
    Buckets(buckets::Args),
}

/// Plans and prints.
pub fn run(plan: &Plan, out: &mut dyn Write) -> Result<bool, Failure> {
    match plan {
        Plan::Gemm(args) => gemm::run(args, out),
        Plan::Buckets(args) => buckets::run(args, out),
    }
}
