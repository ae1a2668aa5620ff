//! The gradients of a gated layer's two halves.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::checks::Footprint;
use super::layout::Subnormals;
use super::operands::Bound;
use super::{Activation, launch};
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::Block;
use crate::{Device, Error, Read, Result, Storage, Stream, Write};

const OP: &str = "swiglu_grad";

/// `d_gate = dy ∘ up ∘ act'(gate)`, `d_up = dy ∘ act(gate)`, for `y = act(gate) ∘ up`.
///
/// `z = [gate | up]` is what [`Gemm::swiglu`](super::Gemm::swiglu) stored; `dz = [d_gate | d_up]` is what
/// [`DataGrad`](super::DataGrad) and [`WeightGrad`](super::WeightGrad) read as `dy`, with no activation and `2n` features.
///
/// **Shapes.** `dy` `[rows,n]`; `z`, `dz` `[rows,2n]`; dense.
///
/// **Numerics.** f32, in the order `(dy·up)·act'(gate)` and `dy·act(gate)`, each rounded once to `T`. The
/// same bits on every device.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::gemm::SwigluGrad;
/// let device = halfstep::Device::cpu();
/// let plan = SwigluGrad::new(1, 1).plan::<f32>(&device)?;
/// let mut dz = vec![0.0f32; 2];
/// plan.run(&device.stream()?, &vec![2.0f32], &vec![0.0f32, 3.0], &mut dz)?;
/// assert_eq!(dz, [3.0, 0.0]); // silu'(0) = ½, silu(0) = 0
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct SwigluGrad {
    rows: usize,
    n: usize,
    activation: Activation,
    subnormals: Subnormals,
}

impl SwigluGrad {
    /// `rows` rows of `n` outputs.
    pub fn new(rows: usize, n: usize) -> Self {
        let (activation, subnormals) = (Activation::Silu, Subnormals::Preserve);
        Self { rows, n, activation, subnormals }
    }

    /// The gate's activation; SiLU unless set.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// What becomes of results that are subnormal in 16 bits; kept unless set. (There is no product here that could be
    /// [`Subnormals::ThroughBf16`]: with it they are kept.)
    pub fn subnormals(mut self, subnormals: Subnormals) -> Self {
        self.subnormals = subnormals;
        self
    }

    /// Checks everything but memory.
    ///
    /// # Errors
    /// [`Error::Shape`] for sizes that overflow.
    pub fn plan<T: Storage>(&self, device: &Device) -> Result<SwigluGradPlan<T>> {
        let Self { rows, n, .. } = *self;
        let columns = n.checked_mul(2).ok_or_else(|| {
            Error::shape(OP, "n", "sizes whose product fits the address space", format!("2·{n}"))
        })?;
        let dense = |arg, size| Footprint::new(OP, arg, size, None, None, 1, false);
        let (dy, z) = (dense("dy", (rows, n))?, dense("z", (rows, columns))?);
        let flush = self.subnormals == Subnormals::Flush;
        let block = params::SwigluGrad {
            ldy: dy.ld as u64,
            ldz: z.ld as u64,
            ldd: z.ld as u64,
            rows: rows as u64,
            n: n as u64,
            input: T::DTYPE as u32,
            activation: self.activation as u32,
            flags: if flush { params::FLAG_FLUSH } else { 0 },
            ..bytemuck::Zeroable::zeroed()
        };
        Ok(SwigluGradPlan { device: device.clone(), block, dy, z, types: PhantomData })
    }
}

/// A [`SwigluGrad`] that has been checked, for one device.
#[derive(Debug)]
pub struct SwigluGradPlan<T> {
    device: Device,
    block: params::SwigluGrad,
    dy: Footprint,
    z: Footprint,
    types: PhantomData<T>,
}

impl<T: Storage> SwigluGradPlan<T> {
    /// Enqueues the two products on `stream`.
    ///
    /// # Errors
    /// [`Error::Shape`] for an operand that is too short, [`Error::Overlap`], [`Error::Align`],
    /// [`Error::Device`]. Nothing is written then.
    pub fn run(
        &self,
        stream: &Stream,
        dy: &dyn Read<T>,
        z: &dyn Read<T>,
        dz: &mut dyn Write<T>,
    ) -> Result<()> {
        stream.expect_device(OP, &self.device)?;
        let mut block = self.block;
        let mut bound = Bound::new(OP, stream);
        block.dy = bound.read("dy", dy, &self.dy)?;
        block.z = bound.read("z", z, &self.z)?;
        block.dz = bound.write("dz", dz, &self.z)?;
        bound.overlaps()?;
        if self.z.need == 0 {
            return Ok(());
        }
        launch::launch(stream, [Block::SwigluGrad(block)])
    }
}
