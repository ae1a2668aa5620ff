//! Cubins for sm_80, through `cuobjdump`.

use crate::main_loop::{Instruction, Kind, MainLoop};
use crate::{Needs, output, table};

/// Registers, shared memory and threads of one multiprocessor of an A100.
const REGISTERS: u32 = 65_536;
const SHARED: u32 = 164 * 1024;
const WAVES: u32 = 64;
/// What the system keeps of shared memory for each block, and the granule in which a block has it.
const RESERVED: u32 = 1024;
const SHARED_GRANULE: u32 = 128;

/// Every kernel of the image.
pub fn read(image: &str) -> Result<Vec<Needs>, String> {
    let mut kernels = Vec::new();
    let usage = output("cuobjdump", &["-res-usage", image])?;
    let mut name = None;
    for line in usage.lines() {
        if let Some(function) = line.trim().strip_prefix("Function ") {
            name = Some(function.trim_end_matches(':').to_string());
        } else if let Some(kernel) = name.take_if(|_| line.contains("REG:")) {
            let field = |key: &str| {
                let at = line.find(key)? + key.len();
                line[at..].split_whitespace().next()?.parse::<u32>().ok()
            };
            let registers = field("REG:").ok_or("no REG")?;
            let shared = field("SHARED:").unwrap_or(0) + asked(&kernel);
            kernels.push(Needs {
                registers,
                shared,
                scratch: field("STACK:").unwrap_or(0) + field("LOCAL:").unwrap_or(0),
                waves: waves(registers, shared, threads(&kernel)),
                kernel,
                ..Needs::default()
            });
        }
    }
    let code = output("cuobjdump", &["-sass", image])?;
    for function in code.split("Function : ").skip(1) {
        let (name, body) = function.split_once('\n').unwrap_or((function, ""));
        let Some(kernel) = kernels.iter_mut().find(|k| k.kernel == name.trim()) else { continue };
        let mut list = Vec::new();
        for (address, text) in body.lines().filter_map(instruction) {
            count(kernel, text);
            list.push(Instruction { address, target: target(text), kind: kind(text) });
        }
        kernel.main_loop = MainLoop::of(&list);
    }
    Ok(kernels)
}

fn source(kernel: &str) -> Option<table::Source> {
    table::entries().find(|entry| entry.symbol == kernel)?.device
}

/// Threads of a block of a kernel.
fn threads(kernel: &str) -> u32 {
    source(kernel).map_or(table::THREADS, |source| source.team.threads(32))
}

/// Bytes of shared memory that its launches ask for.
fn asked(kernel: &str) -> u32 {
    source(kernel).map_or(0, |source| source.asked)
}

fn waves(registers: u32, shared: u32, threads: u32) -> u32 {
    let of_wave = (registers.max(1) * 32).next_multiple_of(256);
    let by_registers = REGISTERS / of_wave * 32 / threads;
    let by_shared = SHARED / (shared + RESERVED).next_multiple_of(SHARED_GRANULE);
    (by_registers.min(by_shared) * threads / 32).min(WAVES)
}

/// Where `BRA 0x4690` goes, also behind a predicate.
fn target(text: &str) -> Option<u64> {
    let (_, to) = text.strip_prefix("BRA")?.split_once("0x")?;
    u64::from_str_radix(to.split(|c: char| !c.is_ascii_hexdigit()).next()?, 16).ok()
}

fn kind(text: &str) -> Kind {
    match text.split(['.', ' ']).next().unwrap_or("") {
        "HMMA" => Kind::Matrix,
        "LDSM" => Kind::Fragment,
        "LDS" if !text.starts_with("LDS RZ") => Kind::NarrowFragment,
        "LDG" | "LDGSTS" => Kind::Load,
        "STS" => Kind::Write,
        "BAR" => Kind::Barrier,
        _ => Kind::Other,
    }
}

/// Address and text of a line with code, `/*0010*/  @!P0 LDG.E.128 R4, [R2.64] ;`, without the predicate.
fn instruction(line: &str) -> Option<(u64, &str)> {
    let (address, text) = line.trim().strip_prefix("/*")?.split_once("*/")?;
    let text = text.trim();
    let code = address.len() >= 4 && address.len() <= 6 && text.contains(';');
    let text = if text.starts_with('@') { text.split_once(' ')?.1.trim() } else { text };
    code.then_some((u64::from_str_radix(address, 16).ok()?, text))
}

fn count(kernel: &mut Needs, text: &str) {
    kernel.instructions += 1;
    let opcode = text.split_whitespace().next().unwrap_or("");
    let wide = opcode.contains(".128");
    let side = |load: bool, kernel: &mut Needs| {
        let list = if wide { &mut kernel.wide } else { &mut kernel.narrow };
        list[usize::from(!load)] += 1;
    };
    match opcode.split('.').next().unwrap_or("") {
        "LDG" => side(true, kernel),
        "STG" => side(false, kernel),
        "LD" | "ST" => kernel.generic += 1,
        "LDL" | "STL" => kernel.scratch += 1,
        "HMMA" => kernel.matrix += 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CUDA's own occupancy calculator (`cuda_occupancy.h`) has them for compute capability 8.0.
    #[test]
    fn warps_are_those_of_the_vendor() {
        assert_eq!(waves(32, 0, 256), 64);
        assert_eq!(waves(33, 0, 256), 48); // 40 registers, 51 warps, six blocks of eight
        assert_eq!(waves(255, 0, 128), 8);
        assert_eq!(waves(168, 48 * 1024, 128), 12);
        assert_eq!(waves(169, 48 * 1024, 128), 8);
        assert_eq!(waves(16, 163 * 1024, 256), 8);
        // Seven blocks of 23,936 bytes, and not of one byte more.
        assert_eq!(waves(16, 22_912, 256), 56);
        assert_eq!(waves(16, 22_913, 256), 48);
    }
}
