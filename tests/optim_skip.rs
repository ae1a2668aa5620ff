//! Optimizer conformance: which steps are applied, to what, and that the others change no bit.
#![allow(missing_docs)]

mod common;

use common::optim::*;
use common::{cpu, devices};
use halfstep::optim::*;
use halfstep::{Error, GradStats, Read, bf16, f16};

/// O-15, O-16: counters are integers of each tensor, and only of steps it took part in.
#[test]
fn o16_tensors_without_a_gradient_stand_still() {
    for device in devices() {
        for rule in rules() {
            for moments in [Moments::F32, Moments::Bf16] {
                let config = Config { moments, master: Master::Stochastic, ..Config::default() };
                let (stream, mut optimizer, mut params, mut rng) =
                    setup::<bf16, f16>(&device, rule, config, &[40, 50]);
                let grads = normal::<f16>(&mut rng, &[40, 50]);
                let (mut still, steps) = (params[1].clone(), [true, false, false, true, true]);
                for with in steps {
                    let grads = [Some(&grads[0] as &dyn Read<f16>), with.then_some(&grads[1] as _)];
                    let momentum = |optimizer: &Optimizer<bf16, f16>| -> Vec<Vec<f32>> {
                        let slots = 0..optimizer.slots().len();
                        slots.map(|slot| optimizer.moment(&stream, slot, 1).unwrap()).collect()
                    };
                    let before = momentum(&optimizer);
                    optimizer.run(&stream, &mut writes(&mut params), &grads).unwrap();
                    assert_eq!(params[1] != still, with, "{rule:?}");
                    assert!(with || momentum(&optimizer) == before);
                    still.clone_from(&params[1]);
                }
                assert_eq!(optimizer.counters(&stream, 0).unwrap().step, 5);
                assert_eq!(optimizer.counters(&stream, 1).unwrap().step, 3);
            }
        }
    }
}

/// O-17, O-19, S-14: one bad element, first, last, anywhere: nothing at all changes but the scale.
#[test]
fn o17_a_skipped_step_changes_no_bit() {
    let lengths = [CHUNK + 5, 0, 9, 3000];
    let configs = [
        Config { scaler: Scaler::PYTORCH, ..Config::default() },
        Config { master: Master::Remainder, moments: Moments::Bf16, ..Config::default() },
        Config {
            master: Master::Stochastic,
            moments: Moments::Bf16,
            clip: Some(1.0),
            ..Config::default()
        },
    ];
    for device in devices() {
        for rule in rules() {
            for config in configs {
                let (stream, mut optimizer, mut params, mut rng) =
                    setup::<bf16, bf16>(&device, rule, config, &lengths);
                let good = normal::<bf16>(&mut rng, &lengths);
                optimizer.run(&stream, &mut writes(&mut params), &reads(&good)).unwrap();
                let before = state(&mut optimizer, &stream, &params);
                for (tensor, element) in [(0, 0), (0, CHUNK), (0, CHUNK + 4), (2, 4), (3, 2999)] {
                    for bad in [bf16::NAN, bf16::INFINITY, bf16::NEG_INFINITY] {
                        let mut grads = good.clone();
                        grads[tensor][element] = bad;
                        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
                        let report = optimizer.report(&stream).unwrap();
                        let expected = Skip::NonFinite { tensor, count: 1 };
                        assert_eq!(report.skipped, Some(expected));
                        assert_eq!(state(&mut optimizer, &stream, &params), before);
                    }
                }
                // The random numbers of the next step are those of a run without skips.
                let (_, mut other, mut straight, _) = setup::<bf16, bf16>(
                    &device,
                    rule,
                    Config { scaler: Scaler::Off, ..config },
                    &lengths,
                );
                let scale = optimizer.scale(&stream).unwrap();
                let scaled: Vec<Values<bf16>> = good
                    .iter()
                    .map(|g| g.iter().map(|g| bf16::from_f32(g.to_f32() * scale)).collect())
                    .collect();
                optimizer.run(&stream, &mut writes(&mut params), &reads(&scaled)).unwrap();
                let first =
                    f64::from(if config.scaler == Scaler::PYTORCH { 65536.0 } else { 1.0f32 });
                let unscaled: Vec<Values<bf16>> = good
                    .iter()
                    .map(|g| g.iter().map(|g| bf16::from_f64(g.to_f64() / first)).collect())
                    .collect();
                other.run(&stream, &mut writes(&mut straight), &reads(&unscaled)).unwrap();
                other.run(&stream, &mut writes(&mut straight), &reads(&good)).unwrap();
                assert_eq!(params, straight, "{rule:?}");
            }
        }
    }
}

