//! The golden files, replayed through the public API by what the `halfstep` program uses.
#![allow(missing_docs)]

mod common;
#[path = "../src/bin/halfstep/golden/mod.rs"]
mod golden;

use std::path::{Path, PathBuf};

use safetensors::Dtype;

fn file(op: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{op}.safetensors")].iter().collect()
}

fn read(path: &Path) -> Result<Vec<golden::Case>, String> {
    golden::cases(&std::fs::read(path).map_err(|error| error.to_string())?)
}

fn replay(op: &str, cases: usize, devices: Vec<halfstep::Device>) {
    let found = read(&file(op)).unwrap();
    assert_eq!(found.len(), cases, "{op}: none is left out");
    for device in devices {
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
    replay("gemm", 64, common::product_devices());
}

#[test]
fn linear_backward() {
    replay("linear_backward", 30, common::product_devices());
}

#[test]
fn optimizer() {
    replay("optimizer", 30, common::devices());
}

#[test]
fn clip_grad_norm() {
    replay("clip_grad_norm", 9, common::devices());
}

#[test]
fn loss_scaler() {
    replay("loss_scaler", 2, common::devices());
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
        let cases = read(&path).unwrap();
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
    let path = std::env::temp_dir().join(format!("halfstep-{}-bad", std::process::id()));
    let good = std::fs::read(file("loss_scaler")).unwrap();
    let mut wrong_format = good.clone();
    let at = good.windows(8).position(|w| w == b"golden/1").unwrap();
    wrong_format[at + 7] = b'2';
    let bad: [&[u8]; 6] =
        [b"", b"hello, world", &good[..100], &good[..good.len() - 1], &[0xff; 64], &wrong_format];
    for bytes in bad {
        std::fs::write(&path, bytes).unwrap();
        assert!(read(&path).is_err(), "{} bytes", bytes.len());
    }
    std::fs::remove_file(&path).unwrap();
}

/// A golden file of one case.
fn one_case(case: serde_json::Value, tensors: &[(&str, Dtype, &[usize], &[u8])]) -> golden::Case {
    let views = tensors.iter().map(|&(name, dtype, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap())
    });
    let cases = serde_json::json!([case]).to_string();
    let metadata = [("format", "golden/1"), ("cases", cases.as_str())];
    let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string()));
    let bytes = safetensors::serialize(views, Some(metadata.into())).unwrap();
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("halfstep-{}-one-{count}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let mut cases = read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    cases.remove(0)
}

/// Infinite operands have an infinite bound, which excuses nothing.
#[test]
fn answers_from_infinite_operands_are_compared() {
    let replay = |d: f64| {
        let case = serde_json::json!({
            "name": "inf", "op": "gemm", "inputs": {"a": "a", "b": "b"}, "outputs": {"d": "d"},
            "attrs": {"m": 1, "n": 1, "k": 1, "layout": "nn", "dtype": "f32", "out_dtype": "f32",
                      "alpha": 1, "beta": 0, "activation": "relu", "bias": false, "residual": false},
        });
        let (a, b, d) = (f32::NEG_INFINITY.to_le_bytes(), 1f32.to_le_bytes(), d.to_le_bytes());
        let tensors: [(&str, Dtype, &[usize], &[u8]); 3] = [
            ("a", Dtype::F32, &[1, 1], &a),
            ("b", Dtype::F32, &[1, 1], &b),
            ("d", Dtype::F64, &[1, 1], &d),
        ];
        golden::replay(&halfstep::Device::cpu(), &one_case(case, &tensors))
    };
    assert_eq!(replay(0.0), Ok(0.0));
    assert_eq!(replay(7.0), Ok(f64::INFINITY));
}

