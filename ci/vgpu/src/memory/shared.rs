//! A block's shared memory (LDS): bytes with definedness, races between its threads, and data that
//! is still on its way.

use super::race::{Access, Mark, RaceShadow};
use super::{Bytes, Fault, Loaded, Word};
use crate::finding::Kind;

/// What is ordered before what among a block's waves: vector clocks. A barrier joins the clocks of
/// the waves that meet at it; a wave's own clock also advances where its lanes meet.
#[derive(Debug, Clone)]
pub struct Order {
    /// log2 of a wave's lanes.
    lanes: u32,
    /// Whether lanes of one wave are always ordered among themselves (they are on gfx90a, where a
    /// wave's LDS operations are done in order; not on NVIDIA's).
    lockstep: bool,
    waves: usize,
    /// What wave w knows of wave v's clock, at `w * waves + v`.
    clocks: Vec<u32>,
}

impl Order {
    /// Waves, of a power of two of lanes, that have not met yet.
    pub fn new(waves: usize, lanes: u32, lockstep: bool) -> Self {
        let mut clocks = vec![0; waves * waves];
        (0..waves).for_each(|w| clocks[w * waves + w] = 1);
        Self { lanes: lanes.trailing_zeros(), lockstep, waves, clocks }
    }

    /// The given waves meet at a barrier.
    pub fn meet(&mut self, waves: &[usize]) {
        let known: Vec<_> = waves.iter().map(|w| (*w, self.now(*w))).collect();
        self.meet_known(&known);
    }

    /// The given waves meet, each having finished what it did up to a time of its own clock. What it
    /// did later is still on its way, and the others do not know of it.
    pub fn meet_known(&mut self, waves: &[(usize, u32)]) {
        let mut joined = vec![0; self.waves];
        for &(w, done) in waves {
            let known = &self.clocks[w * self.waves..][..self.waves];
            for (v, (all, one)) in joined.iter_mut().zip(known).enumerate() {
                *all = (*all).max(if v == w { done } else { *one });
            }
        }
        for &(w, _) in waves {
            let own = self.now(w);
            let known = &mut self.clocks[w * self.waves..][..self.waves];
            known.copy_from_slice(&joined);
            known[w] = own + 1;
        }
    }

    /// A wave's own clock.
    #[inline]
    pub fn now(&self, wave: usize) -> u32 {
        self.clocks[wave * self.waves + wave]
    }

    /// Advances a wave's own clock, and gives the new time.
    pub fn tick(&mut self, wave: usize) -> u32 {
        self.clocks[wave * self.waves + wave] += 1;
        self.now(wave)
    }

    /// All lanes of one wave meet.
    pub fn meet_lanes(&mut self, wave: usize) {
        self.tick(wave);
    }

    #[inline]
    fn mark(&self, thread: u32) -> Mark {
        Mark { agent: thread, stamp: self.now((thread >> self.lanes) as usize) }
    }

    /// Whether what `mark` stands for comes before what `thread` does now.
    #[inline]
    fn before(&self, mark: Mark, thread: u32) -> bool {
        let (other, wave) = ((mark.agent >> self.lanes) as usize, (thread >> self.lanes) as usize);
        if other == wave {
            return self.lockstep || self.now(wave) > mark.stamp;
        }
        self.clocks[wave * self.waves + other] >= mark.stamp
    }
}

/// Shared memory of one block.
#[derive(Debug, Clone)]
pub struct SharedMemory {
    bytes: Bytes,
    races: RaceShadow,
    /// Who knows what of whom; the executor tells it of barriers.
    pub order: Order,
    /// 1 where data of an asynchronous copy is still on its way.
    pending: Vec<u8>,
    any_pending: usize,
    /// Whether accesses are checked for races.
    pub check_races: bool,
}

