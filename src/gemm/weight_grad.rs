//! The gradients of a linear layer's weight and bias.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::Activation;
use super::checks::Footprint;
use super::dispatch::Dispatch;
use super::layout::{Subnormals, WeightLayout};
use super::operands::{Bound, missing};
use super::plan::{check_subnormals, check_types, ends_shape, explain};
use crate::grad_stats::Addresses;
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::Product;
use crate::kernel::table::gemm::Tile;
use crate::{Device, Dtype, Error, GradStats, Read, Result, Storage, Stream, Write, bf16, f16};

const OP: &str = "weight_grad";

/// `dw (+)= dzᵀ·x` and `db (+)= Σ_rows dz`, with `dz = round(dy ∘ act'(z))`, summed in f32; in the same call Σg²
/// and the non-finite count of both, and a 16-bit copy of an f32 `dw`. On a GPU all of that is one launch; `dz`, where it is
/// stored here, is one before it, and parts that [`split`](Self::split) or the plan cuts the sums in are added by one after it.
///
/// Pass `dy` and `z`, or the `dz` that [`DataGrad`](super::DataGrad) stored (then with no activation).
///
/// **Shapes.** `dy`, `z` `[rows,out]`; `x` `[rows,in]`; `dw` `[out,in]` (or `[in,out]`); `db`
/// `[out]`; all dense. `rows = 0` is a sum of 0: without [`accumulate`](Self::accumulate) `dw` and `db`
/// become 0.
///
/// **Types.** `dy`, `z` and `x` are of `T`; `dw` and `db` are f32, or of `T` where a framework keeps its gradients so. What is
/// accumulated over many micro-batches belongs in f32: in 16 bits what is less than half an ulp of a sum is lost.
///
/// **Numerics.** `dw` is one fma chain over the rows, then one addition where accumulated. `db` adds
/// blocks of 256 rows, each from 0 in the order of the rows, then the blocks in their order. Both are f32 up to there, and
/// rounded once, as they are stored. Σg² and
/// the non-finite counts are of the finished `dw` and `db`, as stored: to the bit those that
/// the optimizer's own pass over them would find.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::gemm::{WeightGrad, WeightGradOperands};
/// let device = halfstep::Device::cpu();
/// let plan = WeightGrad::new(2, 2, 1).accumulate(true).plan::<f32, f32>(&device)?;
/// let (dy, x) = (vec![1.0f32, 10.0], vec![1.0f32, 2.0, 3.0, 4.0]);
/// let (mut dw, mut db) = (vec![0.5f32, 0.5], vec![0.0f32]);
/// let operands = WeightGradOperands { db: Some(&mut db), ..WeightGradOperands::new(&dy, &x, &mut dw) };
/// plan.run(&device.stream()?, operands)?;
/// assert_eq!((dw, db), (vec![31.5, 42.5], vec![11.0]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct WeightGrad {
    rows: usize,
    input: usize,
    output: usize,
    activation: Activation,
    weight: WeightLayout,
    accumulate: bool,
    subnormals: Subnormals,
    groups: Option<usize>,
    tile: Option<Tile>,
    splits: u32,
}

