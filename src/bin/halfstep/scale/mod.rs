//! `halfstep scale`: data-parallel training of a named model on a named machine, simulated.
//!
//! A step is: forward pass, backward pass (in which gradients become ready, from the last weight to the
//! first, as their arithmetic is done), exchanges of buckets one after the other, update. What it
//! assumes it prints.

mod exchange;
#[cfg(test)]
mod known;
mod machine;
mod ranks;
mod report;
mod spread;
mod step;
mod strategy;

use std::io::Write;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use halfstep::Dtype;
use halfstep::reduce::Link;

pub use exchange::{Algorithm, Fabric};
pub use machine::{Between, MACHINES, Machine};
pub use ranks::Ranks;
pub use step::{Batch, Job, Step};
pub use strategy::{STRATEGIES, Strategy};

use crate::chart;
use crate::output::Failure;
use crate::workloads::Model;

/// σ of the ranks' spread unless given: 1 %, an assumption. (GPUs of one kind differ by several per cent
/// in what they reach for long, Sinha et al., SC22; batches of equal size even that out in part.)
pub const SPREAD: f64 = 0.01;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// What is trained.
    #[arg(long, value_parser = PossibleValuesParser::new(Model::NAMES))]
    model: String,
    /// Where.
    #[arg(long, value_parser = PossibleValuesParser::new(MACHINES.map(|machine| machine.name)))]
    machine: String,
    /// How many ranks: `1..4096` (powers of two, and both ends), or a list, `4,8,3664`.
    #[arg(long, default_value = "1..4096")]
    ranks: Ranks,
    /// How gradients are reduced.
    #[arg(long, default_value = "halfstep", value_parser = PossibleValuesParser::new(STRATEGIES.map(|s| s.name)))]
    strategy: String,
    /// Exchange by this algorithm alone; the strategy's fastest unless given.
    #[arg(long)]
    algorithm: Option<Algorithm>,
    /// Efficiency is relative to this many ranks.
    #[arg(long, value_name = "RANKS", default_value = "1", value_parser = ranks::count)]
    baseline: usize,
    /// What is computed with, and what gradients are stored as.
    #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = PossibleValuesParser::new(["bf16", "f32"]))]
    precision: String,
    /// Samples per rank and step; by the model unless given.
    #[arg(long, value_name = "SAMPLES", conflicts_with = "global_batch")]
    batch: Option<std::num::NonZeroUsize>,
    /// Samples of all ranks together: strong scaling.
    #[arg(long, value_name = "SAMPLES")]
    global_batch: Option<std::num::NonZeroUsize>,
    /// Share of the peak that arithmetic reaches; by the model unless given.
    #[arg(long, value_parser = share)]
    share: Option<f64>,
    /// Spread of the ranks: σ of a lognormal distribution of the time that equal work takes.
    #[arg(long, value_name = "SIGMA", default_value_t = SPREAD, value_parser = sigma)]
    spread: f64,
    /// GB/s of a rank to its neighbour inside a node; the machine's unless given.
    #[arg(long, value_name = "GB/s", value_parser = rate)]
    inside: Option<f64>,
    /// GB/s of a node to others; the machine's unless given.
    #[arg(long, value_name = "GB/s", value_parser = rate)]
    between: Option<f64>,
    /// Measured, in the place of what is nominal between nodes: microseconds that an exchange between all ranks
    /// of two nodes takes however small it is, 1e6·alpha of what `reduce::calibrate` gives there.
    #[arg(long, value_name = "US", requires = "rate", conflicts_with = "between", value_parser = microseconds)]
    alpha: Option<f64>,
    /// With it: gradients exchanged in GB/s, beyond that, 1e-9/beta.
    #[arg(long, value_name = "GB/s", requires = "alpha", value_parser = rate)]
    rate: Option<f64>,
    /// Of the spread.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps that are averaged.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    steps: u16,
    /// Also draw the curves into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

fn number(text: &str, good: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("expected {expected}"))?;
    if value.is_finite() && good(value) { Ok(value) } else { Err(format!("expected {expected}")) }
}

/// GB/s: more and less than any link's.
fn rate(text: &str) -> Result<f64, String> {
    number(text, |value| (1e-6..=1e6).contains(&value), "GB/s from 0.000001 to 1000000")
}

fn microseconds(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1e9).contains(&value), "microseconds from 0 to 1000000000")
}

