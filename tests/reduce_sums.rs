//! The three orders of sums: in rank order, in no order (integers), in the communicator's.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::reduction::params_from;
use common::{cases, cpu, devices, ranks, reduction};
use halfstep::reduce::{BucketPlan, Communicator, Config, Fault, Reducer, Reduction, Sum, Unscale};
use halfstep::{Device, Dtype, Error, Storage, bf16, f16};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const LENGTHS: [usize; 6] = [3, 700, 0, 2049, 1, 255];

/// What a rank brings: a gradient for each parameter, or none, and their weight.
#[derive(Clone)]
struct Brought<G> {
    gradients: Vec<Option<Vec<G>>>,
    weight: f64,
}

fn brought<G: Storage>(seed: u64, rank: usize, weight: f64) -> Brought<G> {
    let mut rng = Rng(seed * 1000 + rank as u64);
    let one = |&len: &usize| Some(Distribution::Normal.fill(&mut rng, len));
    Brought { gradients: LENGTHS.iter().map(one).collect(), weight }
}

/// One step; rank 0's result and the statistics, as bits. All ranks have the same.
fn step<G: Storage>(
    device: &Device,
    all: &[Brought<G>],
    how: (Dtype, &Config),
    unscale: Unscale,
) -> (Vec<Vec<G>>, [u64; 2]) {
    step_of(device, all, how, unscale, all.len())
}

/// As [`step`], of ranks of which so many, from the first on, say that they are threads.
fn step_of<G: Storage>(
    device: &Device,
    all: &[Brought<G>],
    (wire, config): (Dtype, &Config),
    unscale: Unscale,
    threads: usize,
) -> (Vec<Vec<G>>, [u64; 2]) {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), wire, 4000, 9000).unwrap();
    let results = ranks::run(all.len(), |comm| {
        let mine = &all[comm.rank()];
        let stream = device.stream().unwrap();
        let comm: Box<dyn Communicator> = match comm.rank() < threads {
            true => Box::new(comm),
            false => Box::new(ranks::Plain(comm)),
        };
        let mut reducer = Reducer::<G>::new(device, plan.clone(), comm, config.clone()).unwrap();
        reducer.set_weight(mine.weight).unwrap();
        let zeros = |&len: &usize| vec![G::narrow(0.0); len];
        let mut out: Vec<Vec<G>> = LENGTHS.iter().map(zeros).collect();
        let how = (config.views, unscale);
        reduction::step(device, &mut reducer, &mine.gradients, how, &mut out);
        let stats = reducer.stats().unwrap().read(&stream).unwrap();
        (out, [stats.sum_squares.to_bits(), stats.non_finite])
    });
    for other in &results {
        assert!(bits(&other.0) == bits(&results[0].0) && other.1 == results[0].1, "ranks agree");
    }
    results.into_iter().next().unwrap()
}

fn bits<G: Storage>(tensors: &[Vec<G>]) -> Vec<u32> {
    tensors.iter().flatten().map(|value| value.widen().to_bits()).collect()
}

fn config(sum: Sum) -> Config {
    Config { sum, ..Config::default() }
}

/// Integers that every wire holds come out exact, whatever the order.
#[test]
fn integers_are_exact_in_every_order() {
    for device in devices() {
        for sum in [Sum::RankOrder, Sum::OrderFree, Sum::Communicator] {
            for wire in Dtype::ALL {
                for (ranks, views) in [(1, false), (2, true), (3, false), (4, false)] {
                    let value = |rank: usize, i: usize| ((i * 7 + rank * 3) % 31) as f32 - 15.0;
                    let all: Vec<Brought<f32>> = (0..ranks)
                        .map(|rank| Brought {
                            gradients: LENGTHS
                                .iter()
                                .map(|&len| Some((0..len).map(|i| value(rank, i)).collect()))
                                .collect(),
                            weight: (1 << rank) as f64,
                        })
                        .collect();
                    let config = Config { average: false, views, ..config(sum) };
                    let (got, _) = step(&device, &all, (wire, &config), Unscale::Factor(0.5));
                    let exact = |i: usize| {
                        let sum: f32 = (0..ranks).map(|r| (1 << r) as f32 * value(r, i)).sum();
                        0.5 * if ranks == 1 { value(0, i) } else { sum }
                    };
                    for (tensor, &len) in got.iter().zip(&LENGTHS) {
                        let exact: Vec<f32> = (0..len).map(exact).collect();
                        assert_eq!(tensor, &exact, "{sum:?} {wire} {ranks} {}", device.info());
                    }
                }
            }
        }
    }
}

