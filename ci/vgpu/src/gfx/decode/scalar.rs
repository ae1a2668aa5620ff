//! Scalar encodings.

use super::operand::{EXEC, Operand, Source, VCC, operand};
use super::{Instruction, Words, bits, unknown};
use crate::gfx::Result;
use crate::gfx::isa::{Format, Type, name, scalar_signature};

fn named(format: Format, opcode: u32, first: u32, words: &mut Words) -> Result<Instruction> {
    match name(format, opcode as u16) {
        Some(name) => Ok(Instruction::new(words.address, format, name)),
        None => unknown(&format!("{format:?} opcode {opcode:#x}"), first, words),
    }
}

fn fill(mut i: Instruction, codes: &[u32], dst: u32, words: &mut Words) -> Result<Instruction> {
    let signature = scalar_signature(i.name, codes.len());
    for (n, (code, ty)) in codes.iter().zip(&signature.src).enumerate() {
        i.src[n] = Source::new(operand(*code, *ty, &mut i.literal, words)?, *ty);
        i.sources = n as u8 + 1;
    }
    if let Some(ty) = signature.dst {
        (i.dst, i.dst_type) = (Operand::Scalar(dst as u8), ty);
    }
    Ok(i)
}

pub fn sop2(first: u32, words: &mut Words) -> Result<Instruction> {
    let i = named(Format::Sop2, bits(first, 23, 7), first, words)?;
    fill(i, &[bits(first, 0, 8), bits(first, 8, 8)], bits(first, 16, 7), words)
}

pub fn sop1(first: u32, words: &mut Words) -> Result<Instruction> {
    let i = named(Format::Sop1, bits(first, 8, 8), first, words)?;
    fill(i, &[bits(first, 0, 8)], bits(first, 16, 7), words)
}

pub fn sopc(first: u32, words: &mut Words) -> Result<Instruction> {
    let i = named(Format::Sopc, bits(first, 16, 7), first, words)?;
    fill(i, &[bits(first, 0, 8), bits(first, 8, 8)], 0, words)
}

pub fn sopp(first: u32, words: &mut Words) -> Result<Instruction> {
    let mut i = named(Format::Sopp, bits(first, 16, 7), first, words)?;
    i.simm = first as u16;
    Ok(i)
}

pub fn sopk(first: u32, words: &mut Words) -> Result<Instruction> {
    let mut i = named(Format::Sopk, bits(first, 23, 5), first, words)?;
    i.simm = first as u16;
    let register = Operand::Scalar(bits(first, 16, 7) as u8);
    match i.name {
        "s_setreg_imm32_b32" => i.literal = words.next()?,
        "s_setreg_b32" => (i.src[0], i.sources) = (Source::new(register, Type::B32), 1),
        "s_call_b64" => (i.dst, i.dst_type) = (register, Type::B64),
        name => {
            i.dst = if name.starts_with("s_cmpk") { Operand::None } else { register };
            // The register is a source of comparisons, of sums and of products.
            if !name.starts_with("s_movk") && name != "s_getreg_b32" {
                (i.src[0], i.sources) = (Source::new(register, Type::B32), 1);
            }
        }
    }
    Ok(i)
}

/// Registers that a scalar memory instruction moves.
fn dwords(name: &str) -> u8 {
    name.rsplit_once("dwordx").and_then(|(_, n)| n.parse().ok()).unwrap_or(1)
}

pub fn smem(first: u32, words: &mut Words) -> Result<Instruction> {
    let mut i = named(Format::Smem, bits(first, 18, 8), first, words)?;
    let second = words.next()?;
    i.access.glc = bits(first, 16, 1) == 1;
    if i.name.starts_with("s_dcache") {
        return Ok(i);
    }
    let data = Operand::Scalar(bits(first, 6, 7) as u8);
    if i.name.ends_with("time") {
        (i.dst, i.dst_type) = (data, Type::B64);
        return Ok(i);
    }
    i.dst_type = Type::Words(dwords(i.name));
    let base = Type::Words(if i.name.contains("buffer") { 4 } else { 2 });
    i.src[0] = Source::new(Operand::Scalar(2 * bits(first, 0, 6) as u8), base);
    if i.name.contains("store") {
        i.src[1] = Source::new(data, i.dst_type);
    } else {
        i.dst = data;
    }
    let (immediate, with_register) = (bits(first, 17, 1) == 1, bits(first, 14, 1) == 1);
    if immediate {
        i.access.offset = (second << 11) as i32 >> 11;
    }
    let register = if with_register { Some(bits(second, 25, 7)) } else { None };
    if let Some(code) = register.or((!immediate).then_some(bits(second, 0, 7))) {
        i.src[2] = Source::new(Operand::Scalar(code as u8), Type::B32);
    }
    i.sources = 3;
    Ok(i)
}

/// Names of registers of the scalar file.
pub fn register_name(code: u8, words: u8) -> String {
    let pair = |name: &str, low: u8| match (words, code - low) {
        (2, 0) => name.to_string(),
        (_, 0) => format!("{name}_lo"),
        _ => format!("{name}_hi"),
    };
    let range = |letter: &str, first: u8| match words {
        1 => format!("{letter}{first}"),
        _ => format!("{letter}[{first}:{}]", first + words - 1),
    };
    match code {
        0..=101 => range("s", code),
        102 | 103 => pair("flat_scratch", 102),
        104 | 105 => pair("xnack_mask", 104),
        VCC | 107 => pair("vcc", VCC),
        108..=123 => range("ttmp", code - 108),
        124 => "m0".into(),
        EXEC | 127 => pair("exec", EXEC),
        _ => format!("s?{code}"),
    }
}
