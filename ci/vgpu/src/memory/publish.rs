//! What of global memory is ordered before what in one launch: threads of a block by barriers, blocks
//! by what they publish.
//!
//! A block publishes by a fence and then an atomic operation; another one sees it by an atomic
//! operation on the same address and then a fence. This is how the last of several blocks learns
//! that it may sum what the others have written. Without either fence, nothing is ordered. A store with
//! release is a fence and a store that publishes, a load with acquire one that sees and a fence.
//!
//! Times are counts of a wave's own: they advance where the wave meets others and where it fences.
//! Blocks run one after the other, so only the waves of one are there at a time.

use std::collections::{BTreeMap, HashMap};

use super::race::Mark;

/// Threads that a block has at most; what numbers of threads in a launch are made with.
pub const THREADS: u32 = 1024;

/// The number of a block's thread in its launch. Of more than four million blocks some share theirs.
pub fn agent(block: u32, thread: u32) -> u32 {
    block.wrapping_mul(THREADS).wrapping_add(thread)
}

/// What is known of one wave: all that it did before a time, and what some lanes did until another.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    before: u32,
    lanes: u64,
    until: u32,
}

impl Known {
    /// Of two that no single one says as much as, the one that says more: less is only stricter.
    fn join(&mut self, other: Self) {
        if (self.before, self.until) == (other.before, other.until) {
            self.lanes |= other.lanes;
        } else if (other.before, other.until) > (self.before, self.until) {
            *self = other;
        }
    }

    fn covers(self, time: u32, lane: u32) -> bool {
        time < self.before || time <= self.until && self.lanes >> lane & 1 == 1
    }
}

/// What is known of blocks' waves.
type View = BTreeMap<u32, Vec<Known>>;

fn join(to: &mut View, from: &View) {
    for (block, waves) in from {
        let known = to.entry(*block).or_default();
        known.resize(known.len().max(waves.len()), Known::default());
        known.iter_mut().zip(waves).for_each(|(to, from)| to.join(*from));
    }
}

#[derive(Debug, Clone, Default)]
struct Wave {
    now: u32,
    /// When its lanes last met.
    met: u32,
    /// How far it knows its own block's waves to be, by barriers.
    known: Vec<u32>,
    /// What it knows by atomic operations, mostly of other blocks.
    view: View,
    /// What it had done and knew at its last fence: what its atomic operations publish.
    fenced: Option<View>,
    /// What its atomic operations have seen, known after the next fence.
    seen: View,
    /// The stores themselves that published what it knows, and what it has seen.
    stores: Vec<Mark>,
    seen_stores: Vec<Mark>,
}

/// The order of one launch.
#[derive(Debug, Clone)]
pub struct Publication {
    /// log2 of a wave's lanes.
    lanes: u32,
    lockstep: bool,
    block: u32,
    waves: Vec<Wave>,
    /// By address, what was published there, and the store that did it, if it was one.
    published: HashMap<u64, (View, Option<Mark>)>,
    /// Times from here on are the running launch's.
    first: u32,
    last: u32,
}

impl Default for Publication {
    /// Nothing was launched: a time of 0 would be never.
    fn default() -> Self {
        let (waves, published) = (Vec::new(), HashMap::new());
        Self { lanes: 0, lockstep: false, block: 0, waves, published, first: 1, last: 1 }
    }
}

impl Publication {
    /// A launch begins; all that was before is ordered before it.
    pub fn begin_launch(&mut self) {
        self.first = self.last + 1;
        self.last = self.first;
        self.waves.clear();
        self.published.clear();
    }

    /// A block begins. `lockstep`: lanes of one wave are always ordered among themselves.
    pub fn begin_block(&mut self, block: u32, waves: usize, lanes: u32, lockstep: bool) {
        (self.block, self.lanes, self.lockstep) = (block, lanes.trailing_zeros(), lockstep);
        let known = vec![0; waves];
        let wave = Wave { now: self.first, met: self.first, known, ..Wave::default() };
        self.waves.clear();
        self.waves.resize(waves, wave);
    }

