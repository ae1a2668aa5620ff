//! Optimizer conformance: bad input, edges of the work list, skipped steps.
//!
//! Not shown here, with the reason:
//!
//! | id | reason |
//! |---|---|
//! | O-03 | types and devices of a list are one type parameter and one check of `Lent`; other devices than the CPU come with their backends |
//! | O-09 | 2³¹ elements need gigabytes; `sizes_beyond_32_bits` (ignored by default) runs one, the layout's arithmetic is 64-bit and tested in `plan` |
//! | O-14 | there is no step argument: counters are the optimizer's own and start at 1 |
//! | O-26 | a step is one launch, or LAMB's three; a launch that fails is the driver's error |
//! | O-28 | one device here; the fast path and the reference agree bit for bit (unit tests) |
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::guard::Guarded;
use common::{cpu, devices};
use halfstep::optim::*;
use halfstep::{Device, Error, GradStats, Raw, Read, Storage, Stream, Write, bf16, f16};

const CHUNK: usize = 16_384;

fn rules() -> Vec<Rule> {
    vec![
        AdamW { lr: 0.01, ..AdamW::default() }.into(),
        AdamW { lr: 0.01, amsgrad: true, ..AdamW::default() }.into(),
        Adam { lr: 0.01, weight_decay: 0.01, ..Adam::default() }.into(),
        Sgd { lr: 0.01, weight_decay: 0.01, ..Sgd::default() }.into(),
        Sgd { lr: 0.01, momentum: 0.9, dampening: 0.1, ..Sgd::default() }.into(),
        Sgd { lr: 0.01, momentum: 0.9, nesterov: true, ..Sgd::default() }.into(),
        Adagrad { weight_decay: 0.01, lr_decay: 0.1, ..Adagrad::default() }.into(),
        Lamb { lr: 0.01, ..Lamb::default() }.into(),
        Lion { lr: 0.01, weight_decay: 0.1, ..Lion::default() }.into(),
    ]
}

fn group(rule: impl Into<Rule>, lengths: &[usize]) -> Group {
    let name = |i| format!("t{i}");
    let tensors = lengths.iter().enumerate().map(|(i, &len)| Tensor::new(name(i), len));
    Group::new(rule).tensors(tensors)
}

fn reads<T: Storage>(tensors: &[Vec<T>]) -> Vec<Option<&dyn Read<T>>> {
    tensors.iter().map(|tensor| Some(tensor as &dyn Read<T>)).collect()
}

fn plain<T: Storage>(tensors: &[Vec<T>]) -> Vec<&dyn Read<T>> {
    tensors.iter().map(|tensor| tensor as &dyn Read<T>).collect()
}

fn writes<T: Storage>(tensors: &mut [Vec<T>]) -> Vec<&mut dyn Write<T>> {
    tensors.iter_mut().map(|tensor| tensor as &mut dyn Write<T>).collect()
}

/// Tensors of normal values.
fn normal<T: Storage>(rng: &mut Rng, lengths: &[usize]) -> Vec<Vec<T>> {
    lengths.iter().map(|&len| Distribution::Normal.fill(rng, len)).collect()
}

/// Everything an optimizer holds, as bits.
fn state<P: Storage, G: Storage>(
    optimizer: &mut Optimizer<P, G>,
    stream: &Stream,
    params: &[Vec<P>],
) -> Vec<u64> {
    let mut bits = Vec::new();
    for (tensor, param) in params.iter().enumerate() {
        bits.extend(bytemuck::cast_slice::<P, u8>(param).iter().map(|&byte| u64::from(byte)));
        let master = optimizer.master(stream, tensor, param).unwrap();
        bits.extend(master.iter().map(|value| u64::from(value.to_bits())));
        for slot in 0..optimizer.slots().len() {
            let values = optimizer.moment(stream, slot, tensor).unwrap();
            bits.extend(values.iter().map(|value| u64::from(value.to_bits())));
        }
        let Counters { step, beta1_power, beta2_power } =
            optimizer.counters(stream, tensor).unwrap();
        bits.extend([step, beta1_power.to_bits(), beta2_power.to_bits()]);
    }
    bits
}

fn setup<P: Storage, G: Storage>(
    device: &Device,
    rule: Rule,
    config: Config,
    lengths: &[usize],
) -> (Stream, Optimizer<P, G>, Vec<Vec<P>>, Rng) {
    let stream = device.stream().unwrap();
    let mut rng = Rng(7);
    let params = normal::<P>(&mut rng, lengths);
    let mut optimizer = Optimizer::new(device, &[group(rule, lengths)], config).unwrap();
    optimizer.load_params(&stream, &plain(&params)).unwrap();
    (stream, optimizer, params, rng)
}

