//! Loads and stores of every memory.

use super::Launch;
use super::access::{Half, Move};
use super::block::Block;
use super::wait::Range;
use super::wave::{LANES, Wave, lanes};
use crate::finding::Kind;
use crate::gfx::Result;
use crate::gfx::decode::{Instruction, Operand};
use crate::gfx::isa::Format;
use crate::memory::{Fault, Loaded, Word, agent};

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
        // Each has a time of its own, so that a barrier can tell which are known to be done.
        let stamp = self.memory.order.tick(w.index as usize);
        (self.observing, self.publishing) = match what {
            Move::Load { .. } => (i.access.glc && bytes >= 4, false),
            Move::Store { .. } => (false, self.observes),
            _ => (false, false),
        };
        self.transfer(block, w, i, what, &places, 0);
        (self.observing, self.publishing) = (false, false);
        let flat = i.format == Format::Flat && i.access.segment == 0;
        let registers = w.range(i.dst, i.dst_type.words()).unwrap_or_default();
        w.vm.push(registers, !flat, stamp);
        if flat {
            let stamp = block.shared.order.now(w.index as usize);
            w.lgkm.push(registers, false, stamp);
        }
        Ok(())
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
            Space::Global => {
                let agent = agent(block.linear, w.thread(lane));
                match self.observing {
                    true => self.memory.observe(address, size.into(), agent),
                    false => self.memory.load(address, size.into(), agent),
                }
            }
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
                let agent = agent(block.linear, w.thread(lane));
                if self.publishing {
                    self.memory.order.replace(address, agent);
                }
                self.memory.store(address, size.into(), word, agent)
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
