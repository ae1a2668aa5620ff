//! Every device reduces to the CPU's bits: every pair of gradient and wire type, odd lengths and
//! addresses, weights, accumulation, values that are not finite, one to three ranks on one device.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::memory::Values;
use common::reduction::params_from;
use common::{devices, ranks};
use halfstep::reduce::{BucketPlan, Communicator, Config, FixedPoint, Reducer, Unscale};
use halfstep::{Device, DeviceKind, Dtype, Error, Raw, Storage, Write, bf16, f16};

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
            let stats = reducer.stats().unwrap().read(&stream).unwrap();
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

/// Two steps on two ranks, of gradients that are views or the caller's: what rank 0 gets, as bits, with
/// Σg². In the second step nobody has a gradient for parameter 4. Some are accumulated before, or none.
fn lie<G: Storage>(device: &Device, wire: Dtype, views: bool, accumulate: bool) -> Vec<u64> {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), wire, 4000, 9000).unwrap();
    let mut all = ranks::run(2, |comm| {
        let rank = comm.rank();
        let stream = device.stream().unwrap();
        let config = Config { views, accumulate, allow_unused: true, ..Config::default() };
        let mut reducer = Reducer::<G>::new(device, plan.clone(), Box::new(comm), config).unwrap();
        let mut rng = Rng(29 + rank as u64);
        let mut bits = Vec::new();
        for step in 0..2 {
            let fill = |&len: &usize| Distribution::REAL[4].fill::<G>(&mut rng, len);
            let mut tensors: Vec<Vec<G>> = LENGTHS.iter().map(fill).collect();
            let mut own: Vec<_> = tensors.iter().map(|t| device.upload(t).unwrap()).collect();
            for param in [6, 4, 2].into_iter().filter(|&param| accumulate && step + param != 5) {
                let early = Distribution::REAL[4].fill::<G>(&mut rng, LENGTHS[param]);
                match views {
                    true => {
                        let mut view = reducer.gradient_mut(param).unwrap();
                        view.copy_from(&stream, &early).unwrap();
                        reducer.accumulate_view(&stream, param).unwrap();
                    }
                    false => {
                        let early = device.upload(&early).unwrap();
                        reducer.accumulate(&stream, param, &early).unwrap();
                    }
                }
            }
            for param in (0..LENGTHS.len()).rev().filter(|&param| step == 0 || param != 4) {
                match views {
                    true => {
                        let mut view = reducer.gradient_mut(param).unwrap();
                        view.copy_from(&stream, &tensors[param]).unwrap();
                        reducer.ready_view(&stream, param).unwrap();
                    }
                    false => reducer.ready(&stream, param, &own[param]).unwrap(),
                }
            }
            let unscale = Unscale::Factor(0.3);
            match views {
                true => reducer.finish_views(&stream, unscale).unwrap(),
                false => {
                    let out = own.iter_mut().map(|buffer| buffer as &mut dyn Write<G>);
                    reducer.finish(&stream, &mut out.collect::<Vec<_>>(), unscale).unwrap()
                }
            };
            for (param, tensor) in tensors.iter_mut().enumerate() {
                match views {
                    true => reducer.gradient(param).unwrap().copy_to(&stream, tensor).unwrap(),
                    false => own[param].read(&stream, 0, tensor).unwrap(),
                }
                // What nobody has: zeros in a view, left alone in a tensor of the caller's.
                if (step, param) == (1, 4) {
                    assert!(!views || tensor.iter().all(|x| x.widen() == 0.0));
                    continue;
                }
                bits.extend(tensor.iter().map(|x| u64::from(x.widen().to_bits())));
            }
            let stats = reducer.stats().unwrap().read(&stream).unwrap();
            bits.extend([stats.sum_squares.to_bits(), stats.non_finite]);
        }
        bits
    });
    all.swap_remove(0)
}

#[test]
fn views_are_what_the_cpu_makes_of_the_callers_gradients() {
    fn check<G: Storage>(device: &Device, wire: Dtype) {
        for accumulate in [false, true] {
            let expected = lie::<G>(&Device::cpu(), wire, false, accumulate);
            let found = lie::<G>(device, wire, true, accumulate);
            assert!(found == expected, "{} {wire}, accumulated: {accumulate}", device.info());
        }
    }
    for device in devices() {
        for wire in Dtype::ALL {
            check::<f32>(&device, wire);
        }
        check::<bf16>(&device, Dtype::Bf16);
    }
}

