//! Code objects for gfx90a, through LLVM's tools.

use std::path::Path;

use crate::main_loop::{Instruction, Kind, MainLoop};
use crate::{Needs, output};

/// Vector registers of a SIMD's lane, their granule, and the waves that a SIMD holds at most.
const REGISTERS: u32 = 512;
const GRANULE: u32 = 8;
const WAVES: u32 = 8;
/// LDS of a compute unit, and the granule in which a block has it.
const SHARED: u32 = 64 * 1024;
const SHARED_GRANULE: u32 = 512;

/// Every kernel of the image: an ELF file, or an offload bundle around one.
pub fn read(image: &str) -> Result<Vec<Needs>, String> {
    let bytes = std::fs::read(image).map_err(|error| format!("{image}: {error}"))?;
    let start = bytes.windows(4).position(|w| w == b"\x7fELF").ok_or(format!("{image}: no ELF"))?;
    let elf = Path::new(image).with_extension("elf");
    std::fs::write(&elf, &bytes[start..]).map_err(|error| error.to_string())?;
    let elf = elf.to_string_lossy();
    let mut kernels = Vec::new();
    let notes = tool("readelf", &["--notes", &elf])?;
    let mut now = Needs::default();
    for line in notes.lines() {
        let line = line.trim().trim_start_matches("- ");
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let number = || value.parse::<u32>().unwrap_or(0);
        match key {
            // The first key of a kernel, by alphabet.
            ".agpr_count" => now = Needs::default(),
            ".group_segment_fixed_size" => now.shared = number(),
            ".private_segment_fixed_size" => now.scratch += number(),
            ".vgpr_spill_count" => now.scratch += number(),
            // Scalars that are kept in lanes of a vector register: no memory is touched.
            ".sgpr_spill_count" => now.lanes = number(),
            ".vgpr_count" => now.registers = number(),
            ".name" if value.starts_with("hs_") => now.kernel = value.to_string(),
            ".wavefront_size" if !now.kernel.is_empty() => {
                now.waves = waves(now.registers, now.shared);
                kernels.push(now.clone());
            }
            _ => {}
        }
    }
    let code = tool("objdump", &["-d", "--mcpu=gfx90a", &elf])?;
    // `0000000000001000 <hs_gemm_prepare>:`, then a line an instruction.
    for function in code.split("\n0000").skip(1) {
        let (head, body) = function.split_once('\n').unwrap_or((function, ""));
        let name = head.split(['<', '>']).nth(1).unwrap_or("");
        let Some(kernel) = kernels.iter_mut().find(|k| k.kernel == name) else { continue };
        let start = head.split_whitespace().next().and_then(hex).unwrap_or(0);
        let mut list = Vec::new();
        for line in body.lines().filter(|line| line.starts_with('\t')) {
            count(kernel, line.trim());
            list.extend(instruction(line.trim(), start));
        }
        kernel.main_loop = MainLoop::of(&list);
    }
    Ok(kernels)
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// `s_cbranch_scc0 137    // 00000000ECE4: BF840089 <hs_gemm_prepare+0x50c>`, in a kernel that starts at `start`.
fn instruction(line: &str, start: u64) -> Option<Instruction> {
    let (text, note) = line.split_once("//")?;
    let address = hex(note.split(':').next()?.trim())?;
    let target = note.split_once("+0x").filter(|_| text.contains("branch"));
    let target =
        target.and_then(|(_, at)| hex(at.trim_end().trim_end_matches('>'))).map(|at| start + at);
    let kind = match text.split_whitespace().next()? {
        opcode if opcode.starts_with("v_mfma") => Kind::Matrix,
        "ds_read_b128" => Kind::Fragment,
        opcode if opcode.starts_with("ds_read") => Kind::NarrowFragment,
        opcode if opcode.starts_with("ds_write") => Kind::Write,
        opcode if opcode.starts_with("buffer_load") || opcode.starts_with("global_load") => {
            Kind::Load
        }
        "s_barrier" => Kind::Barrier,
        opcode if opcode.starts_with("v_accvgpr") => Kind::Move,
        _ => Kind::Other,
    };
    Some(Instruction { address, target, kind })
}

fn tool(name: &str, arguments: &[&str]) -> Result<String, String> {
    let names = [format!("llvm-{name}-19"), format!("llvm-{name}-15"), format!("llvm-{name}")];
    let mut last = Err(format!("no llvm-{name}"));
    for name in &names {
        last = output(name, arguments);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn waves(registers: u32, shared: u32) -> u32 {
    let by_registers = REGISTERS / registers.max(1).next_multiple_of(GRANULE);
    // A block of 256 threads is a wave on each SIMD.
    let by_shared = SHARED.checked_div(shared.next_multiple_of(SHARED_GRANULE)).unwrap_or(WAVES);
    by_registers.min(by_shared).min(WAVES)
}

fn count(kernel: &mut Needs, text: &str) {
    let opcode = text.split_whitespace().next().unwrap_or("");
    if opcode == "s_code_end" {
        return;
    }
    kernel.instructions += 1;
    let wide = usize::from(opcode.ends_with("x4"));
    let lists = [&mut kernel.narrow, &mut kernel.wide];
    let [narrow, wide_list] = lists;
    let list = if wide == 1 { wide_list } else { narrow };
    if opcode.starts_with("global_load") || opcode.starts_with("buffer_load") {
        list[0] += 1;
    } else if opcode.starts_with("global_store") || opcode.starts_with("buffer_store") {
        list[1] += 1;
    } else if opcode.starts_with("flat_") {
        kernel.generic += 1;
    } else if opcode.starts_with("scratch_") {
        kernel.scratch += 1;
    } else if opcode.starts_with("v_mfma") {
        kernel.matrix += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As LLVM's AMDGPUUsage has the granules of gfx90a.
    #[test]
    fn waves_are_those_of_the_vendor() {
        assert_eq!(waves(64, 0), 8);
        assert_eq!(waves(65, 0), 7);
        assert_eq!(waves(128, 0), 4);
        assert_eq!(waves(129, 0), 3);
        assert_eq!(waves(512, 0), 1);
        assert_eq!(waves(32, 64 * 1024), 1);
        // Five blocks of 12,800 bytes, and not of one byte more.
        assert_eq!(waves(32, 12_800), 5);
        assert_eq!(waves(32, 12_801), 4);
    }
}
