//! One instruction of one warp.

use super::Launch;
use super::block::Block;
use super::warp::{LANES, Status, Vector, Warp, lanes};
use crate::finding::Kind;
use crate::memory::{Fault, Word};
use crate::ptx::Result;
use crate::ptx::isa::{Guard, Op, Reg, Space, Strength};

/// Where other memories begin in the generic address space; they end before global memory.
pub const SHARED_WINDOW: u64 = 0x0100_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000;
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000;
pub const WINDOW_BYTES: u64 = 1 << 32;

/// The start of a memory's window.
pub fn window(space: Space) -> u64 {
    match space {
        Space::Generic | Space::Global => 0,
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
    }
}

impl Launch<'_> {
    /// Runs the instruction that the warp is at.
    #[inline]
    pub fn step(&mut self, block: &mut Block, warp: &mut Warp) -> Result<()> {
        let program = self.program;
        let instruction = &program.code[warp.pc as usize];
        self.executed += 1;
        self.reached[warp.pc as usize] = true;
        if self.executed > self.checks.max_instructions {
            return self.error(warp, "the launch does not come to an end");
        }
        let mask = match instruction.guard {
            None => warp.active,
            Some(guard) => self.guarded(block, warp, guard),
        };
        self.counters.count(instruction.class, mask.count_ones(), warp.live.count_ones());
        match &instruction.op {
            Op::Branch { target } => {
                warp.branch(mask, *target);
                return Ok(());
            }
            Op::Exit if mask != 0 => {
                if mask == warp.active {
                    warp.exit(mask);
                } else {
                    // Those who stay go on; those who exit are gone.
                    warp.live &= !mask;
                    warp.active &= !mask;
                    warp.advance(warp.pc + 1);
                }
                return Ok(());
            }
            _ if mask == 0 => {}
            Op::Barrier { .. } if mask == warp.active => match warp.gather() {
                None => return Ok(()),
                Some(true) => self.execute(block, warp, mask, &instruction.op)?,
                Some(false) => {
                    let detail = format!("only lanes {mask:#010x} come here");
                    let fault = Fault::new(Kind::DivergentBarrier, detail);
                    self.fault(block, warp, mask.trailing_ones() as usize % LANES, None, fault);
                }
            },
            op => self.execute(block, warp, mask, op)?,
        }
        warp.advance(warp.pc + 1);
        Ok(())
    }

    fn guarded(&mut self, block: &Block, warp: &Warp, guard: Guard) -> u32 {
        let predicate = &warp.registers[guard.predicate as usize];
        let mut mask = 0;
        for lane in 0..LANES {
            mask |= (predicate.bits[lane] as u32 & 1) << lane;
        }
        if !predicate.known(warp.active) {
            let lane = lanes(warp.active).find(|l| predicate.defined[*l] != 0xff).unwrap_or(0);
            let fault = Fault::new(Kind::UndefinedBranch, "the predicate is undefined");
            self.fault(block, warp, lane, None, fault);
        }
        (if guard.negated { !mask } else { mask }) & warp.active
    }

    fn execute(&mut self, block: &mut Block, warp: &mut Warp, mask: u32, op: &Op) -> Result<()> {
        match op {
            Op::Move { dst, src } => {
                let value = warp.read(*src);
                warp.write(*dst, mask, &value);
            }
            Op::Pack { dst, src, bytes } => pack(warp, mask, *dst, src, *bytes),
            Op::Unpack { dst, src, bytes } => unpack(warp, mask, dst, *src, *bytes),
            Op::Integer { op, ty, dst, src } => warp.integer(mask, *op, *ty, *dst, src),
            Op::Float { op, ty, mode, dst, src } => {
                if !warp.float(mask, *op, *ty, *mode, *dst, src) {
                    return self.error(warp, "not implemented for this type");
                }
            }
            Op::Convert { to, from, mode, dst, src } => {
                if !warp.convert(mask, *to, *from, *mode, *dst, src) {
                    return self.error(warp, "not implemented for these types");
                }
            }
            Op::SetPredicate { .. } | Op::Set { .. } => warp.compare(mask, op),
            Op::Select { dst, a, b, predicate } => warp.map_tainted(
                mask,
                *dst,
                &[*a, *b, *predicate],
                |[a, b, p]| if p & 1 == 1 { a } else { b },
                |[a, b, p]| match (p.defined == 0xff, p.bits & 1) {
                    (false, _) => 0,
                    (true, 1) => a.defined,
                    (true, _) => b.defined,
                },
            ),
            Op::ToGeneric { space, dst, src } => {
                let start = window(*space);
                warp.map(mask, *dst, &[*src], |[a]| a.wrapping_add(start));
            }
            Op::FromGeneric { space, dst, src } => {
                let start = window(*space);
                warp.map(mask, *dst, &[*src], |[a]| a.wrapping_sub(start));
            }
            Op::IsSpace { space, dst, src } => {
                let start = window(*space);
                let inside = |a: u64| match space {
                    Space::Global | Space::Generic => a >= PARAM_WINDOW + WINDOW_BYTES,
                    _ => a.wrapping_sub(start) < WINDOW_BYTES,
                };
                warp.map(mask, *dst, &[*src], |[a]| inside(a).into());
            }
            Op::Load { space, ty, dst, address, strength } => {
                self.memory.strong = *strength != Strength::Weak;
                self.load(block, warp, mask, *space, *ty, dst, *address);
                self.memory.strong = false;
                if *strength == Strength::Fenced {
                    self.memory.order.acquire(warp.index as usize);
                }
            }
            Op::Store { space, ty, src, address, strength } => {
                if *strength == Strength::Fenced {
                    let all = mask == warp.live;
                    self.memory.order.release(warp.index as usize, mask.into(), all);
                }
                self.memory.strong = *strength != Strength::Weak;
                self.store(block, warp, mask, *space, *ty, src, *address);
                self.memory.strong = false;
            }
            Op::Atomic { .. } => self.atomic(block, warp, mask, op)?,
            Op::CopyAsync { bytes, to, from, source_bytes } => {
                self.copy_async(block, warp, mask, *bytes, (*to, *from), *source_bytes);
            }
            Op::CommitAsync => warp.copies.commit(mask),
            Op::WaitAsync { pending, all } => self.wait_async(block, warp, mask, *pending, *all),
            Op::MatrixLoad { transpose, dst, address } => {
                self.matrix_load(block, warp, mask, *transpose, dst, *address);
            }
            Op::MatrixMultiply { half, dst, a, b, c } => {
                self.whole_warp(block, warp, mask);
                super::matrix::multiply(warp, *half, dst, a, b, c);
            }
            Op::Shuffle { .. }
            | Op::Vote { .. }
            | Op::MatchAny { .. }
            | Op::MatchAll { .. }
            | Op::Reduce { .. } => {
                self.exchange(block, warp, mask, op);
            }
            Op::ActiveMask { dst } => warp.write(*dst, mask, &Vector::splat(mask.into())),
            Op::Barrier { id, count, wait } => self.barrier(block, warp, mask, *id, *count, *wait),
            Op::WarpBarrier { members } => {
                self.members(block, warp, mask, *members);
                block.shared.order.meet_lanes(warp.index as usize);
                self.memory.order.meet_lanes(warp.index as usize);
            }
            Op::Fence => self.fence(warp, mask),
            Op::Nothing => {}
            Op::Trap => return self.error(warp, "the kernel trapped"),
            Op::Branch { .. } | Op::Exit => unreachable!("done by `step`"),
        }
        Ok(())
    }

    fn barrier(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        mask: u32,
        id: Reg,
        count: Option<Reg>,
        wait: bool,
    ) {
        if mask != warp.live {
            let absent = (warp.live & !mask).trailing_zeros() as usize;
            let detail = format!("lanes {mask:#010x} of {:#010x} are here", warp.live);
            self.fault(block, warp, absent, None, Fault::new(Kind::DivergentBarrier, detail));
            return;
        }
        let lane = mask.trailing_zeros() as usize;
        let id = warp.read(id).bits[lane] as u32;
        let count = count.map(|count| warp.read(count).bits[lane] as u32);
        let barrier = block.barriers.entry(id).or_default();
        barrier.arrived.push((warp.index, wait));
        barrier.count = count;
        barrier.pc = warp.pc;
        if wait {
            warp.status = Status::Waiting(id);
        }
    }

    /// Reports if a part of the warp is not there for an instruction of all.
    pub fn whole_warp(&mut self, block: &Block, warp: &Warp, mask: u32) {
        if mask != u32::MAX {
            let detail = format!("only lanes {mask:#010x} are here");
            let fault = Fault::new(Kind::MaskedLaneAbsent, detail);
            self.fault(block, warp, mask.trailing_ones() as usize, None, fault);
        }
    }
}

