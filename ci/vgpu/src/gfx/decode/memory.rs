//! Encodings of vector memory.

use super::operand::{Operand, Source, operand};
use super::{Instruction, Words, bits, unknown};
use crate::gfx::Result;
use crate::gfx::isa::{Format, Type, name};

fn vector(code: u32, acc: bool) -> Operand {
    Operand::Vector(code as u16 + if acc { 256 } else { 0 })
}

/// Registers that a DS instruction moves with each of its data operands.
fn ds_words(name: &str) -> u8 {
    match name.rsplit('_').find_map(|token| token.get(1..)?.parse::<u8>().ok()) {
        Some(64) => 2,
        Some(96) => 3,
        Some(128) => 4,
        _ => 1,
    }
}

pub fn ds(first: u32, words: &mut Words) -> Result<Instruction> {
    let opcode = bits(first, 17, 8);
    let Some(name) = name(Format::Ds, opcode as u16) else {
        return unknown(&format!("DS opcode {opcode:#x}"), first, words);
    };
    let second = words.next()?;
    let mut i = Instruction::new(words.address, Format::Ds, name);
    let acc = bits(first, 25, 1) == 1;
    let size = ds_words(name);
    i.access.gds = bits(first, 16, 1) == 1;
    let two = name.contains("2_") || name.contains("2st64_");
    if two {
        (i.access.offset, i.access.offset1) = (bits(first, 0, 8) as i32, bits(first, 8, 8) as u8);
    } else {
        i.access.offset = bits(first, 0, 16) as i32;
    }
    if name == "ds_nop" {
        return Ok(i);
    }
    i.src[0] = Source::new(vector(bits(second, 0, 8), false), Type::B32);
    let returns = name.contains("read") || name.contains("_rtn") || name.contains("permute");
    if returns || name.contains("swizzle") {
        i.dst = vector(bits(second, 24, 8), acc);
        i.dst_type = Type::Words(if two { 2 * size } else { size });
    }
    let data = match name {
        _ if name.contains("read") || name.contains("swizzle") => 0,
        _ if name.contains("cmpst") || name.contains("mskor") || name.contains("wrap") => 2,
        _ if two => 2,
        _ => 1,
    };
    for n in 0..data {
        let code = bits(second, 8 + 8 * n, 8);
        i.src[1 + n as usize] = Source::new(vector(code, acc), Type::Words(size));
    }
    i.sources = 1 + data as u8;
    Ok(i)
}

/// Registers that a vector memory instruction moves.
fn words_of(name: &str) -> u8 {
    let wide = if name.ends_with("_x2") || name.ends_with("f64") { 2 } else { 1 };
    match name.rsplit_once("dwordx").and_then(|(_, n)| n.parse().ok()) {
        Some(n) => n,
        None if name.contains("cmpswap") => 2 * wide,
        None => wide,
    }
}

/// Registers that an atomic gives back.
fn returned(name: &str, words: u8) -> u8 {
    if name.contains("cmpswap") { words / 2 } else { words }
}

/// Names with what they are of in front, all of which live as long as the program.
fn prefixed(prefix: &str, name: &'static str) -> &'static str {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};
    static NAMES: LazyLock<Mutex<HashMap<String, &'static str>>> = LazyLock::new(Mutex::default);
    let whole = format!("{prefix}_{name}");
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    names.entry(whole.clone()).or_insert_with(|| whole.leak())
}

pub fn flat(first: u32, words: &mut Words) -> Result<Instruction> {
    let (opcode, segment) = (bits(first, 18, 7), bits(first, 14, 2));
    let prefix = ["flat", "scratch", "global"].get(segment as usize);
    let (Some(name), Some(prefix)) = (name(Format::Flat, opcode as u16), prefix) else {
        return unknown(&format!("FLAT opcode {opcode:#x}"), first, words);
    };
    let second = words.next()?;
    let mut i = Instruction::new(words.address, Format::Flat, prefixed(prefix, name));
    let acc = bits(second, 23, 1) == 1;
    let a = &mut i.access;
    a.segment = segment as u8;
    // Flat offsets have no sign, the others' have thirteen bits with one.
    a.offset = if segment == 0 { bits(first, 0, 12) as i32 } else { (first << 19) as i32 >> 19 };
    (a.glc, a.slc, a.scc) =
        (bits(first, 16, 1) == 1, bits(first, 17, 1) == 1, bits(first, 25, 1) == 1);
    a.lds = bits(first, 13, 1) == 1;
    let saddr = bits(second, 16, 7);
    let scalar = segment != 0 && saddr != 0x7f;
    let size = words_of(name);
    let address = vector(bits(second, 0, 8), false);
    let wide = if scalar || segment == 1 { Type::B32 } else { Type::B64 };
    i.src[0] = Source::new(address, wide);
    if segment == 1 && scalar {
        i.src[0].operand = Operand::None;
    }
    if scalar {
        let ty = if segment == 1 { Type::B32 } else { Type::B64 };
        i.src[2] = Source::new(Operand::Scalar(saddr as u8), ty);
    }
    if name.starts_with("load") {
        (i.dst, i.dst_type) = (vector(bits(second, 24, 8), acc), Type::Words(size));
    } else {
        i.src[1] = Source::new(vector(bits(second, 8, 8), acc), Type::Words(size));
        if name.starts_with("atomic") && i.access.glc {
            i.dst = vector(bits(second, 24, 8), acc);
            i.dst_type = Type::Words(returned(name, size));
        }
    }
    i.sources = 3;
    Ok(i)
}

pub fn mubuf(first: u32, words: &mut Words) -> Result<Instruction> {
    let opcode = bits(first, 18, 7);
    let Some(name) = name(Format::Mubuf, opcode as u16) else {
        return unknown(&format!("MUBUF opcode {opcode:#x}"), first, words);
    };
    let second = words.next()?;
    let mut i = Instruction::new(words.address, Format::Mubuf, prefixed("buffer", name));
    let acc = bits(second, 23, 1) == 1;
    let flag = |n| bits(first, n, 1) == 1;
    let a = &mut i.access;
    a.offset = bits(first, 0, 12) as i32;
    (a.offen, a.idxen) = (flag(12), flag(13));
    (a.glc, a.scc, a.lds, a.slc) = (flag(14), flag(15), flag(16), flag(17));
    if opcode < 0x10 || (0x28..0x40).contains(&opcode) {
        return Ok(i);
    }
    let size = words_of(name);
    let data = vector(bits(second, 8, 8), acc);
    if a.offen || a.idxen {
        let ty = if a.offen && a.idxen { Type::B64 } else { Type::B32 };
        i.src[0] = Source::new(vector(bits(second, 0, 8), false), ty);
    }
    if name.starts_with("load") {
        (i.dst, i.dst_type) = (data, Type::Words(size));
    } else {
        i.src[1] = Source::new(data, Type::Words(size));
        if name.starts_with("atomic") && a.glc {
            (i.dst, i.dst_type) = (data, Type::Words(returned(name, size)));
        }
    }
    i.src[2] = Source::new(Operand::Scalar(4 * bits(second, 16, 5) as u8), Type::Words(4));
    let offset = operand(bits(second, 24, 8), Type::B32, &mut i.literal, words)?;
    i.src[3] = Source::new(offset, Type::B32);
    i.sources = 4;
    Ok(i)
}
