//! The outer step, from file to file.
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

#[cfg(target_arch = "x86_64")]
#[path = "common/mode.rs"]
mod mode;

use std::fs;
use std::path::{Path, PathBuf};

use halfstep::reduce::*;
use halfstep::{Error, bf16, f16};
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
    assert!(refused(1.0).to_string().contains(&format!("outer: {}: w[1]", a.display())));
    write(&a, &[1.0]);
    assert!(matches!(refused(1.0), Error::Checkpoint { .. }));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(weight), Error::Range { .. }));
    }
    fs::remove_dir_all(at).unwrap();
}

/// Folders that are missing are what is said of them, not that what would be in them is one file.
#[test]
fn missing_folders_are_named() {
    let at = folder("missing");
    let (m, a) = (at.join("m"), at.join("a"));
    write(&m, &[1.0, 2.0]);
    write(&a, &[1.0, 2.0]);
    let (next, v) = (at.join("1").join("f"), at.join("2").join("f"));
    let workers = [Worker { path: &a, weight: 1.0 }];
    let inputs = OuterInputs { master: &m, momentum: None, workers: &workers };
    let step = |v: &Path| {
        let outputs = OuterOutputs { master: &next, momentum: v, start: None };
        Outer::default().step(inputs, outputs).unwrap_err()
    };
    let error = step(&v);
    let Error::Io { path, .. } = &error else { panic!("{error}") };
    assert_eq!(path, &next.display().to_string());
    assert!(matches!(step(&next), Error::Overlap { .. }));
    fs::remove_dir_all(at).unwrap();
}

