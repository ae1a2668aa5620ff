//! Loads and stores of every memory: where an access goes, and what it does there.
//!
//! Alignment is that of a device in unaligned mode, as the runtime sets it: a dword, or whatever is
//! wider, at multiples of 4 bytes, a short at multiples of 2, in LDS too.

use super::Launch;
use super::access::{Atomic, Half, Move};
use super::block::Block;
use super::wait::Range;
use super::wave::{LANES, Wave, lanes};
use crate::finding::Kind;
use crate::gfx::Result;
use crate::gfx::decode::{Instruction, Operand};
use crate::gfx::isa::Format;
use crate::memory::{Fault, GlobalMemory, Loaded, Word};

/// Where LDS and private memory begin among flat addresses: what is above these 48 bits tells.
pub const SHARED_APERTURE: u64 = 1 << 48;
/// The same of private memory.
pub const PRIVATE_APERTURE: u64 = 2 << 48;
/// Where arguments and the dispatch packet are.
pub const ARGUMENTS: u64 = 0x0300_0000_0000;
/// What a descriptor of private memory has as its base.
pub const PRIVATE_BUFFER: u64 = 0x0200_0000_0000;

/// A memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
    Private,
    Arguments,
    /// A buffer's end is before it: loads give 0, stores do nothing.
    Beyond,
}

/// Where each lane's access goes; none for lanes that make none.
pub type Places = [Option<(Space, u64)>; LANES];

/// What a load gives that cannot be made.
pub const NOTHING: Word = Word { bits: 0xfdfd_fdfd_fdfd_fdfd, defined: 0 };

/// Register bits that are undefined, of a word's bytes.
pub fn undefined_bits(word: Word) -> u32 {
    if word.defined == 0xff {
        return 0;
    }
    (0..4).map(|b| if word.defined >> b & 1 == 1 { 0 } else { 0xff << (8 * b) }).sum()
}

/// A register's value as memory takes it: a byte is undefined if any of its bits is.
pub fn word_of((value, undefined): (u32, u32), size: u8) -> Word {
    let mut defined = 0xff;
    if undefined != 0 {
        for byte in (0..size).filter(|b| undefined >> (8 * b) & 0xff != 0) {
            defined &= !(1_u8 << byte);
        }
    }
    Word { bits: value.into(), defined }
}

fn flat_place(address: u64) -> (Space, u64) {
    match address >> 48 {
        1 => (Space::Shared, address & 0xffff_ffff),
        2 => (Space::Private, address & 0xffff_ffff),
        _ => (Space::Global, address),
    }
}

