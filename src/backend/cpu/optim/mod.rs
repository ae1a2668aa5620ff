//! The kernels of `optim` on the CPU.

mod chunk;
mod convert;
mod copy;
mod memory;
mod stages;
#[cfg(test)]
mod tests;
mod tile;

use super::threads::Threads;
use crate::kernel::params::optim::Block;

/// Runs one kernel.
///
/// # Safety
/// The addresses in the block are valid for the lengths it gives, and outputs are not touched by
/// anything else meanwhile.
pub(super) unsafe fn run(threads: &Threads, block: &Block) {
    match block {
        // SAFETY: the caller's promise, passed on unchanged.
        Block::Stats(block) => unsafe { stages::stats(threads, block) },
        // SAFETY: as above.
        Block::Control(block) => unsafe { stages::control(block) },
        // SAFETY: as above.
        Block::Step(block) => unsafe { stages::step(threads, block) },
        // SAFETY: as above.
        Block::Convert(block) => unsafe { convert::run(threads, block) },
    }
}
