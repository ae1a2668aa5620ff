//! Trains one network twice, from the same values on the same data: in bf16 by halfstep, and in f32 by candle's own
//! operations. Prints both losses step by step, and what a step takes.
//!
//! `cargo run --release`

use std::time::{Duration, Instant};

use candle_core::{DType, Module, Result, Tensor, Var};
use halfstep::gemm::Activation;
use halfstep::optim::{AdamW, Config};
use halfstep::{Device, bf16};
use halfstep_candle::{Linear, Optimizer, data::uniform, plain};

/// Inputs, two hidden layers, outputs.
const SIZES: [usize; 4] = [32, 512, 512, 8];
const ROWS: usize = 256;
const STEPS: usize = 200;
const RULE: AdamW =
    AdamW { lr: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, amsgrad: false };

fn main() -> Result<()> {
    // Parameters are candle's variables: bf16 for halfstep, and the same values in f32 for candle.
    let params = parameters()?;
    let wide = params.iter().map(|var| Var::from_tensor(&var.to_dtype(DType::F32)?));
    let wide: Vec<Var> = wide.collect::<Result<_>>()?;

    // A layer is made from a weight and a bias; it is a `Module`, as candle's own.
    let device = Device::cpu();
    let layers = params.chunks(2).enumerate().map(|(index, layer)| {
        let (weight, bias) = (layer[0].as_tensor().clone(), layer[1].as_tensor().clone());
        Linear::<bf16>::new(&device, weight, bias, activation(index))
    });
    let layers: Vec<Linear<bf16>> = layers.collect::<Result<_>>()?;

    // The optimizer keeps an f32 master of each variable, from which it writes the bf16 that the layers read.
    let names = ["w0", "b0", "w1", "b1", "w2", "b2"];
    let named: Vec<(&str, &Var)> = names.into_iter().zip(&params).collect();
    let mut optimizer = Optimizer::<bf16>::new(&device, &named, RULE, Config::default())?;
    let mut plain_optimizer = plain::AdamW::new(&wide, RULE)?;

    println!("step   halfstep, bf16   candle, f32");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        let (x, target) = batch(step)?;

        let begun = Instant::now();
        let mut y = x.to_dtype(DType::BF16)?;
        for layer in &layers {
            y = layer.forward(&y)?;
        }
        let loss = mean_square(&y, &target)?;
        let grads = loss.backward()?;
        let middle = begun.elapsed();
        optimizer.step(&grads)?;
        ours.push((middle, begun.elapsed() - middle));

        let begun = Instant::now();
        let mut y = x;
        for (index, layer) in wide.chunks(2).enumerate() {
            y = plain::linear(&y, &layer[0], &layer[1], activation(index))?;
        }
        let plain_loss = mean_square(&y, &target)?;
        let grads = plain_loss.backward()?;
        let middle = begun.elapsed();
        plain_optimizer.step(&grads)?;
        theirs.push((middle, begun.elapsed() - middle));

        if step % 20 == 0 || step + 1 == STEPS {
            let (loss, plain_loss) = (loss.to_scalar::<f32>()?, plain_loss.to_scalar::<f32>()?);
            println!("{step:4}   {loss:14.5}   {plain_loss:11.5}");
        }
    }
    for (who, times) in [("halfstep", ours), ("candle", theirs)] {
        let (products, steps): (Vec<_>, Vec<_>) = times.into_iter().unzip();
        let (products, steps) = (median(products), median(steps));
        println!("{who}: forward and backward {products:.2} ms, optimizer {steps:.2} ms (medians)");
    }
    Ok(())
}

/// Weights `[outputs, inputs]` and biases of all layers, in bf16.
fn parameters() -> Result<Vec<Var>> {
    let mut params = Vec::new();
    for (seed, size) in SIZES.windows(2).enumerate() {
        let weight = (uniform(seed as u64, (size[1], size[0]))? * (6.0 / size[0] as f64).sqrt())?;
        params.push(Var::from_tensor(&weight.to_dtype(DType::BF16)?)?);
        params.push(Var::zeros(size[1], DType::BF16, weight.device())?);
    }
    Ok(params)
}

/// All layers but the last have one.
fn activation(layer: usize) -> Activation {
    if layer + 2 < SIZES.len() { Activation::Relu } else { Activation::None }
}

/// Points, and what the network is to find for them: sines of sums of their coordinates.
fn batch(step: usize) -> Result<(Tensor, Tensor)> {
    let x = uniform(1000 + step as u64, (ROWS, SIZES[0]))?;
    let target = (x.matmul(&uniform(999, (SIZES[0], SIZES[3]))?)? * 0.5)?.sin()?;
    Ok((x, target))
}

/// In f32 whatever the network's type.
fn mean_square(y: &Tensor, target: &Tensor) -> Result<Tensor> {
    (y.to_dtype(DType::F32)? - target)?.sqr()?.mean_all()
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
