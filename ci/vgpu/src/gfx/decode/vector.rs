//! Encodings of vector arithmetic.

use super::operand::{Operand, Source, VCC, operand};
use super::{Broadcast, Dpp, Instruction, Sdwa, Variant, Words, bits, unknown};
use crate::gfx::isa::{Format, Type, matrix, name, vector_signature};
use crate::gfx::{GfxError, Result};

/// The code with which SDWA stands in place of the first source.
const SDWA: u32 = 249;
/// The same of DPP.
const DPP: u32 = 250;

/// Names that have only one encoding, so that no suffix tells which.
fn only(name: &str) -> bool {
    matches!(name, "v_nop" | "v_clrexcp" | "v_swap_b32" | "v_accvgpr_mov_b32")
        || name.starts_with("v_readfirstlane")
        || name.starts_with("v_madmk")
        || name.starts_with("v_madak")
}

/// VOP1, VOP2 and VOPC: one word, and perhaps one more.
pub fn short(first: u32, words: &mut Words) -> Result<Instruction> {
    let (format, opcode) = match bits(first, 25, 6) {
        0x3e => (Format::Vopc, bits(first, 17, 8)),
        0x3f => (Format::Vop1, bits(first, 9, 8)),
        opcode => (Format::Vop2, opcode),
    };
    let Some(name) = name(format, opcode as u16) else {
        return unknown(&format!("{format:?} opcode {opcode:#x}"), first, words);
    };
    if matches!(name, "v_nop" | "v_clrexcp") && first & 0x01fe_01ff != 0 {
        return unknown("operands of an instruction without any", first, words);
    }
    let mut i = Instruction::new(words.address, format, name);
    i.variant = if only(name) { Variant::Only } else { Variant::E32 };
    let signature = vector_signature(name, if format == Format::Vop1 { 1 } else { 2 });
    let first_code = bits(first, 0, 9);
    let ty = |n: usize| signature.src.get(n).copied().unwrap_or(Type::B32);
    let second = Operand::Vector(bits(first, 9, 8) as u16);
    i.sources = signature.src.len() as u8;
    match first_code {
        SDWA => sdwa(&mut i, words.next()?, ty(0)),
        DPP => dpp(&mut i, words.next()?, ty(0)),
        code if i.sources > 0 => {
            i.src[0] = Source::new(operand(code, ty(0), &mut i.literal, words)?, ty(0));
        }
        _ => {}
    }
    if format != Format::Vop1 {
        // SDWA may have put a scalar register here.
        let scalar = i.src[1].operand != Operand::None;
        let code = Operand::Scalar(bits(first, 9, 8) as u8);
        i.src[1].operand = if scalar { code } else { second };
        i.src[1].ty = ty(1);
    }
    if name.starts_with("v_madmk") || name.starts_with("v_madak") {
        if first_code != 255 {
            i.literal = words.next()?;
        }
        // No code of the nine bits: these are always written in full.
        let constant = Operand::Constant { code: 256, bits: i.literal.into() };
        let constant = Source::new(constant, ty(0));
        i.sources = 3;
        if name.starts_with("v_madmk") {
            i.src[2] = i.src[1];
            i.src[1] = constant;
        } else {
            i.src[2] = constant;
        }
    }
    if ty(2) == Type::Mask {
        i.src[2] = Source::new(Operand::Scalar(VCC), Type::Mask);
    }
    if signature.mask && i.mask == Operand::None {
        i.mask = Operand::Scalar(VCC);
    }
    if let Some(ty) = signature.dst {
        let code = bits(first, 17, 8);
        i.dst_type = ty;
        i.dst = match (ty, name) {
            (Type::Scalar, _) => Operand::Scalar(code as u8),
            (_, "v_accvgpr_mov_b32") => Operand::Vector(256 + code as u16),
            _ => Operand::Vector(code as u16),
        };
    }
    if let ("v_accvgpr_mov_b32", Operand::Vector(n)) = (name, i.src[0].operand) {
        i.src[0].operand = Operand::Vector(256 + n);
    }
    Ok(i)
}

fn sdwa(i: &mut Instruction, word: u32, ty: Type) {
    i.variant = Variant::Sdwa;
    let code = bits(word, 0, 8);
    let vector = bits(word, 23, 1) == 0;
    let first = if vector { Operand::Vector(code as u16) } else { Operand::Scalar(code as u8) };
    i.src[0] = Source {
        operand: first,
        ty,
        sext: bits(word, 19, 1) == 1,
        neg: bits(word, 20, 1) == 1,
        abs: bits(word, 21, 1) == 1,
    };
    // The operand itself is in the first word; what is put here only says that it is scalar.
    let scalar = bits(word, 31, 1) == 1;
    i.src[1] = Source {
        operand: if scalar { Operand::Scalar(0) } else { Operand::None },
        ty,
        sext: bits(word, 27, 1) == 1,
        neg: bits(word, 28, 1) == 1,
        abs: bits(word, 29, 1) == 1,
    };
    let src = [bits(word, 16, 3) as u8, bits(word, 24, 3) as u8];
    if i.format == Format::Vopc {
        let given = bits(word, 15, 1) == 1;
        i.mask = Operand::Scalar(if given { bits(word, 8, 7) as u8 } else { VCC });
        i.sdwa = Some(Sdwa { dst: 6, unused: 0, src });
    } else {
        i.clamp = bits(word, 13, 1) == 1;
        i.omod = bits(word, 14, 2) as u8;
        let (dst, unused) = (bits(word, 8, 3) as u8, bits(word, 11, 2) as u8);
        i.sdwa = Some(Sdwa { dst, unused, src });
    }
}