    /// What an access of a thread is remembered by.
    #[inline]
    pub fn mark(&self, agent: u32) -> Mark {
        let wave = self.waves.get(((agent % THREADS) >> self.lanes) as usize);
        Mark { agent, stamp: wave.map_or(self.first, |wave| wave.now) }
    }

    /// Whether what `mark` stands for comes before what a thread does now.
    #[inline]
    pub fn before(&self, mark: Mark, agent: u32) -> bool {
        if mark.stamp < self.first {
            return true;
        }
        let (block, thread) = (mark.agent / THREADS, mark.agent % THREADS);
        let own = block == agent / THREADS;
        let my_wave = (agent % THREADS) >> self.lanes;
        // Where nobody tells of waves, blocks are all there is.
        let Some(me) = self.waves.get(my_wave as usize) else { return own };
        let wave = thread >> self.lanes;
        if own && wave == my_wave {
            return self.lockstep || mark.stamp < me.met;
        }
        if own && me.known[wave as usize] >= mark.stamp {
            return true;
        }
        if me.stores.contains(&mark) {
            return true;
        }
        if me.view.is_empty() {
            return false;
        }
        let lane = thread & ((1 << self.lanes) - 1);
        let known = me.view.get(&block).and_then(|waves| waves.get(wave as usize));
        known.is_some_and(|known| known.covers(mark.stamp, lane))
    }

    fn advance(&mut self, wave: usize) {
        self.waves[wave].now += 1;
        self.last = self.last.max(self.waves[wave].now);
    }

    /// A wave's clock advances: what it does next can be told from what it did before. The new time.
    pub fn tick(&mut self, wave: usize) -> u32 {
        self.advance(wave);
        self.waves[wave].now
    }

    /// A wave's own clock.
    pub fn now(&self, wave: usize) -> u32 {
        self.waves[wave].now
    }

    /// The given waves meet at a barrier.
    pub fn meet(&mut self, waves: &[usize]) {
        let known: Vec<_> = waves.iter().map(|w| (*w, self.waves[*w].now)).collect();
        self.meet_known(&known);
    }

    /// The given waves meet, each having finished what it did up to a time of its own clock. What it did
    /// later is still on its way, and the others do not know of it.
    pub fn meet_known(&mut self, waves: &[(usize, u32)]) {
        let (mut known, mut view) = (vec![0; self.waves.len()], View::new());
        let mut stores = Vec::new();
        for &(w, done) in waves {
            let wave = &self.waves[w];
            known.iter_mut().zip(&wave.known).for_each(|(all, one)| *all = (*all).max(*one));
            known[w] = known[w].max(done);
            join(&mut view, &wave.view);
            stores.extend_from_slice(&wave.stores);
        }
        stores.sort_unstable_by_key(|store| (store.agent, store.stamp));
        stores.dedup();
        for &(w, _) in waves {
            self.waves[w].stores.clone_from(&stores);
            self.waves[w].known.copy_from_slice(&known);
            self.waves[w].view.clone_from(&view);
            self.meet_lanes(w);
        }
    }

    /// All lanes of a wave meet.
    pub fn meet_lanes(&mut self, wave: usize) {
        self.advance(wave);
        self.waves[wave].met = self.waves[wave].now;
    }

    /// Lanes of a wave fence: what they did and know is what their atomic operations publish from
    /// now on. `all` is whether no other lane of the wave is left.
    pub fn release(&mut self, wave: usize, lanes: u64, all: bool) {
        let w = &self.waves[wave];
        let mut waves: Vec<Known> =
            w.known.iter().map(|time| Known { before: time + 1, ..Known::default() }).collect();
        // What other lanes did since they met these is not theirs to publish.
        waves[wave] = match all || self.lockstep {
            true => Known { before: w.now + 1, ..Known::default() },
            false => Known { before: w.met, lanes, until: w.now },
        };
        let mut view = View::from([(self.block, waves)]);
        join(&mut view, &w.view);
        self.waves[wave].fenced = Some(view);
        self.advance(wave);
    }

    /// A wave fences: what its atomic operations have seen is known now.
    pub fn acquire(&mut self, wave: usize) {
        let wave = &mut self.waves[wave];
        let seen = std::mem::take(&mut wave.seen);
        join(&mut wave.view, &seen);
        wave.stores.append(&mut wave.seen_stores);
    }

