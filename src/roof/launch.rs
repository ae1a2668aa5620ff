//! The launch of a roof: arguments in, one parameter block out. The one place of this op that is unsafe.

use crate::kernel::Launch;
use crate::kernel::params::roof::{Block, Roof};
use crate::{Buffer, Result, Stream};

/// Adds to `count` how many multiply-adds there were: in so many blocks, so many steps.
pub(super) fn enqueue(
    stream: &Stream,
    row: fn(Roof) -> Block,
    count: &mut Buffer<u64>,
    (blocks, steps): (u64, u64),
) -> Result<()> {
    assert_eq!(count.len(), 1, "one number");
    let block = Roof { multiply_adds: count.address(), steps, blocks, one: 1.0, padding: 0 };
    // SAFETY: one u64, reached through `&mut`.
    unsafe { stream.launch(&Launch::Roof(row(block))) }
}
