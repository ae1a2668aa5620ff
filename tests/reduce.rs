//! The reducer against the f64 oracle: random plans, orders, weights, unused parameters; rows
//! K-01 … K-18. (K-06, K-07, K-18: also `reduce_plan.rs`. K-10 is a matter of types: `ready` has
//! packed when it returns.)
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::guard::Guarded;
use common::{cpu, ranks, rounding};
use halfstep::reduce::{
    Abort, BucketPlan, Collective, Communicator, Config, Fault, Local, NonFinite, Param, Parts,
    Reducer, Unscale,
};
use halfstep::{Buffer, Dtype, Error, Storage, Stream, Write, bf16, f16};
use proptest::prelude::*;
use std::sync::{Arc, Barrier};
use std::time::Instant;

/// The exact average: Σ w·g / Σ w for each element.
fn oracle(gradients: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let element =
        |i: usize| gradients.iter().zip(weights).map(|(g, w)| g[i] * w).sum::<f64>() / total;
    (0..gradients[0].len()).map(element).collect()
}

/// The documented bound of `Reducer`, for one element.
fn bound(gradients: &[f64], weights: &[f64], wire: Dtype, out: Dtype, exact: f64) -> f64 {
    let total: f64 = weights.iter().sum();
    let mean = gradients.iter().zip(weights).map(|(g, w)| g.abs() * w).sum::<f64>() / total;
    let ranks = gradients.len() as f64;
    // Subnormals of the wire type have an absolute error instead.
    let floor = rounding::ulp(0.0, wire);
    2.01 * wire.unit_roundoff() * mean
        + (ranks + 2.0) * 2f64.powi(-24) * mean
        + 2.0 * floor
        + 0.5 * rounding::ulp(exact, out)
}

fn refs<G: Storage>(tensors: &mut [Vec<G>]) -> Vec<&mut dyn Write<G>> {
    tensors.iter_mut().map(|t| t as &mut dyn Write<G>).collect()
}

fn widen<G: Storage>(values: &[G]) -> Vec<f64> {
    values.iter().map(|v| f64::from(v.widen())).collect()
}

/// One step on every rank: rank `r` marks `gradients[r]` in `orders[r]`.
fn step<G: Storage>(
    plan: &BucketPlan,
    config: &Config,
    gradients: &[Vec<Vec<G>>],
    orders: &[Vec<usize>],
    weights: &[f64],
) -> Vec<Vec<Vec<G>>> {
    ranks::run(gradients.len(), |comm| {
        let rank = comm.rank();
        let device = cpu(1 + rank % 2);
        let stream = device.stream().unwrap();
        let mut reducer =
            Reducer::new(&device, plan.clone(), Box::new(comm), config.clone()).unwrap();
        reducer.set_weight(weights[rank]).unwrap();
        let mut tensors = gradients[rank].clone();
        for &param in &orders[rank] {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
        }
        reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
        tensors
    })
}

fn shuffled(rng: &mut Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.below(i + 1));
    }
    order
}

fn params_from(lens: &[usize]) -> Vec<Param> {
    lens.iter().enumerate().map(|(i, &len)| Param::new(format!("p{i}"), len)).collect()
}

