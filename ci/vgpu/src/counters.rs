//! What a kernel did, counted.

use std::collections::BTreeMap;
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

/// Counts of one launch. A wave's instruction counts once, however many of its lanes take part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Wave instructions by class.
    pub instructions: BTreeMap<Class, u64>,
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
        *self.instructions.entry(class).or_default() += 1;
        self.lane_instructions += u64::from(lanes);
        self.divergent += u64::from(lanes < alive);
    }

    /// All wave instructions.
    pub fn total(&self) -> u64 {
        self.instructions.values().sum()
    }

    /// Adds another launch's counts.
    pub fn add(&mut self, other: &Self) {
        for (class, n) in &other.instructions {
            *self.instructions.entry(*class).or_default() += n;
        }
        self.lane_instructions += other.lane_instructions;
        self.divergent += other.divergent;
        self.bank_conflicts += other.bank_conflicts;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
    }

    /// Counts the sectors of one wave-wide access of `size` bytes a lane.
    pub fn global_access(&mut self, addresses: impl Iterator<Item = u64>, size: u64) {
        let mut touched: Vec<u64> =
            addresses.flat_map(|a| a / 32..(a + size).div_ceil(32).max(a / 32 + 1)).collect();
        let bytes = touched.len() as u64 * size.min(32);
        touched.sort_unstable();
        touched.dedup();
        self.sectors += touched.len() as u64;
        self.ideal_sectors += bytes.div_ceil(32).min(touched.len() as u64);
    }

    /// Counts the bank conflicts of one wave-wide access of `size` bytes a lane: `banks` of 4 bytes
    /// serve one word each a pass; equal words are served together.
    pub fn shared_access(&mut self, addresses: impl Iterator<Item = u64>, size: u64, banks: usize) {
        let mut words: Vec<u64> =
            addresses.flat_map(|a| a / 4..(a + size).div_ceil(4).max(a / 4 + 1)).collect();
        words.sort_unstable();
        words.dedup();
        let mut load = vec![0_u64; banks];
        for word in &words {
            load[*word as usize % banks] += 1;
        }
        let passes = load.into_iter().max().unwrap_or(0);
        self.bank_conflicts += passes - (words.len() as u64).div_ceil(banks as u64).min(passes);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "instructions {} (lanes {})", self.total(), self.lane_instructions)?;
        for (class, n) in &self.instructions {
            writeln!(f, "  {class:?} {n}")?;
        }
        writeln!(f, "divergent {}", self.divergent)?;
        writeln!(f, "bank conflicts {}", self.bank_conflicts)?;
        write!(f, "global sectors {} (ideal {})", self.sectors, self.ideal_sectors)
    }
}