#[test]
fn o18_without_the_check_damage_stays_in_its_element() {
    for device in devices() {
        for rule in rules() {
            let config = Config { check_finite: false, clip: Some(0.5), ..Config::default() };
            let lengths = [300, 200];
            let (stream, mut optimizer, mut params, mut rng) =
                setup::<f32, f32>(&device, rule, config, &lengths);
            let (_, mut clean, mut expected, _) =
                setup::<f32, f32>(&device, rule, config, &lengths);
            let mut grads = normal::<f32>(&mut rng, &lengths);
            grads[0][17] = 0.0;
            clean.run(&stream, &mut writes(&mut expected), &reads(&grads)).unwrap();
            grads[0][17] = f32::NAN;
            optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
            let report = optimizer.report(&stream).unwrap();
            assert_eq!(report.skipped, None);
            assert!(params[0][17].is_nan(), "{rule:?}");
            assert_eq!(params[1], expected[1], "{rule:?}");
            if !matches!(rule, Rule::Lamb(_)) {
                (params[0][17], expected[0][17]) = (0.0, 0.0);
                assert_eq!(params[0], expected[0], "{rule:?}");
                let found = optimizer.non_finite_state(&stream).unwrap();
                assert_eq!(found.is_some(), !optimizer.slots().is_empty()); // O-21
            }
        }
    }
}

