//! What the gfx90a suites share: clang where it is there, and running one kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A program of `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|p| p.is_file());
    if found.is_none() {
        println!("skipped: no {name} in PATH (ci/setup-compilers installs it)");
    }
    found
}

/// A name for a file that no other test has.
fn temporary(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(format!("vgpu-{unique}-{name}"))
}

fn run(command: &mut Command, output: &Path) -> Vec<u8> {
    let done = command.output().expect("the compiler runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let bytes = std::fs::read(output).expect("the compiler wrote it");
    let _ = std::fs::remove_file(output);
    bytes
}

/// The compilers there are: clang 15 as hipcc has it, and clang 19.
pub const COMPILERS: [&str; 2] = ["hipcc", "clang-19"];

/// A code object (or a bundle) of a HIP source, compiled as the crate's kernels are.
pub fn compile(compiler: &str, source: &Path, flags: &[&str]) -> Option<Vec<u8>> {
    let output = temporary("code");
    let mut command = Command::new(find(compiler)?);
    if compiler == "hipcc" {
        command.arg("--genco");
    } else {
        command.args(["-x", "hip", "--offload-device-only", "--no-gpu-bundle-output"]);
        command.args(["--rocm-path=/usr", "-Wno-unused-command-line-argument"]);
        // Where Debian has the device libraries.
        let libraries = "/usr/lib/x86_64-linux-gnu/amdgcn/bitcode";
        command.arg(format!("--rocm-device-lib-path={libraries}"));
    }
    command.args(["--offload-arch=gfx90a", "-std=c++17", "-O3", "-ffp-contract=off"]);
    command.args(["-fno-fast-math"]).args(flags).arg("-o").args([&output, source]);
    Some(run(&mut command, &output))
}

/// A code object from assembly.
pub fn assemble(text: &str) -> Option<Vec<u8>> {
    let (source, output) = (temporary("source.s"), temporary("code"));
    std::fs::write(&source, text).expect("a temporary file");
    let mut command = Command::new(find("clang-19")?);
    command.args(["-x", "assembler", "-target", "amdgcn-amd-amdhsa", "-mcpu=gfx90a"]);
    command.arg("-o").args([&output, &source]);
    let bytes = run(&mut command, &output);
    let _ = std::fs::remove_file(&source);
    Some(bytes)
}

/// A kernel in assembly. `s[0:1]` is where its arguments are (two pointers), `s2` the block's index,
/// `v0` the thread's; `lds` bytes of LDS.
pub fn kernel(body: &str, lds: u32) -> String {
    format!(
        r#"
.amdgcn_target "amdgcn-amd-amdhsa--gfx90a"
.text
.globl k
.p2align 8
.type k,@function
k:
{body}
s_endpgm
.Lend:
.size k, .Lend-k
.rodata
.p2align 6
.amdhsa_kernel k
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_next_free_vgpr 128
  .amdhsa_next_free_sgpr 96
  .amdhsa_accum_offset 64
  .amdhsa_group_segment_fixed_size {lds}
  .amdhsa_system_sgpr_workgroup_id_x 1
  .amdhsa_kernarg_size 16
.end_amdhsa_kernel
.amdgpu_metadata
---
amdhsa.version: [1, 1]
amdhsa.kernels:
  - .name: k
    .symbol: k.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: {lds}
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: 64
    .sgpr_count: 96
    .vgpr_count: 128
    .max_flat_workgroup_size: 1024
    .args:
      - {{ .offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global }}
      - {{ .offset: 8, .size: 8, .value_kind: global_buffer, .address_space: global }}
...
.end_amdgpu_metadata
"#
    )
}

/// Disassembles an ELF file: the encoding's bytes and the text of each instruction.
pub fn oracle(object: &[u8], program: &str) -> Option<Vec<(Vec<u8>, String)>> {
    let file = temporary("object");
    std::fs::write(&file, object).expect("a temporary file");
    let mut command = Command::new(find(program)?);
    let done = command.args(["-d", "--mcpu=gfx90a"]).arg(&file).output().expect("it runs");
    let _ = std::fs::remove_file(&file);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let line = |line: &str| {
        let (text, comment) = line.split_once("//")?;
        let words = comment.split_once(':')?.1.split('<').next()?;
        let words = words.split_whitespace().map(|w| u32::from_str_radix(w, 16));
        let words: Vec<u32> = words.collect::<Result<_, _>>().ok()?;
        let bytes = words.into_iter().flat_map(u32::to_le_bytes).collect();
        Some((bytes, text.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    Some(text.lines().filter_map(line).collect())
}
