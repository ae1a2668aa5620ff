//! A decoded kernel.

use super::isa::{Fixed, Instruction, Reg};
pub use crate::launch::Parameter;

/// A kernel, ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The kernel's name.
    pub name: String,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// Most threads of a block that it was compiled for.
    pub max_threads: Option<u32>,
    /// The only block that it may run with.
    pub required_block: Option<[u32; 3]>,
    /// Bytes of shared memory, the launch's own not counted.
    pub shared: u64,
    /// Where `extern` shared memory begins.
    pub(super) dynamic_shared: u64,
    /// Bytes of local memory of a thread.
    pub(super) local: u64,
    pub(super) registers: u32,
    /// Registers that no instruction writes.
    pub(super) fixed: Vec<(Fixed, Reg)>,
    pub(super) code: Vec<Instruction>,
}

impl Program {
    /// Bytes of local memory of a thread.
    pub fn local(&self) -> u64 {
        self.local
    }

    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> u64 {
        self.parameters.last().map_or(0, |p| p.offset + p.size)
    }
}
