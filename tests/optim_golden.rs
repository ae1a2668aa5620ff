//! Golden cases recorded with PyTorch, replayed through the public API. A case passes when every
//! value is within the bound that the arithmetic promises (`optim::bound`), never a tuned constant.
#![allow(missing_docs)]

mod common;

use common::devices;
use halfstep::optim::bound::{Enclosure, Trajectory};
use halfstep::optim::*;
use halfstep::{Device, Read, Storage, Write, bf16, f16};
use safetensors::SafeTensors;
use serde_json::Value;

struct File {
    bytes: Vec<u8>,
    cases: Vec<Value>,
}

fn open(name: &str) -> File {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let cases = &metadata.metadata().as_ref().unwrap()["cases"];
    let cases: Value = serde_json::from_str(cases).unwrap();
    File { bytes, cases: cases.as_array().unwrap().clone() }
}

impl File {
    fn read<T: bytemuck::Pod>(&self, name: &str) -> Vec<T> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    fn list<T: bytemuck::Pod>(&self, case: &Value, side: &str, role: &str) -> Vec<Vec<T>> {
        let names = case[side][role].as_array().unwrap_or_else(|| panic!("{role}"));
        names.iter().map(|name| self.read(name.as_str().unwrap())).collect()
    }
}

fn rule(name: &str, hyper: &Value) -> Rule {
    let number = |name: &str| hyper[name].as_f64().unwrap_or(0.0);
    let flag = |name: &str| hyper[name].as_bool().unwrap_or(false);
    let (lr, eps, weight_decay) = (number("lr"), number("eps"), number("weight_decay"));
    let (beta1, beta2) = (number("beta1"), number("beta2"));
    let amsgrad = flag("amsgrad");
    match name {
        "adamw" => AdamW { lr, beta1, beta2, eps, weight_decay, amsgrad }.into(),
        "adam" => Adam { lr, beta1, beta2, eps, weight_decay, amsgrad }.into(),
        "lamb" => Lamb { lr, beta1, beta2, eps, weight_decay }.into(),
        "lion" => Lion { lr, beta1, beta2, weight_decay }.into(),
        "sgd" => Sgd {
            lr,
            momentum: number("momentum"),
            dampening: number("dampening"),
            weight_decay,
            nesterov: flag("nesterov"),
        }
        .into(),
        "adagrad" => Adagrad {
            lr,
            lr_decay: number("lr_decay"),
            weight_decay,
            initial_accumulator_value: number("initial_accumulator_value"),
            eps,
        }
        .into(),
        other => panic!("{other}"),
    }
}

fn reads<T: Storage>(tensors: &[Vec<T>]) -> Vec<Option<&dyn Read<T>>> {
    tensors.iter().map(|tensor| Some(tensor as &dyn Read<T>)).collect()
}

fn writes<T: Storage>(tensors: &mut [Vec<T>]) -> Vec<&mut dyn Write<T>> {
    tensors.iter_mut().map(|tensor| tensor as &mut dyn Write<T>).collect()
}

/// The worst error over its bound; also that our exact history is PyTorch's.
fn worst(found: &[f32], expected: &[f64], bounds: &[Enclosure]) -> f64 {
    assert_eq!((found.len(), expected.len()), (bounds.len(), bounds.len()));
    let mut worst = 0.0f64;
    for ((&found, &expected), bound) in found.iter().zip(expected).zip(bounds) {
        let drift = (bound.value - expected).abs();
        assert!(drift <= 1e-12 * (1.0 + expected.abs()), "{} is not {expected}", bound.value);
        worst = worst.max(Enclosure { value: expected, ..*bound }.ratio(f64::from(found)));
    }
    worst
}

fn optimizer_case<G: Storage>(device: &Device, file: &File, case: &Value) -> f64 {
    let attrs = &case["attrs"];
    let rule = rule(attrs["optimizer"].as_str().unwrap(), &attrs["hyper"]);
    let scale = attrs["loss_scale"].as_f64().unwrap();
    let skipped = attrs["skipped_steps"].as_array().unwrap();
    let stream = device.stream().unwrap();
    let mut params: Vec<Vec<f32>> = file.list(case, "inputs", "params");
    let tensors = params.iter().enumerate().map(|(i, p)| Tensor::new(format!("t{i}"), p.len()));
    let config = Config { scaler: Scaler::Fixed(scale), ..Config::default() };
    let groups = [Group::new(rule).tensors(tensors)];
    let mut optimizer = Optimizer::<f32, G>::new(device, &groups, config).unwrap();
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| v.into()).collect() };
    let mut ways: Vec<_> = params.iter().map(|p| Trajectory::new(rule, &wide(p))).collect();
    for step in 0..attrs["steps"].as_u64().unwrap() {
        let grads: Vec<Vec<G>> = file.list(case, "inputs", &format!("grads{step}"));
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        let report = optimizer.report(&stream).unwrap();
        let skip = skipped.iter().any(|s| s.as_u64() == Some(step));
        assert_eq!(report.skipped.is_some(), skip, "step {step}");
        if !skip {
            for (way, grad) in ways.iter_mut().zip(&grads) {
                let exact: Vec<f64> = grad.iter().map(|g| g.widen().into()).collect();
                way.step(&exact, 1.0 / scale);
            }
        }
    }
    let mut ratio = 0.0f64;
    let outputs = case["outputs"].as_object().unwrap();
    for (role, _) in outputs {
        let expected: Vec<Vec<f64>> = file.list(case, "outputs", role);
        for (tensor, (way, expected)) in ways.iter().zip(&expected).enumerate() {
            let this = match optimizer.slots().iter().position(|slot| slot == role) {
                Some(slot) => {
                    let found = optimizer.moment(&stream, slot, tensor).unwrap();
                    worst(&found, expected, way.slot(slot))
                }
                None => worst(&params[tensor], expected, way.params()),
            };
            ratio = ratio.max(this);
        }
    }
    ratio
}