/// A random reduction of type `G` over wire `wire`: within the bound of the oracle, the same bits
/// on every rank, and the same bits again under another plan and other orders.
fn check<G: Storage>(seed: u64, size: usize, lens: &[usize], wire: Dtype, dist: Distribution) {
    let mut rng = Rng(seed);
    let params = params_from(lens);
    let weights: Vec<f64> = (0..size).map(|_| (1 + rng.below(9)) as f64).collect();
    let gradients: Vec<Vec<Vec<G>>> =
        (0..size).map(|_| lens.iter().map(|&len| dist.fill(&mut rng, len)).collect()).collect();
    let mut results = Vec::new();
    for cap in [1 + rng.below(4000), 1 + rng.below(400_000)] {
        let plan = BucketPlan::ddp(&params, wire, cap, cap).unwrap();
        let orders: Vec<_> = (0..size).map(|_| shuffled(&mut rng, lens.len())).collect();
        results.push(step(&plan, &Config::default(), &gradients, &orders, &weights));
    }
    let bits = |r: &Vec<Vec<G>>| -> Vec<Vec<u8>> {
        r.iter().map(|t| bytemuck::cast_slice(t).to_vec()).collect()
    };
    for result in results.iter().flatten() {
        assert_eq!(bits(result), bits(&results[0][0]), "ranks and plans differ");
    }
    let wire = if size == 1 { G::DTYPE } else { wire };
    for (param, &len) in lens.iter().enumerate() {
        let inputs: Vec<Vec<f64>> = gradients.iter().map(|g| widen(&g[param])).collect();
        let exact = oracle(&inputs, &weights);
        if size > 1 && wire == Dtype::F32 {
            check_definition(&gradients, &weights, param, &results[0][0][param]);
        }
        let got = widen(&results[0][0][param]);
        for i in 0..len {
            let column: Vec<f64> = inputs.iter().map(|g| g[i]).collect();
            let tolerance = bound(&column, &weights, wire, G::DTYPE, exact[i]);
            let error = (got[i] - exact[i]).abs();
            let good = error <= tolerance;
            assert!(
                good,
                "p{param}[{i}]: {} for {}, error {error:e} > {tolerance:e}",
                got[i], exact[i]
            );
        }
    }
}

/// The documented sequence of f32 operations over an f32 wire, to the bit.
fn check_definition<G: Storage>(all: &[Vec<Vec<G>>], weights: &[f64], param: usize, got: &[G]) {
    let factor = (1.0 / weights.iter().sum::<f64>()) as f32;
    for (i, got) in got.iter().enumerate() {
        let mut sum = weights[0] as f32 * all[0][param][i].widen();
        for (gradients, &weight) in all.iter().zip(weights).skip(1) {
            sum = (weight as f32).mul_add(gradients[param][i].widen(), sum);
        }
        assert_eq!(*got, G::narrow(factor * sum), "p{param}[{i}]");
    }
}

proptest! {
    #![proptest_config(common::cases())]

    #[test]
    fn an_average_is_within_its_bound_and_the_same_everywhere(
        seed: u64, size in 1usize..5,
        lens in proptest::collection::vec(0usize..700, 1..9),
        types in 0usize..7, dist in 0usize..7,
    ) {
        let dist = Distribution::REAL[dist];
        match types {
            0 => check::<f32>(seed, size, &lens, Dtype::F32, dist),
            1 => check::<f32>(seed, size, &lens, Dtype::Bf16, dist),
            2 => check::<bf16>(seed, size, &lens, Dtype::Bf16, dist),
            3 => check::<f16>(seed, size, &lens, Dtype::F16, dist),
            4 => check::<f32>(seed, size, &lens, Dtype::F16, dist),
            5 => check::<bf16>(seed, size, &lens, Dtype::F32, dist),
            _ => check::<f16>(seed, size, &lens, Dtype::Bf16, dist),
        }
    }

    /// Small integers: every product and sum is exact, so the answer is exact, to the bit.
    #[test]
    fn integer_sums_are_exact(
        seed: u64, size in 1usize..5, lens in proptest::collection::vec(0usize..300, 1..6),
    ) {
        let mut rng = Rng(seed);
        let gradients: Vec<Vec<Vec<bf16>>> = (0..size)
            .map(|_| lens.iter().map(|&n| Distribution::Integer(15).fill(&mut rng, n)).collect())
            .collect();
        let plan = BucketPlan::ddp(&params_from(&lens), Dtype::Bf16, 256, 1024).unwrap();
        let config = Config { average: false, ..Config::default() };
        let orders: Vec<_> = (0..size).map(|_| shuffled(&mut rng, lens.len())).collect();
        let results = step(&plan, &config, &gradients, &orders, &vec![1.0; size]);
        for result in &results {
            for (param, &len) in lens.iter().enumerate() {
                for i in 0..len {
                    let sum: f32 = gradients.iter().map(|g| g[param][i].widen()).sum();
                    prop_assert_eq!(result[param][i].widen(), sum);
                }
            }
        }
    }
}

