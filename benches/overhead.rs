//! What a call costs besides its arithmetic: plans, and runs so small that only checks and launching
//! are left. `cargo bench --bench overhead`.
#![allow(missing_docs)]

#[path = "workloads/mod.rs"]
mod workloads;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use halfstep::gemm::{Activation, Gemm, Layout, Operands};
use halfstep::optim::{AdamW, Config, Group, Optimizer, Tensor};
use halfstep::reduce::{BucketPlan, Link, ready_by_elements};
use halfstep::{Device, Dtype, Read, Storage, Write, bf16};

fn products(c: &mut Criterion) {
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let stream = device.stream().unwrap();
    let layer = Gemm::new(16, 16, 16).layout(Layout::NT).activation(Activation::GeluErf);
    let fill = |len| vec![bf16::narrow(0.5); len];
    let (a, b, bias, mut d) = (fill(256), fill(256), fill(16), fill(256));
    c.bench_function("gemm: plan", |bench| {
        bench.iter(|| black_box(&layer).plan::<bf16, bf16>(&device).unwrap());
    });
    let plan = layer.plan::<bf16, bf16>(&device).unwrap();
    c.bench_function("gemm: run 16³, bias, gelu", |bench| {
        bench.iter(|| {
            let operands = Operands { bias: Some(&bias), ..Operands::new(&a, &b, &mut d) };
            plan.run(&stream, operands).unwrap();
        });
    });
}

/// As many tensors as Wave2Vec2-base has, one element each: the cost of a tensor.
fn steps(c: &mut Criterion) {
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let stream = device.stream().unwrap();
    let params = workloads::wav2vec2_base_ctc();
    let tensors = params.iter().map(|param| Tensor::new(&param.name, 1));
    let groups = [Group::new(AdamW::default()).tensors(tensors)];
    let mut optimizer = Optimizer::<f32, bf16>::new(&device, &groups, Config::default()).unwrap();
    let mut values = vec![[1.0f32]; params.len()];
    let grads = vec![[bf16::ONE]; params.len()];
    let reads: Vec<Option<&dyn Read<bf16>>> =
        grads.iter().map(|g| Some(g as &dyn Read<bf16>)).collect();
    let mut writes: Vec<&mut dyn Write<f32>> =
        values.iter_mut().map(|p| p as &mut dyn Write<f32>).collect();
    c.bench_function("optim: step over 213 tensors of 1 element", |bench| {
        bench.iter(|| optimizer.run(&stream, &mut writes, &reads).unwrap());
    });
}

fn buckets(c: &mut Criterion) {
    let params = workloads::wav2vec2_base_ctc();
    let ready = ready_by_elements(&params, 0.1);
    let link = Link { alpha: 50e-6, beta: 1.0 / 20e9 };
    c.bench_function("reduce: optimal plan of 213 parameters", |bench| {
        bench.iter(|| BucketPlan::optimal(black_box(&params), Dtype::Bf16, &ready, link).unwrap());
    });
}

criterion_group!(benches, products, steps, buckets);
criterion_main!(benches);
