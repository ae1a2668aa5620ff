//! A planned product's launches, and the memory that they share.
#![forbid(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use super::{choice, launch};
use crate::backend::StreamId;
use crate::kernel::params::gemm::{FLAG_GATED, Product};
use crate::{Buffer, Device, Result, Stream};

/// How a plan launches. Where k is split, every stream that runs the plan has a workspace of its own, made at its first
/// run and kept as long as the plan: streams do not wait for each other, and a graph's addresses stay.
#[derive(Debug)]
pub(super) struct Dispatch {
    device: Device,
    /// In how many parts k is cut: chosen once, by what does not change from run to run.
    splits: u32,
    workspaces: Mutex<Vec<(StreamId, Buffer<f32>)>>,
}

impl Dispatch {
    /// Checks that the product can be launched as its caller has pinned it.
    pub(super) fn new(op: &'static str, block: &Product, device: &Device) -> Result<Self> {
        let splits = choice::check(op, block, device)?;
        Ok(Self { device: device.clone(), splits, workspaces: Mutex::default() })
    }

    /// Enqueues the launches of a block whose addresses are there.
    pub(super) fn run(&self, op: &'static str, mut block: Product, stream: &Stream) -> Result<()> {
        block.splits = self.splits;
        if self.splits > 1 {
            block.workspace = self.workspace(&block, stream)?;
        }
        let launches = choice::launches(op, &block, self.device.info())?;
        launch::launch(stream, launches.into_iter().flatten())
    }

    fn workspace(&self, block: &Product, stream: &Stream) -> Result<u64> {
        let mut all = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = all.iter().find(|(of, _)| *of == stream.id()) {
            return Ok(found.address());
        }
        let columns = if block.flags & FLAG_GATED != 0 { 2 * block.n } else { block.n };
        let len = u64::from(self.splits) * block.m * columns;
        let buffer = self.device.zeros(usize::try_from(len).unwrap_or(usize::MAX))?;
        let address = buffer.address();
        all.push((stream.id(), buffer));
        Ok(address)
    }
}
