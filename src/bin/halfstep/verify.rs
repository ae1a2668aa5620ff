//! `halfstep verify`: prints what replaying golden files found.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use halfstep::Device;

use crate::output::{Failure, complain};
use crate::{device, golden};

/// Replays the files on the device of that name.
pub fn run(
    files: &[PathBuf],
    name: &str,
    threads: Option<NonZeroUsize>,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let device = device::open(name, threads)
        .map_err(|reason| Failure::Reason(format!("--device {name}: {reason}")))?;
    Ok(print(files, &device, out)?)
}

/// Whether every file could be read and every case passed.
fn print(files: &[PathBuf], device: &Device, out: &mut dyn Write) -> io::Result<bool> {
    writeln!(out, "device: {}", device.info())?;
    let (mut passed, mut failed, mut unreadable) = (0, 0, 0);
    for path in files {
        let cases = match golden::read(path) {
            Ok(cases) => cases,
            Err(reason) => {
                out.flush()?;
                complain("verify", format_args!("{}: {reason}", path.display()));
                unreadable += 1;
                continue;
            }
        };
        for case in cases {
            let (verdict, detail) = match golden::replay(device, &case) {
                Ok(worst) if worst <= 1.0 => ("ok", format!("error {worst:.3} of its bound")),
                Ok(worst) => ("FAILED", format!("error {worst:.3} of its bound")),
                Err(reason) => ("FAILED", reason),
            };
            if verdict == "ok" {
                passed += 1
            } else {
                failed += 1
            }
            writeln!(out, "{verdict:<6} {}/{}: {detail}", case.op, case.name)?;
        }
    }
    if unreadable > 0 {
        writeln!(out, "{unreadable} of {} files could not be read", files.len())?;
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    out.flush()?;
    Ok(failed == 0 && unreadable == 0)
}
