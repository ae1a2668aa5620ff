//! `halfstep bench`: the suite of `cargo bench`, with pictures, data and comparisons.

mod data;
mod record;
mod roofline;
mod summary;

use std::fs::OpenOptions;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use halfstep::{Device, DeviceKind};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{Failure, complain};
use crate::suite::{self, Bandwidth, Line, Roofs};
use crate::{chart, device};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// What is measured; everything unless given.
    #[arg(value_parser = PossibleValuesParser::new(suite::OPS))]
    ops: Vec<String>,
    /// Only what has this in its operation, case, size or workload (`wav2vec2-base-mlp`, `llama-3-8b-gate`, …).
    #[arg(long, default_value = "")]
    filter: String,
    /// Where: `cpu` (with one thread, and with all), `cpu:FORM` of its products (`cpu:amx-bf16`), `cuda:N` or `hip:N`, `cuda` or
    /// `hip` (every one); the CPU and every GPU unless given. Where these are several GPUs, a gradient reduction runs over all of them, too.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// How often each case is timed; medians are printed.
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZeroUsize,
    /// Elements of the large arrays; 20 million, or more where caches are large, unless given.
    #[arg(long, value_name = "N", value_parser = length)]
    len: Option<usize>,
    /// Print one JSON object instead; or, with a file (`--json=FILE`), write it there besides.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = STDOUT)]
    json: Option<PathBuf>,
    /// Draw a roofline for each device into this folder.
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Compare with what `--json` printed before.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Keep the lines, and what the machine is, as FOLDER/<machine>/<date>.{csv,txt}.
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

/// The file that is no file.
const STDOUT: &str = "-";

fn length(text: &str) -> Result<usize, String> {
    let expected = "expected a number from 10000 to 10000000000";
    let len: usize = text.parse().map_err(|_| expected.to_string())?;
    if (10_000..=10_000_000_000).contains(&len) { Ok(len) } else { Err(expected.into()) }
}

/// Everything that was measured.
pub struct Outcome {
    pub devices: Vec<String>,
    /// The names of the GPUs that were measured.
    pub gpus: Vec<String>,
    pub roofs: Vec<Roofs>,
    pub lines: Vec<Line>,
}

/// Measures and prints. False if a case was wrong or could not be run; the others are still measured.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let instead = args.json.as_deref() == Some(Path::new(STDOUT));
    if instead && args.compare.is_some() {
        let reason = "--compare prints a table: with it, --json needs a file (--json=FILE)";
        return Err(Failure::Reason(reason.into()));
    }
    // What cannot be read is found before minutes are spent.
    let before = args.compare.as_deref().map(data::read).transpose()?;
    let asked = |op: &&str| args.ops.is_empty() || args.ops.iter().any(|asked| asked == op);
    let ops: Vec<&str> = suite::OPS.into_iter().filter(asked).collect();
    // A device that cannot be opened is told of, and the others are measured.
    let (devices, broken) = devices(args.device.as_deref())?;
    let mut failures = broken.len();
    broken.iter().for_each(|reason| complain("bench", reason));
    let mut entries = suite::entries(&ops, args.len.unwrap_or_else(suite::large), &devices);
    entries.retain(|entry| entry.label().contains(&args.filter));
    if entries.is_empty() {
        let reason = format!("no case of {} contains {:?}", ops.join(", "), args.filter);
        return Err(Failure::Reason(reason));
    }
    // Nor are minutes spent on what cannot be kept.
    let name = format!(".halfstep-{}", std::process::id());
    for folder in args.svg.iter().chain(&args.record) {
        write(folder, &name, writable)?;
    }
    if let Some(file) = args.json.as_deref().filter(|_| !instead) {
        writable(file)?;
    }
    // Drawn on standard error, and only if that is a terminal.
    let bar = ProgressBar::new(entries.len() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta:>4} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message("roofs");
    bar.tick();
    let mut meter = Bandwidth::new(64 << 20)?; // 256 MB
    let roofs = Roofs::of(&mut meter, &devices, &entries).map_err(Failure::Reason)?;
    let mut outcome = Outcome {
        devices: devices.iter().map(|device| device.info().to_string()).collect(),
        gpus: devices
            .iter()
            .map(Device::info)
            .filter(|info| info.kind != DeviceKind::Cpu)
            .map(|info| info.name.clone())
            .collect(),
        roofs,
        lines: Vec::new(),
    };
    let mut text = record::heading(&outcome);
    if !instead {
        bar.suspend(|| write!(out, "{text}").and_then(|()| out.flush()))?;
    }
    bar.reset_eta();
    for entry in &entries {
        bar.set_message(entry.label());
        match suite::measure(entry, &devices, args.rounds.get(), &mut meter, &outcome.roofs) {
            Ok(lines) => {
                let rows: String = lines.iter().map(|line| suite::row(line) + "\n").collect();
                if !instead {
                    bar.suspend(|| out.write_all(rows.as_bytes()).and_then(|()| out.flush()))?;
                }
                text += &rows;
                outcome.lines.extend(lines);
            }
            Err(reason) => {
                failures += 1;
                bar.suspend(|| complain("bench", &reason));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut summary = summary::summary(&outcome.lines);
    if let Some(len) = args.len.filter(|len| *len < suite::large()) {
        summary += &format!(
            "arrays of {len} elements may stay in caches, which are faster than memory, their roof\n"
        );
    }
    if !instead {
        write!(out, "{summary}")?;
    }
    text += &summary;
    if let Some(folder) = &args.svg {
        for (name, chart) in roofline::charts(&outcome) {
            write(folder, &format!("{name}.svg"), |path| chart::write_svg(&chart, path))?;
        }
    }
    if let Some(folder) = &args.record {
        let kept = record::keep(&outcome, &text, folder)?;
        if !instead {
            writeln!(out, "kept as {}", kept.display())?;
        }
    }
    if let Some(file) = &args.json {
        let text = format!("{:#}\n", data::json(&outcome));
        match instead {
            true => out.write_all(text.as_bytes())?,
            false => std::fs::write(file, text)
                .map_err(|error| format!("{}: {error}", file.display()))?,
        }
    }
    if let Some(before) = before {
        data::compare(&before, &outcome, out)?;
    }
    Ok(failures == 0)
}

/// The devices of a name, or all there are, with why some cannot be opened.
fn devices(name: Option<&str>) -> Result<(Vec<Device>, Vec<String>), Failure> {
    let Some(name) = name else {
        return Ok(suite::devices());
    };
    if let "cuda" | "hip" = name {
        let (mut all, mut broken) = suite::gpus();
        all.retain(|device| suite::kind_name(device) == name);
        broken.retain(|reason| reason.starts_with(&format!("{name}:")));
        if !all.is_empty() {
            return Ok((all, broken));
        } // else the first one says why
    }
    let threads = match name.split(':').next() {
        Some("cpu") => suite::threads().into_iter().map(Some).collect(),
        _ => vec![None],
    };
    let open = |threads| device::open(name, threads);
    let devices: Result<Vec<Device>, String> = threads.into_iter().map(open).collect();
    let devices = devices.map_err(|reason| format!("--device {name}: {reason}"))?;
    Ok((devices, Vec::new()))
}

/// Whether a file could be written; what it holds is kept, and it is not made.
fn writable(path: &Path) -> Result<(), String> {
    let new = !path.exists();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| format!("{}: {error}", path.display()))?;
    if new {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Writes a file of a folder, which is made.
fn write(
    folder: &Path,
    name: &str,
    content: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = folder.join(name);
    content(&path)?;
    Ok(path)
}
