//! A fused layer, forward and backward: `y = gelu(x·Wᵀ + b)`, then the gradients of x, W and b.
//!
//! `cargo run --release --example 01-gemm`

use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, Gemm, Layout, Operands, WeightGrad, WeightGradOperands,
};
use halfstep::{Device, Storage, bf16};

const ROWS: usize = 512;
const INPUT: usize = 768;
const OUTPUT: usize = 3072;

fn main() -> halfstep::Result<()> {
    let device = Device::cpu();
    let stream = device.stream()?;
    println!("{}", device.info());

    let wave = |len: usize, step: f32| -> Vec<bf16> {
        (0..len).map(|i| bf16::narrow((i as f32 * step).sin() * 0.1)).collect()
    };
    let x = wave(ROWS * INPUT, 0.37); //       [rows, in]
    let w = wave(OUTPUT * INPUT, 0.11); //     [out, in]
    let b = wave(OUTPUT, 0.5); //              [out]
    let dy = wave(ROWS * OUTPUT, 0.23); //     [rows, out]
    let mut z = vec![bf16::ZERO; ROWS * OUTPUT];
    let mut y = vec![bf16::ZERO; ROWS * OUTPUT];

    // Forward; the pre-activation z is kept for the backward pass.
    let forward = Gemm::new(ROWS, OUTPUT, INPUT)
        .layout(Layout::NT)
        .activation(Activation::GeluErf)
        .plan::<bf16, bf16>(&device)?;
    let operands =
        Operands { bias: Some(&b), preactivation: Some(&mut z), ..Operands::new(&x, &w, &mut y) };
    forward.run(&stream, operands)?;
    println!("{}", forward.explain());

    // Backward: the derivative of gelu is taken while dy is read.
    let mut dz = vec![bf16::ZERO; ROWS * OUTPUT];
    let mut dx = vec![bf16::ZERO; ROWS * INPUT];
    DataGrad::new(ROWS, INPUT, OUTPUT)
        .activation(Activation::GeluErf)
        .plan::<bf16, bf16>(&device)?
        .run(
            &stream,
            DataGradOperands {
                z: Some(&z),
                d_preactivation: Some(&mut dz),
                ..DataGradOperands::new(&dy, &w, &mut dx)
            },
        )?;

    // Gradients in f32, added to what earlier micro-batches left there; dz is reused.
    let (mut dw, mut db) = (vec![0.0f32; OUTPUT * INPUT], vec![0.0f32; OUTPUT]);
    let weight =
        WeightGrad::new(ROWS, INPUT, OUTPUT).accumulate(true).plan::<bf16, f32>(&device)?;
    for _ in 0..2 {
        let operands =
            WeightGradOperands { db: Some(&mut db), ..WeightGradOperands::new(&dz, &x, &mut dw) };
        weight.run(&stream, operands)?;
    }
    stream.sync()?;
    println!("y[0] = {}, dx[0] = {}, dw[0] = {}, db[0] = {}", y[0], dx[0], dw[0], db[0]);
    Ok(())
}
