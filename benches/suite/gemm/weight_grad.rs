//! `dw (+)= dyᵀ·x`, with what training wants besides.

use std::rc::Rc;

use halfstep::gemm::{Copy, Stats, WeightGrad, WeightGradOperands, WeightGradPlan};
use halfstep::{Buffer, Device, Dtype, GradStats, Storage, Stream, bf16};

use super::{Case, Failure, check, policy, text, values};
use crate::workloads::Shape;

/// What is wanted besides `dw`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// `dw` is added to what is there, and `db`: microbatches but the last.
    Bias,
    /// A copy in bf16, as a bucket has it, and Σg².
    CopyAndStats,
}

pub struct Weights {
    shape: Shape,
    wanted: Wanted,
    stream: Rc<Stream>,
    plan: WeightGradPlan<bf16, f32>,
    dy: Buffer<bf16>,
    x: Buffer<bf16>,
    dw: Buffer<f32>,
    db: Buffer<f32>,
    copy: Buffer<bf16>,
    stats: GradStats,
}

impl Weights {
    pub fn new(device: &Device, shape: Shape, wanted: Wanted) -> Result<Self, Failure> {
        let Shape { rows, input, output, .. } = shape;
        let grad = WeightGrad::new(rows, input, output)
            .accumulate(wanted == Wanted::Bias)
            .subnormals(policy(device, Dtype::Bf16));
        Ok(Self {
            shape,
            wanted,
            stream: Rc::new(device.stream().map_err(text)?),
            plan: grad.plan(device).map_err(text)?,
            dy: device.upload(&values(rows * output, 1)).map_err(text)?,
            x: device.upload(&values(rows * input, 2)).map_err(text)?,
            dw: device.zeros(output * input).map_err(text)?,
            db: device.zeros(output).map_err(text)?,
            copy: device.zeros(output * input).map_err(text)?,
            stats: GradStats::new(device, &[output * input]).map_err(text)?,
        })
    }
}

impl Case for Weights {
    fn run(&mut self) -> Result<(), Failure> {
        let mut operands = WeightGradOperands::new(&self.dy, &self.x, &mut self.dw);
        match self.wanted {
            Wanted::Bias => operands.db = Some(&mut self.db),
            Wanted::CopyAndStats => {
                operands.copy = Some(Copy::Bf16(&mut self.copy));
                operands.stats = Some(Stats { stats: &mut self.stats, weight: 0, bias: None });
            }
        }
        self.plan.run(&self.stream, operands).map_err(text)
    }

    fn wait(&self) -> Result<(), Failure> {
        super::super::wait(&self.stream)
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        Some(self.stream.clone())
    }

    /// After one call the sum is that call's.
    fn check(&mut self) -> Result<(), Failure> {
        let Shape { rows, input, output, .. } = self.shape;
        let read = |buffer: &Buffer<bf16>| buffer.to_vec(&self.stream).map_err(text);
        let (dy, x) = (read(&self.dy)?, read(&self.x)?);
        let dw = self.dw.to_vec(&self.stream).map_err(text)?;
        check(&dw, input, rows as f64, |index| {
            let (i, j) = (index / input, index % input);
            let term = |r: usize| {
                f64::from(dy[r * output + i].widen()) * f64::from(x[r * input + j].widen())
            };
            (0..rows).map(term).sum()
        })?;
        if self.wanted == Wanted::CopyAndStats {
            let copy = read(&self.copy)?;
            if let Some(i) = (0..dw.len()).find(|&i| copy[i] != bf16::narrow(dw[i])) {
                return Err(format!("element {i} of the copy is {}, not {}", copy[i], dw[i]));
            }
            let found = self.stats.read(&self.stream).map_err(text)?.sum_squares;
            let exact: f64 = dw.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
            let good = (found - exact).abs() <= 1e-9 * exact;
            return if good { Ok(()) } else { Err(format!("Σg² is {found}, not {exact}")) };
        }
        let db = self.db.to_vec(&self.stream).map_err(text)?;
        check(&db, output, rows as f64, |i| {
            (0..rows).map(|r| f64::from(dy[r * output + i].widen())).sum()
        })
    }
}