/// Everything a test of one reducer on each of two ranks needs.
fn two<R: Send>(
    lens: &[usize],
    config: Config,
    rank: impl Fn(usize, &halfstep::Stream, &mut Reducer<f32>) -> R + Sync,
) -> Vec<R> {
    let plan = BucketPlan::ddp(&params_from(lens), Dtype::Bf16, 64, 64).unwrap();
    let made = Barrier::new(2); // an abort must not meet a rank that is still agreeing
    ranks::run(2, |comm| {
        let index = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let mut reducer =
            Reducer::new(&device, plan.clone(), Box::new(comm), config.clone()).unwrap();
        made.wait();
        rank(index, &stream, &mut reducer)
    })
}

#[test]
fn k01_a_parameter_marked_twice_is_named_and_nothing_is_lost() {
    two(&[40, 3], Config::default(), |_, stream, reducer| {
        let (mut a, mut b) = (vec![2.0f32; 40], vec![4.0f32; 3]);
        reducer.ready(stream, 1, &b).unwrap();
        let error = reducer.ready(stream, 1, &b).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert!(error.to_string().contains("p1"), "{error}");
        reducer.ready(stream, 0, &a).unwrap();
        reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
        assert_eq!((a[39], b[2]), (2.0, 4.0));
    });
}

#[test]
fn k02_unmarked_parameters_are_named_and_no_rank_hangs() {
    let errors = two(&[40, 3, 5], Config::default(), |rank, stream, reducer| {
        let mut tensors = vec![vec![1.0f32; 40], vec![1.0; 3], vec![1.0; 5]];
        for (param, tensor) in tensors.iter().enumerate() {
            if rank == 0 || param == 0 {
                reducer.ready(stream, param, tensor).unwrap();
            }
        }
        let error = reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap_err();
        let again = reducer.ready(stream, 0, &tensors[0]).unwrap_err();
        assert_eq!(again, error, "the first error stays");
        assert_eq!(tensors[1], [1.0; 3], "nothing is written");
        error
    });
    assert!(errors[1].to_string().contains("p1, p2"), "{}", errors[1]);
    let Error::Comm(Fault::Aborted { rank: 1, reason }) = &errors[0] else {
        panic!("{}", errors[0])
    };
    assert!(reason.contains("p1, p2"), "{reason}");
}

/// K-03: unused here and used there counts as zero here; unused everywhere is left alone.
#[test]
fn k03_ranks_may_disagree_about_unused_parameters() {
    let config = Config { allow_unused: true, ..Config::default() };
    two(&[40, 3, 5], config, |rank, stream, reducer| {
        for round in 1..4 {
            let value = 4.0 * round as f32;
            let mut tensors = vec![vec![value; 40], vec![value; 3], vec![7.0; 5]];
            reducer.ready(stream, 0, &tensors[0]).unwrap();
            if rank == 1 {
                reducer.ready(stream, 1, &tensors[1]).unwrap();
            }
            let reduced = reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
            assert_eq!(reduced.used, [true, true, false]);
            assert_eq!(tensors, [vec![value; 40], vec![value / 2.0; 3], vec![7.0; 5]]);
        }
    });
}

/// K-04: marks in opposite orders, every bucket of one parameter.
#[test]
fn k04_arrival_order_does_not_matter() {
    let lens = [64; 12];
    two(&lens, Config::default(), |rank, stream, reducer| {
        let mut tensors: Vec<Vec<f32>> = (0..12).map(|p| vec![(p + rank) as f32; 64]).collect();
        let order: Vec<usize> = if rank == 0 { (0..12).collect() } else { (0..12).rev().collect() };
        for param in order {
            reducer.ready(stream, param, &tensors[param]).unwrap();
        }
        reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
        for (p, tensor) in tensors.iter().enumerate() {
            assert_eq!(tensor[63], p as f32 + 0.5);
        }
    });
}

