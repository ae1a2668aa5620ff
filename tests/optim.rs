//! Optimizer conformance: bad input and the edges of the work list; skips are in `optim_skip`.
//!
//! Not shown here, with the reason:
//!
//! | id | reason |
//! |---|---|
//! | O-03 | types and devices of a list are one type parameter and one check of `Lent`; other devices than the CPU come with their backends |
//! | O-09 | 2³¹ elements need gigabytes; `sizes_beyond_32_bits` (not by default; ci/run does) runs one, the layout's arithmetic is 64-bit and tested in `plan` |
//! | O-14 | there is no step argument: counters are the optimizer's own and start at 1 |
//! | O-26 | a step is one launch, or LAMB's three; a launch that fails is the driver's error |
//! | O-28 | one device here; the fast path and the reference agree bit for bit (unit tests) |
#![allow(missing_docs)]

mod common;

use common::devices;
use common::guard::Guarded;
use common::optim::*;
use common::rounding::round;
use halfstep::optim::*;
use halfstep::{Device, DeviceKind, Error, Raw, Storage, Write, bf16, f16};

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
    // What was fine once is looked at again when it is elsewhere.
    let now = memory.clone();
    // SAFETY: as above.
    let (mut a, mut b) = unsafe { (Raw::new(base, 4), Raw::new(base + 12, 4)) };
    let mut overlapping: Vec<&mut dyn Write<f32>> = vec![&mut a, &mut b];
    let error = optimizer.run(&stream, &mut overlapping, &reads(&grads)).unwrap_err();
    assert!(matches!(error, Error::Overlap { .. }), "{error}");
    assert_eq!(memory, now);
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
                other.load_params(&stream, &plain(&params)).unwrap();
                if device.info().kind != DeviceKind::Cpu {
                    // No pads: the virtual GPU knows where an allocation ends.
                    let mut p = Values::shifted(params[0].to_vec(), shift);
                    let g = Values::shifted(grads[0].to_vec(), 15 - shift);
                    other.run(&stream, &mut [&mut p], &[Some(&g)]).unwrap();
                    assert_eq!(p, aligned[0], "{rule:?} {shift}");
                    continue;
                }
                let mut p = Guarded::new(&params[0], shift);
                let g = Guarded::new(&grads[0], 15 - shift);
                let (address, grad) = (p.get_mut().as_mut_ptr() as u64, g.get().as_ptr() as u64);
                // SAFETY: `p` and `g` outlive both and are not used meanwhile.
                let (mut raw, grad) = unsafe { (Raw::new(address, len), Raw::new(grad, len)) };
                other.run(&stream, &mut [&mut raw], &[Some(&grad)]).unwrap();
                p.check("params");
                g.check("grads");
                assert_eq!(aligned[0], *p.get(), "{rule:?} {shift}");
                assert_eq!(grads[0], *g.get());
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
    // What f32 makes of a number is said, and long numbers are written short.
    for (rule, text) in [
        (AdamW { lr: 1e300, ..adamw }, "lr: expected a number from 0 to 3.4e38, found 1e300"),
        (
            AdamW { beta2: 0.999_999_999_99, ..adamw },
            "beta2: expected a number in [0, 1), in f32, too, found 0.99999999999",
        ),
        (
            AdamW { eps: 1e-46, ..adamw },
            "eps: expected a number from 1.2e-38 to 3.4e38, found 1e-46",
        ),
    ] {
        let groups = [group(rule, &[4])];
        let made = Optimizer::<f32, f32>::new(&Device::cpu(), &groups, Config::default());
        let error = made.unwrap_err().to_string();
        assert!(error.ends_with(text), "{error}");
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
    assert!(new(&twice, plain).unwrap().to_string().ends_with("found t0 twice"));
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
        let mut w = [1.0f32; 2].map(|w| Values::from([w; 5]));
        let g = [0.3f32; 2].map(|g| Values::from([g; 5]));
        both.run(&stream, &mut writes(&mut w), &reads(&g)).unwrap();
        both.set_lr(1, 0.4).unwrap();
        both.run(&stream, &mut writes(&mut w), &reads(&g)).unwrap();
        let single = |first: AdamW, second_lr: f64| {
            let mut one =
                Optimizer::<f32, f32>::new(&device, &[group(first, &[5])], Config::default())
                    .unwrap();
            let mut w = [Values::from([1.0f32; 5])];
            one.run(&stream, &mut writes(&mut w), &reads(&g[..1])).unwrap();
            one.set_lr(0, second_lr).unwrap();
            one.run(&stream, &mut writes(&mut w), &reads(&g[..1])).unwrap();
            w[0].clone()
        };
        assert_eq!(w[0], single(AdamW { lr: 0.05, ..a }, 0.05));
        assert_eq!(w[1], single(AdamW { weight_decay: 0.03, ..b }, 0.4));
    }
}

/// What a model computes with is what the optimizer keeps, rounded once, in every piece that threads take.
fn parameters_are_masters_rounded<P: Storage>(
    devices: &[Device],
    rules: &[Rule],
    lengths: &[usize],
) {
    for device in devices {
        for &rule in rules {
            for moments in [Moments::F32, Moments::Bf16] {
                let config = Config { moments, ..Config::default() };
                let (stream, mut optimizer, mut params, mut rng) =
                    setup::<P, bf16>(device, rule, config, lengths);
                for _ in 0..2 {
                    let grads = normal::<bf16>(&mut rng, lengths);
                    optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
                }
                for (tensor, param) in params.iter().enumerate() {
                    let master = optimizer.master(&stream, tensor, param).unwrap();
                    for (i, (&found, &master)) in param.iter().zip(&master).enumerate() {
                        let expected = round(master.into(), P::DTYPE);
                        let found = f64::from(found.widen());
                        assert_eq!(found, expected, "{rule:?} {moments:?} t{tensor}[{i}]");
                    }
                }
            }
        }
    }
}

#[test]
fn o12_parameters_are_masters_rounded() {
    let lengths = [511, 513, CHUNK - 1, CHUNK + 513, 2 * CHUNK + 1025];
    parameters_are_masters_rounded::<bf16>(&devices(), &rules(), &lengths);
    parameters_are_masters_rounded::<f16>(&devices(), &rules(), &lengths);
}

/// From 2²⁴ elements on, the CPU stores parameters past its caches.
#[test]
fn o12_so_are_parameters_of_a_large_model() {
    let sgd = [Sgd { lr: 0.01, ..Sgd::default() }.into()];
    let lengths = [1 << 23, (1 << 23) + 513];
    parameters_are_masters_rounded::<bf16>(&[Device::cpu()], &sgd, &lengths);
    parameters_are_masters_rounded::<f16>(&[Device::cpu()], &sgd, &lengths);
}

/// O-09: about 9 GB; `cargo test --release -- --ignored sizes_beyond`.
#[test]
#[ignore = "needs 9 GB of memory; ci/run runs it where there are 12"]
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

/// A length that can be counted and not be had is an error, found before the list of its pieces (tens
/// of gigabytes here) is made.
#[test]
fn tensors_larger_than_memory_are_out_of_memory() {
    for device in common::devices() {
        // As many bytes as an address has bits for.
        let group = Group::new(AdamW::default()).tensor(Tensor::new("w", 1 << 45));
        let error = Optimizer::<f32, f32>::new(&device, &[group], Config::default()).err();
        assert!(matches!(error, Some(Error::OutOfMemory { .. })), "{error:?}");
    }
}
