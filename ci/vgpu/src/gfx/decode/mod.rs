//! From the words of an encoding to an [`Instruction`], and from that to the assembler's text.

mod memory;
mod operand;
mod scalar;
mod text;
mod vector;

pub use operand::{EXEC, Operand, Source, VCC};

use super::isa::{Format, Type};
use super::{GfxError, Result};

/// Which of its encodings a vector instruction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// There is only one.
    Only,
    E32,
    E64,
    Sdwa,
    Dpp,
}

/// Parts of registers (SDWA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sdwa {
    /// 0 to 3 bytes, 4 and 5 words, 6 all of it.
    pub dst: u8,
    /// What becomes of the rest: 0 zero, 1 the sign, 2 it stays.
    pub unused: u8,
    pub src: [u8; 2],
}

/// Lanes of the first source (DPP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dpp {
    pub control: u16,
    pub bound_control: bool,
    pub bank_mask: u8,
    pub row_mask: u8,
}

/// Which blocks of A a matrix product multiplies: of each `1 << size` blocks (CBSZ) all take that with number `block`
/// (ABID). 0 and 0: every block its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Broadcast {
    pub size: u8,
    pub block: u8,
}

impl Broadcast {
    /// The block of A behind `block`.
    pub fn of(self, block: usize) -> usize {
        if self.size == 0 {
            block
        } else {
            block >> self.size << self.size | usize::from(self.block)
        }
    }
}

/// How a memory instruction is modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    pub offset: i32,
    pub offset1: u8,
    pub glc: bool,
    pub slc: bool,
    pub scc: bool,
    pub offen: bool,
    pub idxen: bool,
    pub lds: bool,
    pub gds: bool,
    /// Of flat instructions: 0 flat, 1 scratch, 2 global.
    pub segment: u8,
}

/// A decoded instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Bytes from the start of the image.
    pub address: u64,
    /// Bytes of its encoding.
    pub bytes: u8,
    pub format: Format,
    pub variant: Variant,
    pub name: &'static str,
    pub dst: Operand,
    pub dst_type: Type,
    /// Where a second result goes, or that of a comparison.
    pub mask: Operand,
    /// Sources; for memory: address, data, second data or scalar address, scalar offset.
    pub src: [Source; 4],
    pub sources: u8,
    pub clamp: bool,
    /// 1 doubled, 2 times four, 3 halved.
    pub omod: u8,
    pub op_sel: u8,
    pub op_sel_hi: u8,
    pub neg_hi: u8,
    pub broadcast: Broadcast,
    pub sdwa: Option<Sdwa>,
    pub dpp: Option<Dpp>,
    pub access: Access,
    /// The 16-bit constant of scalar instructions.
    pub simm: u16,
    pub literal: u32,
}

impl Instruction {
    fn new(address: u64, format: Format, name: &'static str) -> Self {
        Self {
            address,
            bytes: 4,
            format,
            variant: Variant::Only,
            name,
            dst: Operand::None,
            dst_type: Type::B32,
            mask: Operand::None,
            src: [Source::NONE; 4],
            sources: 0,
            clamp: false,
            omod: 0,
            op_sel: 0,
            op_sel_hi: 0,
            neg_hi: 0,
            sdwa: None,
            broadcast: Broadcast::default(),
            dpp: None,
            access: Access::default(),
            simm: 0,
            literal: 0,
        }
    }

    /// The sources that there are.
    pub fn sources(&self) -> &[Source] {
        &self.src[..self.sources as usize]
    }

    /// Where a branch goes, from the start of the image.
    pub fn target(&self) -> u64 {
        (self.address + 4).wrapping_add_signed(4 * i64::from(self.simm as i16))
    }
}

/// The words of one instruction as they are read.
struct Words<'a> {
    code: &'a [u8],
    address: u64,
    used: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u32> {
        let at = self.used;
        let word =
            self.code.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        self.used += 4;
        word.ok_or_else(|| GfxError::new(format!("the code ends within {:#x}", self.address)))
    }
}

fn bits(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

/// Decodes the instruction at the start of `code`, which is `address` bytes into the image.
pub fn decode(code: &[u8], address: u64) -> Result<Instruction> {
    let mut words = Words { code, address, used: 0 };
    let first = words.next()?;
    let decoded = match first >> 23 {
        _ if first >> 31 == 0 => vector::short(first, &mut words),
        0b1_0111_1101 => scalar::sop1(first, &mut words),
        0b1_0111_1110 => scalar::sopc(first, &mut words),
        0b1_0111_1111 => scalar::sopp(first, &mut words),
        0b1_0110_0000..=0b1_0111_1111 => scalar::sopk(first, &mut words),
        0b1_0000_0000..=0b1_0111_1111 => scalar::sop2(first, &mut words),
        _ => match first >> 26 {
            0b11_0000 => scalar::smem(first, &mut words),
            0b11_0100 => vector::long(first, &mut words),
            0b11_0110 => memory::ds(first, &mut words),
            0b11_0111 => memory::flat(first, &mut words),
            0b11_1000 => memory::mubuf(first, &mut words),
            _ => unknown("encoding", first, &mut words),
        },
    };
    let mut instruction = decoded?;
    instruction.bytes = words.used as u8;
    Ok(instruction)
}

/// The error for what has no name here.
fn unknown<T>(what: &str, first: u32, words: &mut Words) -> Result<T> {
    let second = words.next().map_or(String::new(), |w| format!(" {w:08x}"));
    let address = words.address;
    Err(GfxError::new(format!("unknown {what}: {first:08x}{second} at {address:#x}")))
}