/// Fixed point over three ranks: exponents, integers and results as the CPU has them; within the
/// documented bound of the exact sum; the same for any order; NaN where a rank has one.
fn fixed<G: Storage>(device: &Device, bad: bool) -> Vec<u64> {
    const RANKS: usize = 3;
    const LEN: usize = 2 * 2048 + 300;
    let stream = device.stream().unwrap();
    let fixed = FixedPoint::new(RANKS).unwrap();
    let mut rng = Rng(23);
    let mut ranks: Vec<Vec<G>> =
        (0..RANKS).map(|_| Distribution::Normal.fill(&mut rng, LEN)).collect();
    ranks[0][..256].fill(G::narrow(0.0));
    ranks[1][..256].fill(G::narrow(0.0));
    ranks[2][..256].fill(G::narrow(1e-7)); // subnormal in f16
    if bad {
        ranks[1][700] = G::narrow(f32::NEG_INFINITY);
    }
    let on_device: Vec<Values<G>> = ranks.iter().map(|r| Values::shifted(r.clone(), 3)).collect();
    let blocks = FixedPoint::exponents(LEN);
    let mut exponents = vec![0u8; blocks];
    for values in &on_device {
        let mut mine = device.zeros::<u8>(blocks).unwrap();
        fixed.measure(&stream, values, 0.5, &mut mine).unwrap();
        let mine = mine.to_vec(&stream).unwrap();
        exponents.iter_mut().zip(mine).for_each(|(all, mine)| *all = mine.max(*all));
    }
    let shared = device.upload(&exponents).unwrap();
    let integers: Vec<Vec<i32>> = on_device
        .iter()
        .map(|values| {
            let mut mine = device.zeros::<i32>(LEN).unwrap();
            fixed.encode(&stream, values, 0.5, &shared, &mut mine).unwrap();
            mine.to_vec(&stream).unwrap()
        })
        .collect();
    let sum = |order: [usize; RANKS]| -> Vec<i32> {
        (0..LEN).map(|i| order.iter().map(|&r| integers[r][i]).fold(0, i32::wrapping_add)).collect()
    };
    assert_eq!(sum([0, 1, 2]), sum([2, 0, 1]));
    let sums = device.upload(&sum([1, 2, 0])).unwrap();
    let mut result = Values::shifted(vec![0.0f32; LEN], 1);
    fixed.decode(&stream, &sums, &shared, 2.0, &mut result).unwrap();
    for (i, found) in result.iter().enumerate() {
        let exact: f64 = ranks.iter().map(|r| f64::from(r[i].widen())).sum();
        if bad && i / 256 == 700 / 256 {
            assert!(found.is_nan(), "{i}");
            continue;
        }
        let block = i / 256 * 256..(i / 256 * 256 + 256).min(LEN);
        let largest = ranks
            .iter()
            .flat_map(|r| &r[block.clone()])
            .map(|v| v.widen().abs())
            .fold(0.0, f32::max);
        // Each rank by half a unit of 2^(h − 30) times a power of two above the largest; f32 in the end.
        let bound = RANKS as f64 * 2f64.powi(2 - 31) * 2.0 * f64::from(largest)
            + 2f64.powi(-24) * exact.abs();
        assert!((f64::from(*found) - exact).abs() <= bound, "{i}: {found} is not {exact}");
    }
    let mut bits: Vec<u64> = exponents.iter().map(|&e| e.into()).collect();
    bits.extend(integers.iter().flatten().map(|&q| q as u64));
    bits.extend(result.iter().map(|v| if v.is_nan() { 1 << 40 } else { v.to_bits().into() }));
    bits
}

#[test]
fn fixed_point() {
    for device in devices() {
        for bad in [false, true] {
            assert!(fixed::<f32>(&device, bad) == fixed::<f32>(&Device::cpu(), bad));
            assert!(fixed::<bf16>(&device, bad) == fixed::<bf16>(&Device::cpu(), bad));
            assert!(fixed::<f16>(&device, bad) == fixed::<f16>(&Device::cpu(), bad));
        }
    }
    assert!(FixedPoint::new(0).is_err() && FixedPoint::new((1 << 20) + 1).is_err());
    let stream = Device::cpu().stream().unwrap();
    let (values, mut short) = (vec![1.0f32; 257], vec![0u8; 1]);
    let error = FixedPoint::new(2).unwrap().measure(&stream, &values, 1.0, &mut short).unwrap_err();
    assert!(error.to_string().contains("exponents: expected 2 elements, found 1"), "{error}");
}

