//! Lines as data, and two sets of them side by side.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::Outcome;
use crate::output::Failure;
use crate::suite::{Line, Roof, Traffic};
use crate::{built, input, machine};

const FORMAT: &str = "halfstep bench/1";

/// Everything.
pub fn json(outcome: &Outcome) -> Value {
    let roofs = outcome.roofs.iter().map(|roofs| {
        let [f32, bf16, f16] = roofs.flops;
        let mut value = json!({
            "device": roofs.device,
            "threads": roofs.threads,
            "flops_per_second": f32,
            "bf16_flops_per_second": bf16,
            "f16_flops_per_second": f16,
            "computed_flops_per_second": roofs.computed.map(|peak| peak.f32_flops),
            "computed_matrix_flops_per_second": roofs.computed.map(|peak| peak.matrix_flops),
            "computed_bytes_per_second": roofs.computed.map(|peak| peak.bytes),
        });
        for traffic in Traffic::ALL {
            let name = format!("{}_bytes_per_second", traffic.name().replace([' ', '-'], "_"));
            value[name] = json!(roofs.bandwidth(traffic));
        }
        value
    });
    let lines = outcome.lines.iter().map(|line| {
        json!({
            "op": line.op,
            "case": line.name,
            "size": line.size,
            "device": line.device,
            "seconds": line.seconds,
            "flops": line.flops,
            "bytes": line.bytes,
            "share": line.share,
            "roof": roof(line.roof),
            "speedup": line.speedup,
        })
    });
    json!({
        "format": FORMAT,
        "commit": built::commit(),
        "processor": machine::described(),
        "devices": outcome.devices,
        "roofs": roofs.collect::<Value>(),
        "lines": lines.collect::<Value>(),
    })
}

/// Which roof, in a word.
pub fn roof(roof: Option<Roof>) -> Option<&'static str> {
    roof.map(|roof| match roof {
        Roof::Arithmetic(_) => "flops",
        Roof::Memory => "bytes",
    })
}

/// Another run.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    commit: String,
    processor: String,
    devices: Vec<String>,
    lines: Vec<Timed>,
}

/// A line of it: what tells it apart, and its seconds.
#[derive(Debug, Clone, PartialEq)]
struct Timed {
    key: [String; 4],
    seconds: f64,
}

/// What tells a line apart.
fn key(line: &Line) -> [&String; 4] {
    [&line.op, &line.name, &line.size, &line.device]
}

/// Reads what `--json` printed.
pub fn read(path: &Path) -> Result<Before, Failure> {
    let wrong = |reason: String| Failure::Reason(format!("{}: {reason}", path.display()));
    let value = input::json(path).map_err(wrong)?;
    if value["format"] != FORMAT {
        return Err(wrong(format!("expected format {FORMAT:?}, found {}", value["format"])));
    }
    let lines = value["lines"].as_array().ok_or_else(|| wrong("has no lines".into()))?;
    let line = |(index, line): (usize, &Value)| {
        let word = |name: &str| line[name].as_str().map(str::to_string);
        let key = [word("op"), word("case"), word("size"), word("device")];
        match (key, line["seconds"].as_f64()) {
            ([Some(op), Some(case), Some(size), Some(device)], Some(seconds)) if seconds > 0.0 => {
                Ok(Timed { key: [op, case, size, device], seconds })
            }
            _ => Err(wrong(format!("line {index}: expected op, case, size, device, seconds"))),
        }
    };
    let devices = value["devices"].as_array().into_iter().flatten();
    let devices = devices.filter_map(|device| device.as_str().map(str::to_string)).collect();
    let lines: Result<Vec<Timed>, Failure> = lines.iter().enumerate().map(line).collect();
    let said = |name: &str| value[name].as_str().unwrap_or("unknown").to_string();
    Ok(Before { commit: said("commit"), processor: said("processor"), devices, lines: lines? })
}

/// What both are of, and the lines that both have, with how much faster they have become.
pub fn compare(before: &Before, outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nbefore: commit {} on {}", before.commit, before.processor)?;
    writeln!(out, "now:    commit {} on {}", built::commit(), machine::described())?;
    let other: Vec<_> =
        before.devices.iter().filter(|device| !outcome.devices.contains(device)).collect();
    for device in other {
        writeln!(out, "before, it was measured on another device: {device}")?;
    }
    writeln!(
        out,
        "\n{:>10} {:>10} {:>7}  times faster than before",
        "before ms", "now ms", "ratio"
    )?;
    let (mut logs, mut alone, mut count) = (0.0, 0, 0);
    for line in &outcome.lines {
        let Some(old) = before.lines.iter().find(|old| old.key.iter().eq(key(line))) else {
            alone += 1;
            continue;
        };
        let ratio = old.seconds / line.seconds;
        (logs, count) = (logs + ratio.ln(), count + 1);
        writeln!(
            out,
            "{:>10.3} {:>10.3} {ratio:>7.2}  {} {} {} {}",
            1e3 * old.seconds,
            1e3 * line.seconds,
            line.op,
            line.name,
            line.size,
            line.device
        )?;
    }
    if count > 0 {
        let mean = (logs / count as f64).exp();
        writeln!(out, "{:>10} {:>10} {mean:>7.2}  geometric mean of {count}", "", "")?;
    }
    if alone > 0 {
        writeln!(out, "{alone} lines have no counterpart there")?;
    }
    let now = |old: &&Timed| outcome.lines.iter().any(|line| old.key.iter().eq(key(line)));
    let gone = before.lines.len() - before.lines.iter().filter(now).count();
    if gone > 0 {
        writeln!(out, "{gone} lines of it were not measured now")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, seconds: f64) -> Line {
        let (op, size, device) = ("gemm".into(), "1".into(), "cpu×1".into());
        let (name, share, speedup) = (name.into(), Some(0.5), None);
        let roof = Some(Roof::Memory);
        Line { op, name, size, device, seconds, flops: 1.0, bytes: 1.0, roof, share, speedup }
    }

    /// What `json` writes `read` reads, and half the time is twice as fast.
    #[test]
    fn a_comparison_finds_its_counterparts() {
        let outcome = |device: &str, lines| {
            let (devices, gpus, roofs) = (vec![device.to_string()], Vec::new(), Vec::new());
            Outcome { devices, gpus, roofs, lines }
        };
        let lines = ["a", "b", "gone"].into_iter().zip([2.0, 8.0, 1.0]);
        let lines = lines.map(|(name, seconds)| line(name, seconds)).collect();
        let mut before = json(&outcome("one", lines));
        assert_eq!(before["processor"], machine::described());
        before["processor"] = "a slower one".into();
        before["commit"] = json!(null); // as in files of old
        let path = std::env::temp_dir().join(format!("halfstep-data-{}.json", std::process::id()));
        std::fs::write(&path, before.to_string()).unwrap();
        let before = read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let now = outcome("another", vec![line("a", 1.0), line("b", 1.0), line("c", 1.0)]);
        let mut out = Vec::new();
        compare(&before, &now, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("before, it was measured on another device: one"), "{out}");
        assert!(out.contains("  2000.000   1000.000    2.00  gemm a 1 cpu×1"), "{out}");
        assert!(out.contains("   4.00  geometric mean of 2"), "{out}");
        assert!(out.contains("1 lines have no counterpart"), "{out}");
        assert!(out.contains("1 lines of it were not measured now"), "{out}");
        assert!(out.contains("before: commit unknown on a slower one\nnow:    commit "), "{out}");
    }
}
