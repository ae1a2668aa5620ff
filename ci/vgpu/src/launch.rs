//! What a launch is given and what it gives back, the same for both vendors.

use crate::counters::Counters;
use crate::finding::Finding;

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the file.
    pub name: String,
    /// Where it begins in the block of parameters.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

/// The shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// Bytes of shared memory beside what the kernel declares.
    pub shared: u32,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Races, in shared and in global memory.
    pub races: bool,
    /// Undefined values stored to global memory.
    pub undefined_stores: bool,
    /// Wave instructions after which a launch is given up as endless.
    pub max_instructions: u64,
}

impl Default for Checks {
    fn default() -> Self {
        Self { races: true, undefined_stores: true, max_instructions: 4_000_000_000 }
    }
}

/// What a launch did.
#[derive(Debug)]
pub struct Report {
    /// What the checks found.
    pub findings: Vec<Finding>,
    /// What was done.
    pub counters: Counters,
    /// Places of the instructions that were executed, of any lane or of none: lines of PTX, bytes from
    /// the start of a code object's image.
    pub reached: Vec<u64>,
}