/// K-05: plans that differ are found before the first step, on all ranks, by name.
#[test]
fn k05_different_plans_are_an_error_on_every_rank() {
    let make =
        |lens: &[usize], cap| BucketPlan::ddp(&params_from(lens), Dtype::Bf16, cap, cap).unwrap();
    let base = make(&[10, 20, 30], 1000);
    let average = Config::default();
    let sum = Config { average: false, ..Config::default() };
    for (other, config, param) in [
        (make(&[10, 21, 30], 1000), &average, "1 (p1)"),
        (make(&[10, 20], 1000), &average, "2 ("),
        (make(&[10, 20, 30], 16), &average, "0 (p0)"),
        (base.clone(), &sum, "none"),
    ] {
        let errors = ranks::run(3, |comm| {
            let last = comm.rank() == 2;
            let (plan, config) = if last {
                (other.clone(), config.clone())
            } else {
                (base.clone(), average.clone())
            };
            Reducer::<f32>::new(&cpu(1), plan, Box::new(comm), config).err().unwrap()
        });
        for error in errors {
            let Error::Comm(Fault::PlanMismatch { rank: 2, param: found }) = &error else {
                panic!("{error}")
            };
            assert!(found.starts_with(param), "{found}: {param}");
        }
    }
}

/// K-09, and the other arguments: an error names the parameter and the step goes on.
#[test]
fn k09_bad_arguments_change_nothing() {
    two(&[40, 3], Config::default(), |_, stream, reducer| {
        let (mut a, mut b) = (vec![2.0f32; 40], vec![4.0f32; 3]);
        let error = reducer.ready(stream, 0, &b).unwrap_err();
        assert!(matches!(&error, Error::Shape { arg, .. } if arg == "gradient of p0"), "{error}");
        let error = reducer.ready(stream, 2, &b).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
        let error = reducer.accumulate(stream, 0, &a).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        reducer.ready(stream, 0, &a).unwrap();
        reducer.ready(stream, 1, &b).unwrap();
        let error = reducer.set_weight(2.0).unwrap_err(); // K-11: the step is not over
        assert!(matches!(error, Error::State { .. }), "{error}");
        let error = reducer.set_weight(f64::NAN).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
        let mut short = vec![0.0f32; 2];
        let error = reducer.finish(stream, &mut [&mut a, &mut short], Unscale::Keep).unwrap_err();
        assert!(error.to_string().contains("gradients[1] (p1)"), "{error}");
        let error = reducer.finish(stream, &mut [&mut a], Unscale::Keep).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        let error = reducer
            .finish(stream, &mut [&mut a, &mut b], Unscale::Factor(f32::INFINITY))
            .unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
        reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Factor(0.5)).unwrap();
        assert_eq!((a[0], b[0]), (1.0, 2.0));
    });
}

/// Outputs that share memory would be written twice: possible through raw pointers only.
#[test]
fn overlapping_outputs_are_refused() {
    two(&[40, 3], Config::default(), |_, stream, reducer| {
        let mut a = vec![2.0f32; 40];
        let b = vec![4.0f32; 3];
        reducer.ready(stream, 0, &a).unwrap();
        reducer.ready(stream, 1, &b).unwrap();
        let address = a.as_mut_ptr() as u64;
        // SAFETY: `a` outlives both; the call refuses to use them together.
        let (mut x, mut y, mut b) = unsafe {
            use halfstep::Raw;
            (Raw::new(address, 40), Raw::new(address + 39 * 4, 3), Raw::new(b.as_ptr() as u64, 3))
        };
        let error = reducer.finish(stream, &mut [&mut x, &mut y], Unscale::Keep).unwrap_err();
        assert!(matches!(error, Error::Overlap { .. }), "{error}");
        reducer.finish(stream, &mut [&mut x, &mut b], Unscale::Keep).unwrap();
    });
}

