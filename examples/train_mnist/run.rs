//! One training run: a thread or a process for each rank, and what came of it.

use std::time::Duration;

use halfstep::reduce::{Communicator, local};
use halfstep::{Result, bf16, f16};

use crate::data::Digits;
use crate::mode::Mode;
use crate::rank::train;

/// What is trained, and how.
pub struct Settings {
    /// Features, hidden sizes, classes.
    pub layers: Vec<usize>,
    /// Threads or processes that each take a part of every batch.
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

/// Trains in one mode, on threads. `progress` is told rank 0's loss after each step.
pub fn run(
    mode: Mode,
    settings: &Settings,
    digits: &Digits,
    progress: &(dyn Fn(f32) + Sync),
) -> Result<Outcome> {
    let ranks = local(settings.ranks.try_into().expect("at least one rank"));
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let train = trainer(mode);
        let threads: Vec<_> = ranks
            .into_iter()
            .map(|comm| {
                scope.spawn(move || train(mode, settings, digits, Box::new(comm), progress))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("ranks return errors")).collect()
    });
    let outcomes: Vec<Outcome> = outcomes.into_iter().collect::<Result<_>>()?;
    for outcome in &outcomes {
        assert_eq!(outcome.hash, outcomes[0].hash, "every rank has the same weights, to the bit");
    }
    Ok(outcomes[0].clone())
}

/// Makes a communicator of the job's processes.
#[cfg(any(feature = "mpi", feature = "tcp"))]
pub type Connect<'a> = dyn Fn() -> Result<Box<dyn Communicator>> + 'a;

/// The same, where this process is one rank of a job.
#[cfg(any(feature = "mpi", feature = "tcp"))]
pub fn run_process(
    mode: Mode,
    settings: &Settings,
    digits: &Digits,
    connect: &Connect<'_>,
    progress: &(dyn Fn(f32) + Sync),
) -> Result<Outcome> {
    let outcome = trainer(mode)(mode, settings, digits, connect()?, progress)?;
    for hash in hashes(connect, outcome.hash)? {
        assert_eq!(hash, outcome.hash, "every rank has the same weights, to the bit");
    }
    Ok(outcome)
}

/// Every process's hash, in rank order.
#[cfg(any(feature = "mpi", feature = "tcp"))]
fn hashes(connect: &Connect<'_>, mine: u64) -> Result<Vec<u64>> {
    use halfstep::reduce::Collective;
    let device = halfstep::Device::cpu();
    let stream = device.stream()?;
    let mine = std::sync::Arc::new(device.upload(&mine.to_le_bytes())?);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let all = connect()?.exchange(Collective::AllGather, &mine, &stream, deadline)?;
    let hash = |part: &halfstep::reduce::Part| {
        let mut bytes = [0; 8];
        part.buffer.read(&stream, part.start, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    all.parts.iter().map(hash).collect()
}

type Train = fn(Mode, &Settings, &Digits, Box<dyn Communicator>, &dyn Fn(f32)) -> Result<Outcome>;

/// The training loop for a mode's storage type.
fn trainer(mode: Mode) -> Train {
    match mode {
        Mode::F32 => train::<f32>,
        Mode::Bf16Master | Mode::Bf16Stochastic | Mode::Bf16Nearest => train::<bf16>,
        Mode::F16Scaler => train::<f16>,
    }
}
