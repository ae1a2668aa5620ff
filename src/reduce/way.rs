//! The ways in which buckets are exchanged, and which one a rank would take.

#![forbid(unsafe_code)]

use super::comm::Communicator;
use super::config::{Config, Sum};
use crate::{Device, DeviceKind, Dtype};

/// Most ranks that average sections: each tells all others how many values of each rank are not finite, so that a
/// bucket has, sends and receives 8 bytes for each pair of ranks. Half a megabyte then; with 4,096 ranks 134.
const MOST_SECTIONS: usize = 256;

/// How buckets are exchanged: the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Packed in blocks.
    Packed,
    /// Packed in blocks, summed by nodes.
    Nodes,
    /// Lent between threads.
    Lent,
    /// Section by section, between processes.
    Sections,
    /// Whole, by all-reduces of the communicator's.
    Whole,
    /// As 8-bit integers.
    Quantized,
    /// Packed in blocks, and each rank keeps its part of the result.
    Scattered,
}

impl Way {
    /// That of one rank, of these gradients and a plan's wire, whose sums are made in this order; all ranks agree on one.
    pub fn of(
        comm: &mut dyn Communicator,
        device: &Device,
        config: &Config,
        (gradient, wire): (Dtype, Dtype),
        (sum, sharded): (Sum, bool),
    ) -> Self {
        let (threads, nodes) = (comm.threads().is_some(), comm.nodes().is_some());
        // What is accumulated, what only a device can reach, and averages that gradients do not hold
        // exactly, have to be packed.
        let host = device.info().kind == DeviceKind::Cpu;
        let plain = config.views && !config.accumulate && host;
        let same = gradient == wire;
        match sum {
            _ if sharded => Self::Scattered,
            Sum::Int8 => Self::Quantized,
            Sum::Communicator => Self::Whole,
            Sum::OrderFree if !(threads && host) => Self::Whole,
            Sum::RankOrder if nodes => Self::Nodes,
            _ if !plain => Self::Packed,
            Sum::OrderFree if config.scale != 1.0 => Self::Packed,
            _ if threads && (same || gradient == Dtype::F32) => Self::Lent,
            _ if same && comm.has_sections() && comm.size() <= MOST_SECTIONS => Self::Sections,
            _ => Self::Packed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::comm::{Abort, Collective, Fault, Parts};
    use crate::{Buffer, Stream};
    use std::sync::Arc;
    use std::time::Instant;

    /// A process of so many.
    struct Process(usize);

    impl Communicator for Process {
        fn rank(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            self.0
        }
        fn exchange(
            &mut self,
            _: Collective,
            _: &Arc<Buffer<u8>>,
            _: &Stream,
            _: Instant,
        ) -> Result<Parts, Fault> {
            unreachable!("nothing is sent")
        }
        fn has_sections(&self) -> bool {
            true
        }
        fn aborter(&self) -> Arc<dyn Abort> {
            unreachable!("nothing fails")
        }
    }

    /// What sections have for each pair of ranks does not outgrow buckets.
    #[test]
    fn many_processes_pack() {
        let config = Config { views: true, ..Config::default() };
        let way = |ranks: usize| {
            let (types, sum) = ((Dtype::F32, Dtype::F32), (Sum::RankOrder, false));
            Way::of(&mut Process(ranks), &Device::cpu(), &config, types, sum)
        };
        assert_eq!([way(2), way(256), way(4096)], [Way::Sections, Way::Sections, Way::Packed]);
    }
}
