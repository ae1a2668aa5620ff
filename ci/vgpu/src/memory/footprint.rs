//! Which bytes a whole operation (a launch, a copy) read and wrote, so that operations that nothing
//! orders can be compared with each other. Unlike the shadow for races between blocks, no reader is
//! ever forgotten.

use std::ops::Range;

use super::race::Access;

/// log2 of the bytes of a page.
const PAGE: usize = 12;
/// Ranges that are added one by one.
const FEW: usize = 8;
const WORDS: usize = (1 << PAGE) / 64;

/// Addresses as ascending ranges with gaps between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range that begins at or after the start of the last one.
    fn push(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.0.push(range),
        }
    }

    /// Adds all of `other`. A few ranges are put in their places: long lists meet many short ones.
    pub fn add(&mut self, other: &Self) {
        if other.0.len() <= FEW {
            return other.0.iter().cloned().for_each(|range| self.insert(range));
        }
        let mut all: Vec<_> = self.0.drain(..).chain(other.0.iter().cloned()).collect();
        all.sort_unstable_by_key(|range| range.start);
        all.into_iter().for_each(|range| self.push(range));
    }

    /// Adds a range anywhere.
    fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|mine| mine.end < range.start);
        let last = first + self.0[first..].partition_point(|mine| mine.start <= range.end);
        let start = self.0.get(first).map_or(range.start, |mine| mine.start.min(range.start));
        let end = self.0[first..last].last().map_or(range.end, |mine| mine.end.max(range.end));
        let whole = if first == last { range } else { start..end };
        self.0.splice(first..last, [whole]);
    }

    /// The first address that both have.
    pub fn overlap(&self, other: &Self) -> Option<u64> {
        let (few, many) = if self.0.len() <= other.0.len() { (self, other) } else { (other, self) };
        few.0.iter().find_map(|range| {
            let at = many.0.partition_point(|theirs| theirs.end <= range.start);
            let start = many.0.get(at)?.start.max(range.start);
            (start < range.end).then_some(start)
        })
    }

    /// How many different sectors of 32 bytes they lie in: what memory has to move.
    pub fn sectors(&self) -> u64 {
        let mut next = 0;
        let each = self.0.iter().map(|range| {
            let (first, end) = ((range.start / 32).max(next), range.end.div_ceil(32));
            next = end;
            end.saturating_sub(first)
        });
        each.sum()
    }

    /// How many addresses.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
}

impl From<Range<u64>> for Ranges {
    fn from(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.push(range);
        ranges
    }
}

/// What an operation touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Plain reads.
    pub reads: Ranges,
    /// Plain writes, and what begins or ends the life of memory.
    pub writes: Ranges,
    /// Atomic accesses, which only plain ones can conflict with.
    pub atomics: Ranges,
}

impl Footprint {
    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.atomics.add(&other.atomics);
    }

    /// The first address that both touch and one of them writes, and what each does there: `self`
    /// first.
    pub fn conflict(&self, other: &Self) -> Option<(u64, Access, Access)> {
        use Access::{Atomic, Read, Write};
        let pairs = [
            (&self.writes, Write, &other.writes, Write),
            (&self.writes, Write, &other.reads, Read),
            (&self.reads, Read, &other.writes, Write),
            (&self.writes, Write, &other.atomics, Atomic),
            (&self.atomics, Atomic, &other.writes, Write),
            (&self.reads, Read, &other.atomics, Atomic),
            (&self.atomics, Atomic, &other.reads, Read),
        ];
        pairs.into_iter().find_map(|(a, x, b, y)| a.overlap(b).map(|address| (address, x, y)))
    }
}

/// One page's bytes, a bit each, by kind of access.
#[derive(Debug, Clone)]
struct Page {
    launch: u32,
    bits: [[u64; WORDS]; 3],
}

/// What the running launch touched of one allocation. Pages that it has not touched keep what
/// earlier launches left.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    pages: Vec<Option<Box<Page>>>,
    bytes: usize,
    /// Pages of the running launch.
    current: Vec<u32>,
}

impl Touched {
    /// For `bytes` bytes of memory.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Notes an access; true if it is the first of the launch.
    #[inline]
    pub fn mark(&mut self, access: Access, at: usize, size: usize, launch: u32) -> bool {
        let first = self.current.is_empty();
        let (mut at, end) = (at, at + size);
        while at < end {
            let page = self.page(at >> PAGE, launch);
            let inside = at & ((1 << PAGE) - 1);
            let count = (64 - inside % 64).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << (inside % 64);
            page.bits[access as usize][inside / 64] |= mask;
            at += count;
        }
        first
    }