/// Sizes cost what their tensors hold: 2^60 rows of nothing are done at once.
#[test]
fn rows_of_nothing_take_no_time() {
    const ROWS: usize = 1 << 60;
    let device = halfstep::Device::cpu();
    let gemm = serde_json::json!({
        "name": "rows", "op": "gemm", "inputs": {"a": "a", "b": "b"}, "outputs": {"d": "d"},
        "attrs": {"m": ROWS, "n": 0, "k": 0, "layout": "nn", "dtype": "f32", "out_dtype": "f32",
                  "alpha": 1, "beta": 0, "activation": "none", "bias": false, "residual": false},
    });
    let none: &[u8] = &[];
    let case = one_case(
        gemm,
        &[
            ("a", Dtype::F32, &[ROWS, 0], none),
            ("b", Dtype::F32, &[0, 0], none),
            ("d", Dtype::F64, &[ROWS, 0], none),
        ],
    );
    assert_eq!(golden::replay(&device, &case), Ok(0.0));
    let backward = serde_json::json!({
        "name": "rows", "op": "linear_backward",
        "attrs": {"dtype": "f32", "activation": "silu", "rows": ROWS, "in_features": 0,
                  "out_features": 0},
        "inputs": {"x": "x", "w": "w", "b": "b", "dy": "x", "main_grad": "w"},
        "outputs": {"preactivation": "z", "d_preactivation": "z", "dx": "z",
                    "dw_accumulated": "dw", "db": "db"},
    });
    let case = one_case(
        backward,
        &[
            ("x", Dtype::F32, &[ROWS, 0], none),
            ("w", Dtype::F32, &[0, 0], none),
            ("b", Dtype::F32, &[0], none),
            ("z", Dtype::F64, &[ROWS, 0], none),
            ("dw", Dtype::F64, &[0, 0], none),
            ("db", Dtype::F64, &[0], none),
        ],
    );
    assert_eq!(golden::replay(&device, &case), Ok(0.0));
}

/// Every answer is compared: dz where there is no activation, and an optimizer's parameters, without
/// which a case shows nothing.
#[test]
fn no_answer_is_left_out() {
    let device = halfstep::Device::cpu();
    let one = 1f32.to_le_bytes();
    let (right, wrong) = (1f64.to_le_bytes(), 1.5f64.to_le_bytes());
    let backward = |dz: &[u8]| {
        let case = serde_json::json!({
            "name": "dz", "op": "linear_backward",
            "attrs": {"dtype": "f32", "activation": "none", "rows": 1, "in_features": 1,
                      "out_features": 1},
            "inputs": {"x": "one", "w": "one", "b": "bias", "dy": "one", "main_grad": "zero"},
            "outputs": {"preactivation": "z", "d_preactivation": "dz", "dx": "z",
                        "dw_accumulated": "z", "db": "db"},
        });
        let zero = 0f32.to_le_bytes();
        let tensors: [(&str, Dtype, &[usize], &[u8]); 6] = [
            ("one", Dtype::F32, &[1, 1], &one),
            ("zero", Dtype::F32, &[1, 1], &zero),
            ("bias", Dtype::F32, &[1], &zero),
            ("z", Dtype::F64, &[1, 1], &right),
            ("dz", Dtype::F64, &[1, 1], dz),
            ("db", Dtype::F64, &[1], &right),
        ];
        golden::replay(&device, &one_case(case, &tensors))
    };
    assert_eq!(backward(&right), Ok(0.0));
    assert_eq!(backward(&wrong), Ok(f64::INFINITY));

    let optimizer = serde_json::json!({
        "name": "no params", "op": "optimizer",
        "attrs": {"optimizer": "sgd", "hyper": {"lr": 0.1}, "grad_dtype": "f32", "loss_scale": 1,
                  "steps": 1, "skipped_steps": []},
        "inputs": {"params": ["p"], "grads0": ["p"]}, "outputs": {},
    });
    let case = one_case(optimizer, &[("p", Dtype::F32, &[1], &one)]);
    let reason = golden::replay(&device, &case).unwrap_err();
    assert!(reason.contains("params"), "{reason}");
}
