//! Conversions between 16 bits and f32, as loading and writing an optimizer's parameters does them: each element is
//! known.

use halfstep::optim::{Config, Group as Tensors, Optimizer, Sgd, Tensor};
use halfstep::{Device, Storage, bf16, f16};

use super::{Devices, Group, Outputs, read};
use crate::data::Rng;
use crate::golden::Reason;

/// Random f32 that are rounded, besides those between neighbours.
const ROUNDED: usize = 100_000;

pub fn groups(all: &mut Vec<Group>) {
    let mut cases: Vec<(String, super::Run)> = Vec::new();
    add::<bf16>(&mut cases);
    add::<f16>(&mut cases);
    all.push(Group { name: "convert".into(), bits: true, cases });
}

fn add<T: Storage>(cases: &mut Vec<(String, super::Run)>) {
    let dtype = T::DTYPE;
    cases.push((
        format!("convert {dtype} to f32"),
        Box::new(|devices| {
            let all: Vec<T> = every::<T>();
            let expected: Vec<f32> = all.iter().map(|value| value.widen()).collect();
            compare(devices, &expected, |device| widened(device, &all))
        }),
    ));
    cases.push((
        format!("convert f32 to {dtype}"),
        Box::new(|devices| {
            let all = floats::<T>();
            let expected: Vec<f32> = all.iter().map(|&value| T::narrow(value).widen()).collect();
            compare(devices, &expected, |device| narrowed::<T>(device, &all))
        }),
    ));
}

/// Every number of a type.
fn every<T: Storage>() -> Vec<T> {
    let all = (0..=u16::MAX).map(|bits| bytemuck::pod_read_unaligned::<T>(&bits.to_ne_bytes()));
    all.filter(|value: &T| !value.widen().is_nan()).collect()
}

/// The middles between neighbours, what is next to them, and others of any size.
fn floats<T: Storage>() -> Vec<f32> {
    let mut all = Vec::new();
    for pair in every::<T>().windows(2) {
        let middle = (f64::from(pair[0].widen()) + f64::from(pair[1].widen())) / 2.0;
        let middle = middle as f32;
        all.extend([middle.next_down(), middle, middle.next_up()]);
    }
    let rng = &mut Rng(7);
    all.extend((0..ROUNDED).map(|_| f32::from_bits(rng.next() as u32)));
    all.retain(|value| !value.is_nan());
    all
}

fn optimizer<T: Storage>(device: &Device, len: usize) -> halfstep::Result<Optimizer<T, T>> {
    let group = Tensors::new(Sgd::default()).tensor(Tensor::new("t", len));
    Optimizer::new(device, &[group], Config::default())
}

/// Masters that parameters were loaded into.
fn widened<T: Storage>(device: &Device, values: &[T]) -> halfstep::Result<Outputs> {
    let stream = device.stream()?;
    let mut optimizer = optimizer::<T>(device, values.len())?;
    let params = device.upload(values)?;
    optimizer.load_params(&stream, &[&params])?;
    Ok(vec![("f32", optimizer.master(&stream, 0, &params)?)])
}

/// Parameters of masters that were set.
fn narrowed<T: Storage>(device: &Device, values: &[f32]) -> halfstep::Result<Outputs> {
    let stream = device.stream()?;
    let mut optimizer = optimizer::<T>(device, values.len())?;
    let (values, mut params) = (device.upload(values)?, device.zeros::<T>(values.len())?);
    optimizer.init_from_f32(&stream, &[&values], &mut [&mut params])?;
    Ok(vec![("rounded", read(&params, &stream)?)])
}

fn compare(
    devices: &Devices,
    expected: &[f32],
    run: impl Fn(&Device) -> halfstep::Result<Outputs>,
) -> Result<f64, Reason> {
    let outputs = devices.outputs(true, run)?;
    for (name, found) in &outputs {
        let wrong = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
        if let Some(at) = wrong {
            return Err(format!("{name}[{at}] is {:e}, exactly {:e}", found[at], expected[at]));
        }
    }
    Ok(0.0)
}
