//! Records: `<machine>/<date>.csv`, the lines, and `<machine>/<date>.txt`, what they were measured with.
//! No name of a host, a user or a folder is in them.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Outcome, data, write};
use crate::doctor::{on_path, output};
use crate::output::Failure;
use crate::suite;
use crate::{built, machine};

/// What comes before the lines.
pub fn heading(outcome: &Outcome) -> String {
    let mut text = format!("halfstep {}\n", env!("CARGO_PKG_VERSION"));
    for device in &outcome.devices {
        text += &format!("{device}\n");
    }
    for line in suite::roof_lines(&outcome.roofs) {
        text += &format!("{line}\n");
    }
    text + suite::LEGEND + "\n" + &suite::header() + "\n"
}

/// Writes both files, `tail` after the table; a record of the same day is replaced.
pub fn keep(outcome: &Outcome, table: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let date = date(SystemTime::now());
    let folder = folder.join(name(&outcome.gpus));
    let mut csv =
        String::from("op,case,size,device,seconds,gflops,gbytes_per_s,share,roof,speedup\n");
    for line in &outcome.lines {
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
        csv += &format!(
            "{},\"{}\",{},{},{:.6e},{:.3},{:.3},{},{},{}\n",
            line.op,
            line.name,
            line.size,
            line.device,
            line.seconds,
            line.gflops(),
            line.gbs(),
            number(line.share),
            data::roof(line.roof).unwrap_or_default(),
            number(line.speedup),
        );
    }
    let flags = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "asimd"];
    let mut text = String::new();
    for (key, value) in [
        ("date", date.clone()),
        ("commit", built::commit()),
        ("compiler", built::compiler().into()),
        ("kernels", built::device_compilers().into()),
        ("processor", machine::described()),
        ("threads", machine::threads().to_string()),
        ("clocks", machine::clocks()),
        ("flags", machine::flags(&flags).join(" ")),
        (
            "memory",
            machine::memory("MemTotal").map_or("unknown".into(), |b| format!("{:.1} GB", 1e-9 * b)),
        ),
        ("load", load()),
        ("gpu", gpus(&outcome.gpus).unwrap_or_else(|| "none".into())),
        ("driver", driver(!outcome.gpus.is_empty())),
    ] {
        text += &format!("{key:<10} {value}\n");
    }
    text += &format!("\n{table}");
    let put = |content: String| {
        move |path: &Path| {
            std::fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
        }
    };
    write(&folder, &format!("{date}.txt"), put(text))?;
    write(&folder, &format!("{date}.csv"), put(csv))
}

/// The first one, and how many there are: a node's are alike.
fn gpus(names: &[String]) -> Option<String> {
    Some(match names {
        [] => return None,
        [gpu] => gpu.clone(),
        [gpu, ..] => format!("{gpu} x{}", names.len()),
    })
}

/// The folder of this machine: what of its GPUs was measured, `nvidia-a100-sxm4-40gb-x4`, or its processor and its
/// threads, `amd-epyc-family-26-2t`.
fn name(gpu_names: &[String]) -> String {
    let name = match gpus(gpu_names) {
        Some(gpu) => gpu.to_lowercase(),
        None => {
            let mut name = machine::processor().to_lowercase();
            // Several generations are called the same in virtual machines, some of which have instructions that others hide.
            if !name.contains(|c: char| c.is_ascii_digit()) {
                let avx2 = machine::flags(&["avx2", "avx512f"]) == ["avx2"];
                name += &format!(" {} {}", machine::family(), if avx2 { "avx2" } else { "" });
            }
            format!("{name} {}t", machine::threads())
        }
    };
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric());
    let noise = ["", "r", "tm", "cpu", "processor"];
    let name = parts.filter(|part| !noise.contains(part)).collect::<Vec<_>>().join("-");
    if name.is_empty() { "unknown".into() } else { name }
}

/// What the vendors' programs say of driver and clocks.
fn driver(wanted: bool) -> String {
    let queries: [(&str, &[&str]); 2] = [
        (
            "nvidia-smi",
            &[
                "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit",
                "--format=csv,noheader",
            ],
        ),
        ("rocm-smi", &["--showdriverversion", "--csv"]),
    ];
    let said = queries
        .iter()
        .filter(|_| wanted)
        .find_map(|(program, args)| on_path(program).and_then(|path| output(&path, args)));
    let said = said.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let amd = wanted.then(amd_clocks).flatten();
    let all: Vec<String> = said.into_iter().chain(amd).collect();
    if all.is_empty() { "none".into() } else { all.join("; ") }
}

/// The highest clocks that amdgpu knows of the first GPU that has some.
fn amd_clocks() -> Option<String> {
    let of = |card: usize, clock: &str| {
        let path = format!("/sys/class/drm/card{card}/device/pp_dpm_{clock}");
        highest(&std::fs::read_to_string(path).ok()?)
    };
    let clocks = |card| Some(format!("sclk {}, mclk {}", of(card, "sclk")?, of(card, "mclk")?));
    (0..64).find_map(clocks)
}

/// The last state's of `0: 500Mhz`, `1: 1700Mhz *`.
fn highest(states: &str) -> Option<String> {
    let (_, clock) = states.lines().last()?.split_once(':')?;
    Some(clock.trim_end_matches('*').trim().to_string())
}

/// What else was running: the load averages.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<&str> = text.split_whitespace().take(3).collect();
    if averages.is_empty() { "unknown".into() } else { averages.join(" ") }
}

/// Year, month and day (UTC), by Hinnant's algorithm for civil dates.
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let day = seconds / 86_400 + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // from March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + 400 * era, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", if month <= 2 { year + 1 } else { year })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn clocks_of_amds_are_their_last_states() {
        let states = "0: 500Mhz\n1: 800Mhz *\n2: 1700Mhz\n";
        assert_eq!(highest(states).as_deref(), Some("1700Mhz"));
        assert_eq!(highest("0: 1600Mhz *").as_deref(), Some("1600Mhz"));
        assert_eq!(highest(""), None);
    }

    #[test]
    fn the_machines_folder_is_a_plain_name() {
        let own = name(&[]);
        assert!(own.ends_with('t') && !own.contains("--"), "{own}");
        assert!(own.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{own}");
        let several = |gpu: &str, count| name(&vec![gpu.to_string(); count]);
        assert_eq!(several("NVIDIA A100-SXM4-40GB", 1), "nvidia-a100-sxm4-40gb");
        assert_eq!(several("NVIDIA A100-SXM4-40GB", 4), "nvidia-a100-sxm4-40gb-x4");
        assert_eq!(several("AMD Instinct(TM) MI250X / ../x", 1), "amd-instinct-mi250x-x");
        assert_eq!(several("/", 1), "unknown");
    }
}
