//! The general product's builder.
#![forbid(unsafe_code)]

use super::Activation;
use super::layout::{Layout, Matrix, Subnormals};
use super::plan::{self, Plan};
use crate::kernel::table::gemm::Tile;
use crate::{Device, Result, Storage};

/// `D = act(α·A·B + β·C + bias) + residual`.
///
/// C enters before the activation, the residual after it; each can be in place
/// ([`Source::InPlace`](super::Source)). The bias, C, the residual and the stored pre-activation are there
/// where [`Operands`](super::Operands) gives them.
///
/// **Shapes.** A `[m,k]`, B `[k,n]` (or transposed, by [`layout`](Self::layout)), bias `[n]`; C, residual,
/// pre-activation and D `[m,n]`. `m = 0` or `n = 0` is nothing to do; `k = 0` is a sum of 0, and D is
/// written.
///
/// **Numerics.** See [the module](super). C and the residual have the output type, the bias and the
/// stored pre-activation the input type.
///
/// **Errors.** [`plan`](Self::plan) makes every check that needs no memory, `run` the others; nothing is
/// written on an error.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::gemm::{Activation, Gemm, Layout, Operands};
/// use halfstep::{Device, Storage, bf16};
///
/// let device = Device::cpu();
/// let stream = device.stream()?;
/// let [x, w, b] = [vec![1.0, 2.0], vec![3.0, 4.0, -5.0, -6.0], vec![0.5, 0.5]]
///     .map(|v: Vec<f32>| v.into_iter().map(bf16::narrow).collect::<Vec<_>>());
/// let mut y = vec![0.0f32; 2];
///
/// // y[1,2] = relu(x[1,2]·w[2,2]ᵀ + b)
/// let layer = Gemm::new(1, 2, 2).layout(Layout::NT).activation(Activation::Relu);
/// let plan = layer.plan::<bf16, f32>(&device)?;
/// plan.run(&stream, Operands { bias: Some(&b), ..Operands::new(&x, &w, &mut y) })?;
/// stream.sync()?;
/// assert_eq!(y, [11.5, 0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Gemm {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) layout: Layout,
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) activation: Activation,
    pub(super) derivative: bool,
    pub(super) gated: bool,
    pub(super) subnormals: Subnormals,
    pub(super) leading: [Option<usize>; Matrix::COUNT],
    pub(super) strides: [Option<usize>; Matrix::COUNT],
    pub(super) batch: usize,
    pub(super) groups: Option<usize>,
    pub(super) tile: Option<Tile>,
    pub(super) splits: u32,
    pub(super) rotate: bool,
}

