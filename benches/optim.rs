//! Optimizer steps as shares of the bandwidth of an in-place update measured in the same rounds.
//!
//! `cargo bench --bench optim [-- filter]`; sizes with `HALFSTEP_BENCH_LEN`, rounds with
//! `HALFSTEP_BENCH_ROUNDS`.
#![allow(missing_docs)]

#[path = "common/bandwidth.rs"]
mod bandwidth;

use std::time::Instant;

use bandwidth::{Bandwidth, median};
use halfstep::optim::*;
use halfstep::{Device, Read, Storage, Stream, Write, bf16};

/// One optimizer, its tensors, and the least bytes that its stages move for each parameter.
struct Case<P: Storage, G: Storage> {
    name: &'static str,
    stats_bytes: f64,
    step_bytes: f64,
    stream: Stream,
    optimizer: Optimizer<P, G>,
    params: Vec<Vec<P>>,
    grads: Vec<Vec<G>>,
    total: usize,
}

/// Seconds of the step alone and of the three stages.
struct Times {
    step: f64,
    whole: f64,
}

impl<P: Storage, G: Storage> Case<P, G> {
    fn new(
        name: &'static str,
        bytes: f64,
        device: &Device,
        rule: impl Into<Rule>,
        config: Config,
        lengths: &[usize],
    ) -> Self {
        let stream = device.stream().unwrap();
        let tensors = lengths.iter().enumerate().map(|(i, &len)| Tensor::new(format!("t{i}"), len));
        let groups = [Group::new(rule).tensors(tensors)];
        let mut optimizer = Optimizer::new(device, &groups, config).unwrap();
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32768.0 - 1.0;
        let params: Vec<Vec<P>> =
            lengths.iter().map(|&len| (0..len).map(|i| P::narrow(value(i))).collect()).collect();
        let grads: Vec<Vec<G>> = lengths
            .iter()
            .map(|&len| (0..len).map(|i| G::narrow(0.01 * value(i + 3))).collect())
            .collect();
        let reads: Vec<&dyn Read<P>> = params.iter().map(|p| p as &dyn Read<P>).collect();
        optimizer.load_params(&stream, &reads).unwrap();
        let total = lengths.iter().sum();
        let stats_bytes = size_of::<G>() as f64;
        Self { name, stats_bytes, step_bytes: bytes, stream, optimizer, params, grads, total }
    }

    fn once(&mut self) -> Times {
        let mut params: Vec<&mut dyn Write<P>> =
            self.params.iter_mut().map(|p| p as &mut dyn Write<P>).collect();
        let grads: Vec<Option<&dyn Read<G>>> =
            self.grads.iter().map(|g| Some(g as &dyn Read<G>)).collect();
        let start = Instant::now();
        self.optimizer.stats(&self.stream, &grads).unwrap();
        self.optimizer.control(&self.stream, Source::Own, &grads).unwrap();
        let middle = Instant::now();
        self.optimizer.step(&self.stream, &mut params, &grads).unwrap();
        self.stream.sync().unwrap();
        let end = Instant::now();
        Times { step: (end - middle).as_secs_f64(), whole: (end - start).as_secs_f64() }
    }

    /// The first step against the rule in f64, on so many elements: nothing wrong is timed.
    fn check(&mut self, rule: impl Into<Rule>, count: usize) {
        let at: Vec<usize> = (0..count).map(|i| i * (self.params[0].len() / count)).collect();
        let pick = |values: Vec<f64>| -> Vec<f64> { at.iter().map(|&i| values[i]).collect() };
        let params = pick(self.params[0].iter().map(|p| p.widen().into()).collect());
        let grads = pick(self.grads[0].iter().map(|g| g.widen().into()).collect());
        let mut way = bound::Trajectory::new(rule, &params);
        way.step(&grads, 1.0);
        let _ = self.once();
        let found: Vec<f32> =
            self.optimizer.master(&self.stream, 0, &self.params[0]).expect("a master");
        for (enclosure, &i) in way.params().iter().zip(&at) {
            // Without a master the value has been rounded, up or down.
            let free = self.optimizer.slots().is_empty() || size_of::<P>() == 2;
            let ratio = enclosure.stored(P::DTYPE).ratio(found[i].into());
            assert!(ratio <= if free { 2.0 } else { 1.0 }, "{}: wrong at {i}", self.name);
        }
    }