#[test]
fn o01_o02_lists_that_do_not_fit_are_named() {
    for device in devices() {
        let (stream, mut optimizer, mut params, mut rng) =
            setup::<bf16, bf16>(&device, rules()[0], Config::default(), &[3, 5, 2]);
        let grads = normal::<bf16>(&mut rng, &[3, 5, 2]);
        let before = state(&mut optimizer, &stream, &params);
        let error = optimizer.stats(&stream, &reads(&grads[..2])).unwrap_err();
        assert_eq!(error.to_string(), "optim::stats: grads: expected 3 tensors, found 2 tensors");
        let short = normal::<bf16>(&mut rng, &[3, 5, 1]);
        let error = optimizer.run(&stream, &mut writes(&mut params), &reads(&short)).unwrap_err();
        let Error::Shape { arg, expected, found, .. } = &error else { panic!("{error}") };
        assert_eq!((arg.as_ref(), found.as_str()), ("grads[2]", "1"));
        assert_eq!(expected, "2 elements (tensor \"t2\")");
        let mut long = normal::<bf16>(&mut rng, &[3, 6, 2]);
        let error = optimizer.run(&stream, &mut writes(&mut long), &reads(&grads)).unwrap_err();
        assert!(error.to_string().contains("params[1]"), "{error}");
        assert_eq!(state(&mut optimizer, &stream, &params), before);
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
    }
}

#[test]
fn o04_no_tensors_and_no_gradients_are_steps_without_work() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let mut none = Optimizer::<bf16, f16>::new(&device, &[], Config::default()).unwrap();
        none.load_params(&stream, &[]).unwrap();
        none.run(&stream, &mut [], &[]).unwrap();
        assert_eq!(none.report(&stream).unwrap().applied, 1);
        let (stream, mut optimizer, mut params, _) =
            setup::<f32, f32>(&device, rules()[0], Config::default(), &[4]);
        let before = state(&mut optimizer, &stream, &params);
        optimizer.run(&stream, &mut writes(&mut params), &[None]).unwrap();
        assert_eq!(state(&mut optimizer, &stream, &params), before);
        let report = optimizer.report(&stream).unwrap();
        assert_eq!((report.applied, report.norm, report.skipped), (1, 0.0, None));
    }
}

#[test]
fn o05_parameters_that_share_memory_are_refused() {
    let device = Device::cpu();
    let (stream, mut optimizer, params, mut rng) =
        setup::<f32, f32>(&device, rules()[3], Config::default(), &[4, 4]);
    let grads = normal::<f32>(&mut rng, &[4, 4]);
    let mut memory = vec![1.0f32; 12];
    let base = memory.as_mut_ptr() as u64;
    // SAFETY: `memory` outlives both; nothing is written where they overlap, as asserted below.
    let (mut a, mut b, c) =
        unsafe { (Raw::new(base, 4), Raw::new(base + 12, 4), Raw::new(base, 4)) };
    let mut overlapping: Vec<&mut dyn Write<f32>> = vec![&mut a, &mut b];
    let error = optimizer.run(&stream, &mut overlapping, &reads(&grads)).unwrap_err();
    let Error::Overlap { first, second, .. } = &error else { panic!("{error}") };
    assert_eq!([first.as_ref(), second.as_ref()], ["params[1]", "params[0]"]);
    // A gradient inside a parameter.
    // SAFETY: as above.
    let (mut a, mut b) = unsafe { (Raw::new(base, 4), Raw::new(base + 16, 4)) };
    let mut apart: Vec<&mut dyn Write<f32>> = vec![&mut a, &mut b];
    let error = optimizer.run(&stream, &mut apart, &[Some(&grads[0]), Some(&c)]).unwrap_err();
    assert!(error.to_string().contains("params[0]") && error.to_string().contains("grads[1]"));
    assert_eq!(memory, [1.0; 12]);
    // Neighbours and shared gradients are fine.
    let mut apart: Vec<&mut dyn Write<f32>> = vec![&mut a, &mut b];
    optimizer.run(&stream, &mut apart, &[Some(&grads[0]), Some(&grads[0])]).unwrap();
    assert_eq!(params.len(), 2);
}