fn dpp(i: &mut Instruction, word: u32, ty: Type) {
    i.variant = Variant::Dpp;
    let flag = |n| bits(word, n, 1) == 1;
    let first = Operand::Vector(bits(word, 0, 8) as u16);
    i.src[0] = Source { operand: first, ty, neg: flag(20), abs: flag(21), sext: false };
    i.src[1] = Source { operand: Operand::None, ty, neg: flag(22), abs: flag(23), sext: false };
    i.dpp = Some(Dpp {
        control: bits(word, 8, 9) as u16,
        bound_control: flag(19),
        bank_mask: bits(word, 24, 4) as u8,
        row_mask: bits(word, 28, 4) as u8,
    });
}

/// VOP3 and VOP3P: two words.
pub fn long(first: u32, words: &mut Words) -> Result<Instruction> {
    let opcode = bits(first, 16, 10);
    let packed = opcode >= 0x380;
    let format = if packed { Format::Vop3p } else { Format::Vop3 };
    let number = if packed { opcode - 0x380 } else { opcode };
    let Some(name) = name(format, number as u16) else {
        return unknown(&format!("{format:?} opcode {number:#x}"), first, words);
    };
    let second = words.next()?;
    let mut i = Instruction::new(words.address, format, name);
    // Opcodes below are other encodings', made long.
    i.variant = if opcode < 0x1c0 && !only(name) { Variant::E64 } else { Variant::Only };
    let count = match opcode {
        0x140..=0x1bf => 1,
        0..=0x13f | 0x280..=0x37f | 0x1f0 => 2,
        0x381..=0x388 | 0x38a..=0x38d | 0x38f..=0x392 | 0x3b1..=0x3b3 => 2,
        0x3d8 | 0x3d9 => 1,
        _ => 3,
    };
    let signature = vector_signature(name, count);
    i.sources = signature.src.len() as u8;
    let matrix = (0x3c0..0x3f0).contains(&opcode);
    for (n, ty) in signature.src.iter().enumerate() {
        let code = bits(second, 9 * n as u32, 9);
        if code == 255 || code == SDWA || code == DPP {
            return unknown("literal in a long encoding", first, words);
        }
        let mut source = Source::new(operand(code, *ty, &mut i.literal, words)?, *ty);
        source.neg = bits(second, 29 + n as u32, 1) == 1 && !matrix;
        source.abs =
            !packed && !signature_has_mask(&signature) && bits(first, 8 + n as u32, 1) == 1;
        // Matrix products take their factors from either half of the file.
        let acc = match n {
            0 | 1 => matrix && bits(second, 27 + n as u32, 1) == 1,
            _ => matrix && bits(first, 15, 1) == 1,
        };
        if let (true, Operand::Vector(v)) = (acc, source.operand) {
            source.operand = Operand::Vector(256 + v);
        }
        i.src[n] = source;
    }
    destination(&mut i, &signature, first);
    if matrix {
        matrix_modifiers(&mut i, first, second)?;
    } else {
        i.clamp = bits(first, 15, 1) == 1;
        if packed {
            i.op_sel = bits(first, 11, 3) as u8;
            i.op_sel_hi = (bits(second, 27, 2) | bits(first, 14, 1) << 2) as u8;
            i.neg_hi = bits(first, 8, 3) as u8;
        } else {
            i.omod = bits(second, 27, 2) as u8;
            if !signature_has_mask(&signature) {
                i.op_sel = bits(first, 11, 4) as u8;
            }
        }
    }
    Ok(i)
}

/// VOP3B: a second result stands where absolute values and halves would be chosen.
fn signature_has_mask(signature: &crate::gfx::isa::Signature) -> bool {
    signature.mask && signature.dst.is_some()
}

fn destination(i: &mut Instruction, signature: &crate::gfx::isa::Signature, first: u32) {
    let code = bits(first, 0, 8);
    if signature.mask {
        let at = if signature.dst.is_some() { bits(first, 8, 7) } else { code };
        i.mask = Operand::Scalar(at as u8);
    }
    let Some(ty) = signature.dst else { return };
    i.dst_type = ty;
    let acc =
        i.name == "v_accvgpr_write_b32" || i.name.starts_with("v_mfma") && bits(first, 15, 1) == 1;
    i.dst = match ty {
        Type::Scalar => Operand::Scalar(code as u8),
        _ if acc => Operand::Vector(256 + code as u16),
        _ => Operand::Vector(code as u16),
    };
}

fn matrix_modifiers(i: &mut Instruction, first: u32, second: u32) -> Result<()> {
    if i.name == "v_accvgpr_read_b32" {
        if let Operand::Vector(v) = i.src[0].operand {
            i.src[0].operand = Operand::Vector(256 + v % 256);
        }
        return Ok(());
    }
    if i.name == "v_accvgpr_write_b32" {
        if let Operand::Vector(v) = i.src[0].operand {
            i.src[0].operand = Operand::Vector(v % 256);
        }
        return Ok(());
    }
    let (cbsz, abid, blgp) = (bits(first, 8, 3), bits(first, 11, 4), bits(second, 29, 3));
    // Blocks are shared by as many as there are, at most.
    let blocks = matrix(i.name).map_or(1, |matrix| matrix.blocks) as u32;
    if blgp != 0 || 1 << cbsz > blocks || abid >= 1 << cbsz {
        return Err(GfxError::new(format!(
            "{} with cbsz:{cbsz} abid:{abid} blgp:{blgp} at {:#x} is not known",
            i.name, i.address
        )));
    }
    i.broadcast = Broadcast { size: cbsz as u8, block: abid as u8 };
    Ok(())
}
