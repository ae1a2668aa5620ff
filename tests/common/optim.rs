//! What the optimizer's suites share: rules, lists of tensors, an optimizer's whole state as bits.

use halfstep::optim::{
    Adagrad, Adam, AdamW, Config, Counters, Group, Lamb, Lion, Optimizer, Rule, Sgd, Tensor,
};
use halfstep::{Device, Read, Storage, Stream, Write};

use super::data::{Distribution, Rng};
pub use super::memory::Values;

pub const CHUNK: usize = 16_384;

pub fn rules() -> Vec<Rule> {
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

pub fn group(rule: impl Into<Rule>, lengths: &[usize]) -> Group {
    let name = |i| format!("t{i}");
    let tensors = lengths.iter().enumerate().map(|(i, &len)| Tensor::new(name(i), len));
    Group::new(rule).tensors(tensors)
}

pub fn reads<T: Storage>(tensors: &[Values<T>]) -> Vec<Option<&dyn Read<T>>> {
    tensors.iter().map(|tensor| Some(tensor as &dyn Read<T>)).collect()
}

pub fn plain<T: Storage>(tensors: &[Values<T>]) -> Vec<&dyn Read<T>> {
    tensors.iter().map(|tensor| tensor as &dyn Read<T>).collect()
}

pub fn writes<T: Storage>(tensors: &mut [Values<T>]) -> Vec<&mut dyn Write<T>> {
    tensors.iter_mut().map(|tensor| tensor as &mut dyn Write<T>).collect()
}

/// Tensors of normal values.
pub fn normal<T: Storage>(rng: &mut Rng, lengths: &[usize]) -> Vec<Values<T>> {
    lengths.iter().map(|&len| Distribution::Normal.fill(rng, len).into()).collect()
}

/// Everything an optimizer holds, as bits.
pub fn state<P: Storage, G: Storage>(
    optimizer: &mut Optimizer<P, G>,
    stream: &Stream,
    params: &[Values<P>],
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

pub fn setup<P: Storage, G: Storage>(
    device: &Device,
    rule: Rule,
    config: Config,
    lengths: &[usize],
) -> (Stream, Optimizer<P, G>, Vec<Values<P>>, Rng) {
    let stream = device.stream().unwrap();
    let mut rng = Rng(7);
    let params = normal::<P>(&mut rng, lengths);
    let mut optimizer = Optimizer::new(device, &[group(rule, lengths)], config).unwrap();
    optimizer.load_params(&stream, &plain(&params)).unwrap();
    stream.sync().unwrap(); // some tests go on with another stream
    (stream, optimizer, params, rng)
}
