//! The instruction set as data: opcodes, names, and what the operands of each are.

mod memory;
mod scalar;
mod signature;
mod vector;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use signature::{Signature, Type, matrix, scalar_signature, vector_signature};

/// Encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Sop2,
    Sopk,
    Sop1,
    Sopc,
    Sopp,
    Smem,
    Vop2,
    Vop1,
    Vopc,
    Vop3,
    Vop3p,
    Ds,
    Flat,
    Mubuf,
}

static NAMES: LazyLock<HashMap<(Format, u16), &'static str>> = LazyLock::new(|| {
    let mut names = HashMap::new();
    for (format, table) in [
        (Format::Sop2, scalar::SOP2),
        (Format::Sopk, scalar::SOPK),
        (Format::Sop1, scalar::SOP1),
        (Format::Sopc, scalar::SOPC),
        (Format::Sopp, scalar::SOPP),
        (Format::Smem, scalar::SMEM),
        (Format::Vop2, vector::VOP2),
        (Format::Vop1, vector::VOP1),
        (Format::Vop3, vector::VOP3),
        (Format::Vop3p, vector::VOP3P),
        (Format::Ds, memory::DS),
        (Format::Flat, memory::FLAT),
        (Format::Mubuf, memory::MUBUF),
    ] {
        for line in table.lines().filter(|line| !line.is_empty()) {
            let mut words = line.split(' ');
            let first = words.next().and_then(|w| u16::from_str_radix(w, 16).ok());
            for (i, name) in words.enumerate() {
                names.insert((format, first.expect("an opcode") + i as u16), name);
            }
        }
    }
    for (opcode, name) in vector::comparisons() {
        names.insert((Format::Vopc, opcode), &*name.leak());
    }
    names
});

/// The name of an opcode.
pub fn name(format: Format, opcode: u16) -> Option<&'static str> {
    let find = |format, opcode| NAMES.get(&(format, opcode)).copied();
    match (format, opcode) {
        (Format::Vop3, 0..0x100) => find(Format::Vopc, opcode),
        (Format::Vop3, 0x100..0x140) => find(Format::Vop2, opcode - 0x100),
        (Format::Vop3, 0x140..0x1c0) => find(Format::Vop1, opcode - 0x140),
        _ => find(format, opcode),
    }
}