/// K-12, K-13: an f16 average of the largest and of subnormal values neither overflows nor
/// vanishes: weights enter in f32, after the wire.
#[test]
fn k12_k13_f16_neither_overflows_nor_underflows() {
    for value in [65504.0f32, 60000.0, 2f32.powi(-24), 3.0 * 2f32.powi(-24)] {
        let value = f16::narrow(value);
        let plan = BucketPlan::ddp(&params_from(&[9]), Dtype::F16, 1, 1).unwrap();
        let gradients = vec![vec![vec![value; 9]]; 4];
        let results = step(&plan, &Config::default(), &gradients, &vec![vec![0]; 4], &[1.0; 4]);
        assert_eq!(results, gradients);
    }
}

/// K-14: a NaN on one rank is NaN on all, in its element alone; its source is known.
#[test]
fn k14_a_nan_reaches_every_rank_and_its_source_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        two(&[40, 300], Config::default(), |rank, stream, reducer| {
            let (mut a, mut b) = (vec![1.0f32; 40], vec![1.0f32; 300]);
            if rank == 1 {
                b[299] = bad;
            }
            reducer.ready(stream, 1, &b).unwrap();
            reducer.ready(stream, 0, &a).unwrap();
            let reduced = reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
            let bucket = reducer.plan().place(1).0;
            assert_eq!(reduced.non_finite, [NonFinite { rank: 1, bucket, elements: 1 }]);
            assert!(b[299].is_nan() == bad.is_nan() && !b[299].is_finite());
            assert!(a.iter().chain(&b[..299]).all(|&x| x == 1.0));
            let summary = reducer.stats().read(stream).unwrap();
            assert_eq!((summary.non_finite, summary.first_non_finite), (1, Some(1)));
            assert_eq!(summary.sum_squares, 339.0);
        });
    }
}

/// K-15: alone, nothing is rounded and nothing is sent.
#[test]
fn k15_one_rank_gets_its_own_bits_back() {
    let mut rng = Rng(15);
    let gradient: Vec<f32> = Distribution::LogWide.fill(&mut rng, 5000);
    let plan = BucketPlan::ddp(&params_from(&[5000]), Dtype::Bf16, 1, 1).unwrap();
    let results = step(&plan, &Config::default(), &[vec![gradient.clone()]], &[vec![0]], &[3.0]);
    assert_eq!(results[0][0], gradient);
}

/// K-16: N micro-batches and one exchange are the f32 sum and one exchange.
#[test]
fn k16_accumulation_equals_reducing_the_f32_sum() {
    let config = Config { accumulate: true, average: false, ..Config::default() };
    for last_is_ready in [true, false] {
        let config = config.clone();
        two(&[1000, 3], config, |rank, stream, reducer| {
            for round in 0..3 {
                let mut rng = Rng(100 * round + rank as u64);
                let batches: Vec<Vec<f32>> =
                    (0..4).map(|_| Distribution::Normal.fill(&mut rng, 1000)).collect();
                let mut sum = vec![0.0f32; 1000];
                for batch in &batches {
                    sum.iter_mut().zip(batch).for_each(|(s, g)| *s += g);
                }
                let sends = if last_is_ready { 3 } else { 4 };
                for batch in &batches[..sends] {
                    reducer.accumulate(stream, 0, batch).unwrap();
                }
                if last_is_ready {
                    reducer.ready(stream, 0, &batches[3]).unwrap();
                }
                let (mut a, mut b) = (vec![0.0f32; 1000], vec![1.0f32; 3]);
                reducer.ready(stream, 1, &b).unwrap();
                reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
                // The same sums reduced in one go.
                let (mut direct, mut one) = (sum, vec![1.0f32; 3]);
                reducer.ready(stream, 0, &direct).unwrap();
                reducer.ready(stream, 1, &one).unwrap();
                reducer.finish(stream, &mut [&mut direct, &mut one], Unscale::Keep).unwrap();
                assert_eq!((a, b), (direct, one));
            }
        });
    }
}