/// Threads have no library: in the communicator's order is in rank order, to the bit, packed and in place; also where one
/// rank does not say that it is a thread.
#[test]
fn threads_add_up_in_rank_order() {
    fn check<G: Storage>(wire: Dtype) {
        let all: Vec<Brought<G>> = (0..3).map(|rank| brought(4, rank, 0.7 + rank as f64)).collect();
        for (views, threads) in [(false, 3), (true, 3), (false, 2), (true, 2)] {
            let run = |sum| {
                let config = Config { views, scale: 0.75, ..config(sum) };
                step_of(&cpu(1), &all, (wire, &config), Unscale::Factor(0.3), threads)
            };
            let ((found, stats), (expected, squares)) =
                (run(Sum::Communicator), run(Sum::RankOrder));
            assert!(bits(&found) == bits(&expected), "{} over {wire}, {views} {threads}", G::DTYPE);
            assert_eq!(stats, squares);
        }
    }
    for wire in Dtype::ALL {
        check::<f32>(wire);
        check::<bf16>(wire);
    }
}

/// Threads add up without an order what others encode, send and decode: the same bits, packed, accumulated, scaled and in
/// place; also where one rank does not say that it is a thread.
#[test]
fn sums_without_order_are_those_of_an_all_reduce() {
    fn check<G: Storage>(wire: Dtype) {
        let mut all: Vec<Brought<G>> =
            (0..3).map(|rank| brought(8, rank, 0.7 + rank as f64)).collect();
        // A NaN takes its block along, and the parameters in it.
        all[1].gradients[4].as_mut().unwrap()[0] = G::narrow(f32::NAN);
        for (scale, accumulate) in [(1.0, false), (0.75, false), (1.0, true)] {
            let run = |views, threads| {
                let config = Config { views, scale, accumulate, ..config(Sum::OrderFree) };
                let (tensors, stats) =
                    step_of(&cpu(1), &all, (wire, &config), Unscale::Factor(0.3), threads);
                (bits(&tensors), stats)
            };
            let expected = run(false, 0);
            for (views, threads) in [(false, 3), (true, 3), (false, 2), (true, 2)] {
                let how = (wire, views, threads, scale, accumulate);
                assert!(run(views, threads) == expected, "{} {how:?}", G::DTYPE);
            }
        }
    }
    for wire in Dtype::ALL {
        check::<f32>(wire);
        check::<bf16>(wire);
        check::<f16>(wire);
    }
}