/// O-06 to O-08, O-10, O-12: any mix of lengths gives each tensor the bits it has alone (LAMB: its
/// own trust ratio too).
#[test]
fn o06_empty_tensors_anywhere_change_nothing() {
    let lengths: [&[usize]; 5] = [
        &[0, 5, 0, 0, 9, 1, 0],
        &[0],
        &[0, 0, 0],
        &[CHUNK - 1, 0, CHUNK, CHUNK + 1, 0],
        &[7, 8, 9, 0, 127, 128, 129, 2 * CHUNK + 3],
    ];
    for device in devices() {
        for rule in rules() {
            for lengths in lengths {
                let (stream, mut together, mut params, mut rng) =
                    setup::<f32, bf16>(&device, rule, Config::default(), lengths);
                let grads = normal::<bf16>(&mut rng, lengths);
                let start = params.clone();
                together.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
                together.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
                for (index, len) in lengths.iter().enumerate() {
                    let mut alone = Optimizer::<f32, bf16>::new(
                        &device,
                        &[group(rule, &[*len])],
                        Config::default(),
                    )
                    .unwrap();
                    let mut one = vec![start[index].clone()];
                    alone.load_params(&stream, &plain(&one)).unwrap();
                    for _ in 0..2 {
                        let grads = &grads[index..=index];
                        alone.run(&stream, &mut writes(&mut one), &reads(grads)).unwrap();
                    }
                    assert_eq!(one[0], params[index], "{rule:?} {lengths:?} {index}");
                    assert!(*len == 0 || one[0] != start[index]);
                }
            }
        }
    }
}

#[test]
fn o10_21_000_tensors_of_one_element() {
    for device in devices() {
        let lengths = vec![1; 21_000];
        let (stream, mut optimizer, mut params, mut rng) =
            setup::<f32, bf16>(&device, rules()[0], Config::default(), &lengths);
        let before = params.clone();
        let mut grads = normal::<bf16>(&mut rng, &lengths);
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        assert!(params.iter().zip(&before).all(|(new, old)| new != old));
        grads[20_999][0] = bf16::NAN;
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        let skip = optimizer.report(&stream).unwrap().skipped;
        assert_eq!(skip, Some(Skip::NonFinite { tensor: 20_999, count: 1 }));
    }
}

/// O-11: odd addresses, with pads that must stay.
#[test]
fn o11_misaligned_tensors_have_the_bits_of_aligned_ones() {
    let len = 1000;
    for device in devices() {
        for rule in rules() {
            let (stream, mut optimizer, params, mut rng) =
                setup::<bf16, bf16>(&device, rule, Config::default(), &[len]);
            let grads = normal::<bf16>(&mut rng, &[len]);
            let mut aligned = params.clone();
            optimizer.run(&stream, &mut writes(&mut aligned), &reads(&grads)).unwrap();
            for shift in 1..16 {
                let groups = [group(rule, &[len])];
                let mut other =
                    Optimizer::<bf16, bf16>::new(&device, &groups, Config::default()).unwrap();
                let mut p = Guarded::new(&params[0], shift);
                let g = Guarded::new(&grads[0], 15 - shift);
                other.load_params(&stream, &[&p.get().to_vec()]).unwrap();
                let (address, grad) = (p.get_mut().as_mut_ptr() as u64, g.get().as_ptr() as u64);
                // SAFETY: `p` and `g` outlive both and are not used meanwhile.
                let (mut raw, grad) = unsafe { (Raw::new(address, len), Raw::new(grad, len)) };
                other.run(&stream, &mut [&mut raw], &[Some(&grad)]).unwrap();
                p.check("params");
                g.check("grads");
                assert_eq!(p.get(), aligned[0], "{rule:?} {shift}");
                assert_eq!(g.get(), grads[0]);
            }
        }
    }
}

#[test]
fn o11_addresses_inside_an_element_are_refused() {
    let device = Device::cpu();
    let (stream, mut optimizer, mut params, _) =
        setup::<f32, f32>(&device, rules()[3], Config::default(), &[4]);
    let memory = [0.0f32; 8];
    // SAFETY: never read: the address is refused.
    let odd = unsafe { Raw::<f32>::new(memory.as_ptr() as u64 + 2, 4) };
    let error = optimizer.run(&stream, &mut writes(&mut params), &[Some(&odd)]).unwrap_err();
    assert!(matches!(&error, Error::Align { need: 4, .. }), "{error}");
}

