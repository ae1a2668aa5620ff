//! One training step of so many ranks, from its parts.

use halfstep::{Dtype, Result};

use super::exchange::{Algorithm, Fabric};
use super::machine::{F32Unit, Machine};
use super::spread;
use super::strategy::{Load, Strategy};
use crate::workloads::Model;

/// Share of the matrix unit's peak that training reaches: matrix products (Megatron-LM reaches 52 % on
/// A100s, Narayanan et al. 2021, with layers larger than these) and convolutions (2,500 images/s of
/// ResNet-50 on an A100, as NVIDIA publishes, are 20 %).
pub const SHARE_PRODUCTS: f64 = 0.40;
pub const SHARE_CONVOLUTIONS: f64 = 0.20;
/// The same of a vector unit (390 images/s of ResNet-50 in f32 on a V100, as NVIDIA publishes, are 60 %).
pub const SHARE_VECTOR: f64 = 0.60;
/// Bytes of memory that an AdamW step on 16-bit gradients with f32 masters moves for each parameter.
pub const UPDATE_BYTES: f64 = 30.0;
/// Bytes that it keeps: 16-bit weight and gradient, f32 master and two moments.
pub const STATE_BYTES: f64 = 16.0;

/// How many samples a step takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Batch {
    /// Each rank takes so many, however many ranks there are.
    PerRank(usize),
    /// All ranks together take so many.
    Global(usize),
}

/// What is trained, where.
#[derive(Debug, Clone)]
pub struct Job {
    pub model: Model,
    pub machine: Machine,
    pub precision: Dtype,
    pub batch: Batch,
    /// Share of the peak; by the kind of model and unit unless given.
    pub share: Option<f64>,
    /// σ of the ranks' lognormal spread.
    pub spread: f64,
    /// Steps that are averaged.
    pub steps: usize,
    pub seed: u64,
}

/// The mean step. Seconds add up: `compute + waiting + exposed`.
#[derive(Debug, Clone)]
pub struct Step {
    pub ranks: usize,
    pub nodes: usize,
    /// Forward and backward pass, packing and update, of a rank as fast as the median.
    pub compute: f64,
    /// What the slowest rank takes longer.
    pub waiting: f64,
    /// Exchanges that the backward pass does not hide.
    pub exposed: f64,
    /// All exchanges, hidden ones too.
    pub exchange: f64,
    pub buckets: usize,
    /// The algorithm that carries most bytes; none for one rank.
    pub algorithm: Option<Algorithm>,
    /// Samples of all ranks together.
    pub samples: f64,
}

impl Step {
    pub fn seconds(&self) -> f64 {
        self.compute + self.waiting + self.exposed
    }

    /// Samples per second.
    pub fn rate(&self) -> f64 {
        self.samples / self.seconds()
    }

    /// Samples per second and rank, as a share of that of another step.
    pub fn efficiency(&self, baseline: &Step) -> f64 {
        self.rate() / self.ranks as f64 / (baseline.rate() / baseline.ranks as f64)
    }
}

impl Job {
    /// FLOP/s that a rank reaches.
    pub fn rate(&self) -> (f64, f64) {
        let (peak, vector) = match self.precision {
            Dtype::F32 => (self.machine.peak_32, self.machine.f32_unit == F32Unit::Vector),
            _ => (self.machine.peak_16, false),
        };
        let usual = match (vector, self.model.convolutions) {
            (true, _) => SHARE_VECTOR,
            (false, true) => SHARE_CONVOLUTIONS,
            (false, false) => SHARE_PRODUCTS,
        };
        (peak, self.share.unwrap_or(usual))
    }

    /// Seconds of the forward pass over the samples of one of `ranks` ranks; the backward pass takes
    /// twice as long.
    pub fn forward_seconds(&self, ranks: usize) -> f64 {
        let samples = match self.batch {
            Batch::PerRank(samples) => samples,
            Batch::Global(samples) => samples.div_ceil(ranks), // the fullest rank's
        };
        let (peak, share) = self.rate();
        samples as f64 * self.model.forward_flops() / (peak * share)
    }

