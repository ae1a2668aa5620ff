//! Optimizer steps: statistics of the gradients, control, the step itself.

use std::rc::Rc;

use halfstep::optim::*;
use halfstep::{Buffer, Device, Dtype, Read, Storage, Stream, Write, bf16};

use super::{Arithmetic, Case, Entry, Failure, On, Traffic, text};

/// Elements of a tensor that are compared with the rule in f64.
const CHECKED: usize = 64;
/// Length of a tensor of which all are.
const SMALL: usize = 10_000;

pub fn entries(all: &mut Vec<Entry>, len: usize) {
    let flat = vec![len];
    let split = vec![len / 1000; 1000];
    let wav2vec2: Vec<usize> =
        crate::workloads::wav2vec2_base_ctc().iter().map(|param| param.len).collect();
    let adamw = AdamW::default();
    let sgd = Sgd { momentum: 0.9, ..Sgd::default() };
    let plain = Config::default();
    let bf16_moments = Config { moments: Moments::Bf16, ..plain };
    let remainder = Config { master: Master::Remainder, ..bf16_moments };
    let stochastic = Config { master: Master::Stochastic, ..bf16_moments };
    add::<bf16, bf16>(all, "adamw bf16 grad, f32 master", adamw, plain, &flat);
    add::<bf16, bf16>(all, "adamw same, 1000 tensors", adamw, plain, &split);
    if len >= 10_000_000 {
        add::<bf16, bf16>(all, "adamw same, wav2vec2-base", adamw, plain, &wav2vec2);
    }
    add::<f32, f32>(all, "adamw f32", adamw, plain, &flat);
    add::<bf16, bf16>(all, "adamw remainder, bf16 moments", adamw, remainder, &flat);
    add::<bf16, bf16>(all, "adamw stochastic, bf16 moments", adamw, stochastic, &flat);
    add::<bf16, bf16>(all, "sgd momentum, f32 master", sgd, plain, &flat);
    add::<bf16, bf16>(all, "lion f32 master", Lion::default(), plain, &flat);
    add::<bf16, bf16>(all, "lamb f32 master", Lamb::default(), plain, &flat);
}

fn add<P: Storage, G: Storage>(
    all: &mut Vec<Entry>,
    name: &str,
    rule: impl Into<Rule>,
    config: Config,
    lengths: &[usize],
) {
    let (rule, lengths) = (rule.into(), lengths.to_vec());
    let total: usize = lengths.iter().sum();
    all.push(Entry {
        op: "optim",
        name: name.into(),
        size: total.to_string(),
        workload: "",
        flops: 15.0 * total as f64, // about; never what bounds it
        bytes: (step_bytes::<P, G>(&rule, &config) * total) as f64,
        arithmetic: Arithmetic::F32,
        traffic: Traffic::Update,
        on: On::One,
        make: Box::new(move |device| {
            // All of a small tensor, then a few elements of those that are timed. (LAMB's elements
            // depend on each other: a few say nothing.)
            let mut small = Steps::<P, G>::new(device, rule, config, &[SMALL], SMALL)?;
            small.run()?;
            small.check()?;
            let few = if matches!(rule, Rule::Lamb(_)) { 0 } else { CHECKED };
            Ok(Box::new(Steps::<P, G>::new(device, rule, config, &lengths, few)?))
        }),
    });
}

/// Bytes that a step moves for each parameter: what it keeps is read and written, a parameter beside a master of f32 only
/// written; gradients are read, and by statistics once more. LAMB reads all twice.
fn step_bytes<P: Storage, G: Storage>(rule: &Rule, config: &Config) -> usize {
    let (param, grad) = (size_of::<P>(), size_of::<G>());
    let moment = if config.moments == Moments::Bf16 { 2 } else { 4 };
    let moments = moment * rule.slots().len();
    // What is read of a parameter and its master, and what is written.
    let (read, written) = match config.master {
        Master::F32 if P::DTYPE == Dtype::F32 => (4, 4),
        Master::F32 => (4, 4 + param),
        Master::Remainder => (2 + param, 2 + param),
        Master::Stochastic | Master::Nearest => (param, param),
    };
    let times = if matches!(rule, Rule::Lamb(_)) { 2 } else { 1 };
    let moved = times * (read + moments + grad) + written + moments;
    moved + grad
}

