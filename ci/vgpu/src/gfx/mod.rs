//! gfx90a code objects as clang emits them, in waves of 64.
//!
//! [`CodeObject::parse`] reads a file, [`CodeObject::load`] puts its image in global memory,
//! [`Loaded::program`] decodes one kernel, [`launch`] runs it. A kernel is decoded when it is asked
//! for, so an instruction that is not known is an error of the kernels that have it.
//!
//! Waits: data of a load is on its way until the counter that covers it is waited for; a register
//! read or written before is a finding, and what was read is undefined. LDS accesses that a wave has
//! not waited for at a barrier are not ordered by it, nor are accesses of global memory.
//!
//! Blocks are ordered as compilers use the machine (LLVM's memory model of gfx90a): what is done before
//! `s_waitcnt vmcnt(0)` is published by the atomic operations that follow, and by the stores if the
//! kernel has loads with `glc` or a compare-and-swap; it is seen by those, once `buffer_wbinvl1_vol`
//! has followed. Write-backs of the second cache, for other devices, are not modelled.
//!
//! Numerics: rounding, subnormals and clamping follow the MODE register. Approximate functions are
//! exact functions, rounded, which lies within their documented errors. Matrix products add one
//! product after the other in f32; hardware's order is not documented, nor is the place of results of
//! the f64 form, which follows AMD's published example. Minima and maxima take a signalling NaN for a
//! quiet one. A buffer access that the buffer's end cuts is wholly beyond it. Not modelled: cycles that
//! hardware needs between dependent instructions and does not wait for (compilers put `s_nop`
//! there), caches, exceptions, and a barrier's disregard of exec: `s_barrier` counts waves, so that
//! it cannot be reached by a part of one.

mod decode;
mod exec;
mod isa;
mod object;
mod outstanding;
mod path;
mod program;
mod running;
mod values;

pub use exec::launch;
pub use object::{CodeObject, Loaded};
pub use outstanding::Outstanding;
pub use program::{Parameter, Program};

/// Why a file cannot be read or a kernel cannot be run, with the name of what is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct GfxError {
    /// What is wrong.
    pub what: String,
}

impl GfxError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

type Result<T> = std::result::Result<T, GfxError>;

/// The text of the instruction at the start of `code`, and its bytes.
pub fn disassemble(code: &[u8]) -> std::result::Result<(String, usize), GfxError> {
    let instruction = decode::decode(code, 0)?;
    Ok((instruction.to_string(), instruction.bytes.into()))
}
