//! The gradient of a gate: `d_gate = dy∘up∘silu'(gate)`, `d_up = dy∘silu(gate)`.

use std::rc::Rc;

use halfstep::gemm::{Activation, SwigluGrad, SwigluGradPlan};
use halfstep::{Buffer, Device, Dtype, Storage, Stream, bf16};

use super::{Arithmetic, Case, Entry, Failure, On, Traffic, check, policy, signals, text};
use crate::workloads::Shape;

/// Of a layer whose outputs are gated, once its products are done.
pub fn entry(all: &mut Vec<Entry>, shape: Shape) {
    let elements = shape.rows * shape.output;
    all.push(Entry {
        op: "gemm",
        name: "bf16 SwiGLU grad".into(),
        size: shape.to_string(),
        workload: shape.name,
        flops: 5.0 * elements as f64, // products; what a sigmoid takes is not counted
        bytes: (2 * 5 * elements) as f64,
        arithmetic: Arithmetic::F32,
        traffic: Traffic::Copy,
        on: On::One,
        make: Box::new(move |device| Ok(Box::new(Gate::new(device, shape)?))),
    });
}

struct Gate {
    outputs: usize,
    stream: Rc<Stream>,
    plan: SwigluGradPlan<bf16>,
    dy: Buffer<bf16>,
    z: Buffer<bf16>,
    dz: Buffer<bf16>,
}

impl Gate {
    fn new(device: &Device, shape: Shape) -> Result<Self, Failure> {
        let Shape { rows, output: n, .. } = shape;
        let grad = SwigluGrad::new(rows, n).subnormals(policy(device, Dtype::Bf16));
        Ok(Self {
            outputs: n,
            stream: Rc::new(device.stream().map_err(text)?),
            plan: grad.plan(device).map_err(text)?,
            dy: device.upload(&signals(rows * n, 1)).map_err(text)?,
            z: device.upload(&signals(2 * rows * n, 2)).map_err(text)?,
            dz: device.zeros(2 * rows * n).map_err(text)?,
        })
    }
}

impl Case for Gate {
    fn run(&mut self) -> Result<(), Failure> {
        self.plan.run(&self.stream, &self.dy, &self.z, &mut self.dz).map_err(text)
    }

    fn wait(&self) -> Result<(), Failure> {
        super::super::wait(&self.stream)
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        Some(self.stream.clone())
    }

    fn check(&mut self) -> Result<(), Failure> {
        let n = self.outputs;
        let read = |buffer: &Buffer<bf16>| -> Result<Vec<f32>, Failure> {
            let elements = buffer.to_vec(&self.stream).map_err(text)?;
            Ok(elements.into_iter().map(Storage::widen).collect())
        };
        let (dy, z) = (read(&self.dy)?, read(&self.z)?);
        let dz = self.dz.to_vec(&self.stream).map_err(text)?;
        check(&dz, 2 * n, 1.0, |index| {
            let (i, j) = (index / (2 * n), index % (2 * n));
            let (dy, gate) = (dy[i * n + j % n], z[2 * n * i + j % n]);
            let factor = match j < n {
                true => z[2 * n * i + n + j] * Activation::Silu.derivative(gate),
                false => Activation::Silu.apply(gate),
            };
            f64::from(dy * factor)
        })
    }
}
