//! The parameter block of `roof`.

block! {
    /// In each thread, sums in registers to each of which `one · one` is added, `steps` times what the row adds at once;
    /// `*multiply_adds += Σ` of all sums, which is how many multiply-adds there were.
    pub struct Roof {
        /// One u64.
        pub multiply_adds: u64,
        /// Times that each sum is added to; at most [`MOST_STEPS`], for sums to be exact.
        pub steps: u64,
        /// Blocks of threads, or as many as the device runs at once.
        pub blocks: u64,
        /// 1, which compilers do not know.
        pub one: f32,
        /// Zero.
        pub padding: u32,
    }
}

/// A matrix unit adds 16 to a sum at once, and sums below 2²⁴ are exact.
pub const MOST_STEPS: u64 = 1 << 20;

/// The blocks of this op's kernels.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Block {
    F32(Roof),
    Bf16(Roof),
}