/// Memory by its address can be lent twice: what is written then is not read.
#[test]
fn fixed_point_does_not_write_what_it_reads() {
    let stream = Device::cpu().stream().unwrap();
    let fixed = FixedPoint::new(2).unwrap();
    let mut memory = vec![0u32; 400];
    let address = memory.as_mut_ptr() as u64;
    // SAFETY: where calls are not refused, elements of any bits, which nobody else uses.
    let f32s = |at, len| unsafe { Raw::<f32>::new(address + at, len) };
    // SAFETY: as above.
    let i32s = |at, len| unsafe { Raw::<i32>::new(address + at, len) };
    // SAFETY: as above.
    let mut inside = unsafe { Raw::<u8>::new(address + 799, 1) };
    let mut apart = [0u8];
    for refused in [
        fixed.measure(&stream, &f32s(0, 200), 1.0, &mut inside),
        fixed.encode(&stream, &f32s(0, 200), 1.0, &apart, &mut i32s(796, 200)),
        fixed.encode(&stream, &f32s(800, 100), 1.0, &inside, &mut i32s(700, 100)),
        fixed.decode(&stream, &i32s(0, 200), &apart, 1.0, &mut f32s(0, 200)),
    ] {
        assert!(matches!(refused, Err(Error::Overlap { .. })), "{refused:?}");
    }
    // Side by side, and nothing inside of something.
    fixed.measure(&stream, &f32s(0, 200), 1.0, &mut apart).unwrap();
    fixed.encode(&stream, &f32s(400, 100), 1.0, &apart, &mut i32s(800, 100)).unwrap();
    fixed.encode(&stream, &f32s(400, 0), 1.0, &[0u8; 0], &mut i32s(400, 0)).unwrap();
}

/// What one stream has accumulated is there for the next, and for the one that marks the gradient.
#[test]
fn gradients_of_several_streams_are_accumulated() {
    const LENGTHS: [usize; 3] = [3000, 0, 9];
    for device in devices() {
        let plan = BucketPlan::ddp(&params_from(&LENGTHS), Dtype::F32, 1, 1 << 20).unwrap();
        ranks::run(1, |comm| {
            let config = Config { accumulate: true, ..Config::default() };
            let mut reducer =
                Reducer::<f32>::new(&device, plan.clone(), Box::new(comm), config).unwrap();
            let [first, second, third] = [(); 3].map(|()| device.stream().unwrap());
            let ones = LENGTHS.map(|len| device.upload(&vec![1.0f32; len]).unwrap());
            let mut sums = LENGTHS.map(|len| device.zeros::<f32>(len).unwrap());
            for _ in 0..8 {
                for (param, one) in ones.iter().enumerate().rev() {
                    reducer.accumulate(&first, param, one).unwrap();
                    reducer.accumulate(&second, param, one).unwrap();
                    reducer.ready(&third, param, one).unwrap();
                }
                let mut out = sums.each_mut().map(|sum| sum as &mut dyn Write<f32>);
                reducer.finish(&third, &mut out, Unscale::Keep).unwrap();
                for sum in &sums {
                    assert!(sum.to_vec(&third).unwrap().iter().all(|sum| *sum == 3.0));
                }
            }
        });
    }
}

/// A stream of another device than the reducer's does not get to its memory.
#[test]
fn streams_of_other_devices_are_refused() {
    for device in devices().into_iter().filter(|device| device.info().kind != DeviceKind::Cpu) {
        let other = Device::cpu().stream().unwrap();
        let plan = BucketPlan::ddp(&params_from(&[300]), Dtype::F32, 1, 1).unwrap();
        ranks::run(1, |comm| {
            let config = Config { accumulate: true, ..Config::default() };
            let mut reducer =
                Reducer::<f32>::new(&device, plan.clone(), Box::new(comm), config).unwrap();
            let (stream, mut ones) = (device.stream().unwrap(), vec![1.0f32; 300]);
            let refused = |outcome: halfstep::Result<()>| {
                let error = outcome.unwrap_err();
                assert!(matches!(&error, Error::Device { arg, .. } if arg == "stream"), "{error}");
            };
            refused(reducer.accumulate(&other, 0, &ones));
            refused(reducer.ready(&other, 0, &ones));
            let mut own = device.upload(&ones).unwrap();
            reducer.ready(&stream, 0, &own).unwrap();
            let out = &mut [&mut ones as &mut dyn Write<f32>];
            refused(reducer.finish(&other, out, Unscale::Keep).map(|_| ()));
            // Nothing has changed.
            reducer.finish(&stream, &mut [&mut own], Unscale::Keep).unwrap();
            assert_eq!(own.to_vec(&stream).unwrap(), [1.0; 300]);
        });
    }
}