    fn run(&mut self, threads: usize, rounds: usize, bandwidth: &mut Bandwidth) {
        let (mut stats, mut step, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        let (mut seconds, mut machine) = (Vec::new(), Vec::new());
        let mut before = bandwidth.measure(threads);
        for _ in 0..rounds {
            let times = self.once();
            let after = bandwidth.measure(threads);
            let around = 0.5 * (before + after);
            before = after;
            let total = self.total as f64;
            stats.push(total * self.stats_bytes / (times.whole - times.step) / around);
            step.push(total * self.step_bytes / times.step / around);
            whole.push(total * (self.step_bytes + self.stats_bytes) / times.whole / around);
            seconds.push(times.whole);
            machine.push(around);
        }
        println!(
            "{:32} {threads} thread{}  stats {:5.1} %  step {:5.1} %  whole {:5.1} %  {:7.2} ms  of {:5.1} GB/s",
            self.name,
            if threads == 1 { " " } else { "s" },
            100.0 * median(stats),
            100.0 * median(step),
            100.0 * median(whole),
            1e3 * median(seconds),
            median(machine) / 1e9,
        );
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    // `cargo test --benches` passes no `--bench`: then only show that everything runs.
    let timed = std::env::args().any(|argument| argument == "--bench");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let len = number("HALFSTEP_BENCH_LEN", if timed { 100_000_000 } else { 100_000 });
    let rounds = number("HALFSTEP_BENCH_ROUNDS", if timed { 9 } else { 1 });
    let mut bandwidth = Bandwidth::new(len);
    println!("share of the bandwidth of an in-place update measured between the rounds, median");
    let flat = [len];
    let split: Vec<usize> = (0..1000).map(|_| len / 1000).collect();
    let adamw = AdamW::default();
    let sgd = Sgd { momentum: 0.9, ..Sgd::default() };
    let plain = Config::default();
    let bf16_moments = Config { moments: Moments::Bf16, ..plain };
    let remainder = Config { master: Master::Remainder, ..bf16_moments };
    let stochastic = Config { master: Master::Stochastic, ..bf16_moments };
    for threads in [1, 2] {
        let device = Device::cpu_with_threads(threads.try_into().unwrap());
        macro_rules! case {
            ($name:literal, $bytes:literal, $p:ty, $g:ty, $rule:expr, $config:expr, $len:expr) => {
                if filter.as_ref().is_none_or(|filter| $name.contains(filter.as_str())) {
                    let mut case =
                        Case::<$p, $g>::new($name, $bytes, &device, $rule, $config, $len);
                    // All of a small tensor, then a few elements of the timed ones. (LAMB's
                    // elements depend on each other: a few say nothing.)
                    let small = &[10_000];
                    Case::<$p, $g>::new($name, $bytes, &device, $rule, $config, small)
                        .check($rule, 10_000);
                    if !matches!(Rule::from($rule), Rule::Lamb(_)) {
                        case.check($rule, 64.min($len[0]));
                    }
                    case.run(threads, rounds, &mut bandwidth);
                }
            };
        }
        case!("adamw bf16 grad, f32 master", 28.0, bf16, bf16, adamw, plain, &flat);
        case!("adamw same, 1000 tensors", 28.0, bf16, bf16, adamw, plain, &split);
        case!("adamw f32", 28.0, f32, f32, adamw, plain, &flat);
        case!("adamw remainder, bf16 moments", 18.0, bf16, bf16, adamw, remainder, &flat);
        case!("adamw stochastic, bf16 moments", 14.0, bf16, bf16, adamw, stochastic, &flat);
        case!("sgd momentum, f32 master", 16.0, bf16, bf16, sgd, plain, &flat);
        case!("lion f32 master", 16.0, bf16, bf16, Lion::default(), plain, &flat);
        case!("lamb f32 master", 42.0, bf16, bf16, Lamb::default(), plain, &flat);
    }
}