/// A library that flushes subnormals, or rounds upwards, in the thread that makes a reducer, and so in the threads that
/// are started from it, changes no sum.
#[cfg(target_arch = "x86_64")]
#[test]
fn sums_do_not_depend_on_the_floating_point_mode() {
    let all = [1.0, 2.5, 0.7].map(|weight| brought(5, weight as usize, weight));
    let all = all.map(|mut one| {
        let every = one.gradients.iter_mut().flatten();
        every.for_each(|tensor| tensor.iter_mut().step_by(3).for_each(|g: &mut f32| *g *= 1e-38));
        one
    });
    let orders = [Sum::RankOrder, Sum::OrderFree, Sum::Communicator, Sum::Int8];
    for (sum, views, wire) in orders.into_iter().flat_map(|sum| {
        [(sum, false, Dtype::F32), (sum, true, Dtype::F32), (sum, false, Dtype::Bf16)]
    }) {
        let config = Config { scale: 0.3, views, ..config(sum) };
        let run = || {
            let device = cpu(1);
            let (tensors, stats) = step(&device, &all, (wire, &config), Unscale::Factor(3.3));
            (bits(&tensors), stats)
        };
        let expected = run();
        for foreign in common::mode::FOREIGN {
            let found = common::mode::within(foreign, run);
            assert!(found == expected, "{sum:?}, views {views}, {wire}, mode {foreign:#x}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 8, ..cases() })]

    /// Integers do not care which rank brings what; nor does the result, to the bit.
    #[test]
    fn sums_without_order_do_not_depend_on_it(seed in 0u64..1 << 40, shift in 1usize..4) {
        let all: Vec<Brought<bf16>> =
            (0..4).map(|rank| brought(seed, rank, 0.5 + rank as f64)).collect();
        let mut turned = all.clone();
        turned.rotate_left(shift);
        turned.swap(0, 3 - shift / 2);
        let run = |all: &[Brought<bf16>]| {
            let (tensors, stats) = step(
                &Device::cpu(), all, (Dtype::Bf16, &config(Sum::OrderFree)), Unscale::Keep,
            );
            (bits(&tensors), stats)
        };
        prop_assert_eq!(run(&all), run(&turned));
    }

    /// Within the documented bounds of the exact average.
    #[test]
    fn sums_are_as_close_as_promised(seed in 0u64..1 << 40, ranks in 2usize..6) {
        let all: Vec<Brought<f32>> =
            (0..ranks).map(|rank| brought(seed, rank, 0.25 + rank as f64)).collect();
        let total: f64 = all.iter().map(|b| b.weight).sum();
        let u = |wire: Dtype| match wire {
            Dtype::Bf16 => 2f64.powi(-8),
            Dtype::F16 => 2f64.powi(-11),
            _ => 2f64.powi(-24),
        };
        for (sum, wire) in [
            (Sum::OrderFree, Dtype::Bf16),
            (Sum::Communicator, Dtype::Bf16),
            (Sum::Communicator, Dtype::F32),
            (Sum::Communicator, Dtype::F16),
        ] {
            let (got, _) = step(&Device::cpu(), &all, (wire, &config(sum)), Unscale::Keep);
            let headroom = ranks.next_power_of_two().trailing_zeros() as i32;
            for (param, tensor) in got.iter().enumerate() {
                let term = |rank: usize, i: usize| {
                    let gradient = all[rank].gradients[param].as_ref().unwrap();
                    all[rank].weight * f64::from(gradient[i])
                };
                // Blocks are of the bucket: the largest of all parameters bounds each.
                let largest = (0..ranks)
                    .flat_map(|r| all[r].gradients.iter().flatten().flatten()
                        .map(move |g| (f64::from(*g)).abs()).map(move |g| (r, g)))
                    .map(|(r, g)| all[r].weight * g)
                    .fold(0.0, f64::max);
                for (i, got) in tensor.iter().enumerate() {
                    let exact: f64 = (0..ranks).map(|r| term(r, i)).sum::<f64>() / total;
                    let size: f64 = (0..ranks).map(|r| term(r, i).abs()).sum::<f64>() / total;
                    let f32s = (ranks + 4) as f64 * 2f64.powi(-24) * size;
                    let bound = f32s + match sum {
                        Sum::OrderFree => {
                            ranks as f64 * 2f64.powi(headroom - 30) * largest / total
                        }
                        _ => 2.01 * u(wire) * size + 2f64.powi(-24),
                    };
                    let error = (f64::from(*got) - exact).abs();
                    prop_assert!(error <= bound, "{sum:?} {wire}: {error} > {bound}");
                }
            }
        }
    }
}

/// Every device, views or not, has the CPU's bits of sums without an order.
#[test]
fn every_device_has_the_same_bits() {
    fn same<G: Storage>(ranks: usize) {
        let all: Vec<Brought<G>> =
            (0..ranks).map(|rank| brought(9, rank, 1.0 + rank as f64)).collect();
        for sum in [Sum::OrderFree, Sum::Communicator] {
            let run = |device: &Device, views| {
                let config = Config { views, scale: 0.75, ..config(sum) };
                let (tensors, stats) =
                    step(device, &all, (Dtype::Bf16, &config), Unscale::Factor(1.0 / 0.75));
                (bits(&tensors), stats)
            };
            let cpu = run(&Device::cpu(), false);
            for device in devices() {
                for views in [false, true] {
                    assert!(run(&device, views) == cpu, "{sum:?} {} {views}", device.info());
                }
            }
        }
    }
    same::<f32>(2);
    same::<bf16>(3);
    same::<f16>(2);
}

/// What nobody has is left alone; a NaN of one rank is seen on all, and counted for it; a rank that weighs
/// nothing changes nothing.
#[test]
fn unused_weightless_and_not_finite() {
    for device in devices() {
        for sum in [Sum::OrderFree, Sum::Communicator] {
            let mut all: Vec<Brought<f32>> = (0..3).map(|rank| brought(5, rank, 1.0)).collect();
            all.iter_mut().for_each(|one| one.gradients[3] = None);
            all[1].gradients[1].as_mut().unwrap()[600] = f32::NAN;
            all[2].weight = 0.0;
            let config = Config { allow_unused: true, ..config(sum) };
            let (got, stats) = step(&device, &all, (Dtype::F32, &config), Unscale::Keep);
            assert!(got[3].iter().all(|x| *x == 0.0), "{sum:?}");
            assert!(got[1][600].is_nan() && got[5].iter().all(|x| x.is_finite()), "{sum:?}");
            assert!(stats[1] > 0);
            all[2].gradients[5].as_mut().unwrap().fill(1e30);
            let (again, _) = step(&device, &all, (Dtype::F32, &config), Unscale::Keep);
            assert_eq!(bits(&again[5..]), bits(&got[5..]), "{sum:?}");
        }
    }
}

/// A rank that weighs nothing counts as zeros, whatever its gradients are: in every order, packed and in place. Where all
/// weigh nothing, alone or not, the average is 0.
#[test]
fn what_weighs_nothing_counts_as_zeros() {
    const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::MIN];
    let weighing = |weights: &[f64], of_nothing: [f32; 3]| -> Vec<Brought<f32>> {
        let mut all: Vec<_> = (0..).zip(weights).map(|(r, &w)| brought(6, r, w)).collect();
        for one in all.iter_mut().filter(|one| one.weight == 0.0) {
            let values = one.gradients.iter_mut().flatten().flatten();
            values.zip(of_nothing.iter().cycle()).for_each(|(value, bad)| *value = *bad);
        }
        all
    };
    for device in devices() {
        for sum in [Sum::RankOrder, Sum::OrderFree, Sum::Communicator, Sum::Int8] {
            for (views, wire) in [(false, Dtype::F32), (true, Dtype::F32), (true, Dtype::Bf16)] {
                let config = Config { views, ..config(sum) };
                let step = |all: &[_]| step(&device, all, (wire, &config), Unscale::Keep);
                for weights in [&[0.0, 3.0, 0.0][..], &[0.0, 0.0], &[0.0]] {
                    let what = format!("{sum:?}, views {views}, {wire}, {weights:?}");
                    let expected = step(&weighing(weights, [0.0; 3]));
                    let found = step(&weighing(weights, BAD));
                    assert_eq!(bits(&found.0), bits(&expected.0), "{what}");
                    assert_eq!(found.1, expected.1, "{what}");
                    let nothing = weights.iter().all(|weight| *weight == 0.0);
                    assert_eq!(found.0.iter().flatten().all(|x| *x == 0.0), nothing, "{what}");
                }
            }
        }
    }
}

/// All-reduces of a communicator's that has none of its own.
#[test]
fn a_communicator_without_one_reduces_all_the_same() {
    for device in devices() {
        let results = ranks::run(3, |mut comm| {
            let rank = comm.rank();
            let stream = device.stream().unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut run = |bytes: &[u8], len, reduction| {
                let buffer = device.upload(bytes).unwrap();
                let (buffer, _) =
                    comm.all_reduce(buffer, len, reduction, &stream, deadline).unwrap();
                buffer.to_vec(&stream).unwrap()
            };
            let integers: Vec<i32> = (0..41).map(|i| (i << rank) - 7).collect();
            let sums = run(bytemuck::cast_slice(&integers), 4 * 40, Reduction::SumI32);
            let bytes: Vec<u8> = (0..37).map(|i| (i * 11 + 91 * rank) as u8).collect();
            let largest = run(&bytes, 37, Reduction::MaxU8);
            let halves: Vec<bf16> = (0..5).map(|i| bf16::narrow((i + rank * 256) as f32)).collect();
            let halves = run(bytemuck::cast_slice(&halves), 10, Reduction::Sum(Dtype::Bf16));
            (sums, largest, halves)
        });
        for (sums, largest, halves) in results {
            let sums: Vec<i32> =
                sums.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
            for (i, sum) in sums.iter().enumerate().take(40) {
                assert_eq!(*sum, 7 * i as i32 - 21);
            }
            assert!(sums[40] != 7 * 40 - 21, "what is behind is left alone");
            for (i, byte) in largest.iter().enumerate() {
                let all = [0usize, 1, 2].map(|rank| (i * 11 + 91 * rank) as u8);
                assert_eq!(byte, all.iter().max().unwrap());
            }
            // 0 + 256 + 512, and i three times where 256 + i holds it: summed in f32, rounded once.
            let halves: Vec<bf16> = halves
                .chunks_exact(2)
                .map(|b| bf16::from_bits(u16::from_le_bytes(b.try_into().unwrap())))
                .collect();
            let exact = |i: usize| (0..3).map(|r| bf16::narrow((i + r * 256) as f32).widen()).sum();
            for (i, half) in halves.iter().enumerate() {
                assert_eq!(*half, bf16::narrow(exact(i)));
            }
        }
    }
}

/// Ranks that call different ones, of blocks that are as long as each other, are told so.
#[test]
fn all_reduces_that_differ_are_errors() {
    for calls in [
        [(16, Reduction::SumI32), (16, Reduction::Sum(Dtype::F32))],
        [(16, Reduction::Sum(Dtype::Bf16)), (12, Reduction::Sum(Dtype::Bf16))],
    ] {
        let errors = ranks::run(2, |mut comm| {
            let (device, (len, reduction)) = (cpu(1), calls[comm.rank()]);
            let stream = device.stream().unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            let buffer = device.zeros(16).unwrap();
            comm.all_reduce(buffer, len, reduction, &stream, deadline).map(drop).err()
        });
        for error in errors {
            let error = error.expect("they differ").to_string();
            assert!(error.contains("rank 1 called Sum"), "{error}");
        }
    }
}

/// To the bit, whatever the floating-point mode of the thread: zeros of either sign, subnormals, what is not finite, and
/// lengths beside whole vectors.
#[test]
fn sums_of_a_communicator_without_them_have_the_bits_of_a_loop() {
    fn check<T: Storage>(patterns: &[u32], bits: fn(u32) -> T) {
        for size in [1, 2, 3, 5] {
            for len in [1, 2, 37, 1500, 70_001] {
                let values = |rank: usize| -> Vec<T> {
                    let pattern = |i: usize| patterns[(i * (rank + 1) + i / 7) % patterns.len()];
                    (0..len).map(|i| bits(pattern(i))).collect()
                };
                let all: Vec<Vec<T>> = (0..size).map(values).collect();
                let sum = |i: usize| all.iter().fold(0.0f32, |sum, one| sum + one[i].widen());
                let expected: Vec<T> = (0..len).map(|i| T::narrow(sum(i))).collect();
                let found = ranks::run(size, |mut comm| {
                    let (device, bytes) = (cpu(1), bytemuck::cast_slice(&all[comm.rank()]));
                    let (buffer, stream) =
                        (device.upload(bytes).unwrap(), device.stream().unwrap());
                    let deadline = Instant::now() + Duration::from_secs(60);
                    let sum = Reduction::Sum(T::DTYPE);
                    let run = || comm.all_reduce(buffer, bytes.len(), sum, &stream, deadline);
                    #[cfg(target_arch = "x86_64")]
                    let run = || common::mode::within(common::mode::FOREIGN[0], run);
                    run().unwrap().0.to_vec(&stream).unwrap()
                });
                for found in found {
                    let found = found.chunks_exact(size_of::<T>());
                    let found: Vec<T> = found.map(bytemuck::pod_read_unaligned).collect();
                    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let (found, expected) = (found.widen(), expected.widen());
                        let same = found.to_bits() == expected.to_bits();
                        assert!(same || (found.is_nan() && expected.is_nan()), "{size} {len} {i}");
                    }
                }
            }
        }
    }
    const WIDE: [u32; 8] =
        [0x8000_0000, 0, 1, 0x3f80_0001, 0xff80_0000, 0x7fc0_0000, 0x7f7f_ffff, 0x807f_ffff];
    check::<f32>(&WIDE, f32::from_bits);
    const HALF: [u32; 8] = [0x8000, 0, 1, 0x3c01, 0xfc00, 0x7e00, 0x7bff, 0x83ff];
    check::<f16>(&HALF, |bits| f16::from_bits(bits as u16));
    const BRAIN: [u32; 8] = [0x8000, 0, 1, 0x3f81, 0xff80, 0x7fc0, 0x7f7f, 0x807f];
    check::<bf16>(&BRAIN, |bits| bf16::from_bits(bits as u16));
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = Device::cpu();
    let errors = ranks::run(2, |mut comm| {
        let stream = device.stream().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut run = |len, reduction| {
            let buffer = device.zeros(16).unwrap();
            comm.all_reduce(buffer, len, reduction, &stream, deadline).unwrap_err()
        };
        let errors = [run(17, Reduction::MaxU8), run(6, Reduction::SumI32)];
        let plan = BucketPlan::ddp(&params_from(&LENGTHS), Dtype::F32, 4000, 9000).unwrap();
        let config = Config { scale: 1e30, ..config(Sum::Int8) };
        let mut reducer = Reducer::<f32>::new(&device, plan, Box::new(comm), config).unwrap();
        let weight = reducer.set_weight(1e18).unwrap_err();
        reducer.set_weight(1e3).unwrap();
        (errors, weight)
    });
    for (errors, weight) in errors {
        for error in errors {
            assert!(
                matches!(error, Error::Shape { op: "Communicator::all_reduce", .. }),
                "{error}"
            );
        }
        assert!(matches!(weight, Error::Range { .. }), "{weight}");
    }
}

/// Ranks that add up in different orders are told so.
#[test]
fn orders_are_agreed_on() {
    let faults = ranks::run(2, |comm| {
        let plan = BucketPlan::ddp(&params_from(&LENGTHS), Dtype::F32, 4000, 9000).unwrap();
        let sum = if comm.rank() == 0 { Sum::RankOrder } else { Sum::OrderFree };
        let reducer = Reducer::<f32>::new(&Device::cpu(), plan, Box::new(comm), config(sum));
        reducer.err().expect("they differ")
    });
    for fault in faults {
        assert!(matches!(fault, Error::Comm(Fault::PlanMismatch { rank: 1, .. })), "{fault}");
    }
}
