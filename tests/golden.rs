//! The golden files, replayed through the public API by what the `halfstep` program uses.
#![allow(missing_docs)]

mod common;
#[path = "../src/bin/halfstep/golden/mod.rs"]
mod golden;

use std::path::{Path, PathBuf};

fn file(op: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{op}.safetensors")].iter().collect()
}

fn replay(op: &str, cases: usize) {
    let found = golden::read(&file(op)).unwrap();
    assert_eq!(found.len(), cases, "{op}: none is left out");
    for device in common::devices() {
        let mut worst = ("", 0.0);
        for case in &found {
            assert_eq!(case.op, op);
            let ratio = golden::replay(&device, case)
                .unwrap_or_else(|reason| panic!("{op}/{}: {reason}", case.name));
            assert!(ratio <= 1.0, "{op}/{}: {ratio} of its bound", case.name);
            if ratio > worst.1 {
                worst = (&case.name, ratio);
            }
        }
        println!("{op}: {} cases, worst {:.3} of its bound ({})", found.len(), worst.1, worst.0);
    }
}

#[test]
fn gemm() {
    replay("gemm", 64);
}

#[test]
fn linear_backward() {
    replay("linear_backward", 30);
}

#[test]
fn optimizer() {
    replay("optimizer", 30);
}

#[test]
fn clip_grad_norm() {
    replay("clip_grad_norm", 9);
}

#[test]
fn loss_scaler() {
    replay("loss_scaler", 2);
}

/// A file that was changed in one answer fails: the comparison is not vacuous.
#[test]
fn a_changed_answer_fails() {
    for op in ["gemm", "linear_backward", "optimizer", "clip_grad_norm", "loss_scaler"] {
        let bytes = std::fs::read(file(op)).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        // Every f64 and the scaler's numbers a little larger: outputs are the f64 tensors.
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let mut changed = bytes.clone();
        for (_, info) in metadata.tensors() {
            let range = 8 + header + info.data_offsets.0..8 + header + info.data_offsets.1;
            let grow = |chunk: &mut [u8]| match info.dtype {
                safetensors::Dtype::F64 => {
                    let value = f64::from_le_bytes(chunk.try_into().unwrap());
                    chunk.copy_from_slice(&(value * 1.02 + 1e-3).to_le_bytes());
                }
                _ => chunk[0] ^= 1,
            };
            match info.dtype {
                safetensors::Dtype::F64 => changed[range].chunks_exact_mut(8).for_each(grow),
                safetensors::Dtype::I32 => changed[range].chunks_exact_mut(4).for_each(grow),
                _ => {}
            }
        }
        let path = std::env::temp_dir().join(format!("halfstep-{}-{op}", std::process::id()));
        std::fs::write(&path, changed).unwrap();
        let cases = golden::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let device = halfstep::Device::cpu();
        let wrong =
            |case: &&golden::Case| !matches!(golden::replay(&device, case), Ok(r) if r <= 1.0);
        let caught = cases.iter().filter(wrong).count();
        println!("{op}: {caught} of {} changed cases fail", cases.len());
        assert_eq!(caught, cases.len(), "{op}");
    }
}

/// What is not a golden file is refused in words.
#[test]
fn unreadable_files_are_errors() {
    let reason = golden::read(Path::new("no such file")).err().unwrap();
    assert!(!reason.is_empty());
    let path = std::env::temp_dir().join(format!("halfstep-{}-bad", std::process::id()));
    let good = std::fs::read(file("loss_scaler")).unwrap();
    let mut wrong_format = good.clone();
    let at = good.windows(8).position(|w| w == b"golden/1").unwrap();
    wrong_format[at + 7] = b'2';
    let bad: [&[u8]; 6] =
        [b"", b"hello, world", &good[..100], &good[..good.len() - 1], &[0xff; 64], &wrong_format];
    for bytes in bad {
        std::fs::write(&path, bytes).unwrap();
        assert!(golden::read(&path).is_err(), "{} bytes", bytes.len());
    }
    std::fs::remove_file(&path).unwrap();
}
