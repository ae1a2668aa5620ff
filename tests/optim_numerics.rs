//! The numbers of a step: against f64, over many steps, and what stochastic rounding is for.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::memory::Values;
use common::oracle_optim::Oracle;
use common::rounding::{round, ulp};
use common::{cases, devices, fast_devices};
use halfstep::optim::bound::Trajectory;
use halfstep::optim::*;
use halfstep::{Dtype, Storage, bf16, f16};
use proptest::prelude::*;

fn one(rule: Rule, len: usize) -> [Group; 1] {
    [Group::new(rule).tensor(Tensor::new("w", len))]
}

fn wide<T: Storage>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.widen().into()).collect()
}

#[test]
fn the_oracle_rounds_once() {
    let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(round(value, Dtype::F16), 1.0 + 2f64.powi(-10)); // half's from_f64 says 1.0
    assert_eq!(round(65519.99, Dtype::F16), 65504.0);
    assert_eq!(round(65520.0, Dtype::F16), f64::INFINITY);
    assert_eq!(round(2f64.powi(-25), Dtype::F16), 0.0);
    assert_eq!(round(1.5 * 2f64.powi(-25), Dtype::F16), 2f64.powi(-24));
    for bits in (0..u32::MAX - 4096).step_by(4093) {
        let x = f64::from(f32::from_bits(bits));
        if x.is_finite() {
            assert_eq!(round(x, Dtype::F32), x);
            let bf16 = bf16::from_f32(x as f32).to_f64();
            assert_eq!(round(x, Dtype::Bf16), bf16, "{x:e}");
            let f16 = f16::from_f32(x as f32).to_f64();
            assert_eq!(round(x, Dtype::F16), f16, "{x:e}");
        }
    }
}

/// A rule of each kind, with hyper-parameters from numbers in [0, 1).
fn rule(kind: usize, x: [f64; 4]) -> Rule {
    let (lr, decay) = (10f64.powf(-1.0 - 3.0 * x[0]), if x[1] < 0.3 { 0.0 } else { 0.1 * x[1] });
    let (beta1, beta2, eps) = (0.95 * x[2], 0.9 + 0.0999 * x[3], 10f64.powf(-10.0 + 6.0 * x[3]));
    let amsgrad = kind % 2 == 1;
    match kind {
        0 | 1 => AdamW { lr, beta1, beta2, eps, weight_decay: decay, amsgrad }.into(),
        2 | 3 => Adam { lr, beta1, beta2, eps, weight_decay: decay, amsgrad }.into(),
        4 => Sgd { lr, weight_decay: decay, ..Sgd::default() }.into(),
        5 => Sgd { lr, momentum: beta1, dampening: x[3], weight_decay: decay, nesterov: false }
            .into(),
        6 => {
            let momentum = beta1.max(0.1);
            Sgd { lr, momentum, weight_decay: decay, nesterov: true, dampening: 0.0 }.into()
        }
        7 => Adagrad {
            lr,
            lr_decay: x[2],
            weight_decay: decay,
            initial_accumulator_value: x[3],
            eps,
        }
        .into(),
        8 => Lamb { lr, beta1, beta2, eps, weight_decay: decay }.into(),
        _ => Lion { lr, beta1, beta2, weight_decay: decay }.into(),
    }
}

