//! What comes before what: vector clocks of the lanes, and the accesses that were made with them.
//!
//! A lane's time goes on in segments, which end where somebody could learn of it (an event, a
//! synchronisation): within a segment, whoever knows one operation knows of all.

use std::collections::BTreeMap;

use crate::memory::{Access, Footprint};

/// How far each lane's time is known: segment `clock[lane]` and all before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock(Vec<u32>);

impl Clock {
    /// The segment of `lane` that is known.
    pub fn get(&self, lane: usize) -> u32 {
        self.0.get(lane).copied().unwrap_or(0)
    }

    /// Makes a segment of `lane` known.
    pub fn set(&mut self, lane: usize, segment: u32) {
        if self.0.len() <= lane {
            self.0.resize(lane + 1, 0);
        }
        self.0[lane] = segment;
    }

    /// Learns all that `other` knows.
    pub fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// An operation, for what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// A kernel's name, or what a copy is called.
    pub what: String,
    /// Its stream.
    pub stream: u64,
}

/// Two operations that nothing orders, and the byte where they meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// The first such byte.
    pub address: u64,
    /// What the later one did there.
    pub mine: Access,
    /// What the earlier one did there.
    pub theirs: Access,
    /// The earlier one.
    pub other: Label,
}

/// Accesses that something may yet be unordered with, by lane and segment.
#[derive(Debug, Default)]
pub struct History {
    segments: BTreeMap<(usize, u32), Vec<(Label, Footprint)>>,
}

impl History {
    /// Compares an operation of `lane` with all that are not before it, and remembers it.
    pub fn add(
        &mut self,
        lane: usize,
        clock: &Clock,
        label: Label,
        footprint: Footprint,
    ) -> Option<Meeting> {
        let unordered =
            |(other, segment): &(usize, u32)| *other != lane && clock.get(*other) < *segment;
        let earlier = self.segments.iter().filter(|(key, _)| unordered(key));
        let meeting = earlier.flat_map(|(_, list)| list).find_map(|(other, theirs)| {
            let (address, a, b) = footprint.conflict(theirs)?;
            Some(Meeting { address, mine: a, theirs: b, other: other.clone() })
        });
        let list = self.segments.entry((lane, clock.get(lane))).or_default();
        match list.iter_mut().find(|(other, _)| *other == label) {
            Some((_, sum)) => sum.add(&footprint),
            None => list.push((label, footprint)),
        }
        meeting
    }

    /// Forgets the segments that `known` is true of.
    pub fn forget(&mut self, known: impl Fn(usize, u32) -> bool) {
        self.segments.retain(|(lane, segment), _| !known(*lane, *segment));
    }

    /// Segments that are remembered.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_compared_and_what_all_know_is_forgotten() {
        let label = |what: &str| Label { what: what.into(), stream: 0 };
        let writes = Footprint { writes: (0..8).into(), ..Footprint::default() };
        let clock = |known: [u32; 2]| {
            let mut clock = Clock::default();
            clock.set(0, known[0]);
            clock.set(1, known[1]);
            clock
        };
        let mut history = History::default();
        assert_eq!(history.add(0, &clock([1, 0]), label("a"), writes.clone()), None);
        assert_eq!(history.add(0, &clock([2, 0]), label("b"), writes.clone()), None);
        // Lane 1 knows the first segment of lane 0 and not the second.
        let meeting = history.add(1, &clock([1, 1]), label("c"), writes.clone()).unwrap();
        assert_eq!((meeting.other, meeting.address), (label("b"), 0));
        assert_eq!(history.add(1, &clock([2, 2]), label("d"), writes.clone()), None);
        history.forget(|lane, segment| lane == 0 && segment <= 2);
        assert_eq!(history.len(), 2);
        assert_eq!(history.add(1, &clock([0, 3]), label("e"), writes), None);
    }
}