/// K-17: a reducer dropped inside a step ends, and the other rank gets an error, not a hang.
#[test]
fn k17_a_dropped_reducer_ends_the_step_everywhere() {
    let plan = BucketPlan::ddp(&params_from(&[4000, 4000]), Dtype::Bf16, 1, 1).unwrap();
    let made = Barrier::new(2);
    let errors = ranks::run(2, |comm| {
        let rank = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let config = Config::default();
        let mut reducer = Reducer::new(&device, plan.clone(), Box::new(comm), config).unwrap();
        made.wait();
        let mut tensors = vec![vec![1.0f32; 4000]; 2];
        reducer.ready(&stream, 1, &tensors[1]).unwrap();
        if rank == 1 {
            return None; // drops it, with a bucket under way
        }
        let _ = reducer.ready(&stream, 0, &tensors[0]);
        reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).err()
    });
    let error = errors[0].as_ref().unwrap();
    assert!(matches!(error, Error::Comm(_)), "{error}");
}

/// A communicator on which rank 1's blocks arrive changed.
struct Tampered {
    inner: Local,
    /// The byte of rank 1's block that is changed, from its end.
    byte: usize,
}

impl Communicator for Tampered {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let mut parts = self.inner.exchange(collective, send, stream, deadline)?;
        if collective == Collective::AllToAll {
            let part = &mut parts.parts[1];
            let mut bytes = vec![0; part.len];
            part.buffer.read(stream, part.start, &mut bytes).unwrap();
            let at = bytes.len() - self.byte;
            bytes[at] += 1;
            (part.buffer, part.start) = (Arc::new(cpu(1).upload(&bytes).unwrap()), 0);
        }
        Ok(parts)
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        self.inner.aborter()
    }
}

/// Ranks in different steps, or with other plans, meet in a trailer and not in a sum.
#[test]
fn a_trailer_of_another_step_or_plan_is_found() {
    // 40 elements on 2 ranks: a shard of 128 elements is 256 bytes, the trailer the next 256.
    for byte in [256, 256 - 8] {
        let plan = BucketPlan::ddp(&params_from(&[40]), Dtype::Bf16, 1, 1).unwrap();
        let errors = ranks::run(2, |inner| {
            let device = cpu(1);
            let stream = device.stream().unwrap();
            let comm = Box::new(Tampered { inner, byte });
            let mut reducer = Reducer::new(&device, plan.clone(), comm, Config::default()).unwrap();
            let mut tensors = vec![vec![1.0f32; 40]];
            reducer.ready(&stream, 0, &tensors[0]).unwrap();
            reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap_err()
        });
        // One rank notices first; the other hears of it, or notices too.
        for error in &errors {
            assert!(error.to_string().contains("rank 1 is in step"), "{error}");
        }
        assert!(errors.iter().any(|e| matches!(e, Error::Comm(Fault::StepSkew { .. }))));
    }
}

/// Steps are counted alike on every rank, and a parameter that drops out takes its NaN with it.
#[test]
fn statistics_are_of_this_step_only() {
    let config = Config { allow_unused: true, ..Config::default() };
    two(&[40, 3], config, |_, stream, reducer| {
        let mut tensors = vec![vec![1.0f32; 40], vec![f32::NAN; 3]];
        for round in 0..3 {
            reducer.ready(stream, 0, &tensors[0]).unwrap();
            if round == 0 {
                reducer.ready(stream, 1, &tensors[1]).unwrap();
            }
            let reduced = reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
            let summary = reducer.stats().read(stream).unwrap();
            let expected = if round == 0 { 3 } else { 0 };
            assert_eq!((summary.non_finite, summary.sum_squares), (expected, 40.0));
            assert_eq!(reduced.non_finite.len(), if round == 0 { 2 } else { 0 });
        }
    });
}