/// A file of tensors, each of a type, as values that the type holds.
fn write_all(path: &Path, tensors: &[(&str, Dtype, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, values)| match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, dtype, values), bytes)| {
        (*name, TensorView::new(*dtype, vec![values.len(), 1], bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn read_tensor(path: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

/// Multiples of 1/128 below 1 in magnitude: all three types hold them.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % 255) as f32 / 128.0 - 127.0 / 128.0
    };
    (0..len).map(|_| next()).collect()
}

/// Against the formula, written down naively, over three steps, several tensors, types and pieces.
#[test]
fn files_have_the_bits_of_the_formula() {
    let at = folder("formula");
    let (m, v, start) = (at.join("m"), at.join("v"), at.join("start"));
    let workers: Vec<PathBuf> = (0..3).map(|i| at.join(format!("worker{i}"))).collect();
    let weights = [0.3, 2.0, 11.0];
    let shapes = [("a", 1usize), ("b.weight", 1000), ("empty", 0), ("z", 333)];
    for (nesterov, piece) in [(true, 7), (true, 1 << 18), (false, 1000)] {
        let rule = Outer { learning_rate: 0.7, momentum: 0.9, nesterov, piece, ..Outer::default() };
        let mut masters: Vec<Vec<f32>> = Vec::new();
        let mut tensors = Vec::new();
        for (i, &(name, len)) in shapes.iter().enumerate() {
            let one: Vec<f32> = values(len, i as u32).iter().map(|v| v * 1.234_567).collect();
            tensors.push((name, Dtype::F32, one.clone()));
            masters.push(one);
        }
        write_all(&m, &tensors);
        let mut momenta: Vec<Vec<f32>> = shapes.iter().map(|&(_, len)| vec![0.0; len]).collect();
        for step in 0..3u32 {
            let types = [Dtype::F32, Dtype::BF16, Dtype::F16];
            let mut all = Vec::new();
            for (w, path) in workers.iter().enumerate() {
                let tensors: Vec<_> = shapes
                    .iter()
                    .enumerate()
                    .rev() // another order than the master's
                    .map(|(i, &(name, len))| {
                        (name, types[w], values(len, 100 * step + 10 * w as u32 + i as u32))
                    })
                    .collect();
                write_all(path, &tensors);
                all.push(tensors);
            }
            let list: Vec<Worker<'_>> =
                workers.iter().zip(weights).map(|(path, weight)| Worker { path, weight }).collect();
            let momentum = (step > 0).then_some(v.as_path());
            let inputs = OuterInputs { master: &m, momentum, workers: &list };
            let outputs = OuterOutputs { master: &m, momentum: &v, start: Some(&start) };
            let report = rule.step(inputs, outputs).unwrap();
            assert_eq!((report.step, report.tensors, report.elements), (step as u64 + 1, 4, 1334));
            for (i, &(name, len)) in shapes.iter().enumerate() {
                let mut bits = (Vec::new(), Vec::new(), Vec::new());
                for e in 0..len {
                    let (theta, old) = (f64::from(masters[i][e]), f64::from(momenta[i][e]));
                    let mut delta = 0.0;
                    for (tensors, weight) in all.iter().zip(weights) {
                        let (_, _, values) = &tensors[shapes.len() - 1 - i];
                        delta += weight * (theta - f64::from(values[e]));
                    }
                    delta /= 0.3 + 2.0 + 11.0;
                    let velocity = 0.9 * old + delta;
                    let way = if nesterov { delta + 0.9 * velocity } else { velocity };
                    masters[i][e] = (theta - 0.7 * way) as f32;
                    momenta[i][e] = velocity as f32;
                    bits.0.extend(masters[i][e].to_le_bytes());
                    bits.1.extend(momenta[i][e].to_le_bytes());
                    bits.2.extend(bf16::from_f32(masters[i][e]).to_le_bytes());
                }
                let found = [&m, &v, &start].map(|path| read_tensor(path, name));
                assert!(found == [bits.0, bits.1, bits.2], "{name}, step {step}, piece {piece}");
            }
        }
    }
    fs::remove_dir_all(at).unwrap();
}

/// A library that flushes subnormals, or rounds upwards, in our thread changes no bit of the files.
#[cfg(target_arch = "x86_64")]
#[test]
fn files_do_not_depend_on_the_floating_point_mode() {
    let at = folder("mode");
    let [m, worker, next, v] = ["m", "worker", "next", "v"].map(|name| at.join(name));
    let tiny = f32::from_bits(0x0012_3457);
    write(&m, &[tiny, 1.0, 0.3]);
    write(&worker, &[0.0, 0.1, tiny]);
    let run = || {
        let workers = [Worker { path: &worker, weight: 0.7 }];
        let inputs = OuterInputs { master: &m, momentum: None, workers: &workers };
        let outputs = OuterOutputs { master: &next, momentum: &v, start: None };
        Outer::default().step(inputs, outputs).unwrap();
        [&next, &v].map(|path| fs::read(path).unwrap())
    };
    let expected = run();
    for foreign in mode::FOREIGN {
        assert!(mode::within(foreign, run) == expected, "mode {foreign:#x}");
    }
    fs::remove_dir_all(at).unwrap();
}

/// With lr 1 and no momentum, one worker's parameters are the next master.
#[test]
fn one_worker_is_followed() {
    let at = folder("one");
    let (m, v, a) = (at.join("m"), at.join("v"), at.join("a"));
    let arrived: Vec<f32> = values(501, 3).iter().map(|v| v * 0.987_654_3).collect();
    write(&m, &values(501, 2));
    write(&a, &arrived);
    let rule = Outer { learning_rate: 1.0, momentum: 0.0, piece: 64, ..Outer::default() };
    let workers = [Worker { path: &a, weight: 0.1 }];
    let inputs = OuterInputs { master: &m, momentum: None, workers: &workers };
    rule.step(inputs, OuterOutputs { master: &m, momentum: &v, start: None }).unwrap();
    assert_eq!(read(&m), arrived);
    fs::remove_dir_all(at).unwrap();
}

/// What does not fit, file by file; nothing is written, and nothing is left beside the files.
#[test]
fn files_that_do_not_fit_are_named() {
    let at = folder("fit");
    let (m, v, a, old) = (at.join("m"), at.join("v"), at.join("a"), at.join("old"));
    let rule = Outer { learning_rate: 0.5, momentum: 0.5, piece: 2, ..Outer::default() };
    let step = |momentum: Option<&Path>, worker: &Path| {
        let workers = [Worker { path: worker, weight: 1.0 }];
        let inputs = OuterInputs { master: &m, momentum, workers: &workers };
        rule.step(inputs, OuterOutputs { master: &m, momentum: &v, start: None })
    };
    write(&m, &[1.0, 2.0, 3.0]);
    write(&a, &[1.0, 1.0, 1.0]);
    step(None, &a).unwrap();
    fs::copy(&v, &old).unwrap();
    step(Some(&v), &a).unwrap();
    let kept = [fs::read(&m).unwrap(), fs::read(&v).unwrap()];
    let refused = |momentum: Option<&Path>, worker: &Path, words: &str| {
        let error = step(momentum, worker).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!([fs::read(&m).unwrap(), fs::read(&v).unwrap()] == kept, "{words}");
        assert_eq!(fs::read_dir(&at).unwrap().count(), 4, "{words}");
        error
    };
    assert!(matches!(refused(None, &a, "momentum of step 2"), Error::State { .. }));
    refused(Some(&old), &a, "outer_step"); // of step 1
    refused(Some(&v), &old, "outer_step"); // as a worker, too
    assert!(matches!(refused(Some(&v), &m, "overlap"), Error::Overlap { .. }));
    write_all(&a, &[("x", Dtype::F32, vec![1.0; 3])]);
    refused(Some(&v), &a, "a: w");
    write_all(&a, &[("w", Dtype::F32, vec![1.0; 3])]); // of shape [3, 1]
    refused(Some(&v), &a, "shape [3]");
    let bytes: Vec<u8> = vec![0; 12];
    let view = TensorView::new(Dtype::I32, vec![3], &bytes).unwrap();
    safetensors::serialize_to_file([("w", view)], None, &a).unwrap();
    refused(Some(&v), &a, "I32");
    write(&a, &[1.0, 1.0, 1.0]);
    let whole = fs::read(&a).unwrap();
    fs::write(&a, &whole[..whole.len() - 1]).unwrap();
    refused(Some(&v), &a, "bytes");
    write(&a, &[1.0, 1.0, 1.0]);
    // A byte of the momentum that has changed.
    let mut damaged = fs::read(&v).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&old, &damaged).unwrap();
    let error = step(Some(&old), &a).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    // The first step towards the end of f32 stays inside it.
    write(&a, &[1.0, f32::MAX, 1.0]);
    step(Some(&v), &a).unwrap();
    let error = step(Some(&v), &a).unwrap_err();
    assert!(error.to_string().contains("m: w[1]: expected a finite result"), "{error}");
    fs::remove_dir_all(at).unwrap();
}

/// A worker that has broken down counts for nothing, in any tensor; if all have, nothing is done.
#[test]
fn broken_workers_are_left_out() {
    let at = folder("out");
    let (m, v, a, b) = (at.join("m"), at.join("v"), at.join("a"), at.join("b"));
    write(&m, &[4.0, 4.0, 4.0]);
    write(&a, &[0.0, 0.0, f32::INFINITY]);
    write(&b, &[2.0, 2.0, 2.0]);
    let on_non_finite = OnNonFinite::LeaveOut;
    let rule =
        Outer { learning_rate: 1.0, momentum: 0.0, on_non_finite, piece: 1, ..Outer::default() };
    let workers = [Worker { path: &a, weight: 1.0 }, Worker { path: &b, weight: 1.0 }];
    let outputs = OuterOutputs { master: &m, momentum: &v, start: None };
    let inputs = OuterInputs { master: &m, momentum: None, workers: &workers };
    assert_eq!(rule.step(inputs, outputs).unwrap().left_out, [0]);
    assert_eq!(read(&m), [2.0; 3]);
    let inputs = OuterInputs { workers: &workers[..1], ..inputs };
    assert!(matches!(rule.step(inputs, outputs), Err(Error::Range { .. })));
    fs::remove_dir_all(at).unwrap();
}
