//! Operands as their nine bits say them.

use super::{Result, Words};
use crate::gfx::GfxError;
use crate::gfx::isa::Type;

/// Numbers in the scalar file.
pub const VCC: u8 = 106;
/// The mask of lanes that run.
pub const EXEC: u8 = 126;

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// There is none; `off` where an address may be.
    None,
    /// Vector registers; those for accumulation count from 256.
    Vector(u16),
    /// Registers of the scalar file, vcc, m0 and exec among them.
    Scalar(u8),
    /// A constant, as wide as the operand's type, and the code that it is written with.
    Constant { code: u16, bits: u64 },
    /// A value that hardware makes: apertures, vccz, execz, scc.
    Special(u8),
}

/// A source and how it is modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    pub operand: Operand,
    pub ty: Type,
    pub neg: bool,
    pub abs: bool,
    pub sext: bool,
}

impl Source {
    /// No source.
    pub const NONE: Self = Self::new(Operand::None, Type::B32);

    /// A source as it is.
    pub const fn new(operand: Operand, ty: Type) -> Self {
        Self { operand, ty, neg: false, abs: false, sext: false }
    }
}

/// The operand that nine bits name; a literal follows the instruction.
pub fn operand(code: u32, ty: Type, literal: &mut u32, words: &mut Words) -> Result<Operand> {
    Ok(match code {
        0..=127 => Operand::Scalar(code as u8),
        128..=192 => Operand::Constant { code: code as u16, bits: u64::from(code - 128) },
        193..=208 => {
            let value = 192 - code as i64;
            let bits = match ty {
                Type::B64 | Type::F64 => value as u64,
                _ => u64::from(value as u32),
            };
            Operand::Constant { code: code as u16, bits }
        }
        235..=239 | 251..=253 => Operand::Special(code as u8),
        240..=248 => Operand::Constant { code: code as u16, bits: float(code, ty) },
        255 => {
            *literal = words.next()?;
            let bits = match ty {
                Type::F64 => u64::from(*literal) << 32,
                Type::B64 => *literal as i32 as i64 as u64,
                _ => u64::from(*literal),
            };
            Operand::Constant { code: 255, bits }
        }
        256..=511 => Operand::Vector(code as u16 - 256),
        _ => {
            let address = words.address;
            return Err(GfxError::new(format!("unknown operand {code} at {address:#x}")));
        }
    })
}

/// The floating constants, in the operand's own format.
fn float(code: u32, ty: Type) -> u64 {
    let i = code as usize - 240;
    // The last is 1/(2π).
    const HALF: [u64; 9] = [0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000, 0xc000, 0x4400, 0xc400, 0x3118];
    const VALUES: [f64; 8] = [0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0];
    match ty {
        Type::B16 | Type::F16 | Type::PackB16 | Type::PackF16 => HALF[i],
        Type::F64 | Type::B64 => VALUES.get(i).map_or(0x3fc4_5f30_6dc9_c882, |x| x.to_bits()),
        _ => VALUES.get(i).map_or(0x3e22_f983, |x| u64::from((*x as f32).to_bits())),
    }
}