/// More than 8 parameters in one bucket, each used by some ranks only.
#[test]
fn every_bit_of_the_used_map_counts() {
    let config = Config { allow_unused: true, ..Config::default() };
    let plan = BucketPlan::ddp(&params_from(&[3; 20]), Dtype::F32, 1 << 20, 1 << 20).unwrap();
    ranks::run(3, |comm| {
        let rank = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let mut reducer =
            Reducer::new(&device, plan.clone(), Box::new(comm), config.clone()).unwrap();
        let mut tensors = vec![vec![3.0f32; 3]; 20];
        // Rank 0 has the multiples of 2, rank 1 those of 3, rank 2 those of 5.
        let has = |rank: usize, param: usize| param % [2, 3, 5][rank] == 0;
        for param in (0..20).filter(|&param| has(rank, param)) {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
        }
        let reduced = reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
        for (param, tensor) in tensors.iter().enumerate() {
            let ranks = (0..3).filter(|&rank| has(rank, param)).count();
            assert_eq!(reduced.used[param], ranks > 0);
            let expected = if ranks > 0 { ranks as f32 } else { 3.0 };
            assert_eq!(*tensor, [expected; 3], "p{param}");
        }
    });
}

/// Σg² is that of what `finish` wrote (before its last rounding), to the documented bit.
#[test]
fn the_sum_of_squares_is_its_definition() {
    let lens = [70_000usize, 1, 16_384, 0, 5];
    let plan = BucketPlan::ddp(&params_from(&lens), Dtype::F32, 1, 1 << 20).unwrap();
    ranks::run(2, |comm: Local| {
        let device = cpu(2);
        let stream = device.stream().unwrap();
        let config = Config::default();
        let mut reducer = Reducer::new(&device, plan.clone(), Box::new(comm), config).unwrap();
        let mut rng = Rng(3);
        let mut tensors: Vec<Vec<f32>> =
            lens.iter().map(|&len| Distribution::LogWide.fill(&mut rng, len)).collect();
        for (param, tensor) in tensors.iter().enumerate() {
            reducer.ready(&stream, param, tensor).unwrap();
        }
        reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Factor(0.25)).unwrap();
        let fold = |values: &[f64]| {
            let mut lanes = vec![0.0f64; 2048];
            values.iter().enumerate().for_each(|(i, v)| lanes[i % 2048] += v);
            let mut half = 1024;
            while half > 0 {
                (0..half).for_each(|l| lanes[l] += lanes[l + half]);
                half /= 2;
            }
            lanes[0]
        };
        let square = |x: &f32| f64::from(*x) * f64::from(*x);
        let chunks = tensors.iter().flat_map(|t| t.chunks(16_384));
        let partials: Vec<f64> =
            chunks.map(|c| fold(&c.iter().map(square).collect::<Vec<_>>())).collect();
        let summary = reducer.stats().read(&stream).unwrap();
        assert_eq!(summary.sum_squares.to_bits(), fold(&partials).to_bits());
    });
}

/// Nothing outside the gradients is read or written, at any alignment.
#[test]
fn gradients_between_guard_pads() {
    for shift in 0..4 {
        let plan = BucketPlan::ddp(&params_from(&[1001, 77]), Dtype::Bf16, 100, 100).unwrap();
        ranks::run(2, |comm| {
            let device = cpu(2);
            let stream = device.stream().unwrap();
            let config = Config::default();
            let mut reducer =
                Reducer::<bf16>::new(&device, plan.clone(), Box::new(comm), config).unwrap();
            let mut rng = Rng(9);
            let fill = |rng: &mut Rng, n| Distribution::Uniform.fill::<bf16>(rng, n);
            let inputs = [
                Guarded::new(&fill(&mut rng, 1001), shift),
                Guarded::new(&fill(&mut rng, 77), shift + 1),
            ];
            let mut outputs = [Guarded::output(1001, shift), Guarded::output(77, shift + 3)];
            reducer.ready(&stream, 0, &inputs[0].get()).unwrap();
            reducer.ready(&stream, 1, &inputs[1].get()).unwrap();
            let [a, b] = &mut outputs;
            let gradients: &mut [&mut dyn Write<bf16>] = &mut [&mut a.get_mut(), &mut b.get_mut()];
            reducer.finish(&stream, gradients, Unscale::Keep).unwrap();
            for (input, output) in inputs.iter().zip(&outputs) {
                assert_eq!(input.get(), output.get(), "equal gradients average to themselves");
                input.check("input");
                output.check("output");
            }
        });
    }
}
