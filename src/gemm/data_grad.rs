//! The gradient of a linear layer's input.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::Activation;
use super::checks::Footprint;
use super::dispatch::Dispatch;
use super::layout::{Subnormals, WeightLayout};
use super::operands::{Bound, missing};
use super::plan::{check_subnormals, check_types, ends_shape, explain};
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::Product;
use crate::kernel::table::gemm::Tile;
use crate::{Device, Read, Result, Storage, Stream, Write};

const OP: &str = "data_grad";

/// `dx = dz·W`, with `dz = round(dy ∘ act'(z))`: the data gradient of `y = act(z)`, `z = x·Wᵀ + b`.
///
/// The derivative is taken while `dy` is read; `dz` is rounded to the input type, as a matrix unit will
/// read it, and can be stored for the weight gradient
/// ([`DataGradOperands::d_preactivation`]), which then need not compute it again.
///
/// **Shapes.** `dy`, `z`, `dz` `[rows,out]`; W `[out,in]` (or `[in,out]`); `dx` `[rows,in]`; all dense.
///
/// **Numerics.** See [the module](super); `act'(z)` and the product are f32, rounded once to `dz`. With no
/// activation `dz` is `dy`.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::gemm::{Activation, DataGrad, DataGradOperands};
/// let device = halfstep::Device::cpu();
/// let plan = DataGrad::new(1, 2, 2).activation(Activation::Relu).plan::<f32, f32>(&device)?;
/// let (dy, z, w) = (vec![1.0f32, 5.0], vec![0.5f32, -0.5], vec![2.0f32, 3.0, 7.0, 7.0]);
/// let mut dx = vec![0.0f32; 2];
/// plan.run(&device.stream()?, DataGradOperands { z: Some(&z), ..DataGradOperands::new(&dy, &w, &mut dx) })?;
/// assert_eq!(dx, [2.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct DataGrad {
    rows: usize,
    input: usize,
    output: usize,
    activation: Activation,
    weight: WeightLayout,
    subnormals: Subnormals,
    rotate: bool,
    groups: Option<usize>,
    tile: Option<Tile>,
    splits: u32,
}

impl DataGrad {
    /// A layer of `in_features` inputs and `out_features` outputs, on `rows` rows.
    pub fn new(rows: usize, in_features: usize, out_features: usize) -> Self {
        Self {
            rows,
            input: in_features,
            output: out_features,
            activation: Activation::None,
            weight: WeightLayout::OutIn,
            subnormals: Subnormals::Preserve,
            rotate: true,
            groups: None,
            tile: None,
            splits: 0,
        }
    }

    /// The layer's activation; none unless set.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// How W is stored; `[out,in]` unless set.
    pub fn weight_layout(mut self, layout: WeightLayout) -> Self {
        self.weight = layout;
        self
    }

    /// What becomes of subnormal 16-bit numbers; kept unless set.
    pub fn subnormals(mut self, subnormals: Subnormals) -> Self {
        self.subnormals = subnormals;
        self
    }

    /// Whether a GPU may start the sums of different columns at different steps; see
    /// [`Gemm::rotate`](super::Gemm::rotate).
    pub fn rotate(mut self, allowed: bool) -> Self {
        self.rotate = allowed;
        self
    }

    /// `count` groups of rows, each with a W of its own; see [`Gemm::groups`](super::Gemm::groups).
    pub fn groups(mut self, count: usize) -> Self {
        self.groups = Some(count);
        self
    }

    /// Pins a GPU's tile; see [`Gemm::tile`](super::Gemm::tile). With an activation all but 64×64 need `d_preactivation`
    /// to be stored, too; a run without is refused.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Pins in how many parts GPUs cut the sums; see [`Gemm::split`](super::Gemm::split).
    pub fn split(mut self, parts: u32) -> Self {
        self.splits = parts;
        self
    }