    #[inline]
    fn page(&mut self, index: usize, launch: u32) -> &mut Page {
        if self.pages.is_empty() {
            self.pages = vec![None; (self.bytes >> PAGE) + 1];
        }
        let page = self.pages[index]
            .get_or_insert_with(|| Box::new(Page { launch: 0, bits: [[0; WORDS]; 3] }));
        if page.launch != launch {
            page.launch = launch;
            page.bits = [[0; WORDS]; 3];
            self.current.push(index as u32);
        }
        page
    }

    /// Adds what was touched to `footprint`, as addresses from `base`, and begins anew.
    pub fn take(&mut self, base: u64, footprint: &mut Footprint) {
        let mut pages = std::mem::take(&mut self.current);
        pages.sort_unstable();
        let all = [
            (Access::Read, &mut footprint.reads),
            (Access::Write, &mut footprint.writes),
            (Access::Atomic, &mut footprint.atomics),
        ];
        for (access, ranges) in all {
            let mut mine = Ranges::default();
            for index in &pages {
                let Some(page) = &self.pages[*index as usize] else { continue };
                let start = base + (u64::from(*index) << PAGE);
                for (i, word) in page.bits[access as usize].iter().enumerate() {
                    runs(*word, |bits| {
                        let from = start + 64 * i as u64;
                        mine.push(from + bits.start..from + bits.end);
                    });
                }
            }
            ranges.add(&mine);
        }
    }
}

/// The runs of ones in a word.
fn runs(mut word: u64, mut run: impl FnMut(Range<u64>)) {
    let mut at = 0;
    while word != 0 {
        let zeros = word.trailing_zeros();
        word >>= zeros;
        at += u64::from(zeros);
        let ones = word.trailing_ones();
        run(at..at + u64::from(ones));
        at += u64::from(ones);
        word = word.checked_shr(ones).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_bytes_become_ranges() {
        let mut touched = Touched::new(3 << PAGE);
        assert!(touched.mark(Access::Write, 60, 8, 1));
        assert!(!touched.mark(Access::Write, 68, 4, 1));
        touched.mark(Access::Write, (1 << PAGE) - 2, 4, 1);
        touched.mark(Access::Read, 0, 1, 1);
        let mut footprint = Footprint::default();
        touched.take(1000, &mut footprint);
        assert_eq!(footprint.writes.0, [1060..1072, 5094..5098]);
        assert_eq!((footprint.writes.bytes(), footprint.reads.bytes()), (16, 1));
        // A new launch has touched nothing.
        touched.mark(Access::Read, 64, 64, 2);
        let mut footprint = Footprint::default();
        touched.take(0, &mut footprint);
        assert_eq!((footprint.writes.0.len(), footprint.reads.0[0].clone()), (0, 64..128));
    }

    #[test]
    fn a_conflict_needs_a_writer_and_a_common_byte() {
        let reads = |range: Range<u64>| Footprint { reads: range.into(), ..Footprint::default() };
        let writes = |range: Range<u64>| Footprint { writes: range.into(), ..Footprint::default() };
        let atomics =
            |range: Range<u64>| Footprint { atomics: range.into(), ..Footprint::default() };
        assert_eq!(reads(0..8).conflict(&reads(0..8)), None);
        assert_eq!(atomics(0..8).conflict(&atomics(0..8)), None);
        assert_eq!(writes(0..8).conflict(&writes(8..16)), None);
        assert_eq!(writes(0..8).conflict(&reads(7..16)), Some((7, Access::Write, Access::Read)));
        assert_eq!(reads(0..8).conflict(&atomics(4..8)), Some((4, Access::Read, Access::Atomic)));
        let mut many = writes(0..4);
        many.add(&writes(16..20));
        many.add(&writes(4..8));
        assert_eq!(many.writes.0, [0..8, 16..20]);
        assert_eq!(many.conflict(&writes(8..17)), Some((16, Access::Write, Access::Write)));
    }

    #[test]
    fn ranges_are_sets_of_addresses() {
        let mut state = 1u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let (mut ranges, mut naive) = (Ranges::default(), [false; 256]);
            for _ in 0..draw(20) {
                let mut more = Ranges::default();
                for _ in 0..draw(20) {
                    let start = draw(200);
                    let range = start..start + draw(8);
                    more.insert(range.clone());
                    naive[range.start as usize..range.end as usize].fill(true);
                }
                ranges.add(&more);
            }
            let count = |naive: &[bool]| naive.iter().filter(|byte| **byte).count() as u64;
            assert_eq!(ranges.bytes(), count(&naive));
            assert!(ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            let sectors = naive.chunks(32).filter(|sector| count(sector) > 0).count() as u64;
            assert_eq!(ranges.sectors(), sectors);
            let (start, len) = (draw(200), 1 + draw(8));
            let first = (start..start + len).find(|at| naive[*at as usize]);
            assert_eq!(ranges.overlap(&(start..start + len).into()), first);
        }
    }
}
