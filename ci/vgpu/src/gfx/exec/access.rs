//! What memory instructions move, decoded once from their names.

use super::atomic::Atomic;
use crate::gfx::decode::Instruction;
use crate::gfx::isa::Format;

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
        return Some(Move::Atomic { op: Atomic::named(op)?, size });
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
                (kind, _) => Atomic::named(kind)?,
            };
            Some(Move::Atomic { op, size })
        }
    }
}
