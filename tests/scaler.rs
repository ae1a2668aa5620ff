//! Loss scaling: the state machine alone, and as the optimizer's control stage drives it.
//!
//! Not shown here: S-08, S-15 (agreement of ranks is the reduction's; each of its gradients carries
//! the flag in its sum), S-12 (a scaler belongs to one optimizer; parameter groups share it).
#![allow(missing_docs)]

mod common;

use common::memory::Values;
use common::{cases, devices};
use halfstep::optim::*;
use halfstep::{Device, Error, f16};
use proptest::prelude::*;

/// Flags by which five systems' rules end five ways, from their sources; X overflows.
const TRACE: &str = "XX...X....X.X";

fn trace(dynamic: Dynamic, flags: &str) -> f32 {
    let mut scale = LossScale::new(Scaler::Dynamic(dynamic)).unwrap();
    flags.chars().for_each(|flag| scale.update(flag == 'X'));
    scale.scale().log2()
}

#[test]
fn presets_reproduce_their_systems() {
    let short = |preset| Dynamic { init: 65536.0, interval: 2, ..preset };
    let ends = [
        (Dynamic::APEX, 18.0),
        (Dynamic::MEGATRON, 17.0),
        (Dynamic::DEEPSPEED, 16.0),
        (Dynamic::DEEPSPEED_CONSECUTIVE, 17.0),
        (Dynamic::PYTORCH, 14.0),
    ];
    for (preset, log2) in ends {
        assert_eq!(trace(short(preset), TRACE), log2, "{preset:?}");
    }
}

/// The systems' own code, line by line, as models: (scale exponent, tracker) after each flag.
mod model {
    pub fn apex(flags: &[bool], interval: i64, hysteresis: i64) -> i64 {
        let (mut scale, mut tracker, mut left) = (16, 0, hysteresis);
        for &overflow in flags {
            if overflow {
                left -= 1;
                if left > 0 {
                    tracker = 0;
                    continue;
                }
                scale -= 1;
                tracker = 0;
            } else {
                tracker += 1;
                if tracker == interval {
                    scale += 1;
                    tracker = 0;
                }
                left = hysteresis;
            }
        }
        scale
    }

    pub fn megatron(flags: &[bool], interval: i64, hysteresis: i64) -> i64 {
        let (mut scale, mut tracker, mut left) = (16, 0, hysteresis);
        for &overflow in flags {
            if overflow {
                tracker = 0;
                left -= 1;
                if left <= 0 {
                    scale = (scale - 1).max(0);
                }
            } else {
                tracker += 1;
                if tracker == interval {
                    tracker = 0;
                    left = hysteresis;
                    scale += 1;
                }
            }
        }
        scale
    }

