//! `gemm`
