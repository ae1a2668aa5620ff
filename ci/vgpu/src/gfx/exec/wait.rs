//! What is still on its way, and what a wait is sure to have brought.
//!
//! Vector memory returns in order, LDS returns in order; scalar loads and flat accesses return in
//! any order, so that only a wait for all is a wait for one of them.

use std::collections::VecDeque;

/// What `s_waitcnt` waits for: at most so many of each left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub vm: u8,
    pub export: u8,
    pub lgkm: u8,
}

impl Wait {
    /// The counts in an instruction's constant.
    pub fn of(simm: u16) -> Self {
        let field = |low: u16, count: u16| (simm >> low & ((1 << count) - 1)) as u8;
        Self { vm: field(0, 4) | field(14, 2) << 4, export: field(4, 3), lgkm: field(8, 4) }
    }
}

/// Registers that a pending instruction will write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    pub scalar: bool,
    pub first: u16,
    pub count: u8,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    registers: Range,
    in_order: bool,
    /// When it was made, in the wave's clock of LDS or of global memory; 0 for others.
    stamp: u32,
}

/// A counter, and what it counts.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    entries: VecDeque<Entry>,
    /// How many pending instructions write each register: vector ones, then scalar ones.
    pending: Vec<u8>,
}

/// Scalar registers come after all vector registers.
const SCALARS: usize = 512;

impl Queue {
    /// Nothing on its way.
    pub fn new() -> Self {
        Self { entries: VecDeque::new(), pending: vec![0; SCALARS + 128] }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.pending.fill(0);
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn places(range: Range) -> std::ops::Range<usize> {
        let first = range.first as usize + if range.scalar { SCALARS } else { 0 };
        first..first + range.count as usize
    }

    /// An instruction is issued.
    pub fn push(&mut self, registers: Range, in_order: bool, stamp: u32) {
        self.pending[Self::places(registers)].iter_mut().for_each(|n| *n += 1);
        self.entries.push_back(Entry { registers, in_order, stamp });
    }

    /// Whether any of these registers is still to be written.
    #[inline]
    pub fn covers(&self, range: Range) -> bool {
        self.pending[Self::places(range)].iter().any(|n| *n > 0)
    }

    /// A wait until at most `left` are on their way.
    pub fn wait(&mut self, left: usize) {
        if left == 0 {
            for entry in std::mem::take(&mut self.entries) {
                self.arrive(entry.registers);
            }
            return;
        }
        // Any of those left may be the newest of those in order.
        let ordered = self.entries.iter().filter(|e| e.in_order).count();
        let mut done = ordered.saturating_sub(left);
        let entries = std::mem::take(&mut self.entries);
        for entry in entries {
            if entry.in_order && done > 0 {
                done -= 1;
                self.arrive(entry.registers);
            } else {
                self.entries.push_back(entry);
            }
        }
    }

    fn arrive(&mut self, registers: Range) {
        self.pending[Self::places(registers)].iter_mut().for_each(|n| *n -= 1);
    }

    /// When the oldest access that is not known to be done was made.
    pub fn oldest_stamp(&self) -> Option<u32> {
        self.entries.iter().map(|e| e.stamp).find(|stamp| *stamp != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(first: u16) -> Range {
        Range { scalar: false, first, count: 1 }
    }

    #[test]
    fn in_order_the_oldest_arrive() {
        let mut queue = Queue::new();
        (0..4).for_each(|r| queue.push(register(r), true, 0));
        queue.wait(1);
        assert_eq!([0, 1, 2, 3].map(|r| queue.covers(register(r))), [false, false, false, true]);
    }

    #[test]
    fn out_of_order_only_a_wait_for_all_is_enough() {
        let mut queue = Queue::new();
        queue.push(register(0), false, 0);
        queue.push(register(1), false, 0);
        queue.push(register(2), true, 0);
        queue.push(register(3), true, 0);
        queue.wait(1);
        assert_eq!([0, 1, 2, 3].map(|r| queue.covers(register(r))), [true, true, false, true]);
        queue.wait(0);
        assert_eq!([0, 1, 2, 3].map(|r| queue.covers(register(r))), [false; 4]);
    }

    #[test]
    fn counts_of_a_wait() {
        assert_eq!(Wait::of(0xc07f), Wait { vm: 63, export: 7, lgkm: 0 });
        assert_eq!(Wait::of(0x0f73), Wait { vm: 3, export: 7, lgkm: 15 });
    }
}
