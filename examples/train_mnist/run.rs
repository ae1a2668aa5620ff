//! One training run: a thread for each rank, and what came of it.

use std::time::Duration;

use halfstep::reduce::local;
use halfstep::{Result, bf16, f16};

use crate::data::Digits;
use crate::mode::Mode;
use crate::rank::train;

/// What is trained, and how.
pub struct Settings {
    /// Features, hidden sizes, classes.
    pub layers: Vec<usize>,
    /// Threads that each take a part of every batch.
    pub ranks: usize,
    /// Digits of one step, over all ranks.
    pub batch: usize,
    /// Passes over the training digits.
    pub epochs: usize,
    /// AdamW's learning rate.
    pub lr: f64,
    /// Seed of everything random.
    pub seed: u64,
}

impl Settings {
    /// Steps of the whole run.
    pub fn steps(&self, digits: &Digits) -> usize {
        self.epochs * (digits.train.len() / self.batch)
    }
}

/// Where rank 0's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Products.
    pub gemm: Duration,
    /// Control and step.
    pub optim: Duration,
    /// Pack, wait, sum, unpack.
    pub reduce: Duration,
    /// Waiting for reductions after the backward pass.
    pub exposed: Duration,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Share of test digits read correctly.
    pub accuracy: f64,
    /// The loss after each step, averaged over 20.
    pub losses: Vec<f32>,
    /// Steps skipped for non-finite gradients.
    pub skipped: usize,
    /// Where the time went.
    pub times: Times,
    /// All of it.
    pub seconds: Duration,
    /// Of the final weights.
    pub hash: u64,
}

/// Trains in one mode. `progress` is told rank 0's loss after each step.
pub fn run(
    mode: Mode,
    settings: &Settings,
    digits: &Digits,
    progress: &(dyn Fn(f32) + Sync),
) -> Result<Outcome> {
    let ranks = local(settings.ranks.try_into().expect("at least one rank"));
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let train = match mode {
            Mode::F32 => train::<f32>,
            Mode::Bf16Master | Mode::Bf16Stochastic | Mode::Bf16Nearest => train::<bf16>,
            Mode::F16Scaler => train::<f16>,
        };
        let threads: Vec<_> = ranks
            .into_iter()
            .map(|comm| scope.spawn(move || train(mode, settings, digits, comm, progress)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("ranks return errors")).collect()
    });
    let outcomes: Vec<Outcome> = outcomes.into_iter().collect::<Result<_>>()?;
    for outcome in &outcomes {
        assert_eq!(outcome.hash, outcomes[0].hash, "every rank has the same weights, to the bit");
    }
    Ok(outcomes[0].clone())
}
