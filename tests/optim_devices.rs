//! Every device gives the CPU's bits: every rule, every way to keep masters and moments, every pair
//! of storage types, odd lengths, odd addresses, mixed groups, skipped steps, absent gradients
//! (O-28, and the whole of "bit-identical on CPU, CUDA and HIP").
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::devices;
use common::optim::*;
use halfstep::optim::*;
use halfstep::{Device, DeviceKind, Dtype, Read, Storage, bf16, f16};

/// Two groups, with other hyper-parameters in the second where the rule has any.
fn groups(rule: Rule, lengths: &[usize]) -> [Group; 2] {
    let tensor = |i: usize| {
        let tensor = halfstep::optim::Tensor::new(format!("t{i}"), lengths[i]);
        if i % 3 == 1 { tensor.lr_factor(0.5).decay_factor(0.0) } else { tensor }
    };
    let half = lengths.len() / 2;
    let mut second = rule;
    match &mut second {
        Rule::AdamW(rule) => (rule.lr, rule.beta1, rule.weight_decay) = (0.003, 0.8, 0.1),
        Rule::Adam(rule) => (rule.lr, rule.beta2, rule.eps) = (0.003, 0.95, 1e-5),
        Rule::Sgd(rule) => (rule.lr, rule.weight_decay) = (0.3, 0.0),
        Rule::Adagrad(rule) => (rule.lr, rule.lr_decay) = (0.1, 0.0),
        Rule::Lamb(rule) => (rule.lr, rule.weight_decay) = (0.1, 0.0),
        Rule::Lion(rule) => (rule.lr, rule.beta1) = (0.01, 0.5),
        _ => {}
    }
    [
        Group::new(rule).tensors((0..half).map(tensor)),
        Group::new(second).tensors((half..lengths.len()).map(tensor)),
    ]
}

/// Gradients of every size, subnormal ones among them.
fn gradients<G: Storage>(rng: &mut Rng, lengths: &[usize], shift: usize) -> Vec<Values<G>> {
    let distributions = [Distribution::Normal, Distribution::REAL[2], Distribution::REAL[5]];
    let fill = |(i, &len): (usize, &usize)| {
        let mut values: Vec<G> = distributions[i % 3].fill(rng, len);
        for (k, value) in values.iter_mut().enumerate().filter(|(k, _)| k % 13 == 7) {
            *value = G::narrow([0.0, -0.0, 1e-40, 6e-8, -3e-39][k % 5]);
        }
        Values::shifted(values, shift)
    };
    lengths.iter().enumerate().map(fill).collect()
}

/// Some steps; all that there is to see after each, as bits.
fn history<P: Storage, G: Storage>(
    device: &Device,
    rule: Rule,
    config: Config,
    lengths: &[usize],
    shift: usize,
) -> Vec<Vec<u64>> {
    let stream = device.stream().unwrap();
    let mut rng = Rng(11);
    let mut params: Vec<Values<P>> = normal::<P>(&mut rng, lengths)
        .into_iter()
        .map(|values| Values::shifted(values.to_vec(), shift))
        .collect();
    let mut optimizer = Optimizer::<P, G>::new(device, &groups(rule, lengths), config).unwrap();
    let wide: Vec<Values<f32>> = normal::<f32>(&mut rng, lengths);
    optimizer.init_from_f32(&stream, &plain(&wide), &mut writes(&mut params)).unwrap();
    let mut all = vec![state(&mut optimizer, &stream, &params)];
    for step in 0..4 {
        let mut grads = gradients::<G>(&mut rng, lengths, shift);
        let last = lengths.iter().rposition(|&len| len > 0).expect("one has elements");
        if step == 1 {
            let end = lengths[last] - 1;
            grads[last][end] = G::narrow(f32::NEG_INFINITY);
        }
        let mut reads: Vec<Option<&dyn Read<G>>> = reads(&grads);
        if step == 2 {
            reads[last] = None;
        }
        optimizer.run(&stream, &mut writes(&mut params), &reads).unwrap();
        let mut bits = state(&mut optimizer, &stream, &params);
        let report = optimizer.report(&stream).unwrap();
        assert_eq!(report.skipped.is_some(), step == 1, "{rule:?}");
        // Floats print so that they can be read back: equal text is equal bits.
        bits.extend(format!("{report:?}").bytes().map(u64::from));
        assert_eq!(optimizer.last_report().map(|r| format!("{r:?}")), Some(format!("{report:?}")));
        all.push(bits);
    }
    optimizer.write_params(&stream, &mut writes(&mut params)).unwrap();
    all.push(state(&mut optimizer, &stream, &params));
    all
}

fn masters(dtype: Dtype) -> &'static [Master] {
    match dtype {
        Dtype::F32 => &[Master::F32],
        Dtype::Bf16 => &[Master::F32, Master::Remainder, Master::Stochastic, Master::Nearest],
        Dtype::F16 => &[Master::F32, Master::Stochastic, Master::Nearest],
    }
}

fn same<P: Storage, G: Storage>(lengths: &[usize], shift: usize) -> usize {
    let mut cases = 0;
    for device in devices() {
        if device.info().kind == DeviceKind::Cpu {
            continue;
        }
        for rule in rules() {
            for &master in masters(P::DTYPE) {
                for moments in [Moments::F32, Moments::Bf16] {
                    let scaler = Scaler::Dynamic(Dynamic { init: 8.0, ..Dynamic::MEGATRON });
                    let config = Config {
                        master,
                        moments,
                        scaler,
                        clip: Some(3.0),
                        seed: 0x1234_5678_9abc_def0,
                        ..Config::default()
                    };
                    let cpu = history::<P, G>(&Device::cpu(), rule, config, lengths, shift);
                    let here = history::<P, G>(&device, rule, config, lengths, shift);
                    for (step, (a, b)) in cpu.iter().zip(&here).enumerate() {
                        let name = format!("{} {rule:?} {master:?} {moments:?}", device.info());
                        assert!(a == b, "{name}: bits differ after step {step}");
                    }
                    cases += 1;
                }
            }
        }
    }
    cases
}

/// Around what a thread, a strip, a piece and a chunk take.
const LENGTHS: [usize; 14] =
    [1, 0, 7, 8, 9, 255, 2047, 2049, 4097, 0, CHUNK - 1, CHUNK, CHUNK + 1, 3];

#[test]
fn bf16_parameters_and_gradients() {
    println!("{} cases", same::<bf16, bf16>(&LENGTHS, 0));
}

#[test]
fn f32_parameters_and_bf16_gradients() {
    println!("{} cases", same::<f32, bf16>(&LENGTHS, 0));
}

#[test]
fn other_pairs_of_types() {
    let lengths = [5, 0, 2050, 9];
    let cases = same::<bf16, f16>(&lengths, 0)
        + same::<bf16, f32>(&lengths, 0)
        + same::<f16, bf16>(&lengths, 0)
        + same::<f16, f16>(&lengths, 0)
        + same::<f16, f32>(&lengths, 0)
        + same::<f32, f16>(&lengths, 0)
        + same::<f32, f32>(&lengths, 0);
    println!("{cases} cases");
}

#[test]
fn odd_addresses() {
    let cases = same::<bf16, bf16>(&[2051, 12], 1)
        + same::<f16, f32>(&[2051, 12], 3)
        + same::<f32, bf16>(&[2051, 12], 1);
    println!("{cases} cases");
}
