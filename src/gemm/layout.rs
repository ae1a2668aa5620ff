//! How operands are stored, and what happens to subnormal numbers.
#![forbid(unsafe_code)]

/// How A and B are stored: one letter each, `N` as named, `T` transposed.
///
/// | | A | B | use in training (`y = x·Wᵀ`, W `[out,in]`) |
/// |---|---|---|---|
/// | `NN` | `[m,k]` | `[k,n]` | data gradient |
/// | `NT` | `[m,k]` | `[n,k]` | forward |
/// | `TN` | `[k,m]` | `[k,n]` | weight gradient |
/// | `TT` | `[k,m]` | `[n,k]` | |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// A `[m,k]`, B `[k,n]`.
    #[default]
    NN,
    /// A `[m,k]`, B `[n,k]`.
    NT,
    /// A `[k,m]`, B `[k,n]`.
    TN,
    /// A `[k,m]`, B `[n,k]`.
    TT,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 4] = [Self::NN, Self::NT, Self::TN, Self::TT];

    /// Whether A is stored `[k,m]`.
    pub const fn a_transposed(self) -> bool {
        matches!(self, Self::TN | Self::TT)
    }

    /// Whether B is stored `[n,k]`.
    pub const fn b_transposed(self) -> bool {
        matches!(self, Self::NT | Self::TT)
    }

    /// The letters used in golden files: `nn`, `nt`, `tn`, `tt`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NN => "nn",
            Self::NT => "nt",
            Self::TN => "tn",
            Self::TT => "tt",
        }
    }
}

/// How a linear layer's weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WeightLayout {
    /// `[out,in]`: `y = x·Wᵀ` (PyTorch's `Linear`).
    #[default]
    OutIn,
    /// `[in,out]`: `y = x·W`.
    InOut,
}

/// The matrices of a product whose leading dimension or stride can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// A.
    A = 0,
    /// B.
    B = 1,
    /// C.
    C = 2,
    /// The bias; it has a stride only.
    Bias = 3,
    /// The residual.
    Residual = 4,
    /// The pre-activation, stored or read.
    Preactivation = 5,
    /// D.
    D = 6,
}

impl Matrix {
    pub(super) const COUNT: usize = 7;

    /// The name in errors: the field of [`Operands`](super::Operands).
    pub(super) const fn name(self) -> &'static str {
        ["a", "b", "c", "bias", "residual", "preactivation", "d"][self as usize]
    }
}

/// What becomes of subnormal bf16 and f16 numbers (f32 ones are always kept).
///
/// Matrix units differ: an MI250X reads subnormal 16-bit operands as zero. For f16 that is everything
/// under 6.1e-5, which loss-scaled gradients do reach. So it is never silent: a plan for such a device
/// is refused unless it says [`Flush`](Self::Flush) or, of f16, [`ThroughBf16`](Self::ThroughBf16), and the CPU can
/// imitate both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Subnormals {
    /// They count as what they are.
    #[default]
    Preserve,
    /// Subnormal elements of A and B (and of `dy ∘ act'(z)`) count as zeros of their sign, and
    /// 16-bit results that would be subnormal become zeros of their sign. (An MI250X flushes the f32 sums on their way
    /// too, under 1.2e-38, where only products of bf16 come; a CPU does not.)
    Flush,
    /// f16 elements of A and B (and of `round(dy ∘ act'(z))`) are rounded to bf16 (nearest even) on their way into a
    /// product, where they are normal: nothing is flushed, but 3 of 11 bits of every factor are lost, a relative error
    /// of up to 2⁻⁸ each. Everything else stays f16: bias, C, residual, `z`, what is stored, and sums of A's rows. For gradients,
    /// whose size matters more than their last bits (rocBLAS's `fp16_alt_impl`). A GPU's loops for aligned operands
    /// cannot change them: such products take tiles of 64×64. Refused for bf16 and f32.
    ThroughBf16,
}
