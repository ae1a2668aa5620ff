//! Parameter blocks of `optim`.

/// The blocks of this op's kernels.
#[derive(Debug, Clone, Copy)]
pub enum Block {}
