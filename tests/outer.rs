//! The outer step, from file to file.
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use halfstep::Error;
use halfstep::reduce::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("halfstep-outer-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn write(path: &Path, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).unwrap();
    safetensors::serialize_to_file([("w", view)], None, path).unwrap();
}

fn read(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor("w").unwrap().data().to_vec();
    data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// Two steps worked by hand, in numbers that f32 holds: lr 1/2, momentum 1/2.
#[test]
fn nesterov_by_hand_for_any_piece() {
    let at = folder("hand");
    let (m, v, a, b) = (at.join("m"), at.join("v"), at.join("a"), at.join("b"));
    for piece in [1, 2, 100] {
        write(&m, &[8.0, 0.0, -4.0]);
        write(&a, &[0.0, 0.0, -4.0]);
        write(&b, &[8.0, 4.0, -4.0]);
        let rule = Outer { learning_rate: 0.5, momentum: 0.5, piece, ..Outer::default() };
        let workers = [Worker { path: &a, weight: 3.0 }, Worker { path: &b, weight: 1.0 }];
        let outputs = OuterOutputs { master: &m, momentum: &v, start: None };
        rule.step(OuterInputs { master: &m, momentum: None, workers: &workers }, outputs).unwrap();
        // Delta (6, -1, 0); direction 1.5 times that.
        assert_eq!((read(&m), read(&v)), (vec![3.5, 0.75, -4.0], vec![6.0, -1.0, 0.0]));
        write(&a, &[3.5, 0.75, -4.0]);
        let inputs = OuterInputs { master: &m, momentum: Some(&v), workers: &workers[..1] };
        let report = rule.step(inputs, outputs).unwrap();
        // Delta 0; velocity (3, -0.5, 0); direction half of that.
        assert_eq!(report.step, 2);
        assert_eq!((read(&m), read(&v)), (vec![2.75, 0.875, -4.0], vec![3.0, -0.5, 0.0]));
    }
    fs::remove_dir_all(at).unwrap();
}

#[test]
fn faults_leave_files_untouched() {
    let at = folder("faults");
    let (m, v, a) = (at.join("m"), at.join("v"), at.join("a"));
    write(&m, &[1.0, 2.0]);
    let before = fs::read(&m).unwrap();
    let refused = |weight: f64| {
        let workers = [Worker { path: &a, weight }];
        let inputs = OuterInputs { master: &m, momentum: None, workers: &workers };
        let outputs = OuterOutputs { master: &m, momentum: &v, start: None };
        let error = Outer { piece: 1, ..Outer::default() }.step(inputs, outputs).unwrap_err();
        assert_eq!(fs::read(&m).unwrap(), before);
        assert_eq!(fs::read_dir(&at).unwrap().count(), 2);
        error
    };
    write(&a, &[1.0, f32::NAN]);
    assert!(refused(1.0).to_string().contains(&format!("{}: w[1]", a.display())));
    write(&a, &[1.0]);
    assert!(matches!(refused(1.0), Error::Checkpoint { .. }));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(weight), Error::Range { .. }));
    }
    fs::remove_dir_all(at).unwrap();
}
