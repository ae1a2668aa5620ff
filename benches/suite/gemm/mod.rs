//! Products of a linear layer: forward with bias and activation, plain, and both gradients; and the gradient of a gate.

mod data_grad;
mod swiglu_grad;
mod weight_grad;

use std::rc::Rc;

use halfstep::gemm::{Activation, Gemm, Layout, Operands, Plan, Subnormals};
use halfstep::{Buffer, Device, Dtype, Storage, Stream, bf16, f16};

use super::{Arithmetic, Case, Entry, Failure, On, Traffic, caches, signals, text};
use crate::workloads::{FEW, LARGE, LAYERS, ROUTER, ROW, Shape};
use data_grad::Data;
use weight_grad::{Wanted, Weights};

pub fn entries(all: &mut Vec<Entry>) {
    LAYERS.into_iter().for_each(|shape| products(all, shape));
    LARGE.into_iter().for_each(|shape| training(all, shape));
    weights(all, LAYERS[1], Wanted::CopyAndStats);
    swiglu_grad::entry(all, LARGE[1]);
    layer::<bf16>(all, ROW, "bf16 NN plain", Layout::NN, None);
    layer::<bf16>(all, ROW, "bf16 NT plain", Layout::NT, None);
    layer::<f16>(all, ROW, "f16 NN plain", Layout::NN, None);
    layer::<f32>(all, ROW, "f32 NN plain", Layout::NN, None);
    layer::<bf16>(all, FEW, "bf16 NN plain", Layout::NN, None);
    layer::<bf16>(all, FEW, "bf16 NT plain", Layout::NT, None);
    layer::<bf16>(all, ROUTER, "bf16 NT plain", Layout::NT, None);
}

/// Those of one shape.
pub fn products(all: &mut Vec<Entry>, shape: Shape) {
    use Activation::{GeluErf, GeluTanh};
    layer::<bf16>(all, shape, "bf16 NN bias gelu_erf", Layout::NN, Some(GeluErf));
    layer::<bf16>(all, shape, "bf16 NN bias gelu_tanh", Layout::NN, Some(GeluTanh));
    layer::<bf16>(all, shape, "bf16 NT bias gelu_erf", Layout::NT, Some(GeluErf));
    layer::<bf16>(all, shape, "bf16 NN plain", Layout::NN, None);
    layer::<f16>(all, shape, "f16 NT bias gelu_erf", Layout::NT, Some(GeluErf));
    layer::<f32>(all, shape, "f32 NN plain", Layout::NN, None);
    backward(all, shape);
}

/// A layer's forward and backward pass in bf16.
fn training(all: &mut Vec<Entry>, shape: Shape) {
    layer::<bf16>(all, shape, "bf16 NT bias gelu_erf", Layout::NT, Some(Activation::GeluErf));
    backward(all, shape);
}

fn backward(all: &mut Vec<Entry>, shape: Shape) {
    let Shape { rows, input, output, .. } = shape;
    let sizes = [rows * output, input * output, rows * input];
    add(all, shape, "bf16 data grad, gelu'", 2 * sizes.iter().sum::<usize>() + 2 * sizes[0], {
        move |device| Ok(Box::new(Data::new(device, shape)?))
    });
    weights(all, shape, Wanted::Bias);
}

fn weights(all: &mut Vec<Entry>, shape: Shape, wanted: Wanted) {
    let Shape { rows, input, output, .. } = shape;
    let [dw, operands] = [input * output, rows * (input + output)];
    // dw is f32: read and written, or written and copied.
    let (name, bytes) = match wanted {
        Wanted::Bias => ("bf16 weight grad, += and db", 8 * dw),
        Wanted::CopyAndStats => ("bf16 weight grad, copy and Σg²", 6 * dw),
    };
    add(all, shape, name, 2 * operands + bytes, {
        move |device| Ok(Box::new(Weights::new(device, shape, wanted)?))
    });
}

fn add(
    all: &mut Vec<Entry>,
    shape: Shape,
    name: &str,
    bytes: usize,
    make: impl Fn(&Device) -> Result<Box<dyn Case>, Failure> + 'static,
) {
    all.push(Entry {
        op: "gemm",
        name: name.into(),
        size: shape.to_string(),
        workload: shape.name,
        flops: 2.0 * (shape.rows * shape.input * shape.output) as f64,
        bytes: bytes as f64,
        arithmetic: match name.split(' ').next() {
            Some("bf16") => Arithmetic::Bf16,
            Some("f16") => Arithmetic::F16,
            _ => Arithmetic::F32,
        },
        traffic: Traffic::Read,
        on: On::One,
        make: Box::new(make),
    });
}