#[test]
fn optimizers_are_pytorchs() {
    let file = open("optimizer");
    for device in devices() {
        for case in &file.cases {
            let ratio = match case["attrs"]["grad_dtype"].as_str().unwrap() {
                "bf16" => optimizer_case::<bf16>(&device, &file, case),
                "f16" => optimizer_case::<f16>(&device, &file, case),
                _ => optimizer_case::<f32>(&device, &file, case),
            };
            println!("{} {ratio:.3} of its bound", case["name"]);
            assert!(ratio <= 1.0, "{}: {ratio}", case["name"]);
        }
    }
}

fn clip_case<G: Storage>(device: &Device, file: &File, case: &Value) -> f64 {
    let attrs = &case["attrs"];
    let stream = device.stream().unwrap();
    let grads: Vec<Vec<G>> = file.list(case, "inputs", "grads");
    let tensors = grads.iter().enumerate().map(|(i, g)| Tensor::new(format!("t{i}"), g.len()));
    let config = Config {
        clip: attrs["max_norm"].as_f64(),
        scaler: Scaler::Fixed(attrs["loss_scale"].as_f64().unwrap()),
        ..Config::default()
    };
    let groups = [Group::new(Sgd::default()).tensors(tensors)];
    let mut optimizer = Optimizer::<f32, G>::new(device, &groups, config).unwrap();
    optimizer.stats(&stream, &reads(&grads)).unwrap();
    optimizer.control(&stream, Source::Own, &reads(&grads)).unwrap();
    let report = optimizer.report(&stream).unwrap();
    let total: f64 = file.read(case["outputs"]["total_norm"].as_str().unwrap())[0];
    // Unscaling a gradient is one f32 rounding, its square exact, sums f64.
    let unit = 2f64.powi(-24);
    let mut ratio = (report.norm - total).abs() / (1.01 * unit * total);
    let expected: Vec<Vec<f64>> = file.list(case, "outputs", "clipped");
    for (grad, expected) in grads.iter().flatten().zip(expected.iter().flatten()) {
        // The norm's error, the factor's rounding, the product's.
        let found = f64::from(report.gradient_factor * grad.widen());
        let bound = 3.01 * unit * expected.abs() + 2f64.powi(-150);
        ratio = ratio.max((found - expected).abs() / bound);
    }
    ratio
}

#[test]
fn clipping_is_pytorchs() {
    let file = open("clip_grad_norm");
    for device in devices() {
        for case in &file.cases {
            let ratio = match case["attrs"]["grad_dtype"].as_str().unwrap() {
                "bf16" => clip_case::<bf16>(&device, &file, case),
                "f16" => clip_case::<f16>(&device, &file, case),
                _ => clip_case::<f32>(&device, &file, case),
            };
            println!("{} {ratio:.3} of its bound", case["name"]);
            assert!(ratio <= 1.0, "{}: {ratio}", case["name"]);
        }
    }
}

#[test]
fn the_loss_scaler_is_pytorchs() {
    let file = open("loss_scaler");
    for case in &file.cases {
        let number = |name: &str| case["attrs"][name].as_f64().unwrap();
        let read = |side: &str, role: &str| case[side][role].as_str().unwrap().to_string();
        let found_inf: Vec<f32> = file.read(&read("inputs", "found_inf"));
        let scales: Vec<f32> = file.read(&read("outputs", "scale"));
        let trackers: Vec<i32> = file.read(&read("outputs", "growth_tracker"));
        let mut scale = LossScale::new(Scaler::Dynamic(Dynamic {
            init: number("init_scale"),
            growth: number("growth_factor"),
            backoff: number("backoff_factor"),
            interval: number("growth_interval") as u32,
            ..Dynamic::PYTORCH
        }))
        .unwrap();
        for (step, found) in found_inf.iter().enumerate() {
            scale.update(*found != 0.0);
            let now = (scale.scale(), scale.growth_tracker());
            assert_eq!(now, (scales[step], trackers[step] as u32), "{} {step}", case["name"]);
        }
    }
}