    pub fn deepspeed(flags: &[bool], window: i64, shift: i64, consecutive: bool) -> i64 {
        let (mut scale, mut last, mut left) = (16i64, -1i64, shift);
        for (iter, &overflow) in (0i64..).zip(flags) {
            if overflow {
                if shift == 1 || left == 1 {
                    scale = (scale - 1).max(0);
                } else {
                    left -= 1;
                }
                last = iter;
            } else {
                if consecutive {
                    left = shift;
                }
                let stable = iter - last - 1;
                if stable > 0 && stable % window == 0 {
                    if !consecutive {
                        left = shift;
                    }
                    scale += 1;
                }
            }
        }
        scale
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn presets_follow_their_systems_on_any_trace(
        flags in prop::collection::vec(prop::bool::weighted(0.3), 0..60),
        interval in 1u32..5,
        hysteresis in 1u32..4,
    ) {
        let text: String = flags.iter().map(|&x| if x { 'X' } else { '.' }).collect();
        let with = |preset| Dynamic { init: 65536.0, interval, hysteresis, ..preset };
        let (w, h) = (i64::from(interval), i64::from(hysteresis));
        let pairs = [
            (Dynamic::APEX, model::apex(&flags, w, h)),
            (Dynamic::MEGATRON, model::megatron(&flags, w, h)),
            (Dynamic::DEEPSPEED, model::deepspeed(&flags, w, h, false)),
            (Dynamic::DEEPSPEED_CONSECUTIVE, model::deepspeed(&flags, w, h, true)),
        ];
        for (preset, log2) in pairs {
            prop_assert_eq!(trace(with(preset), &text), log2 as f32, "{:?} {}", preset, text);
        }
    }

    /// S-03, S-04: whatever happens, the scale and its inverse are normal numbers in range.
    #[test]
    fn s04_the_scale_stays_in_its_range(
        flags in prop::collection::vec(any::<bool>(), 0..400),
        growth in 1.1f64..1e6,
        backoff in 1e-6f64..0.99,
        low in -20i32..0,
        high in 0i32..60,
    ) {
        let (min, max) = (2f64.powi(low), 2f64.powi(high));
        let rules = Dynamic { init: 1.0, growth, backoff, interval: 1, min, max, ..Dynamic::PYTORCH };
        let mut scale = LossScale::new(Scaler::Dynamic(rules)).unwrap();
        for flag in flags {
            scale.update(flag);
            let now = f64::from(scale.scale());
            prop_assert!(now >= min && now <= max && scale.inverse().is_normal());
        }
    }
}

#[test]
fn s01_s02_rules_outside_their_range_are_refused() {
    let base = Dynamic::PYTORCH;
    let nan = f64::NAN;
    let bad = [
        ("init", Dynamic { init: 0.0, ..base }),
        ("init", Dynamic { init: -1.0, ..base }),
        ("init", Dynamic { init: nan, ..base }),
        ("init", Dynamic { init: f64::INFINITY, ..base }),
        ("init", Dynamic { init: 1e-40, ..base }),
        ("init", Dynamic { max: 2.0, ..base }),
        ("growth", Dynamic { growth: 1.0, ..base }),
        ("growth", Dynamic { growth: nan, ..base }),
        ("growth", Dynamic { growth: f64::INFINITY, ..base }),
        ("backoff", Dynamic { backoff: 0.0, ..base }),
        ("backoff", Dynamic { backoff: 1.0, ..base }),
        ("backoff", Dynamic { backoff: nan, ..base }),
        ("interval", Dynamic { interval: 0, ..base }),
        ("hysteresis", Dynamic { hysteresis: 0, ..base }),
        ("min", Dynamic { min: 0.0, ..base }),
        ("min", Dynamic { min: nan, ..base }),
        ("max", Dynamic { max: 1e39, ..base }),
        ("max", Dynamic { max: nan, ..base }),
    ];
    for (name, rules) in bad {
        let error = LossScale::new(Scaler::Dynamic(rules)).unwrap_err();
        assert!(matches!(&error, Error::Range { arg, .. } if arg == name), "{name}: {error}");
    }
    for scale in [0.0, -2.0, nan, f64::INFINITY, 1e-40, 1e39] {
        assert!(LossScale::new(Scaler::Fixed(scale)).is_err(), "{scale}");
    }
}

fn one(device: &Device, scaler: Scaler) -> Optimizer<f32, f16> {
    let groups = [Group::new(Sgd { lr: 1.0, ..Sgd::default() }).tensor(Tensor::new("w", 2))];
    Optimizer::new(device, &groups, Config { scaler, ..Config::default() }).unwrap()
}

/// One step with good or bad gradients; the report.
fn step(optimizer: &mut Optimizer<f32, f16>, stream: &halfstep::Stream, bad: bool) -> Report {
    let mut w = Values::from([1.0f32; 2]);
    let g = Values::from([if bad { f16::INFINITY } else { f16::ONE }; 2]);
    optimizer.run(stream, &mut [&mut w], &[Some(&g)]).unwrap();
    let report = optimizer.report(stream).unwrap();
    assert_eq!(w[0] == 1.0, bad);
    report
}

/// The control stage drives the same machine.
#[test]
fn the_optimizer_scales_as_the_machine_alone() {
    for device in devices() {
        let stream = device.stream().unwrap();
        for preset in [
            Dynamic::PYTORCH,
            Dynamic::APEX,
            Dynamic::MEGATRON,
            Dynamic::DEEPSPEED,
            Dynamic::DEEPSPEED_CONSECUTIVE,
        ] {
            let scaler = Scaler::Dynamic(Dynamic { init: 65536.0, interval: 2, ..preset });
            let mut optimizer = one(&device, scaler);
            let mut alone = LossScale::new(scaler).unwrap();
            for flag in TRACE.chars().map(|flag| flag == 'X') {
                let report = step(&mut optimizer, &stream, flag);
                assert_eq!(report.scale, alone.scale());
                alone.update(flag);
                assert_eq!(report.next_scale, alone.scale());
                assert_eq!(report.growth_tracker, alone.growth_tracker());
                assert_eq!(optimizer.scale(&stream).unwrap(), alone.scale());
            }
        }
    }
}

#[test]
fn s03_overflow_for_ever_stops_at_the_minimum_and_says_so() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let rules = Dynamic { init: 4.0, min: 1.0, ..Dynamic::PYTORCH };
        let mut optimizer = one(&device, Scaler::Dynamic(rules));
        let seen: Vec<_> = (0..5)
            .map(|_| {
                let report = step(&mut optimizer, &stream, true);
                (report.next_scale, report.scale_exhausted, report.consecutive_skips)
            })
            .collect();
        let expected =
            [(2.0, false, 1), (1.0, false, 2), (1.0, true, 3), (1.0, true, 4), (1.0, true, 5)];
        assert_eq!(seen, expected);
        let report = step(&mut optimizer, &stream, false);
        assert_eq!((report.consecutive_skips, report.scale_exhausted), (0, false));
    }
}