fn pack(warp: &mut Warp, mask: u32, dst: u32, src: &[Reg], bytes: u32) {
    let mut out = Vector::splat(0);
    let used = u64::MAX >> (64 - 8 * bytes);
    for (i, operand) in src.iter().enumerate() {
        let (part, at) = (warp.read(*operand), i as u32 * bytes);
        for lane in 0..LANES {
            let Word { bits, defined } = part.word(lane);
            out.bits[lane] |= (bits & used) << (8 * at);
            // Bytes of this part that are not defined.
            let missing = !defined & ((1_u16 << bytes) - 1) as u8;
            out.defined[lane] &= !(missing << at);
        }
    }
    warp.write(dst, mask, &out);
}

fn unpack(warp: &mut Warp, mask: u32, dst: &[Option<u32>], src: Reg, bytes: u32) {
    let whole = warp.read(src);
    let used = u64::MAX >> (64 - 8 * bytes);
    for (i, dst) in dst.iter().enumerate() {
        let (Some(dst), at) = (dst, i as u32 * bytes) else { continue };
        let mut part = Vector::splat(0);
        for lane in 0..LANES {
            part.bits[lane] = whole.bits[lane] >> (8 * at) & used;
            let above = !(((1_u16 << bytes) - 1) as u8);
            part.defined[lane] = whole.defined[lane] >> at | above;
        }
        warp.write(*dst, mask, &part);
    }
}
