//! Averaging the gradients of Wave2Vec2-base over two ranks of one process, as a share of the
//! bandwidth of an in-place update measured between the rounds.
//!
//! The least that any way moves is each rank's gradients once in and once out; that is what the
//! share counts, though packing and exchanging move more.
//!
//! `cargo bench --bench reduce`; rounds with `HALFSTEP_BENCH_ROUNDS`.
#![allow(missing_docs)]

#[path = "common/bandwidth.rs"]
mod bandwidth;
#[path = "workloads/mod.rs"]
mod workloads;

use std::sync::Barrier;
use std::time::Instant;

use bandwidth::{Bandwidth, median};
use halfstep::reduce::{BucketPlan, Communicator, Config, Local, Param, Reducer, Unscale, local};
use halfstep::{Device, Dtype, Storage, Write, bf16};

const RANKS: usize = 2;

/// Seconds of one step on every rank, from a common start; the slowest counts.
fn measure<G: Storage>(
    params: &[Param],
    wire: Dtype,
    rounds: usize,
    bandwidth: &mut Bandwidth,
) -> (f64, f64) {
    let plan = BucketPlan::ddp(params, wire, 1 << 20, 25 << 20).unwrap();
    let start = Barrier::new(RANKS + 1);
    let mut seconds = Vec::new();
    let mut machine = Vec::new();
    let run = |comm: Local| {
        let rank = comm.rank();
        let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
        let stream = device.stream().unwrap();
        let mut reducer =
            Reducer::<G>::new(&device, plan.clone(), Box::new(comm), Config::default()).unwrap();
        let fill = |p: &Param| vec![G::narrow(1.0 + rank as f32); p.len];
        let mut gradients: Vec<Vec<G>> = params.iter().map(fill).collect();
        for _ in 0..rounds + 1 {
            start.wait();
            for (param, gradient) in gradients.iter().enumerate().rev() {
                reducer.ready(&stream, param, gradient).unwrap();
            }
            let mut outputs: Vec<&mut dyn Write<G>> =
                gradients.iter_mut().map(|g| g as &mut dyn Write<G>).collect();
            reducer.finish(&stream, &mut outputs, Unscale::Keep).unwrap();
            start.wait();
            // Checked before the time is believed.
            let right = gradients.iter().flatten().all(|g| g.widen() == 1.5);
            assert!(right, "the average of 1 and 2 is 1.5, that of equal values themselves");
        }
    };
    let run = &run;
    std::thread::scope(|scope| {
        for comm in local(RANKS.try_into().unwrap()) {
            scope.spawn(move || run(comm));
        }
        for round in 0..rounds + 1 {
            let before = bandwidth.measure(RANKS);
            start.wait();
            let clock = Instant::now();
            start.wait();
            if round > 0 {
                seconds.push(clock.elapsed().as_secs_f64());
                machine.push(0.5 * (before + bandwidth.measure(RANKS)));
            }
        }
    });
    let total: usize = params.iter().map(|p| p.len).sum();
    let least = (RANKS * 2 * total * size_of::<G>()) as f64;
    let shares = seconds.iter().zip(&machine).map(|(s, m)| least / s / m).collect();
    (median(seconds), median(shares))
}

fn main() {
    let timed = std::env::args().any(|argument| argument == "--bench");
    let rounds = std::env::var("HALFSTEP_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(if timed { 9 } else { 1 });
    let mut params = workloads::wav2vec2_base_ctc();
    if !timed {
        params.truncate(20); // `cargo test --benches`: only that it runs
    }
    let mut bandwidth = Bandwidth::new(if timed { 100_000_000 } else { 1_000_000 });
    println!("wav2vec2-base, {} tensors, {RANKS} ranks of one process", params.len());
    for (name, (seconds, share)) in [
        (
            "bf16 gradients, bf16 wire",
            measure::<bf16>(&params, Dtype::Bf16, rounds, &mut bandwidth),
        ),
        ("f32 gradients, bf16 wire", measure::<f32>(&params, Dtype::Bf16, rounds, &mut bandwidth)),
        ("f32 gradients, f32 wire", measure::<f32>(&params, Dtype::F32, rounds, &mut bandwidth)),
    ] {
        println!(
            "{name:28} {:7.1} ms  {:5.1} % of in-place bandwidth",
            1e3 * seconds,
            100.0 * share
        );
    }
}
