//! Steps of every rule, on every pair of types and with every kind of master.

use halfstep::optim::bound::Trajectory;
use halfstep::optim::{
    Adagrad, Adam, AdamW, Config, Group as Tensors, Lamb, Lion, Master, Moments, Optimizer, Rule,
    Scaler, Sgd, Tensor,
};
use halfstep::{Device, Read, Storage, Write, bf16, f16};

use super::{Devices, Group, Outputs, Worst, read, seed, values};
use crate::data::{Distribution, Rng};
use crate::golden::Reason;

/// Odd lengths, none, and one of more than a chunk.
const LENGTHS: [usize; 4] = [1, 333, 0, 17_001];
const STEPS: usize = 3;
/// What gradients have been multiplied by.
const SCALE: f64 = 1024.0;

fn rules() -> [(&'static str, Rule); 9] {
    let lr = 0.01;
    let sgd = Sgd { lr, momentum: 0.9, weight_decay: 0.01, ..Sgd::default() };
    [
        ("adamw", AdamW { lr, ..AdamW::default() }.into()),
        ("adamw amsgrad", AdamW { lr, amsgrad: true, ..AdamW::default() }.into()),
        ("adam", Adam { lr, weight_decay: 0.01, ..Adam::default() }.into()),
        ("sgd", Sgd { momentum: 0.0, ..sgd }.into()),
        ("sgd momentum", Sgd { dampening: 0.1, ..sgd }.into()),
        ("sgd nesterov", Sgd { nesterov: true, ..sgd }.into()),
        ("adagrad", Adagrad { weight_decay: 0.01, lr_decay: 0.1, ..Adagrad::default() }.into()),
        ("lamb", Lamb { lr, ..Lamb::default() }.into()),
        ("lion", Lion { lr, weight_decay: 0.1, ..Lion::default() }.into()),
    ]
}

pub fn groups(all: &mut Vec<Group>) {
    let plain = Config { scaler: Scaler::Fixed(SCALE), ..Config::default() };
    let small = Config { moments: Moments::Bf16, ..plain };
    let masters = |kinds: &[Master]| -> Vec<Config> {
        let of = |&master| [Config { master, ..plain }, Config { master, ..small }];
        kinds.iter().flat_map(of).collect()
    };
    let clipped = Config { clip: Some(0.5), ..plain };
    for (name, rule) in rules() {
        let mut cases = Vec::new();
        let f32s = [plain, small, clipped];
        let bf16s = masters(&[Master::F32, Master::Remainder, Master::Stochastic, Master::Nearest]);
        let f16s = masters(&[Master::F32, Master::Stochastic, Master::Nearest]);
        add::<f32, f32>(&mut cases, name, rule, &f32s);
        add::<f32, bf16>(&mut cases, name, rule, &f32s);
        add::<bf16, bf16>(&mut cases, name, rule, &bf16s);
        add::<f16, f16>(&mut cases, name, rule, &f16s);
        all.push(Group { name: format!("optim {name}"), bits: true, cases });
    }
}

fn add<P: Storage, G: Storage>(
    cases: &mut Vec<(String, super::Run)>,
    name: &str,
    rule: Rule,
    configs: &[Config],
) {
    for &config in configs {
        let clip = if config.clip.is_some() { " clipped" } else { "" };
        let (params, grads) = (P::DTYPE, G::DTYPE);
        let Config { master, moments, .. } = config;
        let case = format!(
            "optim {name}, {params} of {grads}, master {master:?}, moments {moments:?}{clip}"
        );
        let seed = seed(&case);
        cases.push((case, Box::new(move |devices| check::<P, G>(rule, config, seed, devices))));
    }
}

struct Data<P, G> {
    params: Vec<Vec<P>>,
    /// Of each step.
    grads: Vec<Vec<Vec<G>>>,
}

/// Parameters, masters and moments after the steps.
fn run<P: Storage, G: Storage>(
    rule: Rule,
    config: Config,
    data: &Data<P, G>,
    device: &Device,
) -> halfstep::Result<Outputs> {
    let stream = device.stream()?;
    let tensors = LENGTHS.iter().enumerate().map(|(i, &len)| Tensor::new(format!("t{i}"), len));
    let mut optimizer =
        Optimizer::<P, G>::new(device, &[Tensors::new(rule).tensors(tensors)], config)?;
    let mut params =
        data.params.iter().map(|p| device.upload(p)).collect::<halfstep::Result<Vec<_>>>()?;
    let reads: Vec<&dyn Read<P>> = params.iter().map(|p| p as &dyn Read<P>).collect();
    optimizer.load_params(&stream, &reads)?;
    for grads in &data.grads {
        let grads = grads.iter().map(|g| device.upload(g)).collect::<halfstep::Result<Vec<_>>>()?;
        let reads: Vec<Option<&dyn Read<G>>> =
            grads.iter().map(|g| Some(g as &dyn Read<G>)).collect();
        let mut writes: Vec<&mut dyn Write<P>> =
            params.iter_mut().map(|p| p as &mut dyn Write<P>).collect();
        optimizer.run(&stream, &mut writes, &reads)?;
    }
    let mut outputs = Vec::new();
    for (tensor, param) in params.iter().enumerate() {
        outputs.push(("params", read(param, &stream)?));
        outputs.push(("master", optimizer.master(&stream, tensor, param)?));
        for (slot, name) in optimizer.slots().iter().enumerate() {
            outputs.push((name, optimizer.moment(&stream, slot, tensor)?));
        }
    }
    Ok(outputs)
}

fn check<P: Storage, G: Storage>(
    rule: Rule,
    config: Config,
    seed: u64,
    devices: &Devices,
) -> Result<f64, Reason> {
    let rng = &mut Rng(seed);
    let params = LENGTHS.map(|len| values(Distribution::Normal, rng, len)).into();
    let mut step = || LENGTHS.map(|len| values(Distribution::Normal, rng, len)).into();
    let data = Data::<P, G> { params, grads: (0..STEPS).map(|_| step()).collect() };
    let outputs = devices.outputs(true, |device| run(rule, config, &data, device))?;

    let mut worst = Worst::default();
    // The bound is of f32 throughout, and of a known factor.
    if config.master != Master::F32 || config.moments != Moments::F32 || config.clip.is_some() {
        return worst.verdict();
    }
    let wide = |value: f32| f64::from(value);
    let mut outputs = outputs.iter().peekable();
    for (tensor, params) in data.params.iter().enumerate() {
        let params: Vec<f64> = params.iter().map(|p| wide(p.widen())).collect();
        let mut exact = Trajectory::new(rule, &params);
        for grads in &data.grads {
            let grads: Vec<f64> = grads[tensor].iter().map(|g| wide(g.widen())).collect();
            exact.step(&grads, 1.0 / SCALE);
        }
        let mut slot = 0;
        while let Some((name, found)) = outputs.next() {
            worst.add(&format!("{name} of t{tensor}"), found, |at| {
                let of = match *name {
                    "params" => exact.params()[at].stored(P::DTYPE),
                    "master" => exact.params()[at],
                    _ => exact.slot(slot)[at],
                };
                (of.value, of.error)
            });
            slot += usize::from(!["params", "master"].contains(name));
            if outputs.peek().is_none_or(|(name, _)| *name == "params") {
                break;
            }
        }
    }
    worst.verdict()
}