fn layer<T: Storage>(
    all: &mut Vec<Entry>,
    shape: Shape,
    name: &str,
    layout: Layout,
    activation: Option<Activation>,
) {
    let Shape { rows, input, output, .. } = shape;
    let bytes = size_of::<T>() * (rows * input + input * output + rows * output);
    add(all, shape, name, bytes, move |device| {
        Ok(Box::new(Layer::<T>::new(device, shape, layout, activation)?))
    });
}

/// Values in [-1/16, 1/16): for `k` around 1,000 sums are of the size that networks keep them at.
fn values<T: Storage>(len: usize, seed: u32) -> Vec<T> {
    signals::<f32>(len, seed).into_iter().map(|value| T::narrow(value / 16.0)).collect()
}

/// Timings are of products, so a device that flushes is allowed to.
fn policy(device: &Device, dtype: Dtype) -> Subnormals {
    let flushes = device.info().flushes_subnormals && dtype != Dtype::F32;
    if flushes { Subnormals::Flush } else { Subnormals::default() }
}

/// Fails unless elements of rows of `columns` are what f64 says: those of the corners, on both sides of where tiles may
/// meet, and some inside.
fn check<O: Storage>(
    got: &[O],
    columns: usize,
    scale: f64,
    exact: impl Fn(usize) -> f64,
) -> Result<(), Failure> {
    let rows = got.len() / columns;
    let lines = |all: usize| {
        let some = [0, 7, 8, 47, 48, 63, 64, 127, 128, all / 3, all / 2 + 1, all - 1];
        some.into_iter().filter(move |i| *i < all)
    };
    for index in lines(rows).flat_map(|i| lines(columns).map(move |j| i * columns + j)) {
        let (got, exact) = (f64::from(got[index].widen()), exact(index));
        let bound = O::DTYPE.unit_roundoff() * exact.abs() * 1.1 + 1e-5 * scale;
        // Written so that a NaN fails.
        let good = (got - exact).abs() <= bound;
        if !good {
            return Err(format!("element {index} is {got}, not {exact}"));
        }
    }
    Ok(())
}

struct Layer<T: Storage> {
    shape: Shape,
    layout: Layout,
    activation: Option<Activation>,
    stream: Rc<Stream>,
    plan: Plan<T, T>,
    a: Buffer<T>,
    /// Copies, read by turns where one would stay in the caches and is not meant to.
    b: Vec<Buffer<T>>,
    calls: usize,
    bias: Buffer<T>,
    d: Buffer<T>,
}

impl<T: Storage> Layer<T> {
    fn new(
        device: &Device,
        shape: Shape,
        layout: Layout,
        activation: Option<Activation>,
    ) -> Result<Self, Failure> {
        let Shape { rows: m, input: k, output: n, .. } = shape;
        let gemm = Gemm::new(m, n, k)
            .layout(layout)
            .activation(activation.unwrap_or_default())
            .subnormals(policy(device, T::DTYPE));
        let upload = |values: Vec<T>| device.upload(&values).map_err(text);
        // A product of few rows is all about where B comes from.
        let copies = if m <= FEW.rows { caches::copies(device, k * n * size_of::<T>()) } else { 1 };
        Ok(Self {
            shape,
            layout,
            activation,
            stream: Rc::new(device.stream().map_err(text)?),
            plan: gemm.plan(device).map_err(text)?,
            a: upload(signals(m * k, 1))?,
            b: (0..copies).map(|_| upload(values(k * n, 2))).collect::<Result<_, _>>()?,
            calls: 0,
            bias: upload(values(n, 3))?,
            d: device.zeros(m * n).map_err(text)?,
        })
    }
}

impl<T: Storage> Case for Layer<T> {
    fn run(&mut self) -> Result<(), Failure> {
        let b = &self.b[self.calls % self.b.len()];
        self.calls += 1;
        let mut operands = Operands::new(&self.a, b, &mut self.d);
        if self.activation.is_some() {
            operands.bias = Some(&self.bias);
        }
        self.plan.run(&self.stream, operands).map_err(text)
    }

    fn wait(&self) -> Result<(), Failure> {
        super::wait(&self.stream)
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        Some(self.stream.clone())
    }

    fn check(&mut self) -> Result<(), Failure> {
        let Shape { input: k, output: n, .. } = self.shape;
        let read = |buffer: &Buffer<T>| buffer.to_vec(&self.stream).map_err(text);
        let (a, b) = (read(&self.a)?, read(&self.b[0])?);
        let (bias, d) = (read(&self.bias)?, read(&self.d)?);
        let transposed = self.layout.b_transposed();
        check(&d, n, k as f64, |index| {
            let (i, j) = (index / n, index % n);
            let at = |p: usize| if transposed { b[j * k + p] } else { b[p * n + j] };
            let sum: f64 =
                (0..k).map(|p| f64::from(a[i * k + p].widen()) * f64::from(at(p).widen())).sum();
            self.activation.map_or(sum, |activation| {
                f64::from(activation.apply((sum + f64::from(bias[j].widen())) as f32))
            })
        })
    }
}
