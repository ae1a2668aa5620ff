//! One block: its warps, its shared memory, and the barriers they meet at.

use std::collections::BTreeMap;

use super::Launch;
use super::warp::{LANES, Place, Status, Warp};
use crate::finding::{Finding, Kind};
use crate::memory::{Fault, Order, SharedMemory};
use crate::ptx::{PtxError, Result};

/// What a warp's instruction may touch beside the warp.
pub struct Block {
    pub index: [u32; 3],
    /// The block's number in the grid, x first.
    pub linear: u32,
    pub shared: SharedMemory,
    /// By barrier: who has come, and whether they wait.
    pub barriers: BTreeMap<u32, Barrier>,
}

/// A barrier that some have come to.
#[derive(Debug, Default)]
pub struct Barrier {
    pub arrived: Vec<(u32, bool)>,
    /// Threads that are awaited; none for all of the block.
    pub count: Option<u32>,
    pub pc: u32,
}

impl Launch<'_> {
    /// Runs one block.
    pub fn block(&mut self, index: [u32; 3], warps: &mut Vec<Warp>) -> Result<()> {
        let grid = self.grid;
        let threads: u32 = grid.threads.iter().product();
        let count = threads.div_ceil(LANES as u32);
        let shared_bytes = if grid.shared > 0 {
            self.program.dynamic_shared + u64::from(grid.shared)
        } else {
            self.program.shared
        };
        let place = Place {
            block: index,
            blocks: grid.blocks,
            threads: grid.threads,
            dynamic_shared: grid.shared,
            total_shared: shared_bytes as u32,
        };
        if warps.is_empty() {
            let new = |i| Warp::new(i, place, self.program);
            *warps = (0..count).map(new).collect();
        } else {
            warps.iter_mut().for_each(|warp| warp.restart(place, self.program));
        }
        let order = Order::new(count as usize, LANES as u32, false);
        let mut shared = SharedMemory::new(shared_bytes as usize, order);
        shared.check_races = self.checks.races;
        let [bx, by, _] = grid.blocks;
        let linear = index[0] + bx * (index[1] + by * index[2]);
        self.memory.order.begin_block(linear, count as usize, LANES as u32, false);
        let mut block = Block { index, linear, shared, barriers: BTreeMap::new() };
        loop {
            for warp in warps.iter_mut() {
                while warp.status == Status::Ready {
                    self.step(&mut block, warp)?;
                }
            }
            if warps.iter().all(|w| w.status == Status::Done) && block.barriers.is_empty() {
                return Ok(());
            }
            if !self.release(&mut block, warps) {
                return Ok(());
            }
        }
    }

    /// Opens a barrier that all have come to. False if nobody can go on.
    fn release(&mut self, block: &mut Block, warps: &mut [Warp]) -> bool {
        let threads: u32 = self.grid.threads.iter().product();
        let all = threads.next_multiple_of(LANES as u32);
        let ended = warps.iter().filter(|w| w.status == Status::Done).count() as u32;
        let come = |b: &Barrier| b.arrived.len() as u32 * LANES as u32;
        let complete = |b: &Barrier| match b.count {
            Some(count) => come(b) >= count,
            None => come(b) + ended * LANES as u32 >= all,
        };
        let ready = block.barriers.iter().find(|(_, b)| complete(b)).map(|(id, _)| *id);
        let Some(id) = ready else {
            // Nobody can go on: those who wait do so for ever.
            for (id, barrier) in std::mem::take(&mut block.barriers) {
                let awaited = barrier.count.unwrap_or(all);
                let detail = format!("barrier {id}: {} of {awaited} threads came", come(&barrier));
                let warp = &warps[barrier.arrived[0].0 as usize];
                self.at(
                    block,
                    warp,
                    barrier.pc,
                    0,
                    None,
                    Fault::new(Kind::BarrierNotReached, detail),
                );
            }
            return false;
        };
        let barrier = block.barriers.remove(&id).unwrap_or_default();
        if barrier.count.is_none() && come(&barrier) < all {
            let gone = all - come(&barrier);
            let detail = format!("barrier {id}: {gone} threads ended before it");
            let warp = &warps[barrier.arrived[0].0 as usize];
            self.at(block, warp, barrier.pc, 0, None, Fault::new(Kind::BarrierNotReached, detail));
        }
        let met: Vec<usize> = barrier.arrived.iter().map(|(w, _)| *w as usize).collect();
        block.shared.order.meet(&met);
        self.memory.order.meet(&met);
        for (warp, waits) in barrier.arrived {
            let warp = &mut warps[warp as usize];
            if waits && warp.status == Status::Waiting(id) {
                warp.status = Status::Ready;
            }
        }
        true
    }

    /// Reports a fault of the instruction at `pc`.
    pub fn at(
        &mut self,
        block: &Block,
        warp: &Warp,
        pc: u32,
        lane: usize,
        address: Option<u64>,
        fault: Fault,
    ) {
        let program = self.program;
        self.findings.report(fault.kind, pc.into(), || Finding {
            kind: fault.kind,
            kernel: program.name.clone(),
            instruction: program.code[pc as usize].text.clone(),
            block: block.index,
            thread: warp.thread(lane),
            address,
            detail: fault.detail,
            count: 1,
        });
    }

    /// Reports a fault of the instruction that the warp is at.
    pub fn fault(
        &mut self,
        block: &Block,
        warp: &Warp,
        lane: usize,
        address: Option<u64>,
        fault: Fault,
    ) {
        self.at(block, warp, warp.pc, lane, address, fault);
    }

    /// An error at the instruction that the warp is at.
    pub fn error<T>(&self, warp: &Warp, what: &str) -> Result<T> {
        let instruction = &self.program.code[warp.pc as usize];
        Err(PtxError::new(instruction.line, format!("`{}`: {what}", instruction.text)))
    }
}
