//! The processor, its memory, and how many threads this process may use.

use std::num::NonZeroUsize;

use halfstep::Device;

use super::finding::Finding;
use crate::machine;

pub fn look() -> Vec<Finding> {
    let device = Device::cpu();
    let info = device.info();
    let online = machine::threads();
    let mut found = vec![Finding::fine(format!(
        "{}; kernels for {}; {} of {online} hardware threads",
        machine::processor(),
        info.arch,
        info.units
    ))];
    if info.arch == "portable" {
        found.push(Finding::note(
            "no AVX2 with FMA and no AVX-512: results have the same bits, slowly",
        ));
    }
    if Device::cpu_with_arch(NonZeroUsize::MIN, "amx-bf16").is_ok() {
        found.push(Finding::note(
            "AMX: Device::cpu_with_arch(threads, \"amx-bf16\") multiplies bf16 several times as fast, in an order of its own; --device cpu:amx-bf16 times it",
        ));
    }
    if info.units < online {
        found.push(Finding::note(format!(
            "this process is bound to {} of {online} threads (taskset, a container, or a job's binding)",
            info.units
        )));
    }
    match (machine::memory("MemTotal"), machine::memory("MemAvailable")) {
        (Some(total), Some(free)) => found.push(Finding::fine(format!(
            "memory: {:.1} GB, {:.1} GB of it available",
            1e-9 * total,
            1e-9 * free
        ))),
        _ => found.push(Finding::note("memory: /proc/meminfo cannot be read")),
    }
    match machine::flags(&["avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16", "asimd"]) {
        flags if flags.is_empty() => {}
        flags => found.push(Finding::fine(format!("has {}", flags.join(", ")))),
    }
    found
}
