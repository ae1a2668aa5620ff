//! What the checks report.

use std::collections::HashMap;
use std::fmt;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A read outside every allocation, or over the end of one.
    ReadOutOfBounds,
    /// A write outside every allocation, or over the end of one.
    WriteOutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// An address that is not a multiple of what the access needs.
    Misaligned,
    /// A write to constant memory or parameters.
    WriteToConstant,
    /// An undefined value stored to global memory.
    UndefinedStore,
    /// An undefined value used as an address.
    UndefinedAddress,
    /// An undefined value that decides a branch, a predicate of a guarded instruction included.
    UndefinedBranch,
    /// Two threads of a block use the same shared bytes, at least one writes, with no barrier between.
    SharedRace,
    /// Two threads of a launch use the same global bytes, at least one writes, and neither a barrier
    /// nor, between blocks, fences and atomic operations order them.
    GlobalRace,
    /// Two operations of streams that nothing orders use the same global bytes, at least one writes.
    StreamRace,
    /// A barrier reached by only a part of a wave.
    DivergentBarrier,
    /// Threads wait at a barrier that others will never reach.
    BarrierNotReached,
    /// Data of an asynchronous operation used before a wait for it.
    MissingWait,
    /// Lanes named in the mask of a collective instruction that do not take part in it.
    MaskedLaneAbsent,
    /// A value read from a lane that does not take part.
    InactiveLane,
}

/// One finding: the first place where a check fired for an instruction, and how often it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The kernel's name.
    pub kernel: String,
    /// The instruction's text.
    pub instruction: String,
    /// The block's index.
    pub block: [u32; 3],
    /// The thread's index in its block, counted x first.
    pub thread: u32,
    /// The address, where there is one.
    pub address: Option<u64>,
    /// The rest: which allocation, who else, how far off.
    pub detail: String,
    /// How often, all blocks and threads together.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "{:?}: {} block {x},{y},{z} thread {}", self.kind, self.kernel, self.thread)?;
        if let Some(address) = self.address {
            write!(f, " address {address:#x}")?;
        }
        write!(f, " `{}`", self.instruction)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if self.count > 1 {
            write!(f, " ({} times)", self.count)?;
        }
        Ok(())
    }
}

/// The findings of a launch: one for each kind and instruction, the repeats counted.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    place: HashMap<(Kind, u64), usize>,
}

impl Findings {
    /// Adds what `finding` makes, or counts a repeat. `instruction` is any number that stands for
    /// the instruction.
    pub fn report(&mut self, kind: Kind, instruction: u64, finding: impl FnOnce() -> Finding) {
        match self.place.get(&(kind, instruction)) {
            Some(&i) => self.list[i].count += 1,
            None => {
                self.place.insert((kind, instruction), self.list.len());
                self.list.push(Finding { kind, ..finding() });
            }
        }
    }

    /// What was found, in order.
    pub fn into_vec(self) -> Vec<Finding> {
        self.list
    }

    /// What was found so far.
    pub fn as_slice(&self) -> &[Finding] {
        &self.list
    }
}