#[test]
fn o20_overflow_made_by_unscaling_is_seen() {
    for device in devices() {
        let config = Config { scaler: Scaler::Fixed(2f64.powi(-10)), ..Config::default() };
        let (stream, mut optimizer, mut params, _) =
            setup::<f32, f32>(&device, rules()[0], config, &[3]);
        let before = params.clone();
        let grads = [Values::from([1.0f32, 1e37, 1.0])];
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        let report = optimizer.report(&stream).unwrap();
        assert_eq!(report.skipped, Some(Skip::NonFinite { tensor: 0, count: 1 }));
        // Partials of scaled gradients cannot name it; the norm tells.
        let mut elsewhere = Optimizer::<f32, f32>::new(
            &device,
            &[group(rules()[0], &[3])],
            Config { scaler: Scaler::Off, ..config },
        )
        .unwrap();
        elsewhere.stats(&stream, &reads(&grads)).unwrap();
        let source = Source::Scaled(&[elsewhere.grad_stats()]);
        optimizer.control(&stream, source, &reads(&grads)).unwrap();
        optimizer.step(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        assert_eq!(optimizer.report(&stream).unwrap().skipped, Some(Skip::NormOverflow));
        assert_eq!(params, before);
    }
}

#[test]
fn o22_o23_norms_of_huge_tiny_and_zero_gradients() {
    for device in devices() {
        for (value, norm) in [(1e20f32, 2e20), (1e-23, 2e-23), (0.0, 0.0)] {
            let config = Config { clip: Some(1.0), ..Config::default() };
            let (stream, mut optimizer, mut params, _) =
                setup::<f32, f32>(&device, rules()[3], config, &[4]);
            let grads = [Values::from([value; 4])];
            optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
            let report = optimizer.report(&stream).unwrap();
            assert_eq!(report.skipped, None);
            assert!((report.norm - norm).abs() <= 1e-6 * norm, "{}", report.norm);
            let clip = if norm > 1.0 { 1.0 / (norm + 1e-6) } else { 1.0 };
            assert!((report.clip - clip).abs() <= 1e-6 * clip);
            assert!(params[0].iter().all(|p| p.is_finite()));
        }
        // No f32 factor clips this: never by 0.
        let config = Config { clip: Some(1e-9), ..Config::default() };
        let (stream, mut optimizer, mut params, _) =
            setup::<f32, f32>(&device, rules()[3], config, &[4]);
        let before = params.clone();
        let grads = [Values::from([3e38f32; 4])];
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        assert_eq!(optimizer.report(&stream).unwrap().skipped, Some(Skip::NormOverflow));
        assert_eq!(params, before);
    }
}

#[test]
fn o27_the_master_wins_and_parameters_are_its_roundings() {
    for device in devices() {
        let (stream, mut optimizer, mut params, mut rng) =
            setup::<bf16, bf16>(&device, rules()[0], Config::default(), &[777]);
        let (_, mut other, mut meddled, _) =
            setup::<bf16, bf16>(&device, rules()[0], Config::default(), &[777]);
        for step in 0..4 {
            let grads = normal::<bf16>(&mut rng, &[777]);
            optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
            meddled[0].fill(bf16::NAN);
            other.run(&stream, &mut writes(&mut meddled), &reads(&grads)).unwrap();
            assert_eq!(params, meddled, "{step}");
            let master = optimizer.master(&stream, 0, &params[0]).unwrap();
            let rounded: Vec<bf16> = master.iter().map(|&m| bf16::from_f32(m)).collect();
            assert_eq!(params[0], rounded);
        }
    }
}

/// O-29: random numbers do not know ranks, threads, nor how tensors are grouped.
#[test]
fn o29_any_number_of_threads_gives_the_same_bits() {
    let lengths = [3 * CHUNK + 11, 5, 0, CHUNK, 70_001];
    for rule in rules() {
        for (master, moments) in [(Master::F32, Moments::F32), (Master::Stochastic, Moments::Bf16)]
        {
            let config = Config { master, moments, clip: Some(1.0), ..Config::default() };
            let runs: Vec<Vec<u64>> = [1, 2, 3]
                .map(|threads| {
                    let device = cpu(threads);
                    let (stream, mut optimizer, mut params, mut rng) =
                        setup::<bf16, bf16>(&device, rule, config, &lengths);
                    for _ in 0..3 {
                        let grads = normal::<bf16>(&mut rng, &lengths);
                        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
                    }
                    let mut bits = state(&mut optimizer, &stream, &params);
                    bits.push(optimizer.report(&stream).unwrap().norm.to_bits());
                    bits
                })
                .into();
            assert!(runs[0] == runs[1] && runs[1] == runs[2], "{rule:?}");
        }
    }
}

#[test]
fn o32_lamb_without_a_norm_has_ratio_one() {
    for device in devices() {
        let rule = Lamb { lr: 0.5, weight_decay: 0.0, ..Lamb::default() };
        for (p, g) in [(0.0f32, 1.0f32), (1.0, 0.0)] {
            let stream = device.stream().unwrap();
            let groups = [group(rule, &[8])];
            let mut optimizer =
                Optimizer::<f32, f32>::new(&device, &groups, Config::default()).unwrap();
            let (mut w, g) = (Values::from([p; 8]), Values::from([g; 8]));
            optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
            let expected = if g[0] == 0.0 { p } else { -0.5 };
            assert!((w[0] - expected).abs() < 1e-5, "{}", w[0]);
        }
    }
}

#[test]
fn o33_lion_stands_still_where_there_is_no_sign() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let groups = [group(Lion { lr: 0.5, ..Lion::default() }, &[3])];
        let mut optimizer =
            Optimizer::<f32, f32>::new(&device, &groups, Config::default()).unwrap();
        let (mut w, g) = (Values::from([1.0f32; 3]), Values::from([0.0f32, -0.0, 1e-30]));
        optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
        assert_eq!(w, [1.0, 1.0, 0.5]);
    }
}

