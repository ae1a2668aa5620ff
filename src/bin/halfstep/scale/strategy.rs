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
    /// Closed once they hold so many bytes: the first, and the others.
    Filled(usize, usize),
    /// The plan under which the last exchange ends first.
    Optimal,
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

    /// The plan for a model whose gradients are `ready` at these times.
    pub fn plan(&self, model: &Model, ready: &[f64], fabric: &Fabric) -> Result<BucketPlan> {
        let params = model.params();
        match self.buckets {
            Buckets::PerTensor => BucketPlan::ddp(&params, self.wire, 1, 1),
            Buckets::Filled(first, others) => BucketPlan::ddp(&params, self.wire, first, others),
            Buckets::Optimal => {
                let link = self.link(fabric, model.len() * self.wire.bytes());
                BucketPlan::optimal(&params, self.wire, ready, link)
            }
        }
    }

    /// The α-β model that agrees with the cost of 4 KiB and of everything at once.
    pub fn link(&self, fabric: &Fabric, total: usize) -> Link {
        let small = 4096.min(total);
        let (low, _) = fabric.fastest(self.algorithms, self.wire, small);
        let (high, _) = fabric.fastest(self.algorithms, self.wire, total);
        let beta = (high - low).max(0.0) / (total - small).max(1) as f64;
        Link { alpha: (low - beta * small as f64).max(0.0), beta }
    }
}
