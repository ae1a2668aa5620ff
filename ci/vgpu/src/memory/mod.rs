//! Memory with checks: global memory as allocations in an address map, a block's shared memory, and
//! the shadows they share.

mod allocation;
mod bytes;
mod footprint;
mod global;
mod publish;
mod race;
mod region;
mod shared;

pub use allocation::{Allocation, HOST};
pub use bytes::{Bytes, POISON, Word};
pub use footprint::{Footprint, Ranges};
pub use global::GlobalMemory;
pub use publish::{Publication, agent};
pub use race::{Access, Conflict, Mark, RaceShadow};
pub use region::Region;
pub use shared::{Order, SharedMemory};

use crate::finding::Kind;

/// What is wrong with one access; the executor adds who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The check that fired.
    pub kind: Kind,
    /// Which allocation, how far off, who else.
    pub detail: String,
}

impl Fault {
    /// A fault with its description.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// What a load gives: the value and, beside it, a race if there is one. A load that cannot be made
/// at all is an `Err` instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The value.
    pub word: Word,
    /// A conflict with another thread or block, or data still on its way.
    pub fault: Option<Fault>,
}