    /// The mean step of `ranks` ranks.
    pub fn step(&self, ranks: usize, strategy: &Strategy) -> Result<Step> {
        let fabric = Fabric::new(&self.machine, ranks);
        let forward = self.forward_seconds(ranks);
        let backward = 2.0 * forward;
        let slow = spread::slowest(ranks, self.spread, self.steps, self.seed);
        let mean = |value: &dyn Fn(f64) -> f64| {
            slow.iter().map(|&factor| value(factor)).sum::<f64>() / slow.len() as f64
        };
        // Plans are for the steps that there are, in which all wait for the slowest.
        let ready = self.model.ready(backward);
        let loads = strategy.loads(&self.model, &ready, mean(&|slow| slow), &fabric)?;
        let costs: Vec<(Load, (f64, Option<Algorithm>))> = loads
            .into_iter()
            .map(|load| (load, fabric.fastest(strategy.algorithms, strategy.wire, load.bytes)))
            .collect();
        let exposed = |slow: f64| {
            let start = if strategy.overlap { 0.0 } else { backward * slow };
            // A bucket waits for its gradients, and for the buckets before it.
            let end = costs
                .iter()
                .fold(start, |free, (load, (cost, _))| free.max(load.ready * slow) + cost);
            (end - backward * slow).max(0.0)
        };
        let update = self.update_seconds(ranks, strategy);
        let largest = costs.iter().max_by_key(|(load, _)| load.bytes);
        Ok(Step {
            ranks,
            nodes: ranks.div_ceil(self.machine.per_node),
            compute: forward + backward + update,
            // A lone rank waits for nobody, and exchanges nothing.
            waiting: if ranks > 1 {
                mean(&|slow| (slow - 1.0) * (forward + backward))
            } else {
                0.0
            },
            exposed: if ranks > 1 { mean(&exposed) } else { 0.0 },
            exchange: costs.iter().map(|(_, (cost, _))| cost).sum(),
            buckets: costs.len(),
            algorithm: largest.and_then(|(_, (_, algorithm))| *algorithm).filter(|_| ranks > 1),
            samples: match self.batch {
                Batch::PerRank(samples) => samples as f64 * ranks as f64,
                Batch::Global(samples) => samples as f64,
            },
        })
    }

    /// The optimizer's step; with several ranks, packing and unpacking too.
    fn update_seconds(&self, ranks: usize, strategy: &Strategy) -> f64 {
        let packing = 2.0 * (self.precision.bytes() + strategy.wire.bytes()) as f64;
        let bytes = UPDATE_BYTES + if ranks > 1 { packing } else { 0.0 };
        bytes * self.model.len() as f64 / self.machine.memory_rate
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::MACHINES;
    use super::super::strategy::STRATEGIES;
    use super::*;

    /// No model's step on any machine is shorter on twice as many nodes. (From two nodes to four it can be, by a per cent: what
    /// two levels cost there is least like the line that buckets are planned for.)
    #[test]
    fn more_nodes_do_not_shorten_a_step() {
        let (precision, spread) = (Dtype::Bf16, super::super::SPREAD);
        for (name, machine) in Model::NAMES.iter().flat_map(|name| MACHINES.map(|m| (*name, m))) {
            let model = Model::named(name).unwrap();
            let batch = Batch::PerRank(model.batch);
            let job =
                Job { model, machine, precision, batch, share: None, spread, steps: 32, seed: 1 };
            for strategy in STRATEGIES {
                let step = |power| job.step(machine.per_node << power, &strategy).unwrap();
                let seconds: Vec<f64> = (2..=10).map(|power| step(power).seconds()).collect();
                assert!(
                    seconds.is_sorted(),
                    "{name} {} {}: {seconds:?}",
                    machine.name,
                    strategy.name
                );
            }
        }
    }
}