#[test]
fn o13_hyper_parameters_outside_their_range_are_named() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let adamw = AdamW::default();
    let sgd = Sgd { momentum: 0.9, ..Sgd::default() };
    let bad: Vec<(&str, Rule)> = vec![
        ("lr", AdamW { lr: -1e-3, ..adamw }.into()),
        ("lr", AdamW { lr: nan, ..adamw }.into()),
        ("lr", AdamW { lr: inf, ..adamw }.into()),
        ("lr", AdamW { lr: 1e39, ..adamw }.into()),
        ("beta1", AdamW { beta1: 1.0, ..adamw }.into()),
        ("beta1", AdamW { beta1: -0.1, ..adamw }.into()),
        ("beta2", AdamW { beta2: nan, ..adamw }.into()),
        ("beta2", AdamW { beta2: 0.999_999_999_99, ..adamw }.into()),
        ("eps", AdamW { eps: 0.0, ..adamw }.into()),
        ("eps", AdamW { eps: 1e-46, ..adamw }.into()),
        ("weight_decay", AdamW { weight_decay: -0.1, ..adamw }.into()),
        ("weight_decay", Adam { weight_decay: inf, ..Adam::default() }.into()),
        ("momentum", Sgd { momentum: 1.0, ..sgd }.into()),
        ("dampening", Sgd { dampening: 1.5, ..sgd }.into()),
        ("dampening", Sgd { dampening: 0.1, nesterov: true, ..sgd }.into()),
        ("momentum", Sgd { momentum: 0.0, nesterov: true, ..sgd }.into()),
        ("lr_decay", Adagrad { lr_decay: -1.0, ..Adagrad::default() }.into()),
        (
            "initial_accumulator_value",
            Adagrad { initial_accumulator_value: -1.0, ..Adagrad::default() }.into(),
        ),
        ("eps", Lamb { eps: nan, ..Lamb::default() }.into()),
        ("beta2", Lion { beta2: 1.0, ..Lion::default() }.into()),
    ];
    for (name, rule) in bad {
        let groups = [group(rule, &[4])];
        let error =
            Optimizer::<f32, f32>::new(&Device::cpu(), &groups, Config::default()).unwrap_err();
        let Error::Range { arg, .. } = &error else { panic!("{error}") };
        assert_eq!(arg, &format!("groups[0].{name}"), "{rule:?}");
    }
    for factor in [-1.0, nan, inf] {
        for tensor in
            [Tensor::new("t", 4).lr_factor(factor), Tensor::new("t", 4).decay_factor(factor)]
        {
            let groups = [Group::new(adamw).tensor(tensor)];
            let made = Optimizer::<f32, f32>::new(&Device::cpu(), &groups, Config::default());
            assert!(matches!(made, Err(Error::Range { .. })));
        }
    }
    let mut fine =
        Optimizer::<f32, f32>::new(&Device::cpu(), &[group(adamw, &[4])], Config::default())
            .unwrap();
    assert!(fine.set_lr(0, nan).is_err() && fine.set_lr(1, 0.1).is_err());
    assert!(fine.set_lr(0, 0.5).is_ok() && fine.rule(0).unwrap().lr() == 0.5);
}

