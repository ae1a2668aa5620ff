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
