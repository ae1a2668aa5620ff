//! Launch parameter blocks: plain data with the same layout in Rust and C++.
//!
//! Order of fields everywhere: addresses, strides, sizes, scalars, seeds. An address of 0 is an
//! operand that is not there. Storage types travel as [`Dtype`](crate::Dtype)'s numbers.

pub mod gemm;
pub mod optim;
pub mod reduce;
pub mod roof;

/// Elements that one [`Partial`] covers, at most.
pub const PARTIAL_CHUNK: usize = 16_384;
/// Lanes of the fold that a [`Partial`]'s sum is defined by.
pub const FOLD_LANES: usize = 2_048;

block! {
    /// What one chunk of a gradient contributes to the decision whether and how to step.
    ///
    /// `sum_squares` is defined to the bit: lane `l` of 2,048 adds the squares (exact in f64) of
    /// the chunk's elements `l, l + 2048, …` in this order; then lanes fold by halves,
    /// `s[l] += s[l + h]` for `h = 1024, 512, …, 1` and `l < h`. Non-finite elements count as 0.
    pub struct Partial {
        /// Σg² over the chunk's finite elements.
        pub sum_squares: f64,
        /// How many elements are NaN or ±Inf.
        pub non_finite: u32,
        /// The tensor that the chunk belongs to (an index into the caller's list).
        pub tensor: u32,
    }
}
