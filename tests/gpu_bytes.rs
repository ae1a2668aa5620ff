//! What a step moves, counted by the virtual GPU at 10⁶ parameters: 32 bytes for each different
//! sector that a launch reads, and for each that it writes. No caches but the registers and lines of
//! one launch are assumed; the table says what the operands alone need.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::devices;
use common::optim::*;
use common::vgpu::Door;
use halfstep::optim::*;
use halfstep::{Device, Storage, bf16};

const LEN: usize = 1_000_000;

/// One step of `P` parameters with `G` gradients moves `bytes` for each, and `stats` reads the
/// gradients once.
fn moves<P: Storage, G: Storage>(
    device: &Device,
    rule: impl Into<Rule>,
    config: Config,
    bytes: f64,
) {
    let Some(door) = Door::of(device) else { return };
    let rule = rule.into();
    let stream = device.stream().unwrap();
    let mut params = [Values::from(vec![P::narrow(0.5); LEN])];
    let grads = [Values::from(vec![G::narrow(0.25); LEN])];
    let mut optimizer = Optimizer::<P, G>::new(device, &[group(rule, &[LEN])], config).unwrap();
    optimizer.load_params(&stream, &plain(&params)).unwrap();
    stream.sync().unwrap();
    door.launches();
    optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
    stream.sync().unwrap();
    let launches = door.launches();
    let moved = |part: &str| -> f64 {
        let of = launches.iter().filter(|launch| launch.kernel.contains(part));
        of.map(|launch| launch.moved as f64).sum::<f64>() / LEN as f64
    };
    let (stats, step) = (moved("optim_stats"), moved("optim_step"));
    let name = format!("{} {rule:?} {:?}", device.info(), P::DTYPE);
    println!("{name}: step {step:.3} of {bytes}, stats {stats:.3} of {}", size_of::<G>());
    assert!(step >= bytes && step <= 1.03 * bytes, "{name}: {step} bytes, not {bytes}");
    let grad = size_of::<G>() as f64;
    assert!(stats >= grad && stats <= 1.03 * grad, "{name}: {stats} bytes of gradients");
}

#[test]
fn a_step_moves_what_its_operands_need() {
    let plain = Config::default();
    let low = Config { moments: Moments::Bf16, ..plain };
    let with = |master, config: Config| Config { master, ..config };
    let adamw = AdamW::default();
    let momentum = Sgd { momentum: 0.9, ..Sgd::default() };
    for device in &devices() {
        moves::<f32, f32>(device, adamw, plain, 28.0);
        moves::<bf16, bf16>(device, adamw, plain, 28.0);
        moves::<bf16, f32>(device, adamw, plain, 30.0);
        moves::<bf16, bf16>(device, adamw, with(Master::Remainder, plain), 26.0);
        moves::<bf16, bf16>(device, adamw, with(Master::Remainder, low), 18.0);
        moves::<bf16, bf16>(device, adamw, with(Master::Stochastic, plain), 22.0);
        moves::<bf16, bf16>(device, adamw, with(Master::Stochastic, low), 14.0);
        moves::<f32, f32>(device, adamw, low, 20.0);
        moves::<f32, f32>(device, AdamW { amsgrad: true, ..adamw }, plain, 36.0);
        moves::<f32, f32>(device, Adam::default(), plain, 28.0);
        moves::<f32, f32>(device, Sgd::default(), plain, 12.0);
        moves::<bf16, bf16>(device, Sgd::default(), with(Master::Stochastic, plain), 6.0);
        moves::<bf16, bf16>(device, Sgd::default(), plain, 12.0);
        moves::<f32, f32>(device, momentum, plain, 20.0);
        moves::<bf16, bf16>(device, momentum, with(Master::Stochastic, low), 10.0);
        moves::<bf16, bf16>(device, momentum, plain, 20.0);
        moves::<f32, f32>(device, Lion::default(), plain, 20.0);
        moves::<f32, f32>(device, Adagrad::default(), plain, 20.0);
        moves::<f32, f32>(device, Lamb::default(), plain, 40.0);
    }
}