#[test]
fn what_cannot_be_is_refused_before_memory_is_asked_for() {
    let device = Device::cpu();
    let new =
        |groups: &[Group], config| Optimizer::<bf16, bf16>::new(&device, groups, config).err();
    let plain = Config::default();
    let mixed = [group(AdamW::default(), &[1]), group(Sgd::default(), &[])];
    assert!(matches!(new(&mixed, plain), Some(Error::Unsupported { .. })));
    let amsgrad = AdamW { amsgrad: true, ..AdamW::default() };
    let mixed = [group(AdamW::default(), &[1]), group(amsgrad, &[])];
    assert!(matches!(new(&mixed, plain), Some(Error::Unsupported { .. })));
    let twice = [group(AdamW::default(), &[1]), group(AdamW::default(), &[1])];
    assert!(new(&twice, plain).unwrap().to_string().contains("t0"));
    for len in [usize::MAX, usize::MAX / 2, 1 << 60] {
        let error = new(&[group(AdamW::default(), &[len])], plain).unwrap();
        assert!(matches!(error, Error::Shape { .. } | Error::OutOfMemory { .. }), "{error}");
    }
    let master = |master| Config { master, ..plain };
    let one = [group(AdamW::default(), &[1])];
    for kind in [Master::Remainder, Master::Stochastic, Master::Nearest] {
        let error = Optimizer::<f32, bf16>::new(&device, &one, master(kind)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    assert!(Optimizer::<f16, f16>::new(&device, &one, master(Master::Remainder)).is_err());
    // O-25.
    for clip in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let config = Config { clip: Some(clip), ..plain };
        assert!(matches!(new(&one, config), Some(Error::Range { .. })), "{clip}");
    }
    // f32 masters without values would set parameters to 0.
    let stream = device.stream().unwrap();
    let mut optimizer = Optimizer::<bf16, bf16>::new(&device, &one, plain).unwrap();
    let (mut w, g) = (vec![bf16::ONE], vec![bf16::ONE]);
    let error = optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err();
    assert!(matches!(error, Error::State { .. }) && w == [bf16::ONE], "{error}");
}

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
                let scaled: Vec<Vec<bf16>> = good
                    .iter()
                    .map(|g| g.iter().map(|g| bf16::from_f32(g.to_f32() * scale)).collect())
                    .collect();
                optimizer.run(&stream, &mut writes(&mut params), &reads(&scaled)).unwrap();
                let first =
                    f64::from(if config.scaler == Scaler::PYTORCH { 65536.0 } else { 1.0f32 });
                let unscaled: Vec<Vec<bf16>> = good
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
        let grads = vec![vec![1.0f32, 1e37, 1.0]];
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
            let grads = vec![vec![value; 4]];
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
        let grads = vec![vec![3e38f32; 4]];
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
            assert_eq!(rounded, params[0]);
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
            let (mut w, g) = (vec![p; 8], vec![g; 8]);
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
        let (mut w, g) = (vec![1.0f32; 3], vec![0.0f32, -0.0, 1e-30]);
        optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
        assert_eq!(w, [1.0, 1.0, 0.5]);
    }
}

/// Groups have their own hyper-parameters, tensors their factors, and rates can change.
#[test]
fn groups_and_factors_are_rules_of_their_own() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let (a, b) = (
            AdamW { lr: 0.1, ..AdamW::default() },
            AdamW { lr: 0.2, beta1: 0.5, ..AdamW::default() },
        );
        let groups = [
            Group::new(a).tensor(Tensor::new("a", 5).lr_factor(0.5)),
            Group::new(b).tensor(Tensor::new("b", 5).decay_factor(3.0)),
        ];
        let mut both = Optimizer::<f32, f32>::new(&device, &groups, Config::default()).unwrap();
        let mut w = vec![vec![1.0f32; 5]; 2];
        let g = vec![vec![0.3f32; 5]; 2];
        both.run(&stream, &mut writes(&mut w), &reads(&g)).unwrap();
        both.set_lr(1, 0.4).unwrap();
        both.run(&stream, &mut writes(&mut w), &reads(&g)).unwrap();
        let single = |first: AdamW, second_lr: f64| {
            let mut one =
                Optimizer::<f32, f32>::new(&device, &[group(first, &[5])], Config::default())
                    .unwrap();
            let mut w = vec![vec![1.0f32; 5]];
            one.run(&stream, &mut writes(&mut w), &reads(&g[..1])).unwrap();
            one.set_lr(0, second_lr).unwrap();
            one.run(&stream, &mut writes(&mut w), &reads(&g[..1])).unwrap();
            w.remove(0)
        };
        assert_eq!(w[0], single(AdamW { lr: 0.05, ..a }, 0.05));
        assert_eq!(w[1], single(AdamW { weight_decay: 0.03, ..b }, 0.4));
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
        let unscaled: Vec<Vec<f32>> =
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

/// O-09: about 9 GB; `cargo test --release -- --ignored sizes_beyond`.
#[test]
#[ignore = "needs 9 GB"]
fn sizes_beyond_32_bits() {
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let len = (1usize << 31) + 9;
    let groups = [group(Sgd { lr: 1.0, ..Sgd::default() }, &[len])];
    let config = Config { master: Master::Nearest, ..Config::default() };
    let mut optimizer = Optimizer::<bf16, bf16>::new(&device, &groups, config).unwrap();
    let mut w = device.zeros::<bf16>(len).unwrap();
    let mut g = device.zeros::<bf16>(len).unwrap();
    for at in [0, (1 << 31) - 1, 1 << 31, len - 1] {
        g.write(&stream, at, &[bf16::ONE]).unwrap();
    }
    optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
    assert_eq!(optimizer.report(&stream).unwrap().norm, 2.0);
    for at in [0, (1 << 31) - 1, 1 << 31, len - 1] {
        let mut found = [bf16::ZERO; 1];
        w.read(&stream, at, &mut found).unwrap();
        assert_eq!(found[0], bf16::NEG_ONE, "{at}");
    }
}
