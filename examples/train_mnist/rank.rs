//! One rank's training loop.

use std::time::{Duration, Instant};

use halfstep::optim::{AdamW, Config as OptimConfig, Group, Optimizer, Source, Tensor};
use halfstep::reduce::{
    BucketPlan, Communicator, Config as ReduceConfig, Link, Param, Reducer, Unscale,
    ready_by_elements,
};
use halfstep::{Device, Read, Result, Storage, Stream, Write};

use crate::data::{CLASSES, Digit, Digits, Rng, shuffle};
use crate::loss::{correct, softmax_cross_entropy};
use crate::mode::Mode;
use crate::network::{self, Network, Tensors};
use crate::run::{Outcome, Settings, Times};

/// Trains on this rank's part of every batch and tests on all test digits.
pub fn train<T: Storage>(
    mode: Mode,
    settings: &Settings,
    digits: &Digits,
    comm: Box<dyn Communicator>,
    progress: &dyn Fn(f32),
) -> Result<Outcome> {
    let start = Instant::now();
    let (rank, ranks) = (comm.rank(), comm.size());
    // Ranks share the machine: one thread each.
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let stream = device.stream()?;

    let shapes = network::shapes(&settings.layers);
    let config = OptimConfig {
        master: mode.master(),
        scaler: mode.scaler(),
        seed: settings.seed,
        ..OptimConfig::default()
    };
    let tensors = shapes.iter().map(|(name, len)| Tensor::new(name, *len));
    let group = Group::new(AdamW { lr: settings.lr, ..AdamW::default() }).tensors(tensors);
    let mut optimizer = Optimizer::<T, f32>::new(&device, &[group], config)?;
    let mut weights: Tensors<T> =
        shapes.iter().map(|&(_, len)| vec![T::narrow(0.0); len]).collect();
    let initial = network::initial_weights(&settings.layers, settings.seed);
    let values: Vec<&dyn Read<f32>> = initial.iter().map(|w| w as &dyn Read<f32>).collect();
    optimizer.init_from_f32(&stream, &values, &mut outputs(&mut weights))?;

    let params: Vec<Param> = shapes.iter().map(|(name, len)| Param::new(name, *len)).collect();
    let ready = ready_by_elements(&params, 1e-3);
    let link = Link { alpha: 20e-6, beta: 1.0 / 10e9 };
    let plan = BucketPlan::optimal(&params, T::DTYPE, &ready, link)?;
    let mut reducer = Reducer::<f32>::new(&device, plan, comm, ReduceConfig::default())?;

    // Rank r takes rows [r·batch/ranks, (r+1)·batch/ranks) of every batch.
    let mine = rank * settings.batch / ranks..(rank + 1) * settings.batch / ranks;
    reducer.set_weight(mine.len() as f64)?;
    let mut network = Network::<T>::new(&device, &settings.layers, mine.len())?;
    let mut gradients: Tensors<f32> = shapes.iter().map(|&(_, len)| vec![0.0; len]).collect();
    let mut logits = vec![0.0f32; mine.len() * CLASSES];
    let mut d_logits = vec![T::narrow(0.0); logits.len()];

    let mut times = Times::default();
    let (mut losses, mut skipped) = (Vec::new(), 0);
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let mut rng = Rng::new(settings.seed ^ 0x0de5);
    for _ in 0..settings.epochs {
        shuffle(&mut order, &mut rng); // the same on every rank
        for batch in order.chunks_exact(settings.batch) {
            let rows: Vec<&Digit> = batch[mine.clone()].iter().map(|&i| &digits.train[i]).collect();
            let (x, labels) = load::<T>(&rows);
            network.forward(&stream, &x, &weights, &mut logits)?;

            let scale = optimizer.scale(&stream)?;
            let factor = scale / mine.len().max(1) as f32;
            let loss = softmax_cross_entropy(&mut logits, &labels, factor);
            for (to, &from) in d_logits.iter_mut().zip(&logits) {
                *to = T::narrow(from);
            }

            let mut packing = Duration::ZERO;
            network.backward(&stream, &x, &weights, &d_logits, &mut gradients, |param, g| {
                let start = Instant::now();
                let marked = reducer.ready(&stream, param, g);
                packing += start.elapsed();
                marked
            })?;
            let reduced = reducer.finish(&stream, &mut outputs(&mut gradients), Unscale::Keep)?;
            for bucket in &reduced.times {
                times.reduce += bucket.skew + bucket.wire + bucket.sum + bucket.unpack;
            }
            times.reduce += packing;
            times.exposed += reduced.exposed();

            let start = Instant::now();
            let grads: Vec<Option<&dyn Read<f32>>> =
                gradients.iter().map(|g| Some(g as &dyn Read<f32>)).collect();
            optimizer.control(&stream, Source::Scaled(&[reducer.stats()?]), &grads)?;
            optimizer.step(&stream, &mut outputs(&mut weights), &grads)?;
            times.optim += start.elapsed();
            skipped += usize::from(optimizer.report(&stream)?.skipped.is_some());

            let loss = loss / mine.len().max(1) as f32;
            losses.push(loss);
            if rank == 0 {
                progress(loss);
            }
        }
    }
    times.gemm = network.gemm;
    let accuracy = test(&device, &stream, settings, digits, &weights)?;
    let hash = hash(&weights);
    Ok(Outcome {
        accuracy,
        losses: smooth(&losses),
        skipped,
        times,
        seconds: start.elapsed(),
        hash,
    })
}

fn outputs<T: Storage>(tensors: &mut Tensors<T>) -> Vec<&mut dyn Write<T>> {
    tensors.iter_mut().map(|tensor| tensor as &mut dyn Write<T>).collect()
}

/// `[rows, features]` of `T`, and the labels.
fn load<T: Storage>(rows: &[&Digit]) -> (Vec<T>, Vec<usize>) {
    let pixels = rows.iter().flat_map(|digit| digit.pixels.iter().map(|&p| T::narrow(p)));
    (pixels.collect(), rows.iter().map(|digit| digit.label).collect())
}

/// The share of test digits that the network reads correctly.
fn test<T: Storage>(
    device: &Device,
    stream: &Stream,
    settings: &Settings,
    digits: &Digits,
    weights: &Tensors<T>,
) -> Result<f64> {
    let rows: Vec<&Digit> = digits.test.iter().collect();
    let (x, labels) = load::<T>(&rows);
    let mut logits = vec![0.0; rows.len() * CLASSES];
    let mut network = Network::<T>::new(device, &settings.layers, rows.len())?;
    network.forward(stream, &x, weights, &mut logits)?;
    Ok(correct(&logits, &labels) as f64 / rows.len() as f64)
}

/// 64-bit FNV-1a over the bytes of all tensors.
fn hash<T: Storage>(tensors: &Tensors<T>) -> u64 {
    let bytes = tensors.iter().flat_map(|tensor| bytemuck::cast_slice::<T, u8>(tensor));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The running mean over 20 steps.
fn smooth(losses: &[f32]) -> Vec<f32> {
    let mean = |i: usize| {
        let window = &losses[i.saturating_sub(19)..=i];
        window.iter().sum::<f32>() / window.len() as f32
    };
    (0..losses.len()).map(mean).collect()
}
