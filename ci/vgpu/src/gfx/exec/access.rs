//! What memory instructions move, decoded once from their names.

use crate::gfx::decode::Instruction;
use crate::gfx::isa::Format;
use crate::memory::Word;
use crate::number::{F16, Rounding, f16_to_f32};

/// What is moved between memory and registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Load {
        size: u8,
        words: u8,
        signed: bool,
        half: Half,
    },
    Store {
        size: u8,
        words: u8,
        high: bool,
    },
    Atomic {
        op: Atomic,
        size: u8,
    },
    /// A lane's word to another lane (LDS only).
    Permute {
        push: bool,
    },
    Swizzle,
    /// Caches and nothing else.
    Fence,
}

/// Which part of the register a load of 16 bits or less leaves as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Whole,
    Low,
    High,
}

/// Atomic operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    Swap,
    CompareSwap,
    Add,
    Sub,
    ReverseSub,
    MinSigned,
    MaxSigned,
    MinUnsigned,
    MaxUnsigned,
    And,
    Or,
    Xor,
    Increment,
    Decrement,
    AddFloat,
    MinFloat,
    MaxFloat,
    AddPair,
}

/// What an instruction moves; none if it is not known.
pub fn movement(i: &Instruction) -> Option<Move> {
    match i.format {
        Format::Ds => ds(i.name.strip_prefix("ds_")?),
        _ => vector(i.name.split_once('_')?.1),
    }
}

fn vector(name: &str) -> Option<Move> {
    if matches!(name, "wbl2" | "invl2" | "wbinvl1" | "wbinvl1_vol") {
        return Some(Move::Fence);
    }
    if let Some(op) = name.strip_prefix("atomic_") {
        let (op, size) = match op.strip_suffix("_x2") {
            Some(op) => (op, 8),
            None if op.ends_with("f64") => (op, 8),
            None => (op, 4),
        };
        return Some(Move::Atomic { op: atomic(op)?, size });
    }
    let (direction, what) = name.split_once('_')?;
    let (unit, half) = match what.split_once('_') {
        None => (what, Half::Whole),
        Some((unit, "d16")) => (unit, Half::Low),
        Some((unit, "d16_hi")) => (unit, Half::High),
        Some(_) => return None,
    };
    let (size, words, signed) = match unit {
        "byte" | "ubyte" => (1, 1, false),
        "sbyte" => (1, 1, true),
        "short" | "ushort" => (2, 1, false),
        "sshort" => (2, 1, true),
        "dword" => (4, 1, false),
        _ => (4, unit.strip_prefix("dwordx")?.parse().ok()?, false),
    };
    Some(match direction {
        "load" => Move::Load { size, words, signed, half },
        "store" => Move::Store { size, words, high: half == Half::High },
        _ => return None,
    })
}

fn ds(name: &str) -> Option<Move> {
    match name {
        "permute_b32" => return Some(Move::Permute { push: true }),
        "bpermute_b32" => return Some(Move::Permute { push: false }),
        "swizzle_b32" => return Some(Move::Swizzle),
        "nop" => return Some(Move::Fence),
        _ => {}
    }
    let (kind, rest) = name.split_once('_')?;
    let (unit, half) = match rest.split_once('_') {
        Some((unit, "d16")) => (unit, Half::Low),
        Some((unit, "d16_hi")) => (unit, Half::High),
        _ => (rest, Half::Whole),
    };
    let sized = || {
        let bits: u8 = unit.get(1..)?.parse().ok()?;
        let (size, words) = if bits < 32 { (bits / 8, 1) } else { (4, bits / 32) };
        Some((size, words, unit.starts_with('i')))
    };
    match kind {
        "read" | "read2" | "read2st64" => {
            let (size, words, signed) = sized()?;
            Some(Move::Load { size, words, signed, half })
        }
        "write" | "write2" | "write2st64" => {
            let (size, words, _) = sized()?;
            Some(Move::Store { size, words, high: half == Half::High })
        }
        _ => {
            let ty = rest.rsplit('_').next()?;
            let size = if ty.ends_with("64") { 8 } else { 4 };
            let op = match (kind, ty.as_bytes().first()?) {
                ("wrxchg", _) => Atomic::Swap,
                ("cmpst", b'b') => Atomic::CompareSwap,
                ("add", b'f') => Atomic::AddFloat,
                ("min", b'f') => Atomic::MinFloat,
                ("max", b'f') => Atomic::MaxFloat,
                ("min", b'i') => Atomic::MinSigned,
                ("max", b'i') => Atomic::MaxSigned,
                ("min", _) => Atomic::MinUnsigned,
                ("max", _) => Atomic::MaxUnsigned,
                ("rsub", _) => Atomic::ReverseSub,
                (kind, _) => atomic(kind)?,
            };
            Some(Move::Atomic { op, size })
        }
    }
}

