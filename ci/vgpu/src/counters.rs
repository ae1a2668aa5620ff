//! What a kernel did, counted.

use std::fmt;

/// Classes that instructions are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Moves, conversions, selections, permutations.
    Move,
    /// Integer and logic arithmetic.
    Integer,
    /// f32 and narrower floating point, packed forms included.
    Float,
    /// f64.
    Double,
    /// Approximate functions.
    Special,
    /// Matrix products.
    Matrix,
    /// Accesses of global, generic and buffer memory.
    Global,
    /// Accesses of shared memory (LDS), matrix loads included.
    Shared,
    /// Accesses of private (local), parameter and constant memory.
    Private,
    /// Copies from global to shared memory that go on in the background, and waits.
    Async,
    /// Atomics of any memory.
    Atomic,
    /// Exchanges between lanes.
    CrossLane,
    /// Barriers and fences.
    Barrier,
    /// Branches, calls and exits.
    Control,
    /// Instructions of a scalar unit.
    Scalar,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Move,
        Self::Integer,
        Self::Float,
        Self::Double,
        Self::Special,
        Self::Matrix,
        Self::Global,
        Self::Shared,
        Self::Private,
        Self::Async,
        Self::Atomic,
        Self::CrossLane,
        Self::Barrier,
        Self::Control,
        Self::Scalar,
    ];
}

/// Counts of one launch. A wave's instruction counts once, however many of its lanes take part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Wave instructions by class, in the order of [`Class::ALL`].
    by_class: [u64; Class::ALL.len()],
    /// Lanes that took part, summed over instructions.
    pub lane_instructions: u64,
    /// Instructions that ran with some of the wave's living lanes off.
    pub divergent: u64,
    /// Passes over shared memory beyond the fewest that the bytes need.
    pub bank_conflicts: u64,
    /// 32-byte sectors of global memory that accesses touched, counted for each instruction.
    pub sectors: u64,
    /// Sectors that the same bytes would touch if they were side by side.
    pub ideal_sectors: u64,
}

impl Counters {
    /// Counts one instruction with `lanes` taking part out of `alive`.
    pub fn count(&mut self, class: Class, lanes: u32, alive: u32) {
        self.by_class[class as usize] += 1;
        self.lane_instructions += u64::from(lanes);
        self.divergent += u64::from(lanes < alive);
    }

    /// Wave instructions by class, those that occurred.
    pub fn instructions(&self) -> impl Iterator<Item = (Class, u64)> {
        Class::ALL.into_iter().zip(self.by_class).filter(|(_, n)| *n > 0)
    }

    /// All wave instructions.
    pub fn total(&self) -> u64 {
        self.by_class.iter().sum()
    }

    /// Adds another launch's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.by_class.iter_mut().zip(other.by_class) {
            *sum += n;
        }
        self.lane_instructions += other.lane_instructions;
        self.divergent += other.divergent;
        self.bank_conflicts += other.bank_conflicts;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
    }

    /// Counts the sectors of one wave-wide access of `size` bytes a lane.
    pub fn global_access(&mut self, addresses: impl Iterator<Item = u64> + Clone, size: u64) {
        let sectors = |address: u64| address / 32..(address + size).div_ceil(32);
        // Most accesses are ascending: each sector is met in a row.
        let (mut lanes, mut touched, mut next, mut ascending) = (0, 0, 0, true);
        for address in addresses.clone() {
            let these = sectors(address);
            lanes += 1;
            ascending &= these.start + 1 >= next;
            touched += these.end.saturating_sub(these.start.max(next));
            next = these.end.max(next);
        }
        if !ascending {
            let mut list: Vec<u64> = addresses.flat_map(sectors).collect();
            list.sort_unstable();
            list.dedup();
            touched = list.len() as u64;
        }
        self.sectors += touched;
        self.ideal_sectors += (lanes * size).div_ceil(32).min(touched);
    }

    /// Counts the bank conflicts of one wave-wide access of `size` bytes a lane: `banks` (32 at most)
    /// of 4 bytes serve one word each a pass, equal words together. Wide accesses are served in groups
    /// of lanes that need each bank once at best.
    pub fn shared_access(&mut self, addresses: impl Iterator<Item = u64>, size: u64, banks: usize) {
        let group = (4 * banks as u64 / size.max(4)).max(1);
        let (mut words, mut lanes) = (Banks::default(), 0);
        for address in addresses {
            (address / 4..(address + size).div_ceil(4)).for_each(|word| words.take(word, banks));
            lanes += 1;
            if lanes % group == 0 {
                self.bank_conflicts += std::mem::take(&mut words).conflicts(banks);
            }
        }
        self.bank_conflicts += words.conflicts(banks);
    }
}

/// The words that a group of lanes wants of each bank.
#[derive(Default)]
struct Banks {
    /// The first word of each bank that is wanted, and others that are.
    first: [Option<u64>; 32],
    more: Vec<u64>,
}

impl Banks {
    #[inline]
    fn take(&mut self, word: u64, banks: usize) {
        match &mut self.first[word as usize % banks] {
            Some(first) if *first == word => {}
            Some(_) => self.more.push(word),
            none => *none = Some(word),
        }
    }

    /// Passes beyond the first that the group needs.
    fn conflicts(mut self, banks: usize) -> u64 {
        self.more.sort_unstable();
        self.more.dedup();
        let mut load = [0_u64; 32];
        self.more.iter().for_each(|word| load[*word as usize % banks] += 1);
        load.into_iter().max().unwrap_or(0)
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "instructions {} (lanes {})", self.total(), self.lane_instructions)?;
        for (class, n) in self.instructions() {
            writeln!(f, "  {class:?} {n}")?;
        }
        writeln!(f, "divergent {}", self.divergent)?;
        writeln!(f, "bank conflicts {}", self.bank_conflicts)?;
        write!(f, "global sectors {} (ideal {})", self.sectors, self.ideal_sectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_and_their_ideal() {
        let mut c = Counters::default();
        c.global_access((0..32).map(|i| 4 * i), 4);
        assert_eq!((c.sectors, c.ideal_sectors), (4, 4));
        c.global_access((0..32).map(|i| 4 * i + 16), 4);
        assert_eq!((c.sectors, c.ideal_sectors), (9, 8));
        c.global_access((0..32).map(|i| 128 * i), 4);
        assert_eq!((c.sectors, c.ideal_sectors), (41, 12));
        c.global_access((0..32).map(|_| 64), 4);
        assert_eq!((c.sectors, c.ideal_sectors), (42, 13));
    }

    #[test]
    fn bank_conflicts_of_narrow_and_wide_accesses() {
        let conflicts = |stride: u64, size: u64| {
            let mut c = Counters::default();
            c.shared_access((0..32).map(|i| stride * i), size, 32);
            c.bank_conflicts
        };
        assert_eq!(
            (conflicts(4, 4), conflicts(8, 4), conflicts(128, 4), conflicts(0, 4)),
            (0, 1, 31, 0)
        );
        assert_eq!(
            (conflicts(8, 8), conflicts(16, 16), conflicts(128, 16), conflicts(80, 16)),
            (0, 0, 28, 0)
        );
    }
}
