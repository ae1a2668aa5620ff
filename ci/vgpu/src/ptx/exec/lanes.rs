//! Exchanges between lanes: shuffles, votes, matches, reductions.

use super::Launch;
use super::block::Block;
use super::warp::{LANES, Vector, Warp, lanes};
use crate::finding::Kind;
use crate::memory::{Fault, Word};
use crate::ptx::isa::{IntegerOp, Op, Reg, Shuffle, Vote};

impl Launch<'_> {
    /// Checks that the lanes of an instruction's mask are there, and no others.
    pub fn members(&mut self, block: &Block, warp: &Warp, mask: u32, members: Reg) -> u32 {
        let named = warp.read(members);
        let lane = mask.trailing_zeros() as usize;
        let members = named.bits[lane] as u32;
        if !named.known(mask) {
            let fault = Fault::new(Kind::UndefinedBranch, "the mask of lanes is undefined");
            self.fault(block, warp, lane, None, fault);
        } else if members != mask {
            let odd = (members ^ mask).trailing_zeros() as usize;
            let detail = format!("the mask is {members:#010x}, lanes {mask:#010x} are here");
            self.fault(block, warp, odd, None, Fault::new(Kind::MaskedLaneAbsent, detail));
        }
        members
    }

    /// Runs an exchange.
    pub fn exchange(&mut self, block: &Block, warp: &mut Warp, mask: u32, op: &Op) {
        match op {
            Op::Shuffle { mode, dst, found, value, lane, clamp, members } => {
                self.members(block, warp, mask, *members);
                let [value, from, clamp] = [*value, *lane, *clamp].map(|o| warp.read(o));
                let (mut out, mut inside) = (Vector::splat(0), Vector::splat(0));
                for lane in lanes(mask) {
                    let known = from.defined[lane] & clamp.defined[lane] == 0xff;
                    let picked =
                        source(*mode, lane, from.bits[lane] as u32, clamp.bits[lane] as u32);
                    let other = picked.unwrap_or(lane);
                    if mask >> other & 1 == 0 {
                        let fault = Fault::new(
                            Kind::InactiveLane,
                            format!("lane {other} does not take part"),
                        );
                        self.fault(block, warp, lane, None, fault);
                    }
                    out.bits[lane] = value.bits[other];
                    out.defined[lane] =
                        if known && mask >> other & 1 == 1 { value.defined[other] } else { 0 };
                    inside.bits[lane] = picked.is_some().into();
                    inside.defined[lane] = if known { 0xff } else { 0 };
                }
                warp.write(*dst, mask, &out);
                if let Some(found) = found {
                    warp.write(*found, mask, &inside);
                }
            }
            Op::Vote { mode, dst, predicate, negated, members } => {
                let members = self.members(block, warp, mask, *members) & mask;
                let predicate = warp.read(*predicate);
                let ballot = lanes(members).fold(0_u32, |ballot, lane| {
                    ballot | u32::from((predicate.bits[lane] & 1 == 1) != *negated) << lane
                });
                let bits = match mode {
                    Vote::All => u64::from(ballot == members),
                    Vote::Any => u64::from(ballot != 0),
                    Vote::Uniform => u64::from(ballot == members || ballot == 0),
                    Vote::Ballot => ballot.into(),
                };
                warp.write(*dst, mask, &same(bits, predicate.known(members)));
            }
            Op::MatchAny { bytes, dst, value, members } => {
                let members = self.members(block, warp, mask, *members) & mask;
                let value = warp.read(*value);
                let used = u64::MAX >> (64 - 8 * bytes);
                let mut out = same(0, value.known(members));
                for lane in lanes(mask) {
                    let equal = |other: &usize| (value.bits[*other] ^ value.bits[lane]) & used == 0;
                    out.bits[lane] = lanes(members).filter(equal).map(|l| 1_u64 << l).sum();
                }
                warp.write(*dst, mask, &out);
            }
            Op::MatchAll { bytes, dst, all, value, members } => {
                let members = self.members(block, warp, mask, *members) & mask;
                let value = warp.read(*value);
                let used = u64::MAX >> (64 - 8 * bytes);
                let first = value.bits[members.trailing_zeros() as usize % LANES];
                let equal = lanes(members).all(|lane| (value.bits[lane] ^ first) & used == 0);
                let known = value.known(members);
                warp.write(*dst, mask, &same(if equal { members.into() } else { 0 }, known));
                if let Some(all) = all {
                    warp.write(*all, mask, &same(equal.into(), known));
                }
            }
            Op::Reduce { op, signed, dst, value, members } => {
                let members = self.members(block, warp, mask, *members) & mask;
                let value = warp.read(*value);
                let all = lanes(members).map(|lane| value.bits[lane] as u32);
                let result = all.reduce(|a, b| match (op, signed) {
                    (IntegerOp::Add, _) => a.wrapping_add(b),
                    (IntegerOp::Min, true) => (a as i32).min(b as i32) as u32,
                    (IntegerOp::Max, true) => (a as i32).max(b as i32) as u32,
                    (IntegerOp::Min, false) => a.min(b),
                    (IntegerOp::Max, false) => a.max(b),
                    (IntegerOp::And, _) => a & b,
                    (IntegerOp::Or, _) => a | b,
                    _ => a ^ b,
                });
                warp.write(*dst, mask, &same(result.unwrap_or(0).into(), value.known(members)));
            }
            _ => unreachable!("exchanges only"),
        }
    }
}

/// The same in all lanes.
fn same(bits: u64, known: bool) -> Vector {
    let Word { bits, defined } = Word { bits, defined: if known { 0xff } else { 0 } };
    Vector { bits: [bits; LANES], defined: [defined; LANES] }
}

/// The lane that `shfl` reads; none where it is out of the segment. `clamp` has the bound in its
/// lower five bits and the segment's mask from bit 8 on.
fn source(mode: Shuffle, lane: usize, b: u32, clamp: u32) -> Option<usize> {
    let (b, bound, segment) = (b as usize & 31, clamp as usize & 31, clamp as usize >> 8 & 31);
    let last = lane & segment | bound & !segment;
    let first = lane & segment;
    let (other, inside) = match mode {
        Shuffle::Up => (lane.wrapping_sub(b), lane as isize - b as isize >= last as isize),
        Shuffle::Down => (lane + b, lane + b <= last),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= last),
        Shuffle::Index => {
            let other = first | b & !segment;
            (other, other <= last)
        }
    };
    inside.then_some(other)
}
