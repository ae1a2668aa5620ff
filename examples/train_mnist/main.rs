//! Trains a network on real handwritten digits, in five kinds of precision, on two ranks, with
//! every product, step and reduction made by this crate. What to see in its table:
//!
//! - bf16 with an f32 master, bf16 with stochastic rounding, and f16 with a loss scaler reach what
//!   f32 reaches;
//! - bf16 rounded to nearest, with the same data and the same gradients, does not learn: at this
//!   learning rate an update is smaller than half an ulp of the weight it should change.
//!
//! ```text
//! cargo run --release --example train_mnist
//! cargo run --release --example train_mnist -- --ranks 4 --epochs 2 --modes f32,bf16+sr
//! ```
//!
//! Built with the feature `mpi` and started by a launcher, each process is a rank; the weights are the
//! same, to the bit, as those of as many threads:
//!
//! ```text
//! cargo build --release --features mpi --example train_mnist
//! mpirun --oversubscribe -n 4 target/release/examples/train_mnist
//! ```
//!
//! or, without MPI, with the feature `tcp` under anything that sets `RANK` and `WORLD_SIZE` or SLURM's
//! variables:
//!
//! ```text
//! cargo build --release --features tcp --example train_mnist
//! for rank in 0 1; do RANK=$rank WORLD_SIZE=2 LOCAL_RANK=$rank LOCAL_WORLD_SIZE=2 target/release/examples/train_mnist & done; wait
//! ```

mod data;
mod job;
mod loss;
mod mode;
mod network;
mod plot;
mod rank;
mod run;

use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use job::Job;
use mode::Mode;
use run::{Outcome, Settings};

/// Train on MNIST digits in f32, bf16 and f16.
#[derive(Parser)]
struct Args {
    /// Ranks: threads that each take a part of every batch. [default: 2; under mpirun, its processes]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    ranks: Option<u8>,
    /// Passes over the training digits.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    epochs: u16,
    /// AdamW's learning rate.
    #[arg(long, default_value_t = 3e-5, value_parser = learning_rate)]
    lr: f64,
    /// Seed of the split, the initial weights, the order of digits and stochastic rounding.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which modes: f32, bf16+master, bf16+sr, bf16+rn, f16+scaler.
    #[arg(long, value_delimiter = ',', default_values = Mode::NAMES)]
    modes: Vec<Mode>,
    /// Write the loss curves to this SVG file.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn learning_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if rate.is_finite() && rate >= 0.0 { Ok(rate) } else { Err("below 0, or not finite".into()) }
}

fn main() -> ExitCode {
    match demonstrate(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(args: &Args) -> Result<(), Box<dyn Error>> {
    let job = Job::find()?;
    let digits = data::load(data::MNIST, args.seed)?;
    let settings = Settings {
        layers: vec![digits.features, 256, data::CLASSES],
        ranks: job.ranks(args.ranks)?,
        batch: 64,
        epochs: args.epochs.into(),
        lr: args.lr,
        seed: args.seed,
    };
    let head = format!(
        "{} training digits, {} test digits, network {:?}, global batch {}, {} ranks, AdamW at {}",
        digits.train.len(),
        digits.test.len(),
        settings.layers,
        settings.batch,
        settings.ranks,
        settings.lr,
    );
    if job.prints() {
        println!("{head}");
    }
    let mut outcomes = Vec::new();
    for &mode in &args.modes {
        let bar = progress(mode, settings.steps(&digits), job.prints());
        let outcome = job.run(mode, &settings, &digits, &|loss| {
            bar.inc(1);
            bar.set_message(format!("loss {loss:.3}"));
        })?;
        bar.finish_and_clear();
        outcomes.push((mode, outcome));
    }
    if !job.prints() {
        return Ok(());
    }
    print_table(&outcomes);
    for (mode, outcome) in &outcomes {
        println!(
            "mode={mode} accuracy={:.4} seconds={:.2} hash={:016x}",
            outcome.accuracy,
            outcome.seconds.as_secs_f64(),
            outcome.hash,
        );
    }
    if let Some(path) = &args.plot {
        let curves: Vec<_> =
            outcomes.iter().map(|(mode, o)| (mode.to_string(), o.losses.as_slice())).collect();
        std::fs::write(path, plot::svg(&curves)).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("loss curves: {}", path.display());
    }
    Ok(())
}

fn progress(mode: Mode, steps: usize, shown: bool) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if !(shown && std::io::stderr().is_terminal()) {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{prefix:>12} {wide_bar} {pos}/{len} {msg} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(mode.to_string());
    bar
}

fn print_table(outcomes: &[(Mode, Outcome)]) {
    println!(
        "\n{:<12} {:>8} {:>7} {:>7} | {:>7} {:>7} {:>7} {:>8} {:>7}",
        "mode", "accuracy", "loss", "skipped", "gemm", "optim", "reduce", "exposed", "all"
    );
    let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    for (mode, o) in outcomes {
        println!(
            "{:<12} {:>8.4} {:>7.4} {:>7} | {:>7} {:>7} {:>7} {:>8} {:>7}",
            mode.to_string(),
            o.accuracy,
            o.losses.last().copied().unwrap_or(f32::NAN),
            o.skipped,
            ms(o.times.gemm),
            ms(o.times.optim),
            ms(o.times.reduce),
            ms(o.times.exposed),
            ms(o.seconds),
        );
    }
    println!(
        "times of rank 0; reduce: pack, wait for other ranks, sum, unpack; exposed: standing still for\n\
         it after the backward pass; all: with loading batches, the loss and the test\n"
    );
}