struct Steps<P: Storage, G: Storage> {
    stream: Rc<Stream>,
    optimizer: Optimizer<P, G>,
    params: Vec<Buffer<P>>,
    grads: Vec<Buffer<G>>,
    rule: Rule,
    /// Indices into the first tensor that are checked.
    at: Vec<usize>,
}

fn value(index: usize) -> f32 {
    (index.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0
}

impl<P: Storage, G: Storage> Steps<P, G> {
    fn new(
        device: &Device,
        rule: Rule,
        config: Config,
        lengths: &[usize],
        checked: usize,
    ) -> Result<Self, Failure> {
        let stream = Rc::new(device.stream().map_err(text)?);
        let tensors = lengths.iter().enumerate().map(|(i, &len)| Tensor::new(format!("t{i}"), len));
        let groups = [Group::new(rule).tensors(tensors)];
        let mut optimizer = Optimizer::new(device, &groups, config).map_err(text)?;
        let (mut params, mut grads) = (Vec::new(), Vec::new());
        for &len in lengths {
            let own: Vec<P> = (0..len).map(|i| P::narrow(value(i))).collect();
            params.push(device.upload(&own).map_err(text)?);
            let own: Vec<G> = (0..len).map(|i| G::narrow(0.01 * value(i + 3))).collect();
            grads.push(device.upload(&own).map_err(text)?);
        }
        let reads: Vec<&dyn Read<P>> = params.iter().map(|p| p as &dyn Read<P>).collect();
        optimizer.load_params(&stream, &reads).map_err(text)?;
        let count = checked.min(lengths[0]);
        let at = (0..count).map(|i| i * (lengths[0] / count)).collect();
        Ok(Self { stream, optimizer, params, grads, rule, at })
    }
}

impl<P: Storage, G: Storage> Case for Steps<P, G> {
    fn run(&mut self) -> Result<(), Failure> {
        let mut params: Vec<&mut dyn Write<P>> =
            self.params.iter_mut().map(|p| p as &mut dyn Write<P>).collect();
        let grads: Vec<Option<&dyn Read<G>>> =
            self.grads.iter().map(|g| Some(g as &dyn Read<G>)).collect();
        self.optimizer.run(&self.stream, &mut params, &grads).map_err(text)
    }

    fn wait(&self) -> Result<(), Failure> {
        super::wait(&self.stream)
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        Some(self.stream.clone())
    }

    /// The first step against the rule in f64.
    fn check(&mut self) -> Result<(), Failure> {
        let params: Vec<f64> =
            self.at.iter().map(|&i| P::narrow(value(i)).widen().into()).collect();
        let grads: Vec<f64> =
            self.at.iter().map(|&i| G::narrow(0.01 * value(i + 3)).widen().into()).collect();
        let mut way = bound::Trajectory::new(self.rule, &params);
        way.step(&grads, 1.0);
        let found = self.optimizer.master(&self.stream, 0, &self.params[0]).map_err(text)?;
        // Without a master the value has been rounded, up or down.
        let free = self.optimizer.slots().is_empty() || size_of::<P>() == 2;
        for (enclosure, &i) in way.params().iter().zip(&self.at) {
            let ratio = enclosure.stored(P::DTYPE).ratio(found[i].into());
            let good = ratio <= if free { 2.0 } else { 1.0 };
            if !good {
                return Err(format!("element {i} is {}, {ratio} of its bound", found[i]));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of AdamW 28 (see `kernels/common/optim/step.h`) and the statistics' 2, and so on.
    #[test]
    fn bytes_are_those_of_what_is_kept() {
        let mut all = Vec::new();
        entries(&mut all, 1_000_000);
        let found: Vec<(&str, f64)> = all
            .iter()
            .map(|entry| (entry.name.as_str(), entry.bytes / entry.size.parse::<f64>().unwrap()))
            .collect();
        let expected = [
            ("adamw bf16 grad, f32 master", 30.0),
            ("adamw same, 1000 tensors", 30.0),
            ("adamw f32", 32.0),
            ("adamw remainder, bf16 moments", 20.0),
            ("adamw stochastic, bf16 moments", 16.0),
            ("sgd momentum, f32 master", 22.0), // 8 of masters, 8 of momentum, 2 written, 2 read twice
            ("lion f32 master", 22.0),
            ("lamb f32 master", 44.0),
        ];
        assert_eq!(found, expected);
    }
}