fn sigma(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=10.0).contains(&value), "a number from 0 to 10")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |value| (1e-6..=1.0).contains(&value), "a share from 0.000001 to 1")
}

/// What was simulated: rows of the chosen strategy, and of all, for the same ranks.
pub struct Outcome {
    pub job: Job,
    /// By the algorithm that is pinned, if one is.
    pub chosen: Strategy,
    pub pinned: Option<Algorithm>,
    pub baseline: Step,
    pub rows: Vec<Step>,
    /// Every strategy with its steps, the chosen one among them.
    pub others: Vec<(Strategy, Step, Vec<Step>)>,
}

impl Outcome {
    /// Numbers of ranks that leave room in their last node: `reduce::Hierarchical` refuses them.
    pub fn uneven(&self) -> Vec<usize> {
        let per_node = self.job.machine.per_node;
        let ranks = self.rows.iter().map(|row| row.ranks);
        ranks.filter(|ranks| *ranks > per_node && ranks % per_node != 0).collect()
    }

    /// From which of these numbers of ranks on this crate's steps are shorter inside nodes first, each by more
    /// than a share.
    pub fn two_level_from(&self, gain: f64) -> Option<usize> {
        let of = |name: &str| {
            let (.., rows) = self.others.iter().find(|(strategy, ..)| strategy.name == name)?;
            Some(rows)
        };
        let pairs = of("halfstep")?.iter().zip(of("two-level")?).rev();
        let uneven = self.uneven();
        let pairs = pairs.filter(|(all, _)| !uneven.contains(&all.ranks));
        let shorter = |(all, two): &(&Step, &Step)| two.seconds() < (1.0 - gain) * all.seconds();
        pairs.take_while(shorter).last().map(|(all, _)| all.ranks)
    }
}

/// Simulates and prints.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let unknown = |name: &str| Failure::Reason(format!("{name} is not known"));
    let mut machine = Machine::named(&args.machine).ok_or_else(|| unknown(&args.machine))?;
    let model = Model::named(&args.model).ok_or_else(|| unknown(&args.model))?;
    let chosen = Strategy::named(&args.strategy).ok_or_else(|| unknown(&args.strategy))?;
    machine.inside_rate = args.inside.map_or(machine.inside_rate, |rate| rate * 1e9);
    machine.between = match (args.between, args.alpha, args.rate) {
        (_, Some(alpha), Some(rate)) => {
            Between::Measured(Link { alpha: 1e-6 * alpha, beta: 1e-9 / rate })
        }
        (Some(rate), ..) => Between::Nominal(rate * 1e9),
        _ => machine.between,
    };
    let batch = match args.global_batch {
        Some(samples) => Batch::Global(samples.get()),
        None => Batch::PerRank(args.batch.map_or(model.batch, |samples| samples.get())),
    };
    let precision = if args.precision == "f32" { Dtype::F32 } else { Dtype::Bf16 };
    let (spread, steps, seed) = (args.spread, args.steps.into(), args.seed);
    let job = Job { model, machine, precision, batch, share: args.share, spread, steps, seed };
    let outcome = simulate(job, chosen, args.algorithm, args.ranks.list(), args.baseline)?;
    if let Some(path) = &args.svg {
        chart::write_svg(&report::chart(&outcome), path)?;
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report::json(&outcome))
            .map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        report::print(&outcome, out)?;
    }
    Ok(true)
}

fn simulate(
    job: Job,
    mut chosen: Strategy,
    pinned: Option<Algorithm>,
    ranks: &[usize],
    baseline: usize,
) -> halfstep::Result<Outcome> {
    chosen.algorithms = pinned.map_or(chosen.algorithms, Algorithm::alone);
    let row = |strategy: &Strategy| -> halfstep::Result<(Step, Vec<Step>)> {
        let rows: halfstep::Result<_> = ranks.iter().map(|&n| job.step(n, strategy)).collect();
        Ok((job.step(baseline, strategy)?, rows?))
    };
    let (first, rows) = row(&chosen)?;
    let mut others = Vec::new();
    for strategy in STRATEGIES {
        let strategy = if strategy.name == chosen.name { chosen } else { strategy };
        let (baseline, rows) = row(&strategy)?;
        others.push((strategy, baseline, rows));
    }
    Ok(Outcome { job, chosen, pinned, baseline: first, rows, others })
}