/// A few steps with gradients stored as `G`: every value within the bound of the exact history,
/// whose formulas are the oracle's.
fn follows<G: Storage>(
    device: &halfstep::Device,
    rule: Rule,
    len: usize,
    distribution: Distribution,
    seed: u64,
    clip: bool,
) {
    let stream = device.stream().unwrap();
    let mut rng = Rng(seed);
    let mut params: Values<f32> = Distribution::Normal.fill(&mut rng, len).into();
    let config =
        Config { clip: clip.then_some(0.7), scaler: Scaler::Fixed(64.0), ..Config::default() };
    let mut optimizer = Optimizer::<f32, G>::new(device, &one(rule, len), config).unwrap();
    let mut way = Trajectory::new(rule, &wide(&params));
    let mut oracle = Oracle::new(rule, wide(&params));
    for step in 0..5 {
        let grads: Values<G> = distribution.fill(&mut rng, len).into();
        optimizer.run(&stream, &mut [&mut params], &[Some(&grads)]).unwrap();
        let report = optimizer.report(&stream).unwrap();
        assert_eq!(report.skipped, None);
        let factor = report.clip / 64.0;
        way.step(&wide(&grads), factor);
        let unscaled: Vec<f64> = wide(&grads).iter().map(|g| g * factor).collect();
        oracle.apply(&unscaled);
        let check = |name: &str, found: &[f32], exact: &[f64], way: &[bound::Enclosure]| {
            for (i, (&found, enclosure)) in found.iter().zip(way).enumerate() {
                // Two f64 programs of one formula; sums of opposite signs cancel.
                let drift = (enclosure.value - exact[i]).abs();
                let near = 1e-9 * (1.0 + exact[i].abs()) + enclosure.error;
                assert!(drift <= near, "{rule:?} {name}[{i}]: {} {}", enclosure.value, exact[i]);
                let ratio = enclosure.ratio(found.into());
                assert!(ratio <= 1.0, "{rule:?} step {step} {name}[{i}]: {ratio} of the bound");
            }
        };
        check("p", &params, &oracle.p, way.params());
        for (slot, name) in rule.slots().iter().enumerate() {
            let found = optimizer.moment(&stream, slot, 0).unwrap();
            check(name, &found, &oracle.slots[slot], way.slot(slot));
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn steps_stay_within_their_bounds(
        kind in 0..10usize,
        x in prop::array::uniform4(0.0f64..1.0),
        len in 1..300usize,
        distribution in 0..7usize,
        dtype in 0..3usize,
        clip in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (rule, distribution) = (rule(kind, x), Distribution::REAL[distribution]);
        for device in &devices() {
            match dtype {
                0 => follows::<bf16>(device, rule, len, distribution, seed, clip),
                1 => follows::<f16>(device, rule, len, distribution, seed, clip),
                _ => follows::<f32>(device, rule, len, distribution, seed, clip),
            }
        }
    }

    /// One step from any f32 state, in ulps: moments within 2, the value that is added to within 4
    /// of the larger of what went in and came out, and 16 half ulps of the update, and with Adam's decay
    /// what the gradient's rounding makes of it; a bf16 parameter is its rounding.
    #[test]
    fn one_step_is_within_ulps(kind in 0..4usize, x in prop::array::uniform4(0.0f64..1.0), seed in any::<u64>()) {
        let rule = rule(kind, x);
        let device = halfstep::Device::cpu();
        let stream = device.stream().unwrap();
        let mut rng = Rng(seed);
        let len = 64;
        let mut params: Vec<bf16> = Distribution::Normal.fill(&mut rng, len);
        let mut optimizer = Optimizer::<bf16, bf16>::new(&device, &one(rule, len), Config::default()).unwrap();
        optimizer.load_params(&stream, &[&params]).unwrap();
        for _ in 0..3 {
            let master = optimizer.master(&stream, 0, &params).unwrap();
            let slots: Vec<Vec<f32>> =
                (0..rule.slots().len()).map(|s| optimizer.moment(&stream, s, 0).unwrap()).collect();
            let mut oracle = Oracle::new(rule, wide(&master));
            oracle.step = optimizer.counters(&stream, 0).unwrap().step as i32;
            for (to, from) in oracle.slots.iter_mut().zip(&slots) {
                *to = wide(from);
            }
            let grads: Vec<bf16> = Distribution::Normal.fill(&mut rng, len);
            oracle.apply(&wide(&grads));
            optimizer.run(&stream, &mut [&mut params], &[Some(&grads)]).unwrap();
            let size = |old: f32, exact: f64| ulp(exact.abs().max(f64::from(old).abs()), Dtype::F32);
            let found = optimizer.master(&stream, 0, &params).unwrap();
            for i in 0..len {
                let difference = (f64::from(found[i]) - oracle.p[i]).abs();
                // The value's own ulps, and the update's: a dozen roundings of it.
                let moved = (oracle.p[i] - f64::from(master[i])).abs().max(rule.lr());
                let half = 2f64.powi(-24);
                let mut allowed = 4.0 * size(master[i], oracle.p[i]) + 16.0 * half * moved;
                if let Rule::Adam(Adam { lr, beta2, weight_decay, .. }) = rule {
                    // g + λp may cancel: what they were rounded by is then much of m and v.
                    let (g, p) = (f64::from(grads[i].widen()), f64::from(master[i]));
                    let lost = half * (g.abs() + 2.0 * weight_decay * p.abs());
                    let root = (oracle.slots[1][i] / (1.0 - beta2.powi(oracle.step))).sqrt();
                    allowed += (moved + lr) * lost / root.max(f64::MIN_POSITIVE);
                }
                prop_assert!(difference <= allowed, "p {} of {}", difference, allowed);
                let rounded = round(f64::from(found[i]), Dtype::Bf16);
                prop_assert_eq!(f64::from(params[i].widen()), rounded);
            }
            for (slot, old) in slots.iter().enumerate() {
                let found = optimizer.moment(&stream, slot, 0).unwrap();
                for i in 0..len {
                    let exact = oracle.slots[slot][i];
                    let difference = (f64::from(found[i]) - exact).abs();
                    // The gradient's part, with Adam's decay, may be the larger one.
                    let g = f64::from(grads[i].widen()).abs() + 0.1 * f64::from(master[i]).abs();
                    let part = ulp(if slot == 0 { g } else { g * g }, Dtype::F32);
                    prop_assert!(difference <= 2.0 * size(old[i], exact).max(part), "slot {}", slot);
                }
            }
        }
    }
}

/// Weight decay alone, 20,000 steps at lr·λ = 1e-8: as a rounding of its own it would vanish.
#[test]
fn decay_survives_20_000_steps() {
    for device in fast_devices() {
        let stream = device.stream().unwrap();
        let (lr, decay, len) = (1e-6, 0.01, 64);
        let rules: [(Rule, f64); 2] = [
            (AdamW { lr, weight_decay: decay, ..AdamW::default() }.into(), 1.0),
            (Lion { lr, weight_decay: decay, ..Lion::default() }.into(), 1.0),
        ];
        for (rule, _) in rules {
            let mut rng = Rng(3);
            let start: Values<f32> = (0..len).map(|_| 0.5 + rng.unit() as f32).collect();
            let mut params = start.clone();
            let mut other = start.clone();
            let with = one(rule, len);
            let without = match rule {
                Rule::AdamW(rule) => one(AdamW { weight_decay: 0.0, ..rule }.into(), len),
                Rule::Lion(rule) => one(Lion { weight_decay: 0.0, ..rule }.into(), len),
                _ => unreachable!(),
            };
            let mut a = Optimizer::<f32, f32>::new(&device, &with, Config::default()).unwrap();
            let mut b = Optimizer::<f32, f32>::new(&device, &without, Config::default()).unwrap();
            for _ in 0..20_000 {
                let grads: Values<f32> = Distribution::Normal.fill(&mut rng, len).into();
                a.run(&stream, &mut [&mut params], &[Some(&grads)]).unwrap();
                b.run(&stream, &mut [&mut other], &[Some(&grads)]).unwrap();
            }
            let expected: f64 = start.iter().map(|&p| 20_000.0 * lr * decay * f64::from(p)).sum();
            let realised: f64 =
                params.iter().zip(other.iter()).map(|(&a, &b)| f64::from(b) - f64::from(a)).sum();
            let share = realised / expected;
            assert!((0.8..1.2).contains(&share), "{rule:?}: {share} of the decay");
        }
    }
}

/// A bf16 second moment follows its gradients up and down; rounded to nearest it would stick.
#[test]
fn bf16_moments_follow_on_average() {
    for device in fast_devices() {
        let stream = device.stream().unwrap();
        let len = 512;
        let rule = AdamW { lr: 0.0, ..AdamW::default() };
        let config = Config { moments: Moments::Bf16, ..Config::default() };
        let mut optimizer =
            Optimizer::<f32, f32>::new(&device, &one(rule.into(), len), config).unwrap();
        let mut params = Values::from(vec![0.0f32; len]);
        for (g, expected) in [(1.0f32, 1.0 - 0.999f64.powi(3000)), (0.1, 0.0)] {
            let grads = Values::from(vec![g; len]);
            for _ in 0..3000 {
                optimizer.run(&stream, &mut [&mut params], &[Some(&grads)]).unwrap();
            }
            let expected = if expected == 0.0 {
                let left = 0.999f64.powi(3000);
                (1.0 - left) * left + 0.01 * (1.0 - left)
            } else {
                expected
            };
            let values = optimizer.moment(&stream, 1, 0).unwrap();
            let mean = wide(&values).iter().sum::<f64>() / len as f64;
            // Errors of steps: half an ulp at most, forgotten with time constant 1000; 5 sigma of the
            // mean of 512.
            let sigma = 2f64.powi(-8) * 500f64.sqrt() / (len as f64).sqrt();
            assert!((mean / expected - 1.0).abs() < 5.0 * sigma, "{mean} is not {expected}");
            assert!(values.iter().all(|v| bf16::from_f32(*v).to_f32() == *v));
        }
    }
}

/// O-31: 10⁶ parameters, one step far below half an ulp: the mean arrives, within 5 sigma. To
/// nearest, nothing happens at all.
#[test]
fn o31_small_updates_arrive_on_average_and_only_with_stochastic_rounding() {
    fn shift<P: Storage>(device: &halfstep::Device, master: Master, seed: u64) -> f64 {
        let stream = device.stream().unwrap();
        let len = 1_000_000;
        let rule = Sgd { lr: 1.0, ..Sgd::default() };
        let config = Config { master, seed, ..Config::default() };
        let mut optimizer =
            Optimizer::<P, f32>::new(device, &one(rule.into(), len), config).unwrap();
        let mut params = Values::from(vec![P::narrow(1.25); len]);
        let grads = Values::from(vec![-1.0f32 / 8192.0; len]);
        optimizer.run(&stream, &mut [&mut params], &[Some(&grads)]).unwrap();
        wide(&params).iter().map(|p| p - 1.25).sum::<f64>() / len as f64
    }
    for device in fast_devices() {
        let update = 1.0 / 8192.0;
        for (gap, got) in [
            (2f64.powi(-7), shift::<bf16>(&device, Master::Stochastic, 1)),
            (2f64.powi(-10), shift::<f16>(&device, Master::Stochastic, 2)),
        ] {
            let chance = update / gap;
            let sigma = gap * (chance * (1.0 - chance) / 1e6).sqrt();
            assert!((got - update).abs() < 5.0 * sigma, "{got} is not {update} within {sigma}");
            assert!(got != update, "rounding is not random");
        }
        assert_eq!(shift::<bf16>(&device, Master::Nearest, 0), 0.0);
        let seeds = [3, 4].map(|seed| shift::<bf16>(&device, Master::Stochastic, seed));
        assert_ne!(seeds[0], seeds[1]);
        assert_eq!(seeds[0], shift::<bf16>(&device, Master::Stochastic, 3));
    }
}

/// Random bits differ between elements, tensors, steps and slots.
#[test]
fn random_bits_are_not_shared() {
    let device = halfstep::Device::cpu();
    let stream = device.stream().unwrap();
    let len = 4096;
    let groups = [Group::new(Sgd { lr: 1.0, ..Sgd::default() })
        .tensors([Tensor::new("a", len), Tensor::new("b", len)])];
    let config = Config { master: Master::Stochastic, ..Config::default() };
    let mut optimizer = Optimizer::<bf16, f32>::new(&device, &groups, config).unwrap();
    let grads = vec![-1.0f32 / 256.0; len]; // half of the gap: a coin for each element
    let mut rows: Vec<Vec<bool>> = Vec::new();
    for _ in 0..3 {
        let (mut a, mut b) = (vec![bf16::ONE; len], vec![bf16::ONE; len]);
        optimizer.run(&stream, &mut [&mut a, &mut b], &[Some(&grads), Some(&grads)]).unwrap();
        rows.extend([a, b].map(|w| w.iter().map(|&w| w > bf16::ONE).collect::<Vec<bool>>()));
    }
    for (i, a) in rows.iter().enumerate() {
        let ups = a.iter().filter(|&&up| up).count();
        assert!((ups as f64 - 2048.0).abs() < 5.0 * 32.0, "{ups}");
        for shift in [1, 2, 7, 8, 9, 64] {
            let equal = (0..len - shift).filter(|&k| a[k] == a[k + shift]).count() as f64;
            assert!((equal - (len - shift) as f64 / 2.0).abs() < 5.0 * 32.0, "shift {shift}");
        }
        for b in &rows[..i] {
            let equal = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
            assert!((equal - 2048.0).abs() < 5.0 * 32.0, "{equal}");
        }
    }
}

/// bf16 parameters with a remainder are an f32 master that takes half its memory, to the bit.
#[test]
fn remainders_are_f32_masters() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let len = 5000;
        for kind in 0..10 {
            let rule = rule(kind, [0.3, 0.7, 0.9, 0.5]);
            let mut rng = Rng(kind as u64);
            let values: Values<f32> = Distribution::Normal.fill(&mut rng, len).into();
            let masters = [Master::F32, Master::Remainder];
            let mut both = masters.map(|master| {
                let config = Config { master, ..Config::default() };
                let mut optimizer =
                    Optimizer::<bf16, bf16>::new(&device, &one(rule, len), config).unwrap();
                let mut params = Values::from(vec![bf16::ZERO; len]);
                optimizer.init_from_f32(&stream, &[&values], &mut [&mut params]).unwrap();
                (optimizer, params)
            });
            for _ in 0..4 {
                let grads: Values<bf16> = Distribution::Normal.fill(&mut rng, len).into();
                let found = both.each_mut().map(|(optimizer, params)| {
                    optimizer.run(&stream, &mut [params], &[Some(&grads)]).unwrap();
                    optimizer.master(&stream, 0, params).unwrap()
                });
                assert!(found[0].iter().zip(&found[1]).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }
}
