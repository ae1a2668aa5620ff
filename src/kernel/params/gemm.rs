//! Parameter blocks of `gemm`.

/// The blocks of this op's kernels.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // lives for one call, behind a reference
pub enum Block {
    /// A fused matrix product.
    Product(Product),
    /// On GPUs, before the product: `fused_a`, and `a_sums` of it.
    Prepare(Product),
    /// On GPUs, after a product whose k is split: adds the parts, and does the epilogue.
    Combine(Product),
    /// The two gradients of SwiGLU's gate.
    SwigluGrad(SwigluGrad),
}

block! {
    /// One fused product, or a batch, or a list of groups of them. With `t` the f32 sum over `k`:
    ///
    /// `p = α·t + β·C + bias`, then by [`role`](Self::role): `D = act(p) + residual`,
    /// `D = p·act'(z) + residual`, or `D = p + residual` with `A∘act'(z)` in the place of `A`.
    ///
    /// Matrices are row-major; strides lead from one member of the batch (or one group) to the next.
    pub struct Product {
        /// `[m,k]`, or `[k,m]` where the layout says so.
        pub a: u64,
        /// `[k,n]`, or `[n,k]`; `2n` for `n` where gated.
        pub b: u64,
        /// `[m,n]` of the output type; may be `d`.
        pub c: u64,
        /// `[n]` of the input type; `[2n]` where gated.
        pub bias: u64,
        /// `[m,n]` of the output type; may be `d`.
        pub residual: u64,
        /// The pre-activation that is read: like `d`, or like `a`, by `role`; input type.
        pub z: u64,
        /// One u32 per group: where its rows end.
        pub group_ends: u64,
        /// `[m,n]`.
        pub d: u64,
        /// `p` rounded to the input type, `[m,n]`; `[m,2n]` where gated.
        pub preactivation: u64,
        /// `A∘act'(z)` rounded to the input type, stored like `a`.
        pub fused_a: u64,
        /// Sums of the rows of A over `k`, `[m]` of the output type.
        pub a_sums: u64,
        /// `D`, which is f32 then, once more: laid out alike, of `copy_type`.
        pub copy: u64,
        /// [`Partial`](super::Partial)s of `d`.
        pub partials: u64,
        /// [`Partial`](super::Partial)s of `a_sums`.
        pub a_sums_partials: u64,
        /// How many elements of each chunk of `d` have been stored, u32: 0 before a launch, and after it. GPUs only.
        pub counts: u64,
        /// The same of `a_sums`.
        pub a_sums_counts: u64,
        /// `[splits,m,n]` f32 sums of the parts of k, `2n` where gated; absent where k is not split. GPUs only.
        pub workspace: u64,
        /// Leading dimension of `a`.
        pub lda: u64,
        /// Leading dimension of `b`.
        pub ldb: u64,
        /// Leading dimension of `c`.
        pub ldc: u64,
        /// Leading dimension of `residual`.
        pub ldr: u64,
        /// Leading dimension of `z`.
        pub ldz: u64,
        /// Leading dimension of `d`.
        pub ldd: u64,
        /// Leading dimension of `preactivation`.
        pub ldp: u64,
        /// Leading dimension of `fused_a`.
        pub ldf: u64,
        /// Stride of `a`.
        pub stride_a: u64,
        /// Stride of `b`.
        pub stride_b: u64,
        /// Stride of `c`.
        pub stride_c: u64,
        /// Stride of `bias`.
        pub stride_bias: u64,
        /// Stride of `residual`.
        pub stride_residual: u64,
        /// Stride of `z`.
        pub stride_z: u64,
        /// Stride of `d`.
        pub stride_d: u64,
        /// Stride of `preactivation`.
        pub stride_preactivation: u64,
        /// Rows of the product.
        pub m: u64,
        /// Columns of the product.
        pub n: u64,
        /// Length of the sums.
        pub k: u64,
        /// Members of the batch; 1 where grouped.
        pub batch: u64,
        /// Groups; 0 where not grouped.
        pub groups: u64,
        /// Tensor index written into the partials of `d`.
        pub tensor: u32,
        /// Tensor index written into the partials of `a_sums`.
        pub a_sums_tensor: u32,
        /// α.
        pub alpha: f32,
        /// β.
        pub beta: f32,
        /// Storage type of `a`, `b`, `bias`, `z`, `preactivation`, `fused_a`.
        pub input: u32,
        /// Storage type of `c`, `residual`, `d`, `a_sums`.
        pub output: u32,
        /// Storage type of `copy`.
        pub copy_type: u32,
        /// Number of the activation.
        pub activation: u32,
        /// What the activation does: one of the `ROLE_` numbers.
        pub role: u32,
        /// The `FLAG_`s.
        pub flags: u32,
        /// Code of a tile, which says which of the product's rows of the table runs. 0 leaves it to the plan; GPUs only.
        pub tile: u32,
        /// In how many parts k is split, each a block's: their sums are added in order by `Combine`. Neither with
        /// groups nor with a batch. 0 leaves it to the plan; GPUs only.
        pub splits: u32,
    }
}

