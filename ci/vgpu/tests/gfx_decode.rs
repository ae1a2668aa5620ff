//! The decoder against the vendor's disassembler: every instruction of what compilers made, and
//! samples of the rest, must print the same text.

mod common;

use common::gfx::{COMPILERS, assemble, compile, kernel, oracle};
use common::root;
use halfstep_vgpu::gfx::disassemble;

/// The gfx90a part of a bundle, found by its magic number.
fn elf(file: &[u8]) -> Vec<u8> {
    let at = file.windows(6).position(|w| w == b"\x7fELF\x02\x01").expect("an ELF file");
    file[at..].to_vec()
}

/// Compares all instructions; returns how many there were.
fn same(object: &[u8], program: &str) -> usize {
    let Some(list) = oracle(object, program) else { return 0 };
    let mut wrong = Vec::new();
    for (bytes, text) in &list {
        let text = text.split("/*").next().unwrap_or_default().trim();
        // Padding between kernels.
        if text.starts_with("s_code_end") || text.is_empty() {
            continue;
        }
        match disassemble(bytes) {
            Ok((own, size)) if own == text && size == bytes.len() => {}
            Ok((own, size)) => wrong.push(format!("{bytes:02x?}: `{own}` ({size}), not `{text}`")),
            Err(error) => wrong.push(format!("{text}: {error}")),
        }
    }
    wrong.sort();
    wrong.dedup();
    let shown = wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {}:\n{shown}", wrong.len(), list.len());
    list.len()
}

#[test]
fn what_compilers_emit_is_printed_as_they_print_it() {
    let kernels = root().join("kernels");
    let includes: Vec<String> =
        ["hip", "common"].iter().map(|f| format!("-I{}", kernels.join(f).display())).collect();
    let flags: Vec<&str> = includes.iter().map(String::as_str).collect();
    for (compiler, objdump) in COMPILERS.into_iter().zip(["llvm-objdump-15", "llvm-objdump-19"]) {
        for source in ["reduce.hip", "gemm.hip", "adamw.hip", "mixed.hip"] {
            let path = root().join("ci/vgpu/tests/kernels").join(source);
            let Some(object) = compile(compiler, &path, &flags) else { continue };
            println!("{source} {compiler}: {} instructions", same(&elf(&object), objdump));
        }
    }
}

/// Encodings that those kernels do not have: modifiers, parts, lanes, atomics, all matrix products.
#[test]
fn samples_of_every_encoding() {
    let Some(object) = assemble(&kernel(include_str!("kernels/encodings.s"), 64)) else { return };
    println!("{} instructions", same(&object, "llvm-objdump-19"));
}

/// Any object whose path is given: other people's kernels.
#[test]
fn objects_given_by_path() {
    let Ok(list) = std::env::var("VGPU_OBJECTS") else { return };
    for path in list.split(':').filter(|p| !p.is_empty()) {
        let object = std::fs::read(path).expect("a file that can be read");
        println!("{path}: {} instructions", same(&elf(&object), "llvm-objdump-19"));
    }
}

/// All opcodes of all encodings, with operands that fit most of them. What is printed must be the
/// same; what the disassembler does not know must not be known here either. The reverse is allowed,
/// and listed.
#[test]
fn every_opcode_has_the_name_that_the_disassembler_gives_it() {
    let mut words = Vec::new();
    let mut add = |first: u32, second: u32| words.extend([first, second, 0xbf80_0000, 0xbf80_0000]);
    // In place of a second word, an instruction that stands for itself.
    const NOP: u32 = 0xbf80_0000;
    (0..0x60).for_each(|n| add(0x8000_0000 | n << 23 | 4 << 16 | 6 << 8 | 8, NOP));
    (0..0x1c).for_each(|n| add(0xb000_0000 | n << 23 | 4 << 16 | 0x1801, NOP));
    (0..0x60).for_each(|n| add(0xbe80_0000 | 4 << 16 | n << 8 | 6, NOP));
    (0..0x40).for_each(|n| add(0xbf00_0000 | n << 16 | 6 << 8 | 8, NOP));
    (0..0x100).for_each(|n| add(0xc000_0000 | n << 18 | 1 << 17 | 8 << 6 | 2, 0x10));
    (0..0x3e).for_each(|n| add(n << 25 | 4 << 17 | 6 << 9 | 0x108, NOP));
    (0..0x100).for_each(|n| add(0x7e00_0000 | 4 << 17 | n << 9 | 0x106, NOP));
    (0..0x100).for_each(|n| add(0x7c00_0000 | n << 17 | 6 << 9 | 0x108, NOP));
    for sources in [0x108, 0x108 | 0x10a << 9, 0x108 | 0x10a << 9 | 0x10c << 18] {
        (0..0x380).for_each(|n| add(0xd000_0000 | n << 16 | 4, sources));
        (0..0x40).for_each(|n| add(0xd380_4000 | n << 16 | 4, sources | 3 << 27));
        (0x40..0x80).for_each(|n| add(0xd380_0000 | n << 16 | 4, sources));
        (0x40..0x80).for_each(|n| add(0xd380_8000 | n << 16 | 4, sources | 3 << 27));
    }
    for registers in
        [2, 2 | 4 << 8, 2 | 4 << 8 | 8 << 16, 2 | 12 << 24, 2 | 4 << 8 | 8 << 16 | 12 << 24]
    {
        (0..0x100).for_each(|n| add(0xd800_0000 | n << 17 | 0x10, registers));
    }
    for (segment, glc) in [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)] {
        for registers in [2 | 4 << 8 | 0x7f << 16, 2 | 0x7f << 16 | 12 << 24, 2 | 4 << 8 | 12 << 24]
        {
            let first = 0xdc00_0000 | segment << 14 | glc << 16;
            (0..0x80).for_each(|n| add(first | n << 18, registers));
        }
    }
    for flags in [0, 1 << 12, 1 << 14] {
        (0..0x80)
            .for_each(|n| add(0xe000_0000 | n << 18 | flags, 2 | 4 << 8 | 2 << 16 | 0x80 << 24));
    }
    let list: Vec<String> = words.iter().map(|w| format!(".long {w:#x}")).collect();
    let Some(object) = assemble(&kernel(&list.join("\n"), 0)) else { return };
    let Some(list) = oracle(&object, "llvm-objdump-19") else { return };
    assert!(list.len() > 10_000);
    let (mut wrong, mut unknown, mut same) = (Vec::new(), std::collections::BTreeSet::new(), 0);
    for (bytes, text) in &list {
        // Operands that do not fit are named so; no assembler would write them.
        if text.contains("Invalid register") || text.contains("/*") {
            continue;
        }
        match disassemble(bytes) {
            Ok((own, size)) if own == *text && size == bytes.len() => same += 1,
            Ok((own, _)) => wrong.push(format!("{bytes:02x?}: `{own}`, not `{text}`")),
            Err(_) if text.starts_with(".long") => {}
            Err(_) => _ = unknown.insert(text.split(' ').next().unwrap_or_default().to_string()),
        }
    }
    println!("{same} agree; not known here: {unknown:?}");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong[..wrong.len().min(60)].join("\n"));
}
