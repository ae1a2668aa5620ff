//! Rows of `gemm`.
