//! The `halfstep` program, run as a user runs it.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn halfstep(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halfstep")).args(args).output().unwrap()
}

fn golden(op: &str) -> String {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{op}.safetensors")]
            .iter()
            .collect();
    path.to_str().unwrap().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn verify_passes_the_golden_files() {
    let files =
        ["gemm", "linear_backward", "optimizer", "clip_grad_norm", "loss_scaler"].map(golden);
    let mut args = vec!["verify"];
    args.extend(files.iter().map(String::as_str));
    let output = halfstep(&args);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.ends_with("135 passed, 0 failed\n"), "{out}");
    assert_eq!(out.lines().count(), 137, "the device, a line a case, the summary");
}

/// A wrong answer, a damaged file and a missing one: each is told, none panics, all exit with 1.
#[test]
fn verify_fails_in_words() {
    let folder = std::env::temp_dir().join(format!("halfstep-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let good = std::fs::read(golden("loss_scaler")).unwrap();
    let path = folder.join("wrong.safetensors");
    let mut wrong = good.clone();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    let output = halfstep(&["verify", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    assert!(
        out.contains("FAILED loss_scaler/scaler1") && out.ends_with("1 passed, 1 failed\n"),
        "{out}"
    );

    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    for file in [path.to_str().unwrap(), "no/such/file"] {
        let output = halfstep(&["verify", file, &golden("loss_scaler")]);
        assert_eq!(output.status.code(), Some(1));
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(error.contains(file) && !error.contains("panicked"), "{error}");
        assert!(out.contains("2 passed, 0 failed"), "the other file is still checked: {out}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn help_and_bad_arguments() {
    let output = halfstep(&["--help"]);
    assert!(output.status.success() && text(&output.stdout).contains("verify"));
    assert_eq!(halfstep(&["verify"]).status.code(), Some(2));
    assert_eq!(halfstep(&["no-such-command"]).status.code(), Some(2));
}