impl Launch<'_> {
    /// Runs an instruction of vector memory.
    pub fn vector_memory(
        &mut self,
        block: &mut Block,
        w: &mut Wave,
        i: &Instruction,
        what: Move,
    ) -> Result<()> {
        let bytes = match what {
            Move::Load { size, words, .. } | Move::Store { size, words, .. } => size * words,
            Move::Atomic { size, .. } => size,
            _ => return Ok(()),
        };
        let places = match i.format {
            Format::Mubuf => self.buffer_places(block, w, i, bytes)?,
            _ => self.flat_places(block, w, i),
        };
        let places = self.aligned(block, w, places, bytes);
        self.transfer(block, w, i, what, &places, 0);
        let flat = i.format == Format::Flat && i.access.segment == 0;
        let registers = w.range(i.dst, i.dst_type.words()).unwrap_or_default();
        w.vm.push(registers, !flat, 0);
        if flat {
            let stamp = block.shared.order.now(w.index as usize);
            w.lgkm.push(registers, false, stamp);
        }
        Ok(())
    }

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

    fn flat_places(&mut self, block: &Block, w: &Wave, i: &Instruction) -> Places {
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

    fn buffer_places(
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
        let private = swizzle && base >= PRIVATE_BUFFER && base < PRIVATE_BUFFER + (1 << 32);
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
        for lane in 0..LANES {
            let Some((space, at)) = places[lane] else { continue };
            if space == Space::Beyond || at.is_multiple_of(alignment) {
                continue;
            }
            if let Err(fault) = GlobalMemory::aligned(at, alignment) {
                self.fault(block, w, lane, Some(at), fault);
                places[lane] = None;
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

    /// Moves data of all lanes; `word` is where in the register operands it begins.
    pub fn transfer(
        &mut self,
        block: &mut Block,
        w: &mut Wave,
        i: &Instruction,
        what: Move,
        places: &Places,
        word: usize,
    ) {
        let exec = w.exec();
        match what {
            Move::Load { size, words, signed, half } => {
                let Operand::Vector(n) = i.dst else { return };
                let slot = w.slot(n) + word;
                for lane in lanes(exec) {
                    let mut at = 0;
                    while at < words as usize {
                        // Two words at once where there are two.
                        let pair = size == 4 && at + 1 < words as usize;
                        let bytes = if pair { 8 } else { size };
                        let value = match places[lane] {
                            Some((space, address)) => {
                                let place = (space, address + 4 * at as u64);
                                self.load_one(block, w, lane, place, bytes)
                            }
                            None => NOTHING,
                        };
                        load_into(w, slot + at, lane, value, size, signed, half);
                        if pair {
                            let high =
                                Word { bits: value.bits >> 32, defined: value.defined >> 4 | 0xf0 };
                            load_into(w, slot + at + 1, lane, high, size, signed, half);
                        }
                        at += 1 + usize::from(pair);
                    }
                }
            }
            Move::Store { size, words, high } => {
                let source = if word == 0 { 1 } else { 2 };
                let Operand::Vector(n) = i.src[source].operand else { return };
                let slot = w.slot(n);
                for lane in lanes(exec) {
                    let Some((space, address)) = places[lane] else { continue };
                    for at in 0..words as usize {
                        let (mut value, mut undefined) = w.lane(slot + at, lane);
                        if high {
                            (value, undefined) = (value >> 16, undefined >> 16);
                        }
                        let word = word_of((value, undefined), size);
                        let place = (space, address + 4 * at as u64);
                        self.store_one(block, w, lane, place, size, word);
                    }
                }
            }
            Move::Atomic { op, size } => self.atomic(block, w, i, op, size, places),
            _ => {}
        }
    }

    /// One value; faults are reported.
    #[inline]
    pub fn load_one(
        &mut self,
        block: &mut Block,
        w: &Wave,
        lane: usize,
        at: (Space, u64),
        size: u8,
    ) -> Word {
        let (space, address) = at;
        let result = match space {
            Space::Global if address.wrapping_sub(ARGUMENTS) < 1 << 32 => {
                return self.load_one(
                    block,
                    w,
                    lane,
                    (Space::Arguments, address - ARGUMENTS),
                    size,
                );
            }
            Space::Global => self.memory.load(address, size.into(), block.linear),
            Space::Shared => block.shared.load(address, size.into(), w.thread(lane)),
            Space::Arguments => inside(address, size, self.arguments.len() as u64, "the arguments")
                .map(|at| Loaded { word: self.arguments.load(at, size.into()), fault: None }),
            Space::Private => {
                let len = u64::from(self.program.private);
                inside(address, size, len, "private memory").map(|at| {
                    let at = lane * len as usize + at;
                    Loaded { word: w.private.load(at, size.into()), fault: None }
                })
            }
            Space::Beyond => return Word::known(0),
        };
        match result {
            Ok(Loaded { word, fault: None }) => word,
            Ok(Loaded { word, fault: Some(fault) }) => {
                self.fault(block, w, lane, Some(address), fault);
                word
            }
            Err(fault) => {
                self.fault(block, w, lane, Some(address), fault);
                NOTHING
            }
        }
    }

    /// Writes one value; faults are reported.
    pub fn store_one(
        &mut self,
        block: &mut Block,
        w: &mut Wave,
        lane: usize,
        at: (Space, u64),
        size: u8,
        word: Word,
    ) {
        let (space, address) = at;
        let result = match space {
            Space::Global if address.wrapping_sub(ARGUMENTS) < 1 << 32 => {
                Err(Fault::new(Kind::WriteToConstant, "the kernel's arguments"))
            }
            Space::Arguments => Err(Fault::new(Kind::WriteToConstant, "the kernel's arguments")),
            Space::Global => {
                if word.defined != 0xff && self.checks.undefined_stores {
                    let fault = Fault::new(Kind::UndefinedStore, "the value is undefined");
                    self.fault(block, w, lane, Some(address), fault);
                }
                self.memory.store(address, size.into(), word, block.linear)
            }
            Space::Shared => block.shared.store(address, size.into(), word, w.thread(lane)),
            Space::Private => {
                let len = u64::from(self.program.private);
                inside(address, size, len, "private memory").map(|at| {
                    w.private.store(lane * len as usize + at, size.into(), word);
                    None
                })
            }
            Space::Beyond => Ok(None),
        };
        let fault = match result {
            Ok(fault) => fault,
            Err(mut fault) => {
                if fault.kind == Kind::ReadOutOfBounds {
                    fault.kind = Kind::WriteOutOfBounds;
                }
                Some(fault)
            }
        };
        if let Some(fault) = fault {
            self.fault(block, w, lane, Some(address), fault);
        }
    }

    fn atomic(
        &mut self,
        block: &mut Block,
        w: &mut Wave,
        i: &Instruction,
        op: Atomic,
        size: u8,
        places: &Places,
    ) {
        let wide = usize::from(size / 4);
        // Flat and buffer compare-and-swap have both values side by side; LDS has two operands, the
        // value to compare with first.
        let two = op == Atomic::CompareSwap;
        let (data, compare) = match (i.format, i.src[1].operand, i.src[2].operand) {
            (Format::Ds, Operand::Vector(a), Operand::Vector(b)) if two => (w.slot(b), w.slot(a)),
            (_, Operand::Vector(a), _) => (w.slot(a), w.slot(a) + if two { wide } else { 0 }),
            _ => return,
        };
        for lane in lanes(w.exec()) {
            let Some((space, address)) = places[lane] else { continue };
            let value = |w: &Wave, slot: usize| -> Word {
                let low = word_of(w.lane(slot, lane), 4);
                if wide == 1 {
                    return low;
                }
                let high = word_of(w.lane(slot + 1, lane), 4);
                Word {
                    bits: low.bits | high.bits << 32,
                    defined: low.defined & 15 | high.defined << 4,
                }
            };
            let (new, expected) = (value(w, data), value(w, compare));
            let thread = w.thread(lane);
            let apply = |old: Word| op.apply(old, new, expected, size);
            let result = match space {
                Space::Global => {
                    if new.defined & expected.defined != 0xff && self.checks.undefined_stores {
                        let fault = Fault::new(Kind::UndefinedStore, "the value is undefined");
                        self.fault(block, w, lane, Some(address), fault);
                    }
                    self.memory.atomic(address, size.into(), block.linear, apply)
                }
                Space::Shared => block.shared.atomic(address, size.into(), thread, apply),
                Space::Beyond => Ok(Loaded { word: Word::known(0), fault: None }),
                Space::Private | Space::Arguments => {
                    Err(Fault::new(Kind::WriteToConstant, "an atomic of private memory"))
                }
            };
            let old = match result {
                Ok(Loaded { word, fault }) => {
                    if let Some(fault) = fault {
                        self.fault(block, w, lane, Some(address), fault);
                    }
                    word
                }
                Err(fault) => {
                    self.fault(block, w, lane, Some(address), fault);
                    NOTHING
                }
            };
            if let Operand::Vector(n) = i.dst {
                let slot = w.slot(n);
                w.set_lane(slot, lane, old.bits as u32, undefined_bits(old));
                if wide == 2 {
                    let high = Word { bits: old.bits >> 32, defined: old.defined >> 4 | 0xf0 };
                    w.set_lane(slot + 1, lane, high.bits as u32, undefined_bits(high));
                }
            }
        }
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

/// Puts a loaded value in a lane's register.
fn load_into(
    w: &mut Wave,
    slot: usize,
    lane: usize,
    value: Word,
    size: u8,
    signed: bool,
    half: Half,
) {
    let (mut bits, mut undefined) = (value.bits as u32, undefined_bits(value));
    if size < 4 {
        let unused = 32 - 8 * u32::from(size);
        (bits, undefined) = (bits << unused, undefined << unused);
        if signed {
            bits = (bits as i32 >> unused) as u32;
            undefined = (undefined as i32 >> unused) as u32;
        } else {
            (bits, undefined) = (bits >> unused, undefined >> unused);
        }
    }
    match half {
        Half::Whole => {}
        Half::Low | Half::High => {
            let (old, old_undefined) = w.lane(slot, lane);
            let put = |old: u32, new: u32| match half {
                Half::High => old & 0xffff | new << 16,
                _ => old & 0xffff_0000 | new & 0xffff,
            };
            (bits, undefined) = (put(old, bits), put(old_undefined, undefined));
        }
    }
    w.set_lane(slot, lane, bits, undefined);
}

fn inside(address: u64, size: u8, len: u64, what: &str) -> std::result::Result<usize, Fault> {
    if address < len && u64::from(size) <= len - address {
        return Ok(address as usize);
    }
    let detail = format!("{size} bytes at {address} of {what}, which has {len}");
    Err(Fault::new(Kind::ReadOutOfBounds, detail))
}

/// No registers, for instructions that give nothing back.
pub const NO_REGISTERS: Range = Range { scalar: false, first: 0, count: 0 };