impl Gemm {
    /// `D[m,n] = A[m,k]·B[k,n]`; the other methods add to it.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            layout: Layout::NN,
            alpha: 1.0,
            beta: 0.0,
            activation: Activation::None,
            derivative: false,
            gated: false,
            subnormals: Subnormals::Preserve,
            leading: [None; Matrix::COUNT],
            strides: [None; Matrix::COUNT],
            batch: 1,
            groups: None,
            tile: None,
            splits: 0,
            rotate: true,
        }
    }

    /// `D[m,n] = silu(α·A·Bg + bg) ∘ (α·A·Bu + bu)` (Shazeer 2020). B holds the columns of the gate, then
    /// those of `up`: `[k,2n]`, or `[2n,k]` by layout; so do the bias `[2n]` and the stored pre-activation
    /// `[m,2n]`. C is not supported. With another [`activation`](Self::activation) that one takes silu's place.
    pub fn swiglu(m: usize, n: usize, k: usize) -> Self {
        Self { gated: true, activation: Activation::Silu, ..Self::new(m, n, k) }
    }

    /// How A and B are stored; [`Layout::NN`] unless set.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// α, the factor of `A·B`; 1 unless set. With 0, A and B are not read.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }

    /// β, the factor of C; 0 unless set. With 0, C is not read.
    pub fn beta(mut self, beta: f32) -> Self {
        self.beta = beta;
        self
    }

    /// The activation, of [`swiglu`](Self::swiglu) the gate's; none unless set, and silu there. Takes the place of a
    /// [`derivative`](Self::derivative) that was asked for before.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self.derivative = false;
        self
    }

    /// `D = (α·A·B + β·C + bias) ∘ act'(z) + residual`, with `z` read from
    /// [`Operands::derivative_of`](super::Operands::derivative_of): a chain of layers multiplies the data gradient by the
    /// derivative of the layer before it (cuBLASLt's `DGELU` and `DRELU`). Takes the place of an
    /// [`activation`](Self::activation) that was asked for before.
    pub fn derivative(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self.derivative = true;
        self
    }

    /// What becomes of subnormal 16-bit numbers; kept unless set.
    pub fn subnormals(mut self, subnormals: Subnormals) -> Self {
        self.subnormals = subnormals;
        self
    }

    /// From one row of a matrix to the next, in elements; dense unless set. A bias is one row, and has none: from one member's
    /// to the next it is [`stride`](Self::stride), and a plan with its leading dimension is refused.
    pub fn leading(mut self, matrix: Matrix, elements: usize) -> Self {
        self.leading[matrix as usize] = Some(elements);
        self
    }

    /// `count` products, one behind the other in memory; see [`stride`](Self::stride).
    pub fn batch(mut self, count: usize) -> Self {
        self.batch = count;
        self
    }

    /// From one member of a batch to the next, in elements. Dense unless set; 0 shares an input between
    /// all members, and is the default for the bias.
    pub fn stride(mut self, matrix: Matrix, elements: usize) -> Self {
        self.strides[matrix as usize] = Some(elements);
        self
    }

    /// `count` groups of rows of A (and of D), each with a B and a bias of its own (a mixture of experts).
    /// Group `g` has the rows from `ends[g-1]` (0 for the first) up to `ends[g]`, with
    /// `ends` = [`Operands::group_ends`](super::Operands::group_ends), in device memory so that a router's result need not visit
    /// the host. Ends above `m` count as `m`, and ends smaller than the one before as that one. Rows
    /// behind the last end are not written.
    pub fn groups(mut self, count: usize) -> Self {
        self.groups = Some(count);
        self
    }

    /// Pins a GPU's tile. With [`split`](Self::split) pinned too, the order of an element's sum depends on neither the
    /// number of rows and columns nor alignment: a row of D has the bits that it has in any other batch. (What it may
    /// depend on is said at [`rotate`](Self::rotate).) All but 64×64 need 16-bit operands that are aligned to 4 bytes and not
    /// both stored transposed; a plan or run that cannot have a tile is refused, in words that name what there is. A sum of 0 (`α = 0`,
    /// `k = 0`) has no order, and takes 64×64. The CPU has one order for all.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Pins in how many parts GPUs cut the sums over k, at most 64: each part is a block's, and parts are added in
    /// order. 1 is one sum from end to end. Unless pinned, the plan cuts where there are too few tiles to fill the
    /// device (16-bit types only; neither groups nor batches): by sizes and device alone, so that equal calls give
    /// equal bits. The CPU has one order for all.
    pub fn split(mut self, parts: u32) -> Self {
        self.splits = parts;
        self
    }

    /// Whether a GPU may start the sums of different columns of D at different steps of `k`; true unless set.
    ///
    /// Where rows that hold `k` side by side (A's of `NN` and `NT`, B's of `NT` and `TT`) lie a multiple of 4 KiB apart, the
    /// same steps of all rows are in the same channels of an MI250X's memory, and tiles that go through `k` together wait
    /// for these. So columns `256·j` … of D start at `k = 128·j` (modulo `k`, of at most 32 such places), and after the last
    /// step go on with the first: rocBLAS's StaggerU. Where it is done the order of an element's sum depends on `k`, its
    /// parts, the leading dimensions of A and B, and on the element's column, and on nothing else. Sums that are exact, as
    /// those of small integers, are what they are in any order. With `false` the order is ascending. Only of 16-bit types,
    /// only on AMD's devices; [`Plan::explain`] says where.
    pub fn rotate(mut self, allowed: bool) -> Self {
        self.rotate = allowed;
        self
    }

    /// Checks everything but memory, and chooses the kernel. `T` is the type of A and B, `O` that of D: `T`
    /// itself or f32.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for combinations that do not exist,
    /// [`Error::Range`](crate::Error::Range) for leading dimensions, strides and scalars,
    /// [`Error::Shape`](crate::Error::Shape) for sizes that overflow.
    pub fn plan<T: Storage, O: Storage>(&self, device: &Device) -> Result<Plan<T, O>> {
        plan::plan(self, device)
    }
}
