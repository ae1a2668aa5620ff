//! `cp.async`: copies whose data arrives when its thread waits for it.

use super::Launch;
use super::block::Block;
use super::warp::{LANES, Warp, lanes};
use crate::memory::Word;
use crate::ptx::isa::{Address, Reg, Space};

/// A copy on its way.
#[derive(Debug, Clone)]
struct Copy {
    lane: usize,
    /// How many groups the lane had committed when it began: the group it will belong to.
    group: u32,
    to: u64,
    words: [Word; 4],
    count: usize,
    pc: u32,
}

/// A warp's copies on their way.
#[derive(Debug, Default)]
pub struct Copies {
    pending: Vec<Copy>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

impl Copies {
    /// What the lanes have begun becomes a group.
    pub fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.committed[lane] += 1);
    }
}

impl Launch<'_> {
    #[allow(clippy::too_many_arguments)]
    pub fn copy_async(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        mask: u32,
        bytes: u32,
        (to, from): (Address, Address),
        source_bytes: Option<Reg>,
    ) {
        let targets = self.addresses(block, warp, mask, Space::Shared, to, bytes.into());
        let limit = source_bytes.map(|operand| warp.read(operand));
        // Lanes that read nothing may have any source address.
        let reads = |lane: usize| limit.as_ref().is_none_or(|l| l.bits[lane] as u32 > 0);
        let reading = lanes(mask).filter(|l| reads(*l)).fold(0, |m, lane| m | 1_u32 << lane);
        let sources = self.addresses(block, warp, reading, Space::Global, from, bytes.into());
        for lane in lanes(mask) {
            let Some((_, target)) = targets[lane] else { continue };
            let wanted = limit.as_ref().map_or(bytes, |l| (l.bits[lane] as u32).min(bytes));
            let mut words = [Word::known(0); 4];
            if let Some(source) = sources[lane] {
                let full = wanted as usize / 4;
                if full > 0 {
                    self.load_words(block, warp, lane, source, 4, &mut words[..full]);
                }
                // The last, incomplete word byte by byte; what is missing is zero.
                for byte in 4 * full as u32..wanted {
                    let at = (source.0, source.1 + u64::from(byte));
                    let part = self.load_one(block, warp, lane, at, 1);
                    words[full].bits |= (part.bits & 0xff) << (8 * (byte % 4));
                    words[full].defined &= !((!part.defined & 1) << (byte % 4));
                }
            }
            match block.shared.begin_async(target, bytes, warp.thread(lane)) {
                Ok(fault) => {
                    if let Some(fault) = fault {
                        self.fault(block, warp, lane, Some(target), fault);
                    }
                    let group = warp.copies.committed[lane];
                    let count = bytes as usize / 4;
                    warp.copies.pending.push(Copy {
                        lane,
                        group,
                        to: target,
                        words,
                        count,
                        pc: warp.pc,
                    });
                }
                Err(fault) => self.fault(block, warp, lane, Some(target), fault),
            }
        }
    }

    /// Data of all groups but the newest `pending` arrives.
    pub fn wait_async(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        mask: u32,
        pending: u32,
        all: bool,
    ) {
        let committed = warp.copies.committed;
        let arrives = |copy: &Copy| {
            mask >> copy.lane & 1 == 1 && (all || copy.group + pending < committed[copy.lane])
        };
        let copies = std::mem::take(&mut warp.copies.pending);
        let (done, left): (Vec<_>, Vec<_>) = copies.into_iter().partition(arrives);
        warp.copies.pending = left;
        for copy in done {
            let thread = warp.thread(copy.lane);
            let fault = block.shared.end_async(copy.to, &copy.words[..copy.count], thread);
            if let Some(fault) = fault {
                self.at(block, warp, copy.pc, copy.lane, Some(copy.to), fault);
            }
        }
    }
}
