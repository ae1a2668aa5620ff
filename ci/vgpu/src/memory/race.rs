//! Who touched which bytes, for finding races: the same shadow serves threads of a block on shared
//! memory and blocks of a launch on global memory.
//!
//! The caller says what "ordered" means; the shadow keeps the last writer and two unordered readers.
//! Two are as good as all of them: a writer conflicts with some reader exactly if one of two distinct
//! ones is not itself.

/// One access to remember: who, and when in a count that is the caller's. Stamps start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The thread or block.
    pub agent: u32,
    /// When; 0 is never.
    pub stamp: u32,
}

/// What is done to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Plain read.
    Read,
    /// Plain write.
    Write,
    /// Read and write at once, which only plain accesses can conflict with.
    Atomic,
}

/// Two accesses with nothing to order them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// What the earlier one did.
    pub earlier: Access,
    /// Who did it.
    pub other: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Granule {
    write: Mark,
    reads: [Mark; 2],
    atomics: [Mark; 2],
}

/// log2 of the bytes of a page of the shadow.
const PAGE: usize = 12;

/// The marks of one page, which has granules of the size of its narrowest access so far.
#[derive(Debug, Clone)]
struct Page {
    granules: Vec<Granule>,
    /// log2 of a granule's bytes.
    shift: u32,
}

/// The shadow of one piece of memory: pages that are made when they are touched.
#[derive(Debug, Clone, Default)]
pub struct RaceShadow {
    pages: Vec<Option<Box<Page>>>,
    bytes: usize,
}

impl RaceShadow {
    /// The shadow of `bytes` bytes. Costs nothing until the first access.
    pub fn new(bytes: usize) -> Self {
        Self { pages: Vec::new(), bytes }
    }

    /// Checks an access of `size` bytes at `at` against what was recorded, and records it.
    #[inline]
    pub fn access(
        &mut self,
        access: Access,
        at: usize,
        size: usize,
        me: Mark,
        ordered: impl Fn(Mark) -> bool,
    ) -> Option<Conflict> {
        let inside = at & ((1 << PAGE) - 1);
        if inside + size <= 1 << PAGE {
            return self.page(at >> PAGE).access(access, inside, size, me, &ordered);
        }
        let first = (1 << PAGE) - inside;
        let conflict = self.page(at >> PAGE).access(access, inside, first, me, &ordered);
        // The rest, page by page.
        self.access(access, at + first, size - first, me, &ordered as &dyn Fn(Mark) -> bool)
            .or(conflict)
    }

    #[inline]
    fn page(&mut self, index: usize) -> &mut Page {
        if self.pages.is_empty() {
            self.pages = vec![None; (self.bytes >> PAGE) + 1];
        }
        // What is shorter than a page needs no whole one.
        let bytes = (self.bytes - (index << PAGE)).min(1 << PAGE);
        self.pages[index].get_or_insert_with(|| {
            let granules = vec![Granule::default(); bytes.div_ceil(4)];
            Box::new(Page { granules, shift: 2 })
        })
    }
}

impl Page {
    #[inline]
    fn access(
        &mut self,
        access: Access,
        at: usize,
        size: usize,
        me: Mark,
        ordered: &impl Fn(Mark) -> bool,
    ) -> Option<Conflict> {
        while (at | size) & ((1 << self.shift) - 1) != 0 {
            self.refine();
        }
        let mut conflict = None;
        for granule in &mut self.granules[at >> self.shift..(at + size) >> self.shift] {
            conflict = granule.access(access, me, ordered).or(conflict);
        }
        conflict
    }

    /// Halves the granules.
    fn refine(&mut self) {
        self.granules = self.granules.iter().flat_map(|g| [*g, *g]).collect();
        self.shift -= 1;
    }
}

impl Granule {
    #[inline]
    fn access(
        &mut self,
        access: Access,
        me: Mark,
        ordered: &impl Fn(Mark) -> bool,
    ) -> Option<Conflict> {
        let open = |mark: &Mark| mark.stamp != 0 && mark.agent != me.agent && !ordered(*mark);
        let find = |marks: &[Mark], earlier| {
            marks.iter().find(|m| open(m)).map(|m| Conflict { earlier, other: m.agent })
        };
        let mut conflict = find(&[self.write], Access::Write);
        if access != Access::Read {
            conflict = conflict.or_else(|| find(&self.reads, Access::Read));
        }
        if access != Access::Atomic {
            conflict = conflict.or_else(|| find(&self.atomics, Access::Atomic));
        }
        let keep = |marks: &mut [Mark; 2]| {
            let same = marks.iter().position(|m| m.agent == me.agent && m.stamp != 0);
            if let Some(i) = same.or_else(|| marks.iter().position(|m| !open(m))) {
                marks[i] = me;
            }
        };
        match access {
            Access::Read => keep(&mut self.reads),
            Access::Atomic => keep(&mut self.atomics),
            Access::Write => self.write = me,
        }
        conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never(_: Mark) -> bool {
        false
    }
    fn by(agent: u32) -> Mark {
        Mark { agent, stamp: 1 }
    }

    #[test]
    fn any_reader_conflicts_with_a_writer() {
        for writer in 0..3 {
            let mut shadow = RaceShadow::new(64);
            for reader in 0..3 {
                assert_eq!(shadow.access(Access::Read, 8, 4, by(reader), never), None);
            }
            let found = shadow.access(Access::Write, 8, 4, by(writer), never).unwrap();
            assert!(found.earlier == Access::Read && found.other != writer);
        }
    }

    #[test]
    fn neighbours_do_not_conflict_at_any_width() {
        let mut shadow = RaceShadow::new(64);
        for i in 0..64 {
            assert_eq!(shadow.access(Access::Write, i, 1, by(i as u32), never), None);
        }
        assert!(shadow.access(Access::Read, 4, 4, by(4), never).is_some());
    }

    #[test]
    fn atomics_conflict_only_with_plain_accesses() {
        let mut shadow = RaceShadow::new(8);
        assert_eq!(shadow.access(Access::Atomic, 0, 4, by(1), never), None);
        assert_eq!(shadow.access(Access::Atomic, 0, 4, by(2), never), None);
        assert_eq!(
            shadow.access(Access::Read, 0, 4, by(2), never),
            Some(Conflict { earlier: Access::Atomic, other: 1 })
        );
    }

    #[test]
    fn accesses_over_pages_are_seen_on_both() {
        let mut shadow = RaceShadow::new(3 << PAGE);
        let end = 1 << PAGE;
        assert_eq!(shadow.access(Access::Write, end - 4, 2 * end, by(1), never), None);
        for at in [end - 4, end, 2 * end, 3 * end - 8] {
            assert!(shadow.access(Access::Read, at, 4, by(2), never).is_some(), "{at}");
        }
        assert_eq!(shadow.access(Access::Read, 3 * end - 4, 4, by(2), never), None);
    }

    #[test]
    fn what_is_ordered_is_forgotten() {
        let mut shadow = RaceShadow::new(8);
        shadow.access(Access::Write, 0, 4, by(1), never);
        assert_eq!(shadow.access(Access::Write, 0, 4, by(2), |m| m.stamp < 2), None);
    }
}
