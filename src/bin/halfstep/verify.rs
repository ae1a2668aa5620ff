//! `halfstep verify`: golden files, given or built in, and a sweep of seeded cases, on any device.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::output::{Failure, complain};
use crate::sweep::{self, Devices, Group, Run};
use crate::{device, golden, input};

/// The files that the program brings along, by their operations.
const GOLDEN: [(&str, &[u8]); 5] = [
    ("gemm", include_bytes!("../../../tests/golden/gemm.safetensors")),
    ("linear_backward", include_bytes!("../../../tests/golden/linear_backward.safetensors")),
    ("optimizer", include_bytes!("../../../tests/golden/optimizer.safetensors")),
    ("clip_grad_norm", include_bytes!("../../../tests/golden/clip_grad_norm.safetensors")),
    ("loss_scaler", include_bytes!("../../../tests/golden/loss_scaler.safetensors")),
];

/// Failures of a group that are printed.
const PRINTED: usize = 5;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Golden files, in place of what is built in.
    files: Vec<PathBuf>,
    /// Where: `cpu`, `cpu:FORM` of its products (`cpu:portable`), `cuda:N` or `hip:N`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Threads of the CPU backend; as many as there are cores unless given.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
}

/// Runs the cases on the device of that name.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let name = &args.device;
    let device = device::open(name, args.threads)
        .map_err(|reason| Failure::Reason(format!("--device {name}: {reason}")))?;
    let devices = Devices::new(device)?;
    writeln!(out, "device: {}", devices.device.info())?;
    match args.files.is_empty() {
        true => print(args, &devices, built_in(&devices)?, out),
        false => given(args, &devices, out),
    }
}