fn atomic(name: &str) -> Option<Atomic> {
    Some(match name {
        "swap" => Atomic::Swap,
        "cmpswap" => Atomic::CompareSwap,
        "add" => Atomic::Add,
        "sub" => Atomic::Sub,
        "smin" => Atomic::MinSigned,
        "smax" => Atomic::MaxSigned,
        "umin" => Atomic::MinUnsigned,
        "umax" => Atomic::MaxUnsigned,
        "and" => Atomic::And,
        "or" => Atomic::Or,
        "xor" => Atomic::Xor,
        "inc" => Atomic::Increment,
        "dec" => Atomic::Decrement,
        "add_f32" | "add_f64" => Atomic::AddFloat,
        "min_f64" => Atomic::MinFloat,
        "max_f64" => Atomic::MaxFloat,
        "pk_add_f16" => Atomic::AddPair,
        _ => return None,
    })
}

impl Atomic {
    /// The new value. `compare` is what a swap asks for. Undefined if anything that counts is.
    pub fn apply(self, old: Word, data: Word, compare: Word, size: u8) -> Word {
        let defined = old.defined & data.defined & compare.defined == 0xff;
        if !defined && self != Self::Swap {
            return Word { bits: old.bits, defined: !(((1_u16 << size) - 1) as u8) };
        }
        let bits = if size == 8 {
            self.wide(old.bits, data.bits, compare.bits)
        } else {
            self.narrow(old.bits as u32, data.bits as u32, compare.bits as u32).into()
        };
        Word { bits, defined: if self == Self::Swap { data.defined } else { 0xff } }
    }

    fn wide(self, old: u64, x: u64, compare: u64) -> u64 {
        let f = f64::from_bits;
        match self {
            Self::Swap => x,
            Self::CompareSwap => {
                if old == compare {
                    x
                } else {
                    old
                }
            }
            Self::Add => old.wrapping_add(x),
            Self::Sub => old.wrapping_sub(x),
            Self::ReverseSub => x.wrapping_sub(old),
            Self::MinSigned => (old as i64).min(x as i64) as u64,
            Self::MaxSigned => (old as i64).max(x as i64) as u64,
            Self::MinUnsigned => old.min(x),
            Self::MaxUnsigned => old.max(x),
            Self::And => old & x,
            Self::Or => old | x,
            Self::Xor => old ^ x,
            Self::Increment => {
                if old >= x {
                    0
                } else {
                    old + 1
                }
            }
            Self::Decrement => {
                if old == 0 || old > x {
                    x
                } else {
                    old - 1
                }
            }
            Self::AddFloat => (f(old) + f(x)).to_bits(),
            Self::MinFloat => f(old).min(f(x)).to_bits(),
            Self::MaxFloat => f(old).max(f(x)).to_bits(),
            Self::AddPair => old,
        }
    }

    fn narrow(self, old: u32, x: u32, compare: u32) -> u32 {
        let f = f32::from_bits;
        match self {
            Self::Sub => old.wrapping_sub(x),
            Self::Add => old.wrapping_add(x),
            Self::ReverseSub => x.wrapping_sub(old),
            Self::MinSigned => (old as i32).min(x as i32) as u32,
            Self::MaxSigned => (old as i32).max(x as i32) as u32,
            // The unit for atomics flushes subnormals of f32.
            Self::AddFloat => {
                let z = super::float::flush;
                z((f(z(old)) + f(z(x))).to_bits())
            }
            Self::MinFloat => super::float::extreme(f(old), f(x), false).to_bits(),
            Self::MaxFloat => super::float::extreme(f(old), f(x), true).to_bits(),
            Self::AddPair => {
                let half = |shift: u32| {
                    let at = |x: u32| f64::from(f16_to_f32((x >> shift) as u16));
                    (F16.from_f64(at(old) + at(x), Rounding::Nearest) as u32) << shift
                };
                half(0) | half(16)
            }
            _ => self.wide(old.into(), x.into(), compare.into()) as u32,
        }
    }
}
