//! Caches that operands can stay in from call to call.

use std::collections::BTreeSet;
use std::fs;

use halfstep::{Device, DeviceKind};

/// Bytes of a GPU's that has the largest of those we know (H100: 50 MiB), and some more.
const OF_A_GPU: usize = 64 << 20;
/// Of a processor that does not say. (Linux says.)
const OF_A_CPU: usize = 64 << 20;

/// Bytes of the processors' last caches together.
pub fn last_level() -> usize {
    let read = |path: String| fs::read_to_string(path).ok();
    let mut caches = BTreeSet::new();
    for cpu in 0.. {
        let cpu = format!("/sys/devices/system/cpu/cpu{cpu}/cache");
        // The last of a processor's; several processors have one in common.
        let last = (0..8).rev().find_map(|i| {
            let size = read(format!("{cpu}/index{i}/size"))?;
            Some((read(format!("{cpu}/index{i}/shared_cpu_list"))?, size))
        });
        let Some(cache) = last else { break };
        caches.insert(cache);
    }
    let bytes: usize = caches.iter().filter_map(|(_, size)| bytes(size.trim())).sum();
    if bytes > 0 { bytes } else { OF_A_CPU }
}

/// What `32768K` is.
fn bytes(text: &str) -> Option<usize> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    let number: usize = text[..text.len() - unit.len()].parse().ok()?;
    number.checked_shl(shift)
}

/// How many copies of an operand of so many bytes are read by turns, so that none is in a cache when its turn comes.
pub fn copies(device: &Device, bytes: usize) -> usize {
    let cache = match device.info().kind {
        DeviceKind::Cpu => last_level(),
        _ => OF_A_GPU,
    };
    2 * cache / bytes.max(1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let found = ["512", "48K", "32768K", "2M", "1G", "", "K", "1T", "x"].map(bytes);
        let known = [512, 48 << 10, 32 << 20, 2 << 20, 1 << 30].map(Some);
        assert_eq!(found, [known.as_slice(), &[None; 4]].concat()[..]);
        assert!(last_level() >= 1 << 18);
    }

    #[test]
    fn copies_are_beyond_the_caches() {
        let device = Device::cpu();
        for bytes in [1 << 20, 33 << 20, 10 << 30] {
            let copies = copies(&device, bytes);
            // All that come between two turns of one.
            assert!(copies == 1 || (copies - 1) * bytes > last_level(), "{bytes} {copies}");
        }
    }
}
