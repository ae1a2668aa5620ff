//! One block: its waves, its LDS, and the barrier they meet at.

use super::Launch;
use super::memory::{ARGUMENTS, PRIVATE_BUFFER, undefined_bits};
use super::wave::{EXEC, LANES, Status, Wave};
use crate::finding::{Finding, Kind};
use crate::gfx::object::User;
use crate::gfx::{GfxError, Result};
use crate::memory::{Fault, Order, SharedMemory};

/// What a wave's instruction may touch beside the wave.
pub struct Block {
    pub index: [u32; 3],
    /// The block's number in the grid, x first.
    pub linear: u32,
    pub shared: SharedMemory,
}

impl Launch<'_> {
    /// Runs one block.
    pub fn block(&mut self, index: [u32; 3], waves: &mut Vec<Wave>) -> Result<()> {
        let threads: u32 = self.grid.threads.iter().product();
        let count = threads.div_ceil(LANES as u32);
        if waves.is_empty() {
            *waves = (0..count).map(|i| Wave::new(i, self.program)).collect();
        } else {
            waves.iter_mut().for_each(|wave| wave.restart(self.program));
        }
        waves.iter_mut().for_each(|wave| self.start(wave, index));
        let order = Order::new(count as usize, LANES as u32, true);
        let bytes = self.program.shared + u64::from(self.grid.shared);
        let mut shared = SharedMemory::new(bytes as usize, order);
        shared.check_races = self.checks.races;
        let [bx, by, _] = self.grid.blocks;
        let linear = index[0] + bx * (index[1] + by * index[2]);
        self.memory.order.begin_block(linear, count as usize, LANES as u32, true);
        let mut block = Block { index, linear, shared };
        loop {
            for wave in waves.iter_mut() {
                while wave.status == Status::Ready {
                    self.step(&mut block, wave)?;
                }
            }
            if waves.iter().all(|w| w.status == Status::Done) {
                return Ok(());
            }
            self.release(&mut block, waves);
        }
    }

    /// Fills the registers that a wave starts with, as the kernel's descriptor asks.
    fn start(&self, w: &mut Wave, index: [u32; 3]) {
        let program = self.program;
        let threads: u32 = self.grid.threads.iter().product();
        let lanes = (threads - LANES as u32 * w.index).min(LANES as u32);
        w.live = u64::MAX >> (LANES as u32 - lanes);
        w.set64(EXEC, w.live, 0);
        let d = &program.descriptor;
        let mut next = 0_u8;
        for (user, words) in d.user() {
            let pair = |w: &mut Wave, value: u64| w.set64(next, value, 0);
            match user {
                // No limit, swizzled by lanes, as the runtime has it.
                User::PrivateSegmentBuffer => {
                    let high = (PRIVATE_BUFFER >> 32) as u32;
                    let words = [PRIVATE_BUFFER as u32, high | 1 << 31, u32::MAX, 0x00e0_0000];
                    for (n, word) in words.into_iter().enumerate() {
                        w.set(next + n as u8, word, 0);
                    }
                }
                User::DispatchPointer => pair(w, ARGUMENTS + self.packet),
                User::KernargPointer => pair(w, ARGUMENTS),
                User::FlatScratchInit | User::DispatchId => pair(w, 0),
                User::PrivateSegmentSize => w.set(next, program.private, 0),
                // Nothing is there for a kernel to find.
                User::QueuePointer => {}
            }
            next += words as u8;
        }
        let (words, first) = d.preload();
        for word in (first..first + words).map(|n| self.arguments.load(4 * n as usize, 4)) {
            w.set(next, word.bits as u32, undefined_bits(word));
            next += 1;
        }
        // Registers that are counted as the command's and not asked for hold nothing.
        next = next.max(d.user_count() as u8);
        for (axis, given) in d.block_index().into_iter().enumerate() {
            if given {
                w.set(next, index[axis], 0);
                next += 1;
            }
        }
        if d.block_info() {
            w.set(next, threads.div_ceil(LANES as u32), 0);
            next += 1;
        }
        if d.private_offset() {
            w.set(next, 0, 0);
        }
        let [x, y, _] = self.grid.threads;
        let given = d.thread_indices();
        let packed = std::array::from_fn(|lane| {
            let t = w.thread(lane);
            let index = [t % x, t / x % y, t / (x * y)];
            (0..given as usize).map(|axis| index[axis] << (10 * axis)).sum()
        });
        w.write(0, w.live, &packed);
    }

    /// Opens the barrier, at which all waves have come that have not ended.
    fn release(&mut self, block: &mut Block, waves: &mut [Wave]) {
        let waiting: Vec<usize> =
            (0..waves.len()).filter(|i| waves[*i].status == Status::Barrier).collect();
        let gone = waves.len() - waiting.len();
        if gone > 0 {
            // Hardware lets the others go on; a kernel that counts on it is wrong all the same.
            let wave = &waves[waiting[0]];
            let detail = format!("{gone} of {} waves ended before it", waves.len());
            self.fault_at(
                block,
                wave,
                wave.pc - 1,
                0,
                None,
                Fault::new(Kind::BarrierNotReached, detail),
            );
        }
        // What a wave has not waited for, the others cannot count on.
        let known: Vec<(usize, u32)> = waiting
            .iter()
            .map(|i| {
                let now = block.shared.order.now(*i);
                (*i, waves[*i].lgkm.oldest_stamp().map_or(now, |stamp| stamp - 1))
            })
            .collect();
        block.shared.order.meet_known(&known);
        let order = &mut self.memory.order;
        let known = waiting.iter().map(|i| {
            let oldest = waves[*i].vm.oldest_stamp();
            (*i, oldest.map_or(order.now(*i), |stamp| stamp - 1))
        });
        let known: Vec<(usize, u32)> = known.collect();
        order.meet_known(&known);
        for i in waiting {
            waves[i].status = Status::Ready;
        }
    }

    /// Reports a fault of the instruction at `pc`.
    pub fn fault_at(
        &mut self,
        block: &Block,
        w: &Wave,
        pc: u32,
        lane: usize,
        address: Option<u64>,
        fault: Fault,
    ) {
        let program = self.program;
        self.findings.report(fault.kind, pc.into(), || Finding {
            kind: fault.kind,
            kernel: program.name.clone(),
            instruction: program.text(pc),
            block: block.index,
            thread: w.thread(lane),
            address,
            detail: fault.detail,
            count: 1,
        });
    }

    /// Reports a fault of the instruction that the wave is at.
    pub fn fault(
        &mut self,
        block: &Block,
        w: &Wave,
        lane: usize,
        address: Option<u64>,
        fault: Fault,
    ) {
        self.fault_at(block, w, w.pc, lane, address, fault);
    }

    /// An error at the instruction that the wave is at.
    pub fn error<T>(&self, w: &Wave, what: &str) -> Result<T> {
        Err(GfxError::new(format!("{}: {what}", self.program.text(w.pc))))
    }
}
