//! Where a memory instruction goes, lane by lane.
//!
//! Alignment is that of a device in unaligned mode, as the runtime sets it: a dword, or whatever is
//! wider, at multiples of 4 bytes, a short at multiples of 2, in LDS too. (Only the widest LDS accesses
//! would need more in the other mode, and compilers count on this one.)

use super::Launch;
use super::block::Block;
use super::memory::{PRIVATE_BUFFER, Places, Space};
use super::wave::{LANES, Wave, lanes};
use crate::finding::Kind;
use crate::gfx::Result;
use crate::gfx::decode::{Instruction, Operand};
use crate::memory::{Fault, GlobalMemory};

fn flat_place(address: u64) -> (Space, u64) {
    match address >> 48 {
        1 => (Space::Shared, address & 0xffff_ffff),
        2 => (Space::Private, address & 0xffff_ffff),
        _ => (Space::Global, address),
    }
}

impl Launch<'_> {
    fn undefined_address(&mut self, block: &Block, w: &Wave, lane: usize) {
        let fault = Fault::new(Kind::UndefinedAddress, "the address is undefined");
        self.fault(block, w, lane, None, fault);
    }

    /// A scalar part of an address; none, and a finding, if it is undefined.
    pub fn scalar_address(
        &mut self,
        block: &Block,
        w: &Wave,
        i: &Instruction,
        n: usize,
    ) -> Option<u64> {
        let (value, undefined) = w.scalar_operand(&i.src[n]);
        if undefined != 0 {
            self.undefined_address(block, w, w.exec().trailing_zeros() as usize % LANES);
            return None;
        }
        Some(value)
    }

    /// A lane's part of an address, of one register or two.
    fn lane_address(
        &mut self,
        block: &Block,
        w: &Wave,
        i: &Instruction,
        lane: usize,
    ) -> Option<u64> {
        let Operand::Vector(n) = i.src[0].operand else { return Some(0) };
        let slot = w.slot(n);
        let (low, mut undefined) = w.lane(slot, lane);
        let mut address = u64::from(low);
        if i.src[0].ty.words() == 2 {
            let (high, u) = w.lane(slot + 1, lane);
            address |= u64::from(high) << 32;
            undefined |= u;
        }
        if undefined != 0 {
            self.undefined_address(block, w, lane);
            return None;
        }
        Some(address)
    }

    /// Places of a flat, global or scratch access.
    pub fn flat_places(&mut self, block: &Block, w: &Wave, i: &Instruction) -> Places {
        let mut places = [None; LANES];
        let base = match i.src[2].operand {
            Operand::None => Some(0),
            _ => self.scalar_address(block, w, i, 2),
        };
        let Some(base) = base else { return places };
        for lane in lanes(w.exec()) {
            let Some(address) = self.lane_address(block, w, i, lane) else { continue };
            let address = base.wrapping_add(address).wrapping_add_signed(i.access.offset.into());
            places[lane] = Some(match i.access.segment {
                0 => flat_place(address),
                1 => (Space::Private, address & 0xffff_ffff),
                _ => (Space::Global, address),
            });
        }
        places
    }

    /// Places of a buffer access: what is beyond its end goes nowhere.
    pub fn buffer_places(
        &mut self,
        block: &Block,
        w: &Wave,
        i: &Instruction,
        bytes: u8,
    ) -> Result<Places> {
        let mut places = [None; LANES];
        let Operand::Scalar(first) = i.src[2].operand else { return Ok(places) };
        let words: [u32; 4] = std::array::from_fn(|n| w.scalar[first as usize + n]);
        let undefined = (0..4).any(|n| w.scalar_undefined[first as usize + n] != 0);
        let Some(soffset) = self.scalar_address(block, w, i, 3) else { return Ok(places) };
        if undefined {
            self.undefined_address(block, w, w.exec().trailing_zeros() as usize % LANES);
            return Ok(places);
        }
        let base = u64::from(words[0]) | u64::from(words[1] & 0xffff) << 32;
        let stride = u64::from(words[1] >> 16 & 0x3fff);
        let swizzle = words[1] >> 31 == 1;
        let private = swizzle && (PRIVATE_BUFFER..PRIVATE_BUFFER + (1 << 32)).contains(&base);
        if i.access.lds || swizzle && !private {
            return self.error(w, "a swizzled buffer, or a load into LDS");
        }
        let records = u64::from(words[2]);
        for lane in lanes(w.exec()) {
            let Some(value) = self.lane_address(block, w, i, lane) else { continue };
            let (index, voffset) = match (i.access.idxen, i.access.offen) {
                (true, true) => (value & 0xffff_ffff, value >> 32),
                (true, false) => (value, 0),
                _ => (0, value),
            };
            let offset = voffset + i.access.offset as u64;
            places[lane] = Some(if private {
                // Scalar offsets and the base count the bytes of all lanes.
                (Space::Private, (base - PRIVATE_BUFFER + soffset) / LANES as u64 + offset)
            } else {
                let offset = offset + stride * index;
                let beyond = if stride == 0 || !i.access.idxen {
                    offset + soffset + u64::from(bytes.min(4)) > records
                } else {
                    index >= records
                };
                let space = if beyond { Space::Beyond } else { Space::Global };
                (space, base + offset + soffset)
            });
        }
        block_end(&mut places, base, records, stride, bytes);
        Ok(places)
    }

    /// Places that are aligned; the access is counted.
    pub fn aligned(&mut self, block: &Block, w: &Wave, mut places: Places, bytes: u8) -> Places {
        let alignment = u64::from(if bytes >= 4 { 4 } else { bytes });
        for (lane, place) in places.iter_mut().enumerate() {
            let Some((space, at)) = *place else { continue };
            if space == Space::Beyond || at.is_multiple_of(alignment) {
                continue;
            }
            if let Err(fault) = GlobalMemory::aligned(at, alignment) {
                self.fault(block, w, lane, Some(at), fault);
                *place = None;
            }
        }
        let of = |wanted: Space| {
            places.iter().flatten().filter(move |(s, _)| *s == wanted).map(|(_, a)| *a)
        };
        if of(Space::Global).next().is_some() {
            self.counters.global_access(of(Space::Global), bytes.into());
        }
        if of(Space::Shared).next().is_some() {
            self.counters.shared_access(of(Space::Shared), bytes.into(), 32);
        }
        places
    }
}

/// Makes places that begin inside a buffer and end beyond it wholly beyond: hardware looks at each
/// dword, and no kernel that is right depends on it.
fn block_end(places: &mut Places, base: u64, records: u64, stride: u64, bytes: u8) {
    if stride != 0 {
        return;
    }
    for place in places.iter_mut().flatten() {
        if place.0 == Space::Global && place.1 - base + u64::from(bytes) > records {
            place.0 = Space::Beyond;
        }
    }
}
