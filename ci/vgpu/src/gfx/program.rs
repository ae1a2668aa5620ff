//! A decoded kernel.

use std::collections::HashMap;

use super::decode::Instruction;
use super::exec::{Action, Use};
use super::object::{Argument, Descriptor};
use crate::counters::Class;
pub use crate::launch::Parameter;

/// An instruction with what it does.
#[derive(Debug, Clone)]
pub struct Step {
    pub instruction: Instruction,
    pub action: Action,
    pub class: Class,
    /// Where a branch goes, as an index.
    pub target: u32,
    pub uses: Vec<Use>,
    pub writes_exec: bool,
}

/// A kernel, ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The kernel's name.
    pub name: String,
    /// Its explicit parameters, in order.
    pub parameters: Vec<Parameter>,
    /// Most threads of a block that it was compiled for.
    pub max_threads: Option<u32>,
    /// The only block that it may run with.
    pub required_block: Option<[u32; 3]>,
    /// Bytes of shared memory (LDS), the launch's own not counted.
    pub shared: u64,
    /// Bytes of private memory of a thread.
    pub(super) private: u32,
    /// Vector registers of a lane.
    pub(super) registers: u16,
    /// Arguments that the runtime fills in.
    pub(super) hidden: Vec<Argument>,
    pub(super) descriptor: Descriptor,
    /// Where the image is in global memory.
    pub(super) base: u64,
    pub(super) entry: u32,
    pub(super) code: Vec<Step>,
    pub(super) places: HashMap<u64, u32>,
}

impl Program {
    /// Bytes of the explicit parameters.
    pub fn parameter_bytes(&self) -> u64 {
        self.parameters.last().map_or(0, |p| p.offset + p.size)
    }

    /// Bytes of private memory of a thread.
    pub fn private(&self) -> u32 {
        self.private
    }

    /// The instructions' text, in order, with their places in the image.
    pub fn disassembly(&self) -> impl Iterator<Item = (u64, String)> {
        self.code.iter().map(|s| (s.instruction.address, s.instruction.to_string()))
    }

    /// Vector registers of a lane, and how many of them come before those for accumulation.
    pub fn registers(&self) -> (u16, u16) {
        (self.registers, self.descriptor.accumulation_offset())
    }

    pub(super) fn text(&self, pc: u32) -> String {
        self.code.get(pc as usize).map_or(String::new(), |s| s.instruction.to_string())
    }

    pub(super) fn index_of(&self, address: u64) -> Option<u32> {
        self.places.get(&address).copied()
    }
}
