//! A test that runs another test of the same program as a process of its own, with other settings.

use std::process::{Command, Output, Stdio};

/// Runs the test `name`, which is ignored otherwise, with variables set.
pub fn run(name: &str, variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command.stdin(Stdio::null()).output().expect("it can be run again")
}

/// Everything that it printed.
pub fn text(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}
