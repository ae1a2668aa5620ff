//! The one unsafe block of `gemm`.

use crate::kernel::Launch;
use crate::kernel::params::gemm::Block;
use crate::{Result, Stream};

/// Enqueues blocks whose addresses were put in by [`Bound`](super::operands::Bound).
pub(super) fn launch(stream: &Stream, blocks: impl IntoIterator<Item = Block>) -> Result<()> {
    for block in blocks {
        // SAFETY: `Bound::read` and `Bound::write` (operands.rs) checked each address in the block: lent for
        // this call, of the stream's device, aligned, and at least as long as the block's sizes reach
        // (`Footprint::need`, checks.rs); `Bound::overlaps` checked that outputs share no memory with anything
        // but the allowed operands in place.
        unsafe { stream.launch(&Launch::Gemm(block)) }?;
    }
    Ok(())
}