impl WeightGrad {
    /// A layer of `in_features` inputs and `out_features` outputs, on `rows` rows.
    pub fn new(rows: usize, in_features: usize, out_features: usize) -> Self {
        Self {
            rows,
            input: in_features,
            output: out_features,
            activation: Activation::None,
            weight: WeightLayout::OutIn,
            accumulate: false,
            subnormals: Subnormals::Preserve,
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

    /// How `dw` is stored; `[out,in]` unless set.
    pub fn weight_layout(mut self, layout: WeightLayout) -> Self {
        self.weight = layout;
        self
    }

    /// Whether `dw` and `db` are added to, not overwritten; not, unless set.
    pub fn accumulate(mut self, accumulate: bool) -> Self {
        self.accumulate = accumulate;
        self
    }

    /// What becomes of subnormal 16-bit numbers; kept unless set.
    pub fn subnormals(mut self, subnormals: Subnormals) -> Self {
        self.subnormals = subnormals;
        self
    }

    /// `count` groups of rows, each with a `dw` and a `db` of its own, one behind the other (`[groups,out,in]`
    /// and `[groups,out]`); see [`Gemm::groups`](super::Gemm::groups). A group without rows has a sum of 0.
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

    /// Checks everything but memory. `T` is the type of `dy`, `z` and `x`, `O` of `dw` and `db`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an `O` that is neither `T` nor f32, and for a policy or pinned tile that does not exist
    /// here, [`Error::Shape`] for sizes that overflow.
    pub fn plan<T: Storage, O: Storage>(&self, device: &Device) -> Result<WeightGradPlan<T, O>> {
        check_types::<T, O>(OP)?;
        check_subnormals::<T>(OP, self.subnormals, device)?;
        let Self { rows, input, output, .. } = *self;
        let members = self.groups.unwrap_or(1);
        let dense = |arg, size, count| Footprint::new(OP, arg, size, None, None, count, false);
        let transposed = self.weight == WeightLayout::InOut;
        let dw_size = if transposed { (input, output) } else { (output, input) };
        let dy = dense("dy", (rows, output), 1)?;
        let x = dense("x", (rows, input), 1)?;
        let dw = dense("dw", dw_size, members)?;
        let db = dense("db", (1, output), members)?;
        let ends = ends_shape(OP, self.groups)?;
        let fused = self.activation != Activation::None;
        let mut flags = params::FLAG_A_TRANSPOSED;
        for (set, flag) in [
            (self.subnormals == Subnormals::Flush, params::FLAG_FLUSH),
            (self.subnormals == Subnormals::ThroughBf16, params::FLAG_THROUGH_BF16),
            (self.groups.is_some(), params::FLAG_GROUPS_CUT_K),
            (self.accumulate, params::FLAG_ADD_A_SUMS),
            (transposed, params::FLAG_D_TRANSPOSED),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let block = Product {
            lda: dy.ld as u64,
            ldb: x.ld as u64,
            ldz: dy.ld as u64,
            ldf: dy.ld as u64,
            ldc: dw.ld as u64,
            ldd: dw.ld as u64,
            stride_c: dw.stride as u64,
            stride_d: dw.stride as u64,
            m: output as u64,
            n: input as u64,
            k: rows as u64,
            batch: 1,
            groups: self.groups.unwrap_or(0) as u64,
            alpha: 1.0,
            beta: if self.accumulate { 1.0 } else { 0.0 },
            input: T::DTYPE as u32,
            output: O::DTYPE as u32,
            activation: self.activation as u32,
            role: if fused { params::ROLE_FUSED_A } else { params::ROLE_FORWARD },
            flags,
            tile: self.tile.map_or(0, Tile::code),
            splits: self.splits,
            ..bytemuck::Zeroable::zeroed()
        };
        let dispatch = Dispatch::new(OP, &block, device)?;
        let empty = output == 0 || self.groups == Some(0);
        let device = device.clone();
        Ok(WeightGradPlan {
            device,
            dispatch,
            block,
            dy,
            x,
            dw,
            db,
            ends,
            empty,
            types: PhantomData,
        })
    }
}

/// A 16-bit copy of a `dw` that is f32: where the reduction's bucket has its place for it.
#[allow(missing_debug_implementations)] // references to trait objects
pub enum Copy<'a> {
    /// Rounded to bf16.
    Bf16(&'a mut dyn Write<bf16>),
    /// Rounded to f16.
    F16(&'a mut dyn Write<f16>),
}

/// Where Σg² and the non-finite counts go.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::gemm::{Stats, WeightGrad, WeightGradOperands};
/// use halfstep::{Device, GradStats};
/// let device = Device::cpu();
/// let stream = device.stream()?;
/// let mut stats = GradStats::new(&device, &[2, 1])?; // of a weight and a bias
/// let (dy, x) = (vec![1.0f32, 2.0], vec![1.0f32; 4]);
/// let (mut dw, mut db) = (vec![0.0f32; 2], vec![0.0f32; 1]);
/// let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
/// operands.db = Some(&mut db);
/// operands.stats = Some(Stats { stats: &mut stats, weight: 0, bias: Some(1) });
/// WeightGrad::new(2, 2, 1).plan::<f32, f32>(&device)?.run(&stream, operands)?;
/// assert_eq!(stats.read(&stream)?.sum_squares, 27.0); // all three are 3
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stats<'a> {
    /// The statistics of all gradients. Of a tensor that has none in a step, they stay what they were:
    /// [`GradStats::clear`].
    pub stats: &'a mut GradStats,
    /// Index of `dw` among the lengths that `stats` was made from.
    pub weight: usize,
    /// Index of `db`; `None` leaves it out.
    pub bias: Option<usize>,
}

/// The tensors of one [`WeightGradPlan::run`].
#[allow(missing_debug_implementations)] // references to trait objects
pub struct WeightGradOperands<'a, T: Storage, O: Storage> {
    /// Gradient of the layer's output, `[rows,out]`; or `dz`, and no activation.
    pub dy: &'a dyn Read<T>,
    /// The stored pre-activation, `[rows,out]`; needed where there is an activation.
    pub z: Option<&'a dyn Read<T>>,
    /// The layer's input, `[rows,in]`.
    pub x: &'a dyn Read<T>,
    /// Where each group's rows end, `[groups]`; see [`Gemm::groups`](super::Gemm::groups). Refused without groups.
    pub group_ends: Option<&'a dyn Read<u32>>,
    /// Takes `dz = round(dy ∘ act'(z))`, `[rows,out]`.
    pub d_preactivation: Option<&'a mut dyn Write<T>>,
    /// The gradient of the weight, `[out,in]`, or `[in,out]` where [`weight_layout`](WeightGrad::weight_layout) says so; one
    /// behind the other where grouped.
    pub dw: &'a mut dyn Write<O>,
    /// The gradient of the bias, `[out]`; one behind the other where grouped.
    pub db: Option<&'a mut dyn Write<O>>,
    /// A copy of the finished `dw`, which is f32 then, in 16 bits.
    pub copy: Option<Copy<'a>>,
    /// Statistics of the finished `dw` and `db`.
    pub stats: Option<Stats<'a>>,
}

impl<'a, T: Storage, O: Storage> WeightGradOperands<'a, T, O> {
    /// `dw` from `dy` and `x` alone.
    pub fn new(dy: &'a dyn Read<T>, x: &'a dyn Read<T>, dw: &'a mut dyn Write<O>) -> Self {
        Self {
            dy,
            z: None,
            x,
            group_ends: None,
            d_preactivation: None,
            dw,
            db: None,
            copy: None,
            stats: None,
        }
    }
}

/// A [`WeightGrad`] that has been checked, for one device.
#[derive(Debug)]
pub struct WeightGradPlan<T, O> {
    device: Device,
    dispatch: Dispatch,
    block: Product,
    dy: Footprint,
    x: Footprint,
    dw: Footprint,
    db: Footprint,
    ends: Option<Footprint>,
    empty: bool,
    types: PhantomData<(T, O)>,
}

impl<T: Storage, O: Storage> WeightGradPlan<T, O> {
    /// Enqueues the product on `stream`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a copy of a `dw` that is not f32,
    /// [`Error::Shape`] for an operand that is missing or too short, or statistics made for other lengths,
    /// [`Error::Overlap`] for an output that shares memory with another operand, [`Error::Align`],
    /// [`Error::Device`]. Nothing is written then.
    pub fn run(&self, stream: &Stream, operands: WeightGradOperands<'_, T, O>) -> Result<()> {
        stream.expect_device(OP, &self.device)?;
        let WeightGradOperands { dy, z, x, group_ends, d_preactivation, dw, db, copy, stats } =
            operands;
        let mut block = self.block;
        let mut bound = Bound::new(OP, stream);
        block.a = bound.read("dy", dy, &self.dy)?;
        block.b = bound.read("x", x, &self.x)?;
        block.d = bound.write("dw", dw, &self.dw)?;
        if block.beta != 0.0 {
            block.c = block.d;
        }
        if block.role == params::ROLE_FUSED_A {
            block.z = bound.read("z", z.ok_or_else(|| missing(OP, "z", &self.dy))?, &self.dy)?;
        }
        if let Some(out) = d_preactivation {
            block.fused_a = bound.write("d_preactivation", out, &self.dy)?;
        }
        if let Some(db) = db {
            block.a_sums = bound.write("db", db, &self.db)?;
        }
        if copy.is_some() && O::DTYPE != Dtype::F32 {
            let reason = format!("a copy of a dw of {}; it is for one of f32", O::DTYPE);
            return Err(Error::unsupported(OP, reason));
        }
        match copy {
            Some(Copy::Bf16(copy)) => {
                block.copy = bound.write("copy", copy, &self.dw)?;
                block.copy_type = Dtype::Bf16 as u32;
            }
            Some(Copy::F16(copy)) => {
                block.copy = bound.write("copy", copy, &self.dw)?;
                block.copy_type = Dtype::F16 as u32;
            }
            None => {}
        }
        block.group_ends = bound.group_ends(group_ends, self.ends.as_ref())?;
        if let Some(Stats { stats, weight, bias }) = stats {
            if bias == Some(weight) {
                let (first, second) = ("stats.weight".into(), "stats.bias".into());
                return Err(Error::Overlap { op: OP, first, second });
            }
            block.tensor = weight as u32;
            let to = self.partials(stream, stats, "stats.weight", weight, &self.dw)?;
            (block.partials, block.counts) = (to.partials, to.counts);
            if let Some(bias) = bias {
                if block.a_sums == 0 && self.db.need > 0 {
                    return Err(missing(OP, "db", &self.db));
                }
                block.a_sums_tensor = bias as u32;
                let to = self.partials(stream, stats, "stats.bias", bias, &self.db)?;
                (block.a_sums_partials, block.a_sums_counts) = (to.partials, to.counts);
            }
        }
        bound.overlaps()?;
        if self.empty {
            return Ok(());
        }
        self.dispatch.run(OP, block, stream)
    }

    /// Where one tensor's partials are, which have to be of as many elements as the gradient has.
    fn partials(
        &self,
        stream: &Stream,
        stats: &mut GradStats,
        arg: &'static str,
        tensor: usize,
        gradient: &Footprint,
    ) -> Result<Addresses> {
        let found = stats.len_of(tensor);
        if Some(gradient.need) != found {
            let expected = format!("the statistics of {} elements", gradient.need);
            let found = found.map_or("no such tensor".into(), |len| format!("of {len}"));
            return Err(Error::shape(OP, arg, expected, found));
        }
        stats.lend(OP, arg, stream, tensor)
    }

    /// What was chosen, and why, in words.
    pub fn explain(&self) -> String {
        explain(&self.block, &self.device)
    }
}
