//! The local data share, and exchanges between lanes that go through its wires.

use super::Launch;
use super::access::Move;
use super::block::Block;
use super::memory::{Places, Space};
use super::wave::{LANES, Vector, Wave, lanes};
use crate::finding::Kind;
use crate::gfx::decode::{Instruction, Operand};
use crate::memory::Fault;

impl Launch<'_> {
    /// Runs an LDS instruction.
    pub fn lds(&mut self, block: &mut Block, w: &mut Wave, i: &Instruction, what: Move) {
        // Each has a time of its own, so that a barrier can tell which are known to be done.
        let stamp = block.shared.order.tick(w.index as usize);
        match what {
            Move::Permute { push } => self.permute(block, w, i, push),
            Move::Swizzle => swizzle(w, i),
            Move::Fence => return,
            Move::Load { size, words, .. } | Move::Store { size, words, .. } => {
                let bytes = size * words;
                let unit = i32::from(bytes) * if i.name.contains("st64") { 64 } else { 1 };
                if i.name.contains("2_") || i.name.contains("2st64_") {
                    let offsets = [i.access.offset * unit, i32::from(i.access.offset1) * unit];
                    // Both addresses first: data may come into the register that has them.
                    let both = offsets.map(|offset| self.lds_places(block, w, i, offset));
                    for (n, places) in both.into_iter().enumerate() {
                        let places = self.aligned(block, w, places, bytes);
                        self.transfer(block, w, i, what, &places, n * words as usize);
                    }
                } else {
                    let places = self.lds_places(block, w, i, i.access.offset);
                    let places = self.aligned(block, w, places, bytes);
                    self.transfer(block, w, i, what, &places, 0);
                }
            }
            Move::Atomic { size, .. } => {
                let places = self.lds_places(block, w, i, i.access.offset);
                let places = self.aligned(block, w, places, size);
                self.transfer(block, w, i, what, &places, 0);
            }
        }
        let registers = w.range(i.dst, i.dst_type.words()).unwrap_or_default();
        w.lgkm.push(registers, true, stamp);
    }

    fn lds_places(&mut self, block: &Block, w: &Wave, i: &Instruction, offset: i32) -> Places {
        let mut places = [None; LANES];
        let Operand::Vector(n) = i.src[0].operand else { return places };
        let slot = w.slot(n);
        for lane in lanes(w.exec()) {
            let (address, undefined) = w.lane(slot, lane);
            if undefined != 0 {
                let fault = Fault::new(Kind::UndefinedAddress, "the address is undefined");
                self.fault(block, w, lane, None, fault);
                continue;
            }
            // Addresses have 32 bits; compilers put negative numbers in the register.
            let address = address.wrapping_add(offset as u32);
            places[lane] = Some((Space::Shared, address.into()));
        }
        places
    }

    /// A word from the lane, or to the lane, that four times its number names. What a lane that
    /// does not run would give is 0.
    fn permute(&mut self, block: &Block, w: &mut Wave, i: &Instruction, push: bool) {
        let (Operand::Vector(index), Operand::Vector(data), Operand::Vector(dst)) =
            (i.src[0].operand, i.src[1].operand, i.dst)
        else {
            return;
        };
        let (index, data, dst) = (w.slot(index), w.slot(data), w.slot(dst));
        let exec = w.exec();
        let mut out = [(0, 0); LANES];
        for lane in lanes(exec) {
            let (at, undefined) = w.lane(index, lane);
            if undefined != 0 {
                let fault = Fault::new(Kind::UndefinedAddress, "the lane's number is undefined");
                self.fault(block, w, lane, None, fault);
                continue;
            }
            let other = (at.wrapping_add(i.access.offset as u32) >> 2) as usize % LANES;
            if push {
                out[other] = w.lane(data, lane);
            } else if exec >> other & 1 == 1 {
                out[lane] = w.lane(data, other);
            }
        }
        for lane in lanes(exec) {
            w.set_lane(dst, lane, out[lane].0, out[lane].1);
        }
    }
}

/// A fixed pattern of lanes.
fn swizzle(w: &mut Wave, i: &Instruction) {
    let (Operand::Vector(src), Operand::Vector(dst)) = (i.src[0].operand, i.dst) else { return };
    let (src, dst, exec) = (w.slot(src), w.slot(dst), w.exec());
    let offset = i.access.offset as usize;
    let from = |lane: usize| {
        if offset & 0x8000 != 0 {
            lane & !3 | offset >> (2 * (lane & 3)) & 3
        } else {
            let (and, or, xor) = (offset & 31, offset >> 5 & 31, offset >> 10 & 31);
            lane & 32 | ((lane & 31 & and) | or) ^ xor
        }
    };
    let value: Vector = w.vector[src];
    let undefined = w.undefined_bits(src);
    for lane in lanes(exec) {
        let other = from(lane);
        let there = exec >> other & 1 == 1;
        let (x, u) = if there { (value[other], undefined[other]) } else { (0, 0) };
        w.set_lane(dst, lane, x, u);
    }
}
