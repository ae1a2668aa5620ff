//! `halfstep outer`: one outer step of low-communication training, from file to file.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use halfstep::reduce::{OnNonFinite, Outer, OuterInputs, OuterOutputs, Worker};

use crate::output::Failure;

#[derive(clap::Args)]
pub struct Args {
    /// The master's parameters, in f32.
    #[arg(long, value_name = "FILE")]
    master: PathBuf,
    /// The momentum that the step before wrote; none at the first.
    #[arg(long, value_name = "FILE")]
    momentum: Option<PathBuf>,
    /// What a worker arrived at, and its weight, such as the samples it has seen (1 unless given). Every site must
    /// list workers in the same order.
    ///
    /// A weight is the number behind the last `=`. Where all of the text names a file that is there, it is that
    /// file, of weight 1: `lr=0.7`, or with a weight `lr=0.7=3`. What is not UTF-8 is a file's name.
    #[arg(required = true, value_name = "FILE[=WEIGHT]",
          value_parser = OsStringValueParser::new().map(weighted))]
    workers: Vec<(PathBuf, f64)>,
    /// Where the new master goes; it may be the old one's place.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Where the new momentum goes.
    #[arg(long, value_name = "FILE")]
    to_momentum: PathBuf,
    /// Where the new master goes in bf16, for workers to start from.
    #[arg(long, value_name = "FILE")]
    to_start: Option<PathBuf>,
    /// Learning rate of the outer step.
    #[arg(long, value_name = "LR", default_value_t = Outer::default().learning_rate)]
    lr: f64,
    /// Momentum, from 0 to below 1.
    #[arg(long, value_name = "MU", default_value_t = Outer::default().momentum)]
    mu: f64,
    /// Momentum as it is, without Nesterov's look ahead.
    #[arg(long)]
    plain: bool,
    /// Leave out workers whose files hold NaN or infinities, rather than fail.
    #[arg(long)]
    leave_out: bool,
}

/// `FILE` or `FILE=WEIGHT`; a name may have `=` in it.
fn weighted(text: OsString) -> (PathBuf, f64) {
    let split = || {
        let (path, weight) = text.to_str()?.rsplit_once('=')?;
        Some((path.into(), weight.parse().ok()?))
    };
    let split = if Path::new(&text).is_file() { None } else { split() };
    split.unwrap_or_else(|| (text.into(), 1.0))
}

/// Takes the step, and says which it was.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let on_non_finite = if args.leave_out { OnNonFinite::LeaveOut } else { OnNonFinite::Error };
    let rule = Outer {
        learning_rate: args.lr,
        momentum: args.mu,
        nesterov: !args.plain,
        on_non_finite,
        ..Outer::default()
    };
    let workers: Vec<Worker<'_>> =
        args.workers.iter().map(|(path, weight)| Worker { path, weight: *weight }).collect();
    let inputs =
        OuterInputs { master: &args.master, momentum: args.momentum.as_deref(), workers: &workers };
    let outputs = OuterOutputs {
        master: &args.to,
        momentum: &args.to_momentum,
        start: args.to_start.as_deref(),
    };
    let report = rule.step(inputs, outputs)?;
    for &index in &report.left_out {
        writeln!(out, "left out: {}", workers[index].path.display())?;
    }
    let counted = workers.len() - report.left_out.len();
    writeln!(
        out,
        "step {}: {} tensors, {} elements, {counted} workers",
        report.step, report.tensors, report.elements
    )?;
    Ok(true)
}