/// Partials made elsewhere decide the same as our own.
#[test]
fn partials_from_elsewhere_decide_as_our_own() {
    for device in devices() {
        let lengths = [CHUNK + 1, 33, 500];
        let scale = Scaler::Fixed(1024.0);
        let config = Config { clip: Some(0.1), scaler: scale, ..Config::default() };
        let (stream, mut own, mut expected, mut rng) =
            setup::<f32, f32>(&device, rules()[0], config, &lengths);
        let grads = normal::<f32>(&mut rng, &lengths);
        own.run(&stream, &mut writes(&mut expected), &reads(&grads)).unwrap();
        let report = own.report(&stream).unwrap();
        // Unscaled elsewhere.
        let unscaled: Vec<Values<f32>> =
            grads.iter().map(|g| g.iter().map(|g| g / 1024.0).collect()).collect();
        let (_, mut other, mut params, _) =
            setup::<f32, f32>(&device, rules()[0], config, &lengths);
        let source = Source::Unscaled(&[own.grad_stats()]);
        other.control(&stream, source, &reads(&unscaled)).unwrap();
        other.step(&stream, &mut writes(&mut params), &reads(&unscaled)).unwrap();
        let theirs = other.report(&stream).unwrap();
        assert_eq!((theirs.norm, theirs.clip), (report.norm, report.clip));
        assert_eq!(theirs.gradient_factor, report.clip as f32);
        // Still scaled, in two lists.
        let sums = |range: std::ops::Range<usize>| {
            let groups = [group(rules()[0], &lengths[range.clone()])];
            let mut sums = Optimizer::<f32, f32>::new(&device, &groups, Config::default()).unwrap();
            sums.stats(&stream, &reads(&grads[range])).unwrap();
            sums
        };
        let (first, second) = (sums(0..1), sums(1..3));
        let (_, mut other, mut params, _) =
            setup::<f32, f32>(&device, rules()[0], config, &lengths);
        let lists: [&GradStats; 2] = [first.grad_stats(), second.grad_stats()];
        other.control(&stream, Source::Scaled(&lists), &reads(&grads)).unwrap();
        other.step(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        let theirs = other.report(&stream).unwrap();
        assert!((theirs.norm - report.norm).abs() <= 1e-12 * report.norm);
        assert_eq!(params, expected);
        let four = [lists[0]; 4];
        let error = other.control(&stream, Source::Scaled(&four), &reads(&grads)).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
}

/// A gradient that `stats` has not seen is not stepped with on the word of the others.
#[test]
fn gradients_are_those_that_were_measured() {
    for device in devices() {
        let (stream, mut optimizer, mut params, mut rng) =
            setup::<f32, f32>(&device, rules()[0], Config::default(), &[40, 0, 50]);
        let mut grads = normal::<f32>(&mut rng, &[40, 0, 50]);
        grads[2][7] = f32::NAN;
        let all = reads(&grads);
        let seen = [all[0], None, None];
        optimizer.stats(&stream, &seen).unwrap();
        let error = optimizer.control(&stream, Source::Own, &all).unwrap_err();
        let found = "grads[2]: expected none, as in `stats`, found a gradient";
        assert!(
            matches!(error, Error::Shape { .. }) && error.to_string().contains(found),
            "{error}"
        );
        // After the error the decision is still to be made; empty tensors may have gradients.
        let with_empty = [all[0], all[1], None];
        optimizer.control(&stream, Source::Own, &with_empty).unwrap();
        optimizer.step(&stream, &mut writes(&mut params), &with_empty).unwrap();
        assert_eq!(optimizer.report(&stream).unwrap().applied, 1);
        optimizer.stats(&stream, &all).unwrap();
        let error = optimizer.control(&stream, Source::Own, &seen).unwrap_err();
        assert!(error.to_string().contains("grads[2]: expected a gradient, as in"), "{error}");
        // Elsewhere, more may have been measured, and not less.
        let [whole, part] =
            [&[40, 0, 50][..], &[40]].map(|lengths| GradStats::new(&device, lengths).unwrap());
        for source in [Source::Scaled(&[]), Source::Unscaled(&[]), Source::Scaled(&[&part])] {
            let error = optimizer.control(&stream, source, &all).unwrap_err();
            let expected = "source: expected statistics of 90 elements";
            assert!(error.to_string().contains(expected), "{error}");
        }
        optimizer.control(&stream, Source::Scaled(&[&whole]), &seen).unwrap();
    }
}
