//! The reducer against the f64 oracle: random plans, orders, weights and types.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::guard::Guarded;
use common::reduction::{params_from, refs};
use common::{cpu, ranks, rounding};
use halfstep::reduce::{BucketPlan, Communicator, Config, Local, Reducer, Unscale, local};
use halfstep::{Dtype, Storage, Write, bf16, f16};
use proptest::prelude::*;

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

/// K-15: alone, nothing is rounded and nothing is sent.
#[test]
fn k15_one_rank_gets_its_own_bits_back() {
    let mut rng = Rng(15);
    let gradient: Vec<f32> = Distribution::LogWide.fill(&mut rng, 5000);
    let plan = BucketPlan::ddp(&params_from(&[5000]), Dtype::Bf16, 1, 1).unwrap();
    let results = step(&plan, &Config::default(), &[vec![gradient.clone()]], &[vec![0]], &[3.0]);
    assert_eq!(results[0][0], gradient);
}

/// Alone, too, a sum is of weighted gradients, an average of none; wherever gradients lie.
#[test]
fn one_rank_gets_its_weighted_sum() {
    let plan = BucketPlan::ddp(&params_from(&[3]), Dtype::Bf16, 1, 1).unwrap();
    let device = cpu(1);
    let stream = device.stream().unwrap();
    for (average, weight, expected) in
        [(false, 3.0, 2.25), (true, 3.0, 0.75), (false, 1.0, 0.75), (false, 0.0, 0.0)]
    {
        for (views, accumulate) in [(false, false), (false, true), (true, false), (true, true)] {
            let config =
                Config { average, views, accumulate, scale: 0.5, stats: true, ..Config::default() };
            let comm = Box::new(local(1.try_into().unwrap()).remove(0));
            let mut reducer = Reducer::<f32>::new(&device, plan.clone(), comm, config).unwrap();
            reducer.set_weight(weight).unwrap();
            let mut gradient = [1.5f32; 3];
            if views {
                reducer.gradient_mut(0).unwrap().host().unwrap().copy_from_slice(&gradient);
                reducer.ready_view(&stream, 0).unwrap();
                reducer.finish_views(&stream, Unscale::Keep).unwrap();
                gradient.copy_from_slice(reducer.gradient(0).unwrap().host().unwrap());
            } else {
                reducer.ready(&stream, 0, &gradient).unwrap();
                reducer.finish(&stream, &mut [&mut gradient], Unscale::Keep).unwrap();
            }
            let case = format!("average {average}, weight {weight}, views {views} {accumulate}");
            assert_eq!(gradient, [expected; 3], "{case}");
            let squares = reducer.stats().unwrap().read(&stream).unwrap().sum_squares;
            assert_eq!(squares, 3.0 * f64::from(expected).powi(2), "{case}");
        }
    }
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
        let summary = reducer.stats().unwrap().read(&stream).unwrap();
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
