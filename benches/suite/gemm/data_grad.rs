//! `dx = (dy ∘ gelu'(z))·wᵀ`.

use std::rc::Rc;

use halfstep::gemm::{Activation, DataGrad, DataGradOperands, DataGradPlan};
use halfstep::{Buffer, Device, Dtype, Storage, Stream, bf16};

use super::{Case, Failure, check, policy, text, values};
use crate::workloads::Shape;

pub struct Data {
    shape: Shape,
    stream: Rc<Stream>,
    plan: DataGradPlan<bf16, bf16>,
    dy: Buffer<bf16>,
    z: Buffer<bf16>,
    w: Buffer<bf16>,
    dx: Buffer<bf16>,
}

impl Data {
    pub fn new(device: &Device, shape: Shape) -> Result<Self, Failure> {
        let Shape { rows, input, output, .. } = shape;
        let grad = DataGrad::new(rows, input, output)
            .activation(Activation::GeluErf)
            .subnormals(policy(device, Dtype::Bf16));
        let upload = |values: Vec<bf16>| device.upload(&values).map_err(text);
        Ok(Self {
            shape,
            stream: Rc::new(device.stream().map_err(text)?),
            plan: grad.plan(device).map_err(text)?,
            dy: upload(values(rows * output, 1))?,
            z: upload(values(rows * output, 2))?,
            w: upload(values(output * input, 3))?,
            dx: device.zeros(rows * input).map_err(text)?,
        })
    }
}

impl Case for Data {
    fn run(&mut self) -> Result<(), Failure> {
        let operands = DataGradOperands {
            z: Some(&self.z),
            ..DataGradOperands::new(&self.dy, &self.w, &mut self.dx)
        };
        self.plan.run(&self.stream, operands).map_err(text)
    }

    fn wait(&self) -> Result<(), Failure> {
        super::super::wait(&self.stream)
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        Some(self.stream.clone())
    }

    fn check(&mut self) -> Result<(), Failure> {
        let Shape { input, output, .. } = self.shape;
        let read = |buffer: &Buffer<bf16>| buffer.to_vec(&self.stream).map_err(text);
        let (dy, z) = (read(&self.dy)?, read(&self.z)?);
        let (w, dx) = (read(&self.w)?, read(&self.dx)?);
        check(&dx, input, output as f64, |index| {
            let (i, j) = (index / input, index % input);
            let dz = |p: usize| {
                let slope = Activation::GeluErf.derivative(z[i * output + p].widen());
                f64::from(bf16::narrow(dy[i * output + p].widen() * slope).widen())
            };
            (0..output).map(|p| dz(p) * f64::from(w[p * input + j].widen())).sum()
        })
    }
}
