//! The gradients of a layer: `dz = round(dy ∘ act'(z))`, `dx = dz·W`, `dw += dzᵀ·x`, `db += Σ dz`.

use halfstep::gemm::bound::{self, Growth};
use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, WeightGrad, WeightGradOperands, WeightLayout,
};
use halfstep::{Device, Dtype, Storage, bf16, f16};

use super::{Devices, Group, Outputs, Worst, read, seed, values};
use crate::data::{Distribution, Rng};
use crate::golden::{Reason, flushed, subnormals};
use crate::oracle;

/// Rows, inputs, outputs.
const SIZES: [[usize; 3]; 6] =
    [[1, 1, 1], [1, 65, 33], [7, 3, 5], [33, 47, 66], [64, 96, 32], [300, 17, 9]];
const WEIGHTS: [WeightLayout; 2] = [WeightLayout::OutIn, WeightLayout::InOut];

pub fn groups(devices: &Devices, all: &mut Vec<Group>) {
    group::<bf16>(devices, all);
    group::<f16>(devices, all);
    group::<f32>(devices, all);
}

fn group<T: Storage>(devices: &Devices, all: &mut Vec<Group>) {
    let name = format!("gradients of a layer, {}", T::DTYPE);
    let mut cases: Vec<(String, super::Run)> = Vec::new();
    for [rows, input, output] in SIZES {
        for weight in WEIGHTS {
            for activation in Activation::ALL {
                let case =
                    format!("{name} {weight:?} {rows}x{input}x{output} {}", activation.name());
                let layer = Layer { rows, input, output, weight, activation, seed: seed(&case) };
                if T::DTYPE != Dtype::F32 {
                    let case = format!("{case}, dw of {}", T::DTYPE);
                    cases.push((case, Box::new(move |devices| check::<T, T>(&layer, devices))));
                }
                cases.push((case, Box::new(move |devices| check::<T, f32>(&layer, devices))));
            }
        }
    }
    all.push(Group { name, bits: devices.bits_of_products(T::DTYPE), cases });
}

#[derive(Clone, Copy)]
struct Layer {
    rows: usize,
    input: usize,
    output: usize,
    weight: WeightLayout,
    activation: Activation,
    seed: u64,
}

impl Layer {
    /// Where a weight lies.
    fn at(&self, output: usize, input: usize) -> usize {
        match self.weight {
            WeightLayout::InOut => input * self.output + output,
            _ => output * self.input + input,
        }
    }

    /// The output and the input of the weight that lies there.
    fn of(&self, at: usize) -> (usize, usize) {
        match self.weight {
            WeightLayout::InOut => (at % self.output, at / self.output),
            _ => (at / self.input, at % self.input),
        }
    }
}

struct Data<T, O> {
    dy: Vec<T>,
    z: Vec<T>,
    x: Vec<T>,
    w: Vec<T>,
    /// What gradients are added to.
    dw: Vec<O>,
    db: Vec<O>,
}

fn run<T: Storage, O: Storage>(
    layer: &Layer,
    data: &Data<T, O>,
    device: &Device,
) -> halfstep::Result<Outputs> {
    let Layer { rows, input, output, weight, activation, .. } = *layer;
    let stream = device.stream()?;
    let (dy, z) = (device.upload(&data.dy)?, device.upload(&data.z)?);
    let (x, w) = (device.upload(&data.x)?, device.upload(&data.w)?);
    let (mut dz, mut dx) = (device.zeros::<T>(rows * output)?, device.zeros::<T>(rows * input)?);
    let (mut dw, mut db) = (device.upload(&data.dw)?, device.upload(&data.db)?);
    let operands = DataGradOperands {
        z: Some(&z),
        d_preactivation: Some(&mut dz),
        ..DataGradOperands::new(&dy, &w, &mut dx)
    };
    DataGrad::new(rows, input, output)
        .activation(activation)
        .weight_layout(weight)
        .subnormals(subnormals::<T>(device))
        .plan::<T, T>(device)?
        .run(&stream, operands)?;
    let operands = WeightGradOperands {
        z: Some(&z),
        db: Some(&mut db),
        ..WeightGradOperands::new(&dy, &x, &mut dw)
    };
    WeightGrad::new(rows, input, output)
        .activation(activation)
        .weight_layout(weight)
        .accumulate(true)
        .subnormals(subnormals::<T>(device))
        .plan::<T, O>(device)?
        .run(&stream, operands)?;
    let [dz, dx] = [read(&dz, &stream)?, read(&dx, &stream)?];
    let [dw, db] = [read(&dw, &stream)?, read(&db, &stream)?];
    Ok(vec![("dz", dz), ("dx", dx), ("dw", dw), ("db", db)])
}

