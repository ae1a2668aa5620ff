//! Optimizer steps with a loss scale: one gradient is infinite, and its step does not happen.
//!
//! `cargo run --release --example 02-step`

use halfstep::optim::{AdamW, Config, Group, Optimizer, Scaler, Tensor};
use halfstep::{Device, Storage, f16};

fn main() -> halfstep::Result<()> {
    let device = Device::cpu();
    let stream = device.stream()?;

    // f16 weights with f32 masters; biases are not decayed, norms are clipped at 1.
    let rule = AdamW { lr: 1e-2, weight_decay: 0.1, ..AdamW::default() };
    let group = Group::new(rule)
        .tensor(Tensor::new("weight", 1000))
        .tensor(Tensor::new("bias", 10).decay_factor(0.0));
    let config = Config { clip: Some(1.0), scaler: Scaler::PYTORCH, ..Config::default() };
    let mut optimizer = Optimizer::<f16, f16>::new(&device, &[group], config)?;

    let (mut weight, mut bias) = (vec![f16::ONE; 1000], vec![f16::ZERO; 10]);
    optimizer.load_params(&stream, &[&weight, &bias])?;
    for step in 0..5 {
        // Gradients of a loss multiplied by the scale.
        let scale = optimizer.scale(&stream)?;
        let gradient = if step == 2 { f32::INFINITY } else { 1e-4 * scale };
        let (dw, db) = (vec![f16::narrow(gradient); 1000], vec![f16::narrow(1e-4 * scale); 10]);
        optimizer.run(&stream, &mut [&mut weight, &mut bias], &[Some(&dw), Some(&db)])?;

        let report = optimizer.report(&stream)?;
        match report.skipped {
            None => println!("step {step}: norm {:.4}, weight {}", report.norm, weight[0]),
            Some(why) => println!("step {step}: skipped, {why:?}; scale {}", report.next_scale),
        }
    }
    Ok(())
}