impl SharedMemory {
    /// `len` undefined bytes.
    pub fn new(len: usize, order: Order) -> Self {
        Self {
            bytes: Bytes::undefined(len),
            races: RaceShadow::new(len),
            order,
            pending: vec![0; len],
            any_pending: 0,
            check_races: true,
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn place(&self, address: u64, size: u32, kind: Kind) -> Result<usize, Fault> {
        let len = self.len() as u64;
        if address < len && u64::from(size) <= len - address {
            return Ok(address as usize);
        }
        Err(Fault::new(
            kind,
            format!("{size} bytes at {address} of shared memory, which has {len}"),
        ))
    }

    #[inline]
    fn check(&mut self, access: Access, at: usize, size: usize, thread: u32) -> Option<Fault> {
        if self.any_pending > 0 && self.pending[at..at + size].contains(&1) {
            let what = "an asynchronous copy to here was not waited for";
            return Some(Fault::new(Kind::MissingWait, format!("{access:?}: {what}")));
        }
        if !self.check_races {
            return None;
        }
        let order = &self.order;
        let me = order.mark(thread);
        let conflict = self.races.access(access, at, size, me, |m| order.before(m, thread))?;
        Some(Fault::new(
            Kind::SharedRace,
            format!("{access:?} after {:?} of thread {}", conflict.earlier, conflict.other),
        ))
    }

    /// A thread's load of 1, 2, 4 or 8 bytes.
    #[inline]
    pub fn load(&mut self, address: u64, size: u32, thread: u32) -> Result<Loaded, Fault> {
        let mut word = [Word::known(0)];
        let fault = self.load_words(address, size, &mut word, thread)?;
        Ok(Loaded { word: word[0], fault })
    }

    /// A thread's load of words of `size` bytes side by side: one access.
    #[inline]
    pub fn load_words(
        &mut self,
        address: u64,
        size: u32,
        words: &mut [Word],
        thread: u32,
    ) -> Result<Option<Fault>, Fault> {
        let all = size * words.len() as u32;
        let at = self.place(address, all, Kind::ReadOutOfBounds)?;
        let fault = self.check(Access::Read, at, all as usize, thread);
        self.bytes.load_words(at, size as usize, words);
        Ok(fault)
    }

    /// A thread's store of 1, 2, 4 or 8 bytes; a race comes back beside it.
    #[inline]
    pub fn store(
        &mut self,
        address: u64,
        size: u32,
        word: Word,
        thread: u32,
    ) -> Result<Option<Fault>, Fault> {
        let at = self.place(address, size, Kind::WriteOutOfBounds)?;
        let fault = self.check(Access::Write, at, size as usize, thread);
        self.bytes.store(at, size as usize, word);
        Ok(fault)
    }

    /// A thread's atomic operation of 2, 4 or 8 bytes.
    pub fn atomic(
        &mut self,
        address: u64,
        size: u32,
        thread: u32,
        new: impl FnOnce(Word) -> Word,
    ) -> Result<Loaded, Fault> {
        let at = self.place(address, size, Kind::WriteOutOfBounds)?;
        let fault = self.check(Access::Atomic, at, size as usize, thread);
        let old = self.bytes.load(at, size as usize);
        self.bytes.store(at, size as usize, new(old));
        Ok(Loaded { word: old, fault })
    }

    /// An asynchronous copy to `size` bytes begins: what was there is gone, what comes is not there.
    pub fn begin_async(
        &mut self,
        address: u64,
        size: u32,
        thread: u32,
    ) -> Result<Option<Fault>, Fault> {
        let at = self.place(address, size, Kind::WriteOutOfBounds)?;
        let fault = self.check(Access::Write, at, size as usize, thread);
        self.bytes.poison(at, size as usize);
        self.mark_pending(at, size as usize, 1);
        Ok(fault)
    }

    /// The copy's data arrives: written now, by the thread that waited for it.
    pub fn end_async(&mut self, address: u64, words: &[Word], thread: u32) -> Option<Fault> {
        let at = address as usize;
        self.mark_pending(at, 4 * words.len(), 0);
        for (i, word) in words.iter().enumerate() {
            self.bytes.store(at + 4 * i, 4, *word);
        }
        self.check(Access::Write, at, 4 * words.len(), thread)
    }

    fn mark_pending(&mut self, at: usize, size: usize, to: u8) {
        for byte in &mut self.pending[at..at + size] {
            self.any_pending = self.any_pending + usize::from(to) - usize::from(*byte);
            *byte = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(lockstep: bool) -> SharedMemory {
        SharedMemory::new(64, Order::new(3, 32, lockstep))
    }

    fn fault(result: Result<Option<Fault>, Fault>) -> Option<Kind> {
        result.unwrap().map(|f| f.kind)
    }

    #[test]
    fn a_barrier_orders_those_who_meet_and_no_others() {
        let mut shared = memory(false);
        assert_eq!(fault(shared.store(0, 4, Word::known(1), 0)), None);
        shared.order.meet(&[0, 1]);
        assert_eq!(shared.load(0, 4, 40).unwrap().fault, None);
        assert_eq!(shared.load(0, 4, 70).unwrap().fault.unwrap().kind, Kind::SharedRace);
        // What wave 1 learns at the first barrier reaches wave 2 at the second.
        shared.order.meet(&[1, 2]);
        assert_eq!(shared.load(0, 4, 70).unwrap().fault, None);
    }

    #[test]
    fn lanes_of_a_wave_are_ordered_by_lockstep_or_by_meeting() {
        let mut shared = memory(false);
        shared.store(0, 4, Word::known(1), 0).unwrap();
        assert!(shared.load(0, 4, 1).unwrap().fault.is_some());
        shared.order.meet_lanes(0);
        assert!(shared.load(0, 4, 2).unwrap().fault.is_none());
        let mut shared = memory(true);
        shared.store(0, 4, Word::known(1), 0).unwrap();
        assert!(shared.load(0, 4, 1).unwrap().fault.is_none());
    }

    #[test]
    fn data_is_poison_until_it_is_waited_for() {
        let mut shared = memory(false);
        shared.store(0, 4, Word::known(1), 0).unwrap();
        shared.begin_async(0, 4, 0).unwrap();
        let early = shared.load(0, 4, 0).unwrap();
        assert_eq!((early.word.defined, early.fault.unwrap().kind), (0xf0, Kind::MissingWait));
        assert_eq!(shared.end_async(0, &[Word::known(5)], 0), None);
        assert_eq!(shared.load(0, 4, 0).unwrap(), Loaded { word: Word::known(5), fault: None });
        assert!(shared.load(0, 4, 33).unwrap().fault.is_some());
    }
}
