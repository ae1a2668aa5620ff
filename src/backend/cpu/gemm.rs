//! The kernels of `gemm` on the CPU.

use super::threads::Threads;
use crate::kernel::params::gemm::Block;

/// Runs one kernel.
///
/// # Safety
/// The addresses in the block are valid for the lengths it gives, and outputs are not touched by
/// anything else meanwhile.
pub(super) unsafe fn run(_threads: &Threads, block: &Block) {
    match *block {}
}