fn check<T: Storage, O: Storage>(layer: &Layer, devices: &Devices) -> Result<f64, Reason> {
    let Layer { rows, input, output, activation, .. } = *layer;
    let rng = &mut Rng(layer.seed);
    let data = Data::<T, O> {
        dy: values(Distribution::Normal, rng, rows * output),
        z: values(Distribution::Normal, rng, rows * output),
        x: values(Distribution::Normal, rng, rows * input),
        w: values(Distribution::Uniform, rng, output * input),
        dw: values(Distribution::Normal, rng, output * input),
        db: values(Distribution::Normal, rng, output),
    };
    let bits = devices.bits_of_products(T::DTYPE);
    let outputs = devices.outputs(bits, |device| run(layer, &data, device))?;

    // How far from it what is read or written as zero may be.
    let flush = flushed::<T>(&devices.device);
    let wide = |value: T| f64::from(value.widen());
    // dz exactly, and how far from it what is multiplied may be.
    let dz: Vec<(f64, f64)> = (0..rows * output)
        .map(|at| {
            let (dy, z) = (wide(data.dy[at]), wide(data.z[at]));
            let exact = dy * oracle::act_derivative(activation.name(), z);
            let error = bound::dz(activation, T::DTYPE, dy, z, 0.0);
            (exact, error + flush.min(exact.abs()))
        })
        .collect();
    // A gradient: a sum over dz, each times a factor, added to what was there.
    let gradient =
        |terms: usize, before: f64, factor: &dyn Fn(usize) -> (usize, f64), output: Dtype| {
            let (mut exact, mut magnitude, mut inherited) = (before, before.abs(), 0.0);
            for (at, by) in (0..terms).map(factor) {
                let (value, error) = dz[at];
                exact += value * by;
                magnitude += (value * by).abs();
                inherited += error * by.abs();
            }
            let error =
                bound::backward(Growth::Expected, terms, magnitude, inherited, exact, output);
            (exact, error)
        };
    // Stored in 16 bits, what is subnormal may be zero.
    let flush_sums = flushed::<O>(&devices.device);
    let of_sums = |(exact, error): (f64, f64)| (exact, error + flush_sums);
    let mut worst = Worst::default();
    for (name, found) in &outputs {
        match *name {
            // Without an activation it is dy, and not stored anew.
            "dz" if activation == Activation::None => {}
            "dz" => worst.add(name, found, |at| dz[at]),
            "dx" => worst.add(name, found, |at| {
                let (r, i) = (at / input, at % input);
                let factor = |o| (r * output + o, wide(data.w[layer.at(o, i)]));
                let (exact, error) = gradient(output, 0.0, &factor, T::DTYPE);
                (exact, error + flush)
            }),
            "dw" => worst.add(name, found, |at| {
                let (o, i) = layer.of(at);
                let factor = |r| (r * output + o, wide(data.x[r * input + i]));
                of_sums(gradient(rows, data.dw[at].widen().into(), &factor, O::DTYPE))
            }),
            _ => worst.add(name, found, |o| {
                let factor = |r| (r * output + o, 1.0);
                of_sums(gradient(rows, data.db[o].widen().into(), &factor, O::DTYPE))
            }),
        }
    }
    worst.verdict()
}