    /// Checks everything but memory. `T` is the type of `dy`, `z` and W; `O` that of `dx`: `T` or f32.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for types, a policy or a pinned tile that do not exist,
    /// [`Error::Shape`](crate::Error::Shape) for sizes that overflow.
    pub fn plan<T: Storage, O: Storage>(&self, device: &Device) -> Result<DataGradPlan<T, O>> {
        check_types::<T, O>(OP)?;
        check_subnormals::<T>(OP, self.subnormals, device)?;
        let Self { rows, input, output, .. } = *self;
        let dense = |arg, size, count| Footprint::new(OP, arg, size, None, None, count, false);
        let transposed = self.weight == WeightLayout::InOut;
        let w_size = if transposed { (input, output) } else { (output, input) };
        let dy = dense("dy", (rows, output), 1)?;
        let w = dense("w", w_size, self.groups.unwrap_or(1))?;
        let dx = dense("dx", (rows, input), 1)?;
        let ends = ends_shape(OP, self.groups)?;
        let fused = self.activation != Activation::None;
        let flush = self.subnormals == Subnormals::Flush;
        let through_bf16 = self.subnormals == Subnormals::ThroughBf16;
        let block = Product {
            lda: dy.ld as u64,
            ldb: w.ld as u64,
            ldz: dy.ld as u64,
            ldf: dy.ld as u64,
            ldd: dx.ld as u64,
            stride_b: w.stride as u64,
            m: rows as u64,
            n: input as u64,
            k: output as u64,
            batch: 1,
            groups: self.groups.unwrap_or(0) as u64,
            alpha: 1.0,
            input: T::DTYPE as u32,
            output: O::DTYPE as u32,
            activation: self.activation as u32,
            role: if fused { params::ROLE_FUSED_A } else { params::ROLE_FORWARD },
            flags: if transposed { params::FLAG_B_TRANSPOSED } else { 0 }
                | if flush { params::FLAG_FLUSH } else { 0 }
                | if through_bf16 { params::FLAG_THROUGH_BF16 } else { 0 }
                | if self.rotate { params::FLAG_ROTATED } else { 0 },
            tile: self.tile.map_or(0, Tile::code),
            splits: self.splits,
            ..bytemuck::Zeroable::zeroed()
        };
        let dispatch = Dispatch::new(OP, &block, device)?;
        // Without inputs `dz` may still be asked for; without outputs either there is nothing.
        let empty = rows == 0 || (input == 0 && output == 0) || self.groups == Some(0);
        let device = device.clone();
        Ok(DataGradPlan { device, dispatch, block, dy, w, dx, ends, empty, types: PhantomData })
    }
}

/// The tensors of one [`DataGradPlan::run`].
#[allow(missing_debug_implementations)] // references to trait objects
pub struct DataGradOperands<'a, T: Storage, O: Storage> {
    /// Gradient of the layer's output, `[rows,out]`.
    pub dy: &'a dyn Read<T>,
    /// The stored pre-activation, `[rows,out]`; needed where there is an activation.
    pub z: Option<&'a dyn Read<T>>,
    /// The weight, `[out,in]` or `[in,out]`; one behind the other where grouped.
    pub w: &'a dyn Read<T>,
    /// Where each group's rows end, `[groups]`; see [`Gemm::groups`](super::Gemm::groups). Refused without groups.
    pub group_ends: Option<&'a dyn Read<u32>>,
    /// Takes `dz = round(dy ∘ act'(z))`, `[rows,out]`.
    pub d_preactivation: Option<&'a mut dyn Write<T>>,
    /// Takes the gradient of the layer's input, `[rows,in]`.
    pub dx: &'a mut dyn Write<O>,
}

impl<'a, T: Storage, O: Storage> DataGradOperands<'a, T, O> {
    /// `dx` from `dy` and W alone.
    pub fn new(dy: &'a dyn Read<T>, w: &'a dyn Read<T>, dx: &'a mut dyn Write<O>) -> Self {
        Self { dy, z: None, w, group_ends: None, d_preactivation: None, dx }
    }
}

/// A [`DataGrad`] that has been checked, for one device.
#[derive(Debug)]
pub struct DataGradPlan<T, O> {
    device: Device,
    dispatch: Dispatch,
    block: Product,
    dy: Footprint,
    w: Footprint,
    dx: Footprint,
    ends: Option<Footprint>,
    empty: bool,
    types: PhantomData<(T, O)>,
}

impl<T: Storage, O: Storage> DataGradPlan<T, O> {
    /// Enqueues the product on `stream`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an operand that is missing or too short,
    /// [`Error::Overlap`](crate::Error::Overlap) for an output that shares memory with another operand,
    /// [`Error::Align`](crate::Error::Align), [`Error::Device`](crate::Error::Device). Nothing is written then.
    pub fn run(&self, stream: &Stream, operands: DataGradOperands<'_, T, O>) -> Result<()> {
        stream.expect_device(OP, &self.device)?;
        let DataGradOperands { dy, z, w, group_ends, d_preactivation, dx } = operands;
        let mut block = self.block;
        let mut bound = Bound::new(OP, stream);
        block.a = bound.read("dy", dy, &self.dy)?;
        block.b = bound.read("w", w, &self.w)?;
        block.d = bound.write("dx", dx, &self.dx)?;
        if block.role == params::ROLE_FUSED_A {
            block.z = bound.read("z", z.ok_or_else(|| missing(OP, "z", &self.dy))?, &self.dy)?;
        }
        if let Some(out) = d_preactivation {
            block.fused_a = bound.write("d_preactivation", out, &self.dy)?;
        }
        block.group_ends = bound.group_ends(group_ends, self.ends.as_ref())?;
        bound.overlaps()?;
        if self.empty {
            return Ok(());
        }
        self.dispatch.run(OP, block, stream)
    }

    /// What was chosen, and why, in words.
    pub fn explain(&self) -> String {
        explain(&self.block, &self.device)
    }
}