/// A line a case: whether every file could be read and every case passed.
fn given(args: &Args, devices: &Devices, out: &mut dyn Write) -> Result<bool, Failure> {
    let (mut passed, mut failed, mut unreadable) = (0, 0, 0);
    for path in &args.files {
        let cases = match input::read(path).and_then(|bytes| golden::cases(&bytes)) {
            Ok(cases) => cases,
            Err(reason) => {
                out.flush()?;
                complain("verify", format_args!("{}: {reason}", path.display()));
                unreadable += 1;
                continue;
            }
        };
        for case in cases.iter().filter(|case| label(case).contains(&args.filter)) {
            let (verdict, detail) = match golden::replay(&devices.device, case) {
                Ok(worst) if worst <= 1.0 => ("ok", format!("error {worst:.3} of its bound")),
                Ok(worst) => ("FAILED", format!("error {worst:.3} of its bound")),
                Err(reason) => ("FAILED", reason),
            };
            if verdict == "ok" {
                passed += 1
            } else {
                failed += 1
            }
            writeln!(out, "{verdict:<6} {}: {detail}", label(case))?;
        }
    }
    if passed + failed + unreadable == 0 {
        return Err(nothing(args));
    }
    if unreadable > 0 {
        writeln!(out, "{unreadable} of {} files could not be read", args.files.len())?;
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    out.flush()?;
    Ok(failed == 0 && unreadable == 0)
}

/// The golden files of this program, and the sweep.
fn built_in(devices: &Devices) -> Result<Vec<Group>, Failure> {
    let golden: Result<Vec<Group>, Failure> = GOLDEN.map(golden_group).into_iter().collect();
    Ok(golden?.into_iter().chain(sweep::groups(devices)).collect())
}

/// A line a group: whether every case passed.
fn print(
    args: &Args,
    devices: &Devices,
    groups: Vec<Group>,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let (mut passed, mut failed, mut first) = (0, 0, None);
    for mut group in groups {
        group.cases.retain(|(name, _)| name.contains(&args.filter));
        if group.cases.is_empty() {
            continue;
        }
        let (mut worst, mut failures) = (0.0f64, Vec::new());
        for (name, run) in &group.cases {
            match run(devices) {
                Ok(share) => worst = worst.max(share),
                Err(reason) => failures.push((name, reason)),
            }
        }
        let count = group.cases.len();
        (passed, failed) = (passed + count - failures.len(), failed + failures.len());
        if failures.is_empty() {
            let bits = if group.bits { "same bits, " } else { "" };
            writeln!(
                out,
                "ok     {}: {count} cases, {bits}error {worst:.3} of its bound",
                group.name
            )?;
            continue;
        }
        writeln!(out, "FAILED {}: {} of {count} cases", group.name, failures.len())?;
        for (name, reason) in failures.iter().take(PRINTED) {
            writeln!(out, "         {name}: {reason}")?;
        }
        if failures.len() > PRINTED {
            writeln!(out, "         and {} more", failures.len() - PRINTED)?;
        }
        first = first.or_else(|| failures.first().map(|(name, _)| name.to_string()));
    }
    if passed + failed == 0 {
        return Err(nothing(args));
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    if let Some(first) = first {
        let threads = args.threads.map_or(String::new(), |threads| format!(" --threads {threads}"));
        let device = &args.device;
        writeln!(
            out,
            "the first again: halfstep verify --device {device}{threads} --filter \"{first}\""
        )?;
    }
    Ok(failed == 0)
}

/// Where nothing is checked, nothing has passed.
fn nothing(args: &Args) -> Failure {
    Failure::Reason(match args.filter.as_str() {
        "" => "there are no cases".to_string(),
        filter => format!("no case contains {filter:?}"),
    })
}

/// What filters look at.
fn label(case: &golden::Case) -> String {
    format!("{}/{}", case.op, case.name)
}

/// A golden file as a group.
fn golden_group((name, bytes): (&str, &[u8])) -> Result<Group, Failure> {
    let cases = golden::cases(bytes).map_err(|reason| format!("{name}: {reason}"))?;
    let case = |case: golden::Case| {
        let name = label(&case);
        let run: Run = Box::new(move |devices| match golden::replay(&devices.device, &case)? {
            worst if worst <= 1.0 => Ok(worst),
            worst => Err(format!("error {worst:.3} of its bound")),
        });
        (name, run)
    };
    Ok(Group {
        name: format!("golden {name}"),
        bits: false,
        cases: cases.into_iter().map(case).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fails is told, so that it can be run again; the rest of its group and other groups are not lost.
    #[test]
    fn failures_are_told() {
        let cases = |wrong: bool| -> Vec<(String, Run)> {
            let second: Run = match wrong {
                true => Box::new(|_| Err("d[3] is 1e0, the reference's 2e0".into())),
                false => Box::new(|_| Ok(0.25)),
            };
            vec![("a first".into(), Box::new(|_| Ok(0.5))), ("a second".into(), second)]
        };
        let print = |wrong: bool, filter: &str| {
            let device = halfstep::Device::cpu();
            let threads = NonZeroUsize::new(3);
            let (files, device_name) = (Vec::new(), "cpu:portable".to_string());
            let args = Args { files, device: device_name, threads, filter: filter.into() };
            let group =
                |name: &str, wrong| Group { name: name.into(), bits: true, cases: cases(wrong) };
            let groups = vec![group("one", wrong), group("two", false)];
            let mut out = Vec::new();
            let good = super::print(&args, &Devices::new(device).unwrap(), groups, &mut out);
            (good.ok(), String::from_utf8(out).unwrap())
        };
        let (good, text) = print(true, "");
        assert_eq!(good, Some(false));
        assert_eq!(
            text,
            "FAILED one: 1 of 2 cases\n         a second: d[3] is 1e0, the reference's 2e0\n\
             ok     two: 2 cases, same bits, error 0.500 of its bound\n3 passed, 1 failed\n\
             the first again: halfstep verify --device cpu:portable --threads 3 --filter \"a second\"\n"
        );
        assert_eq!(print(true, "first").0, Some(true));
        assert_eq!(print(false, "").0, Some(true));
        assert_eq!(print(false, "third"), (None, String::new()));
    }
}
