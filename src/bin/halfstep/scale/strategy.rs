//! Ways to reduce gradients that are compared.

use halfstep::reduce::{BucketPlan, Link};
use halfstep::{Dtype, Result};

use super::exchange::{Algorithm, Fabric};
use crate::workloads::Model;

/// What travels together, how wide, when, and by which algorithms.
#[derive(Debug, Clone, Copy)]
pub struct Strategy {
    pub name: &'static str,
    pub about: &'static str,
    pub wire: Dtype,
    pub buckets: Buckets,
    /// Exchanged while the backward pass runs, or after it.
    pub overlap: bool,
    pub algorithms: &'static [Algorithm],
}

/// How parameters are cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Buckets {
    /// Each parameter alone.
    PerTensor,
    /// Closed once they hold so many bytes: the first, and the others, in the order in which gradients come. (PyTorch does
    /// so from its second step on, Horovod from the first.)
    Filled(usize, usize),
    /// The plan under which the last exchange ends first, if costs are on a [line](Strategy::link).
    Optimal,
}

/// A bucket: its bytes, and when its gradients are there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    pub bytes: usize,
    pub ready: f64,
}

impl Load {
    /// The buckets of a plan, the first exchanged first.
    fn of(plan: &BucketPlan, ready: &[f64]) -> Vec<Self> {
        let last = |params: &[usize]| params.iter().fold(0.0f64, |time, &p| time.max(ready[p]));
        let buckets = plan.buckets().iter().zip(plan.bytes());
        buckets.map(|(bucket, bytes)| Self { bytes, ready: last(&bucket.params) }).collect()
    }
}

const MIB: usize = 1 << 20;

/// All of them. What is claimed of each library is its default.
pub const STRATEGIES: [Strategy; 5] = [
    Strategy {
        name: "per-tensor",
        about: "f32, one call a tensor, after the backward pass",
        wire: Dtype::F32,
        buckets: Buckets::PerTensor,
        overlap: false,
        algorithms: Algorithm::LIBRARY,
    },
    Strategy {
        name: "ddp",
        about: "f32, buckets of 1 and 25 MiB, overlapped (PyTorch's DistributedDataParallel)",
        wire: Dtype::F32,
        buckets: Buckets::Filled(MIB, 25 * MIB),
        overlap: true,
        algorithms: Algorithm::LIBRARY,
    },
    Strategy {
        name: "horovod",
        about: "f32, buckets of 64 MiB, overlapped (Horovod's fusion, as its paper has it)",
        wire: Dtype::F32,
        buckets: Buckets::Filled(64 * MIB, 64 * MIB),
        overlap: true,
        algorithms: Algorithm::LIBRARY,
    },
    Strategy {
        name: "halfstep",
        about: "16 bits on the wire, f32 sums, optimal buckets, overlapped, between all ranks: `Reducer` over one communicator",
        wire: Dtype::Bf16,
        buckets: Buckets::Optimal,
        overlap: true,
        algorithms: &[Algorithm::Direct],
    },
    Strategy {
        name: "two-level",
        about: "the same, inside nodes first, f32 sums across: `reduce::Hierarchical`",
        wire: Dtype::Bf16,
        buckets: Buckets::Optimal,
        overlap: true,
        algorithms: &[Algorithm::TwoLevel],
    },
];

impl Strategy {
    pub fn named(name: &str) -> Option<Self> {
        STRATEGIES.into_iter().find(|strategy| strategy.name == name)
    }

    /// The buckets of a model whose gradients are `ready` at these times, in steps that take so many times as long.
    pub fn loads(
        &self,
        model: &Model,
        ready: &[f64],
        times: f64,
        fabric: &Fabric,
    ) -> Result<Vec<Load>> {
        let params = model.params();
        let (first, others) = match self.buckets {
            Buckets::PerTensor => (1, 1),
            Buckets::Filled(first, others) => (first, others),
            Buckets::Optimal => {
                let link = self.link(fabric, model.len() * self.wire.bytes());
                let later: Vec<f64> = ready.iter().map(|ready| times * ready).collect();
                let plan = BucketPlan::optimal(&params, self.wire, &later, link)?;
                return Ok(Load::of(&plan, ready));
            }
        };
        // The library's walk begins with the list's first: here the one whose gradient comes first.
        let params: Vec<_> = params.into_iter().rev().collect();
        let ready: Vec<f64> = ready.iter().rev().copied().collect();
        let plan = BucketPlan::ddp(&params, self.wire, first, others)?;
        Ok(Load::of(&plan, &ready).into_iter().rev().collect())
    }

    /// The α-β model that agrees with the cost of 4 KiB and of everything at once (of 1 MiB, if that is less).
    pub fn link(&self, fabric: &Fabric, total: usize) -> Link {
        let (small, total) = (4096, total.max(MIB));
        let (low, _) = fabric.fastest(self.algorithms, self.wire, small);
        let (high, _) = fabric.fastest(self.algorithms, self.wire, total);
        let beta = (high - low).max(0.0) / (total - small) as f64;
        Link { alpha: (low - beta * small as f64).max(0.0), beta }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Machine;

    /// The small bucket is the first to go; what is left over the last.
    #[test]
    fn libraries_fill_buckets_as_gradients_come() {
        let model = Model::named("wav2vec2-base").unwrap();
        let fabric = Fabric::new(&Machine::named("lumi").unwrap(), 16);
        let ready = model.ready(1.0);
        for (name, first, others) in [("ddp", 1, 25), ("horovod", 64, 64)] {
            let strategy = Strategy::named(name).unwrap();
            let loads = strategy.loads(&model, &ready, 1.0, &fabric).unwrap();
            assert_eq!(loads.iter().map(|load| load.bytes).sum::<usize>(), 4 * model.len());
            assert!(loads.is_sorted_by(|a, b| a.ready < b.ready), "{name}: {loads:?}");
            let (begin, rest) = loads.split_first().unwrap();
            let tensor = model.weights.iter().map(|weight| 4 * weight.len).max().unwrap();
            let filled = |load: &Load, mib| (mib * MIB..mib * MIB + tensor).contains(&load.bytes);
            assert!(filled(begin, first), "{name}: {loads:?}");
            assert!(rest[..rest.len() - 1].iter().all(|load| filled(load, others)), "{name}");
        }
    }
}
