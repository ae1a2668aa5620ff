//! Fully connected layers with ReLU between them, forward and backward.

use std::time::{Duration, Instant};

use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, DataGradPlan, Gemm, Layout, Operands, Plan, WeightGrad,
    WeightGradOperands, WeightGradPlan,
};
use halfstep::{Device, Result, Storage, Stream};

use crate::data::Rng;

/// A network for a fixed number of rows; weights live with the caller.
pub struct Network<T: Storage> {
    layers: Vec<Layer<T>>,
    /// Time spent in products.
    pub gemm: Duration,
}

/// One layer: `y = act(x·Wᵀ + b)` on `rows` rows.
struct Layer<T: Storage> {
    /// Between layers: to `T`, with ReLU.
    hidden: Plan<T, T>,
    /// The last layer: to f32 logits.
    output: Plan<T, f32>,
    weight_grad: WeightGradPlan<T, f32>,
    data_grad: DataGradPlan<T, T>,
    z: Vec<T>,  // [rows, out]  pre-activation
    y: Vec<T>,  // [rows, out]  activation
    dx: Vec<T>, // [rows, in]   gradient of the input
}

/// Weight `[out, in]` and bias `[out]` of each layer, or their gradients, in this order.
pub type Tensors<T> = Vec<Vec<T>>;

/// Names and lengths of the tensors.
pub fn shapes(sizes: &[usize]) -> Vec<(String, usize)> {
    let layer = |(i, pair): (usize, &[usize])| {
        [(format!("layer{i}.weight"), pair[0] * pair[1]), (format!("layer{i}.bias"), pair[1])]
    };
    sizes.windows(2).enumerate().flat_map(layer).collect()
}

/// Weights uniform in ±√(6/in) (He et al. 2015), biases 0.
pub fn initial_weights(sizes: &[usize], seed: u64) -> Tensors<f32> {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let layer = |pair: &[usize]| {
        let limit = (6.0 / pair[0] as f32).sqrt();
        let weight = (0..pair[0] * pair[1]).map(|_| limit * rng.symmetric()).collect();
        [weight, vec![0.0; pair[1]]]
    };
    sizes.windows(2).flat_map(layer).collect()
}

impl<T: Storage> Network<T> {
    /// Plans every product once.
    pub fn new(device: &Device, sizes: &[usize], rows: usize) -> Result<Self> {
        let last = sizes.len() - 2;
        let mut layers = Vec::new();
        for (index, pair) in sizes.windows(2).enumerate() {
            let (input, output) = (pair[0], pair[1]);
            // Only hidden layers have an activation.
            let act = if index < last { Activation::Relu } else { Activation::None };
            let forward = Gemm::new(rows, output, input).layout(Layout::NT).activation(act);
            let weight_grad = WeightGrad::new(rows, input, output).activation(act);
            let data_grad = DataGrad::new(rows, input, output).activation(act);
            layers.push(Layer {
                hidden: forward.plan(device)?,
                output: forward.plan(device)?,
                weight_grad: weight_grad.plan(device)?,
                data_grad: data_grad.plan(device)?,
                z: vec![T::narrow(0.0); rows * output],
                y: vec![T::narrow(0.0); rows * output],
                dx: vec![T::narrow(0.0); rows * input],
            });
        }
        Ok(Self { layers, gemm: Duration::ZERO })
    }

    /// `logits [rows, classes]` from `x [rows, features]`.
    pub fn forward(
        &mut self,
        stream: &Stream,
        x: &Vec<T>,
        weights: &Tensors<T>,
        mut logits: &mut [f32],
    ) -> Result<()> {
        let start = Instant::now();
        let last = self.layers.len() - 1;
        for index in 0..=last {
            let (before, rest) = self.layers.split_at_mut(index);
            let layer = &mut rest[0];
            let input = before.last().map_or(x, |previous| &previous.y);
            let (weight, bias) = (&weights[2 * index], &weights[2 * index + 1]);
            if index < last {
                let operands = Operands {
                    bias: Some(bias),
                    preactivation: Some(&mut layer.z),
                    ..Operands::new(input, weight, &mut layer.y)
                };
                layer.hidden.run(stream, operands)?;
            } else {
                let operands =
                    Operands { bias: Some(bias), ..Operands::new(input, weight, &mut logits) };
                layer.output.run(stream, operands)?;
            }
        }
        self.gemm += start.elapsed();
        Ok(())
    }

    /// Gradients of all tensors from that of the logits; `ready(i, gradient)` is called as soon as
    /// each is there, last layer first.
    pub fn backward(
        &mut self,
        stream: &Stream,
        x: &Vec<T>,
        weights: &Tensors<T>,
        d_logits: &Vec<T>,
        gradients: &mut Tensors<f32>,
        mut ready: impl FnMut(usize, &Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        for index in (0..self.layers.len()).rev() {
            let start = Instant::now();
            let (before, rest) = self.layers.split_at_mut(index);
            let (layer, after) = rest.split_first_mut().expect("index is in range");
            let dy = after.first().map_or(d_logits, |next| &next.dx);
            let z = (!after.is_empty()).then_some(&layer.z as &dyn halfstep::Read<T>);
            let input = before.last().map_or(x, |previous| &previous.y);
            let (dw, db) = gradients[2 * index..].split_at_mut(1);
            let operands = WeightGradOperands {
                z,
                db: Some(&mut db[0]),
                ..WeightGradOperands::new(dy, input, &mut dw[0])
            };
            layer.weight_grad.run(stream, operands)?;
            self.gemm += start.elapsed();

            // Their reduction overlaps with the layers that are left.
            ready(2 * index + 1, &gradients[2 * index + 1])?;
            ready(2 * index, &gradients[2 * index])?;

            let start = Instant::now();
            if index > 0 {
                let weight = &weights[2 * index];
                let operands =
                    DataGradOperands { z, ..DataGradOperands::new(dy, weight, &mut layer.dx) };
                layer.data_grad.run(stream, operands)?;
            }
            self.gemm += start.elapsed();
        }
        Ok(())
    }
}