/// S-05, S-06: each call that comes at the wrong time is refused, and changes nothing.
#[test]
fn s06_stages_out_of_order_are_refused() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let mut optimizer = one(&device, Scaler::PYTORCH);
        let (mut w, g) = (Values::from([1.0f32; 2]), Values::from([f16::ONE; 2]));
        let state = |error: Error| assert!(matches!(error, Error::State { .. }), "{error}");
        state(optimizer.report(&stream).unwrap_err());
        state(optimizer.control(&stream, Source::Own, &[Some(&g)]).unwrap_err());
        state(optimizer.step(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err());
        optimizer.stats(&stream, &[Some(&g)]).unwrap();
        state(optimizer.step(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err());
        optimizer.stats(&stream, &[Some(&g)]).unwrap(); // gradients are only read: again is fine
        optimizer.control(&stream, Source::Own, &[Some(&g)]).unwrap();
        state(optimizer.control(&stream, Source::Own, &[Some(&g)]).unwrap_err());
        state(optimizer.stats(&stream, &[Some(&g)]).unwrap_err());
        state(optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err());
        state(optimizer.load_params(&stream, &[&w]).unwrap_err());
        assert_eq!(w, [1.0; 2]);
        optimizer.step(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
        state(optimizer.step(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err());
        assert_eq!(optimizer.counters(&stream, 0).unwrap().step, 1);
    }
}

#[test]
fn s07_a_step_given_up_after_stats_leaves_the_optimizer_usable() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let mut optimizer = one(&device, Scaler::PYTORCH);
        let g = Values::from([f16::NAN; 2]);
        optimizer.stats(&stream, &[Some(&g)]).unwrap();
        let report = step(&mut optimizer, &stream, false);
        assert_eq!((report.attempts, report.applied), (1, 1));
    }
}

#[test]
fn s09_overflow_skips_without_a_scale_too() {
    for device in devices() {
        let stream = device.stream().unwrap();
        for scaler in [Scaler::Off, Scaler::Fixed(8.0)] {
            let mut optimizer = one(&device, scaler);
            let report = step(&mut optimizer, &stream, true);
            assert_eq!(report.skipped, Some(Skip::NonFinite { tensor: 0, count: 2 }));
            assert_eq!(report.next_scale, report.scale);
        }
    }
}

#[test]
fn s10_the_inverse_is_divided_in_f64() {
    for scale in [3.0f32, 1000.0, 65536.0, 7e37, 1.5e-38] {
        let machine = LossScale::new(Scaler::Fixed(f64::from(scale))).unwrap();
        assert_eq!(machine.inverse(), (1.0 / f64::from(scale)) as f32);
    }
}

/// A thread in another floating-point mode makes the same scale, the same inverse of it, by which norms are unscaled, and
/// the same first state.
#[cfg(target_arch = "x86_64")]
#[test]
fn s10_no_scale_depends_on_the_floating_point_mode() {
    use common::mode;
    for scale in [2f64.powi(127), 3.3] {
        let decided = || {
            let device = common::cpu(1);
            let stream = device.stream().unwrap();
            let config = Config { clip: Some(0.1), ..Config::default() };
            let config = Config { scaler: Scaler::Fixed(scale), ..config };
            let rule = Adagrad { initial_accumulator_value: 0.7, ..Adagrad::default() };
            let groups = [Group::new(rule).tensor(Tensor::new("w", 2))];
            let mut optimizer = Optimizer::<f32, f32>::new(&device, &groups, config).unwrap();
            let machine = LossScale::new(config.scaler).unwrap();
            let (mut w, g) = ([1.0f32; 2], [machine.scale(); 2]);
            let start = optimizer.moment(&stream, 0, 0).unwrap();
            optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
            (optimizer.report(&stream).unwrap(), machine.scale(), machine.inverse(), start)
        };
        let expected = decided();
        for foreign in mode::FOREIGN {
            assert_eq!(mode::within(foreign, decided), expected, "mode {foreign:#x}");
        }
    }
}

/// S-11 and S-13: a skip is in the report; f16 gradients are unscaled in f32.
#[test]
fn s13_f16_gradients_lose_nothing_to_unscaling() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let mut optimizer = one(&device, Scaler::Fixed(65536.0));
        let mut w = Values::from([0.0f32; 2]);
        let g = Values::from([f16::from_bits(1), f16::from_f32(-3.0)]);
        optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
        assert_eq!(w, [-(2f32.powi(-40)), 3.0 / 65536.0]);
        let report = optimizer.report(&stream).unwrap();
        assert_eq!((report.skipped, report.gradient_factor), (None, 1.0 / 65536.0));
    }
}
