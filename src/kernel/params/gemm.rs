//! Parameter blocks of `gemm`.

/// The blocks of this op's kernels.
#[derive(Debug, Clone, Copy)]
pub enum Block {}
