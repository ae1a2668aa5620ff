//! The one launch of this op.

use crate::kernel::Launch;
use crate::kernel::params::optim::Block;
use crate::{Result, Stream};

/// Enqueues one kernel. Only called with blocks that [`Optimizer`](super::Optimizer) fills from
/// its own buffers, and from addresses that its plan has checked in the same call.
pub(super) fn launch(stream: &Stream, block: Block) -> Result<()> {
    // SAFETY: tables, state and status are buffers that the optimizer owns and that live until
    // their last enqueued use; their lengths are in the block, from the same `Layout` that made
    // them. Parameters and gradients were lent to this call for work on this stream; `Arguments`
    // (plan.rs) checked place, alignment and length, `check_overlap` that nothing written is
    // shared. Partials of others are buffers lent by reference, of the stream's device (checked in
    // `control`).
    unsafe { stream.launch(&Launch::Optim(block)) }
}
