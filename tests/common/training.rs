//! A training run of a real model's parameter list.

use halfstep::optim::{Config, Optimizer, Rule, Scaler};
use halfstep::{Device, Result, Stream, bf16};

use super::optim::{Values, normal, reads, setup, writes};
use super::workloads;

/// Wave2Vec2-base: 211 tensors. Their lengths are divided, so that an interpreter can run them.
fn wav2vec2(divisor: usize) -> Vec<usize> {
    let params = workloads::wav2vec2_base_ctc();
    params[..211].iter().map(|param| param.len.div_ceil(divisor)).collect()
}

/// An optimizer of 211 tensors in device buffers.
pub struct Training {
    pub stream: Stream,
    pub optimizer: Optimizer<bf16, bf16>,
    pub params: Vec<Values<bf16>>,
    pub grads: Vec<Values<bf16>>,
}

impl Training {
    pub fn new(device: &Device, rule: Rule) -> Self {
        let lengths = wav2vec2(512);
        let config = Config { scaler: Scaler::PYTORCH, clip: Some(1.0), ..Config::default() };
        let (stream, optimizer, params, mut rng) =
            setup::<bf16, bf16>(device, rule, config, &lengths);
        let grads = normal::<bf16>(&mut rng, &lengths);
        Self { stream, optimizer, params, grads }
    }

    pub fn step(&mut self) -> Result<()> {
        let Self { stream, optimizer, params, grads } = self;
        optimizer.run(stream, &mut writes(params), &reads(grads))
    }
}