/// The activation is applied to the sum.
pub const ROLE_FORWARD: u32 = 0;
/// Its derivative at `z` multiplies the sum.
pub const ROLE_DERIVATIVE: u32 = 1;
/// Its derivative at `z` multiplies A, rounded to the input type.
pub const ROLE_FUSED_A: u32 = 2;

/// A is stored `[k,m]`.
pub const FLAG_A_TRANSPOSED: u32 = 1;
/// B is stored `[n,k]`.
pub const FLAG_B_TRANSPOSED: u32 = 2;
/// `D = silu(gate)∘up`: B holds the columns of the gate, then those of `up`.
pub const FLAG_GATED: u32 = 4;
/// Subnormal 16-bit operands count as zero, and subnormal 16-bit results become zero.
pub const FLAG_FLUSH: u32 = 8;
/// Groups cut `k`, not `m`.
pub const FLAG_GROUPS_CUT_K: u32 = 16;
/// `a_sums` is added to, not overwritten.
pub const FLAG_ADD_A_SUMS: u32 = 32;
/// `d` is stored transposed, `[n,m]`; so is the β·C that is added (only `c == d`).
pub const FLAG_D_TRANSPOSED: u32 = 64;
/// A and B can be copied as they are, 16 bytes at a time or 4: 64×64 tiles on CUDA then have a loop that does. GPUs only.
pub const FLAG_ALIGNED: u32 = 128;
/// Columns of D may start k at different steps; GPUs only. A plan sets it where callers allow it, and it stays set in the
/// launch where that helps.
pub const FLAG_ROTATED: u32 = 256;
/// Elements of A (and of `A∘act'(z)`) and of B, which are f16, are rounded to bf16 on their way into the product.
pub const FLAG_THROUGH_BF16: u32 = 512;
/// Where A and B are copied, it is by two elements at a time: addresses, leading dimensions and strides are multiples of 4
/// bytes, not of 16. CUDA only.
pub const FLAG_PAIRS: u32 = 1024;

impl Product {
    /// The storage type of the row that computes the product: what elements of A and B are when they are multiplied.
    pub fn multiplied(&self) -> u32 {
        const BF16: u32 = 0;
        if self.flags & FLAG_THROUGH_BF16 != 0 { BF16 } else { self.input }
    }
}

block! {
    /// `d_gate = dy·up·silu'(gate)`, `d_up = dy·silu(gate)`, with `z = [gate | up]`.
    pub struct SwigluGrad {
        /// `[rows,n]`.
        pub dy: u64,
        /// `[rows,2n]`.
        pub z: u64,
        /// `[rows,2n]`.
        pub dz: u64,
        /// Leading dimension of `dy`.
        pub ldy: u64,
        /// Leading dimension of `z`.
        pub ldz: u64,
        /// Leading dimension of `dz`.
        pub ldd: u64,
        /// Rows.
        pub rows: u64,
        /// Columns of `dy`.
        pub n: u64,
        /// Storage type of all three.
        pub input: u32,
        /// Number of the activation.
        pub activation: u32,
        /// The `FLAG_`s: only `FLAG_FLUSH`.
        pub flags: u32,
        /// Zero.
        pub padding: u32,
    }
}
