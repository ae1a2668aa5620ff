//! PTX as nvcc emits it for sm_80, in waves of 32.
//!
//! [`Module::parse`] reads a file, [`Module::load`] puts its variables in global memory,
//! [`Loaded::program`] decodes one kernel, [`launch`] runs it. A kernel is decoded when it is asked
//! for, so an instruction that is not known is an error of the kernels that have it.
//!
//! Numerics: what PTX defines exactly is exact, rounding, `.ftz` and `.sat` included; f32 results
//! that are NaN are 0x7fffffff. Approximate functions are computed in f64 and rounded, which lies
//! within their documented errors. `mma` adds the products of a row and a column to the accumulator
//! one after the other in f32; hardware's order is not documented.

mod decode;
mod exec;
mod isa;
mod lexer;
mod link;
mod modifiers;
mod parse;
mod program;
mod read;
mod syntax;

pub use exec::launch;
pub use link::Loaded;
pub use program::{Parameter, Program};
pub use syntax::Module;

/// Why a file cannot be read or a kernel cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PtxError {
    /// Line of the file, from 1; 0 where there is none.
    pub line: u32,
    /// What is wrong, with the name of what is not known.
    pub what: String,
}

impl PtxError {
    fn new(line: u32, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

type Result<T> = std::result::Result<T, PtxError>;
