//! How commands end: with what they found, quietly where nobody listens any more, or in one line.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command could not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// The arguments or the machine; one line that says which.
    Reason(String),
    /// Standard output.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

impl From<halfstep::Error> for Failure {
    fn from(error: halfstep::Error) -> Self {
        Self::Reason(error.to_string())
    }
}

/// A line on standard error, from a command; where that is closed, nobody is told.
pub fn complain(command: &str, what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "halfstep {command}: {what}");
}

/// Runs a command on standard output. `Ok(false)` is a finding (exit status 1), as a failure is; a
/// closed pipe ends the output and is not spoken of.
pub fn run(name: &str, command: impl FnOnce(&mut dyn Write) -> Result<bool, Failure>) -> ExitCode {
    let mut out = io::stdout().lock();
    let result = command(&mut out).and_then(|good| {
        out.flush()?;
        Ok(good)
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(Failure::Output(error)) => {
            complain(name, format_args!("writing the report: {error}"));
            ExitCode::FAILURE
        }
        Err(Failure::Reason(reason)) => {
            complain(name, reason);
            ExitCode::FAILURE
        }
    }
}
