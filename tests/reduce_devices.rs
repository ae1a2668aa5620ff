//! Every device reduces to the CPU's bits: every pair of gradient and wire type, odd lengths and
//! addresses, weights, accumulation, values that are not finite, one to three ranks on one device.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::memory::Values;
use common::reduction::params_from;
use common::{devices, ranks};
use halfstep::reduce::{BucketPlan, Communicator, Config, Reducer, Unscale};
use halfstep::{Device, DeviceKind, Dtype, Storage, Write, bf16, f16};

/// Around what a thread and a block take; the third crosses a chunk, and buckets are small.
const LENGTHS: [usize; 7] = [1, 7, 16_390, 0, 2049, 9, 255];

#[derive(Debug, Clone, Copy)]
struct Case {
    ranks: usize,
    wire: Dtype,
    shift: usize,
    bad: bool,
    unscale: f32,
}

/// What each rank gets in two steps, as bits, with Σg² and the counts.
fn reduce<G: Storage>(device: &Device, case: Case) -> Vec<Vec<u64>> {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), case.wire, 4000, 9000).unwrap();
    ranks::run(case.ranks, |comm| {
        let rank = comm.rank();
        let stream = device.stream().unwrap();
        let config = Config { accumulate: true, scale: 0.3, ..Config::default() };
        let mut reducer = Reducer::<G>::new(device, plan.clone(), Box::new(comm), config).unwrap();
        let mut rng = Rng(17 + rank as u64);
        let mut bits = Vec::new();
        for step in 0..2 {
            reducer.set_weight(1.5 + rank as f64).unwrap();
            let mut fill = || -> Vec<Values<G>> {
                let one = |&len: &usize| {
                    let values: Vec<G> = Distribution::REAL[4].fill(&mut rng, len);
                    Values::shifted(values, case.shift)
                };
                LENGTHS.iter().map(one).collect()
            };
            let (early, mut late) = (fill(), fill());
            if case.bad && rank == 0 && step == 1 {
                late[2][16_385] = G::narrow(f32::INFINITY);
                late[5][0] = G::narrow(f32::NAN);
            }
            for param in [4, 2] {
                reducer.accumulate(&stream, param, &early[param]).unwrap();
            }
            for param in (0..LENGTHS.len()).rev() {
                reducer.ready(&stream, param, &late[param]).unwrap();
            }
            let mut out: Vec<&mut dyn Write<G>> =
                late.iter_mut().map(|values| values as &mut dyn Write<G>).collect();
            let unscale = Unscale::Factor(case.unscale);
            let reduced = reducer.finish(&stream, &mut out, unscale).unwrap();
            for values in &late {
                // NaN is NaN: its other bits are the processor's.
                let one = |v: &G| if v.widen().is_nan() { f32::NAN } else { v.widen() };
                bits.extend(values.iter().map(|v| u64::from(one(v).to_bits())));
            }
            let stats = reducer.stats().read(&stream).unwrap();
            bits.extend([stats.sum_squares.to_bits(), stats.non_finite]);
            bits.extend(
                reduced.non_finite.iter().map(|bad| bad.elements + ((bad.bucket as u64) << 32)),
            );
        }
        bits
    })
}

fn same<G: Storage>() {
    let mut cases = 0;
    for device in devices().into_iter().filter(|device| device.info().kind != DeviceKind::Cpu) {
        for wire in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            for (ranks, shift, bad) in [(1, 0, true), (2, 1, false), (3, 0, true)] {
                let case = Case { ranks, wire, shift, bad, unscale: 1.0 / 0.3 };
                let (cpu, here) = (reduce::<G>(&Device::cpu(), case), reduce::<G>(&device, case));
                assert!(cpu == here, "{} {case:?}", device.info());
                assert!(cpu.windows(2).all(|pair| pair[0] == pair[1]) || case.bad, "{case:?}");
                cases += 1;
            }
        }
    }
    println!("{cases} cases");
}

#[test]
fn bf16_gradients() {
    same::<bf16>();
}

#[test]
fn f16_gradients() {
    same::<f16>();
}

#[test]
fn f32_gradients() {
    same::<f32>();
}