    /// A thread's load of the kind that sees what was published there.
    pub fn see(&mut self, address: u64, agent: u32) {
        let wave = (agent % THREADS) >> self.lanes;
        let Some(wave) = self.waves.get_mut(wave as usize) else { return };
        if let Some((published, store)) = self.published.get(&address) {
            join(&mut wave.seen, published);
            wave.seen_stores.extend(store);
        }
    }

    /// A thread's store of the kind that publishes: what was published there before is gone.
    pub fn replace(&mut self, address: u64, agent: u32) {
        let mark = self.mark(agent);
        let wave = (agent % THREADS) >> self.lanes;
        let Some(wave) = self.waves.get(wave as usize) else { return };
        let fenced = wave.fenced.clone().unwrap_or_default();
        // Where every access has a time of its own, the store's is known from the rest.
        let store = self.lockstep.then_some(mark);
        self.published.insert(address, (fenced, store));
    }

    /// Whether `mark` stands for the store that published here last.
    pub fn publisher(&self, address: u64, mark: Mark) -> bool {
        self.published.get(&address).is_some_and(|(_, store)| *store == Some(mark))
    }

    /// A thread's atomic operation.
    pub fn atomic(&mut self, address: u64, agent: u32) {
        let wave = (agent % THREADS) >> self.lanes;
        let Some(wave) = self.waves.get_mut(wave as usize) else { return };
        if let Some((published, store)) = self.published.get(&address) {
            join(&mut wave.seen, published);
            wave.seen_stores.extend(store);
        }
        if let Some(fenced) = &wave.fenced {
            join(&mut self.published.entry(address).or_default().0, fenced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block 0 writes with thread 1 and publishes with thread 0; block 1 looks.
    fn told(release: bool, barrier: bool, acquire: bool) -> bool {
        let mut order = Publication::default();
        order.begin_launch();
        order.begin_block(0, 2, 32, false);
        let write = order.mark(agent(0, 40));
        if barrier {
            order.meet(&[0, 1]);
        }
        if release {
            order.release(0, 1, false);
        }
        let late = order.mark(agent(0, 0));
        order.atomic(8, agent(0, 0));
        order.begin_block(1, 2, 32, false);
        order.atomic(8, agent(1, 0));
        if acquire {
            order.acquire(0);
        }
        // What came after the fence was not published by it.
        assert!(!order.before(late, agent(1, 0)));
        // Nor does the other wave know before it meets the one that does.
        assert!(!order.before(write, agent(1, 32)));
        order.meet(&[0, 1]);
        order.before(write, agent(1, 32))
    }

    #[test]
    fn blocks_are_ordered_by_fences_and_atomics_only() {
        assert!(told(true, true, true));
        assert!(!told(false, true, true));
        assert!(!told(true, false, true));
        assert!(!told(true, true, false));
    }

    #[test]
    fn a_fence_of_one_lane_is_not_the_other_lanes() {
        let mut order = Publication::default();
        order.begin_launch();
        order.begin_block(0, 1, 32, false);
        let (mine, other) = (order.mark(agent(0, 0)), order.mark(agent(0, 1)));
        order.release(0, 1, false);
        order.atomic(8, agent(0, 0));
        order.begin_block(1, 1, 32, false);
        order.atomic(8, agent(1, 0));
        order.acquire(0);
        assert!(order.before(mine, agent(1, 0)));
        assert!(!order.before(other, agent(1, 0)));
        order.begin_launch();
        assert!(order.before(other, agent(1, 0)));
    }

    #[test]
    fn threads_of_a_block_are_ordered_by_barriers() {
        let mut order = Publication::default();
        order.begin_launch();
        order.begin_block(0, 2, 32, false);
        let write = order.mark(agent(0, 3));
        assert!(!order.before(write, agent(0, 4)) && !order.before(write, agent(0, 40)));
        order.release(0, u64::MAX, true);
        assert!(!order.before(write, agent(0, 4)), "a fence is no meeting");
        order.meet_lanes(0);
        assert!(order.before(write, agent(0, 4)) && !order.before(write, agent(0, 40)));
        order.meet(&[0, 1]);
        assert!(order.before(write, agent(0, 40)));
    }
}
