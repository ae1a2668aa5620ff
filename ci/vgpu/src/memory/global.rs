//! Global memory: allocations in an address map.
//!
//! Addresses are never given out twice, so that an access to freed memory is recognised for as long
//! as the memory lives; between allocations there is a gap that belongs to nobody.
//!
//! The memories of several devices, and host memory that devices can reach, are one address space:
//! each allocation has a home, and a launch sees the homes that it is allowed to.

use super::allocation::{Allocation, HOST};
use super::footprint::{Footprint, Touched};
use super::publish::{Publication, THREADS};
use super::race::{Access, RaceShadow};
use super::{Bytes, Fault, Loaded, Word};
use crate::finding::Kind;

/// The lowest address. Below lie the windows of other memories; the host maps nothing near it, so
/// that a host which reads a device's address is stopped.
const BASE: u64 = 0x1000_0000_0000;
/// What starts of allocations are multiples of.
const ALIGNMENT: u64 = 256;
/// Bytes between allocations that belong to nobody.
const GAP: u64 = 4096;

/// All of a device's global memory.
#[derive(Debug)]
pub struct GlobalMemory {
    /// By ascending address.
    allocations: Vec<Allocation>,
    next: u64,
    /// Number of the launch that runs, for telling its accesses from earlier ones.
    launch: u32,
    /// The allocation that was used last.
    last: usize,
    /// Allocations that the running launch touched, if that is noted.
    touched: Vec<usize>,
    /// What is ordered before what in the running launch; the executor tells it of barriers and
    /// fences.
    pub order: Publication,
    /// Whether accesses are checked for races.
    pub check_races: bool,
    /// Whether it is noted what a launch touches, for [`take_footprint`](Self::take_footprint).
    pub note_footprint: bool,
    /// Whether loads and stores are the kind that others like them do not race with, and that take part
    /// in the order of blocks.
    pub strong: bool,
    /// The homes that a launch may reach, a bit each.
    pub visible: u64,
    /// Where new allocations belong.
    pub home: u32,
}

impl Default for GlobalMemory {
    fn default() -> Self {
        Self {
            allocations: Vec::new(),
            next: BASE,
            launch: 1,
            last: 0,
            touched: Vec::new(),
            order: Publication::default(),
            check_races: true,
            note_footprint: false,
            strong: false,
            visible: u64::MAX,
            home: 0,
        }
    }
}

impl GlobalMemory {
    /// Empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Undefined memory of `len` bytes.
    pub fn allocate(&mut self, len: u64, name: impl Into<String>) -> u64 {
        self.insert(Bytes::undefined(len as usize), name.into())
    }

    /// Memory with contents.
    pub fn allocate_with(&mut self, data: Vec<u8>, name: impl Into<String>) -> u64 {
        self.insert(Bytes::known(data), name.into())
    }

    /// Lets devices reach the host's memory at `start`, at the same address.
    ///
    /// # Safety
    /// As for [`Bytes::host`], until the memory is freed here.
    pub unsafe fn map_host(
        &mut self,
        start: *mut u8,
        len: usize,
        name: impl Into<String>,
    ) -> Result<u64, Fault> {
        let (base, end) = (start as u64, start as u64 + len as u64);
        // The host may give out again what was freed.
        self.allocations.retain(|a| a.live || a.base + a.len <= base || a.base >= end);
        if self.allocations.iter().any(|a| a.base < end && base < a.base + a.len) {
            return Err(Fault::new(Kind::WriteOutOfBounds, "this memory is mapped already"));
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { Bytes::host(start, len) };
        let at = self.allocations.partition_point(|a| a.base < base);
        self.allocations.insert(at, Allocation::new(base, bytes, name.into(), HOST));
        self.last = usize::MAX;
        Ok(base)
    }

    fn insert(&mut self, bytes: Bytes, name: String) -> u64 {
        let (base, len) = (self.next, bytes.len() as u64);
        self.next = (base + len + GAP).next_multiple_of(ALIGNMENT);
        let allocation = Allocation::new(base, bytes, name, self.home);
        let at = self.allocations.partition_point(|a| a.base < base);
        self.allocations.insert(at, allocation);
        base
    }

    /// Forbids kernels to write an allocation.
    pub fn make_constant(&mut self, base: u64) {
        if let Some(i) = self.find(base) {
            self.allocations[i].constant = true;
        }
    }

    /// Frees the allocation that starts at `base`.
    pub fn free(&mut self, base: u64) -> Result<(), Fault> {
        match self.find(base).map(|i| &mut self.allocations[i]) {
            Some(a) if a.base == base && a.live => {
                a.live = false;
                a.bytes = Bytes::default();
                a.races = RaceShadow::default();
                a.touched = Touched::default();
                Ok(())
            }
            Some(a) if a.base == base => {
                Err(Fault::new(Kind::UseAfterFree, format!("{} was freed before", a.name)))
            }
            _ => Err(Fault::new(Kind::ReadOutOfBounds, format!("{base:#x} starts no allocation"))),
        }
    }

    /// A new launch: its blocks race among themselves, not with earlier launches.
    pub fn begin_launch(&mut self) {
        self.launch += 1;
        self.order.begin_launch();
        self.touched.clear();
        // It may see less than the one before.
        self.last = usize::MAX;
    }

    /// What the launch touched that just ended.
    pub fn take_footprint(&mut self) -> Footprint {
        let mut footprint = Footprint::default();
        for i in std::mem::take(&mut self.touched) {
            let a = &mut self.allocations[i];
            a.touched.take(a.base, &mut footprint);
        }
        footprint
    }

    /// The living allocation that an address lies in.
    pub fn allocation(&self, address: u64) -> Option<&Allocation> {
        let a = &self.allocations[self.find(address)?];
        (a.live && address - a.base < a.len.max(1)).then_some(a)
    }

    /// The allocations, freed ones included, by address.
    pub fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// The allocation at or below an address.
    fn find(&self, address: u64) -> Option<usize> {
        self.allocations.partition_point(|a| a.base <= address).checked_sub(1)
    }

    /// The allocation and the offset of an access, if it lies inside a living one.
    #[inline]
    fn place(&mut self, address: u64, size: u64, access: Access) -> Result<(usize, usize), Fault> {
        if let Some(a) = self.allocations.get(self.last) {
            let offset = address.wrapping_sub(a.base);
            if offset < a.len && size <= a.len - offset && a.live && !a.constant {
                return Ok((self.last, offset as usize));
            }
        }
        self.search(address, size, access)
    }

    fn search(&mut self, address: u64, size: u64, access: Access) -> Result<(usize, usize), Fault> {
        let outside = match access {
            Access::Read => Kind::ReadOutOfBounds,
            Access::Write | Access::Atomic => Kind::WriteOutOfBounds,
        };
        let Some(i) = self.find(address) else {
            return Err(Fault::new(outside, format!("{size} bytes, below every allocation")));
        };
        let a = &self.allocations[i];
        let offset = address - a.base;
        let Allocation { name, len, .. } = a;
        if !a.live {
            return Err(Fault::new(
                Kind::UseAfterFree,
                format!("{size} bytes at {offset} of {name} ({len} bytes), which was freed"),
            ));
        }
        if offset >= a.len || size > a.len - offset {
            return Err(Fault::new(
                outside,
                format!("{size} bytes at {offset} of {name}, which has {len}"),
            ));
        }
        if a.home != HOST && self.visible >> a.home & 1 == 0 {
            let home = a.home;
            return Err(Fault::new(
                outside,
                format!("{name} is memory of device {home}, which this one has no access to"),
            ));
        }
        if a.constant && access != Access::Read {
            return Err(Fault::new(Kind::WriteToConstant, name.clone()));
        }
        self.last = i;
        Ok((i, offset as usize))
    }

    /// A load by a thread (see [`agent`](super::agent())) of 1, 2, 4 or 8 bytes. The executor checks alignment of the whole
    /// access with [`aligned`](Self::aligned).
    #[inline]
    pub fn load(&mut self, address: u64, size: u32, agent: u32) -> Result<Loaded, Fault> {
        let mut word = [Word::known(0)];
        let fault = self.load_words(address, size, &mut word, agent)?;
        Ok(Loaded { word: word[0], fault })
    }

    /// A load of words of `size` bytes side by side: one access.
    #[inline]
    pub fn load_words(
        &mut self,
        address: u64,
        size: u32,
        words: &mut [Word],
        agent: u32,
    ) -> Result<Option<Fault>, Fault> {
        let all = size as usize * words.len();
        let (i, at) = self.place(address, all as u64, Access::Read)?;
        let fault = if self.strong {
            self.order.see(address, agent);
            self.race(Access::Atomic, i, at, all, agent)
        } else {
            self.race(Access::Read, i, at, all, agent)
        };
        self.allocations[i].bytes.load_words(at, size as usize, words);
        Ok(fault)
    }

    /// A store by a block's thread of 1, 2, 4 or 8 bytes; a race comes back beside it.
    #[inline]
    pub fn store(
        &mut self,
        address: u64,
        size: u32,
        word: Word,
        agent: u32,
    ) -> Result<Option<Fault>, Fault> {
        self.store_words(address, size, &[word], agent)
    }

    /// A store of words of `size` bytes side by side: one access.
    #[inline]
    pub fn store_words(
        &mut self,
        address: u64,
        size: u32,
        words: &[Word],
        agent: u32,
    ) -> Result<Option<Fault>, Fault> {
        let all = size as usize * words.len();
        let (i, at) = self.place(address, all as u64, Access::Write)?;
        let fault = if self.strong {
            self.order.replace(address, agent);
            self.race(Access::Atomic, i, at, all, agent)
        } else {
            self.race(Access::Write, i, at, all, agent)
        };
        let bytes = &mut self.allocations[i].bytes;
        for (n, word) in words.iter().enumerate() {
            bytes.store(at + n * size as usize, size as usize, *word);
        }
        Ok(fault)
    }

    /// A load that sees what was published there, and that no store of others races with.
    pub fn observe(&mut self, address: u64, size: u32, agent: u32) -> Result<Loaded, Fault> {
        let (i, at) = self.place(address, size.into(), Access::Read)?;
        self.order.see(address, agent);
        let launch = self.launch;
        let a = &mut self.allocations[i];
        if self.note_footprint && a.touched.mark(Access::Read, at, size as usize, launch) {
            self.touched.push(i);
        }
        Ok(Loaded { word: a.bytes.load(at, size as usize), fault: None })
    }

    /// An atomic exchange of 2, 4 or 8 bytes: `new` makes the new value of the old one, which comes
    /// back.
    pub fn atomic(
        &mut self,
        address: u64,
        size: u32,
        agent: u32,
        new: impl FnOnce(Word) -> Word,
    ) -> Result<Loaded, Fault> {
        let (i, at) = self.place(address, size.into(), Access::Atomic)?;
        let fault = self.race(Access::Atomic, i, at, size as usize, agent);
        if self.check_races {
            self.order.atomic(address, agent);
        }
        let bytes = &mut self.allocations[i].bytes;
        let old = bytes.load(at, size as usize);
        bytes.store(at, size as usize, new(old));
        Ok(Loaded { word: old, fault })
    }

    #[inline]
    fn race(
        &mut self,
        access: Access,
        i: usize,
        at: usize,
        size: usize,
        agent: u32,
    ) -> Option<Fault> {
        let launch = self.launch;
        let a = &mut self.allocations[i];
        if self.note_footprint && a.touched.mark(access, at, size, launch) {
            self.touched.push(i);
        }
        if !self.check_races {
            return None;
        }
        let order = &self.order;
        let conflict = a.races.access(access, at, size, order.mark(agent), |mark| {
            order.before(mark, agent)
                || access == Access::Atomic && order.publisher(a.base + at as u64, mark)
        })?;
        let (block, thread) = (conflict.other / THREADS, conflict.other % THREADS);
        Some(Fault::new(
            Kind::GlobalRace,
            format!(
                "byte {at} of {}: {access:?} after {:?} of block {block} thread {thread}",
                a.name, conflict.earlier
            ),
        ))
    }

    /// Whether `address` is a multiple of `alignment`.
    pub fn aligned(address: u64, alignment: u64) -> Result<(), Fault> {
        if address.is_multiple_of(alignment) {
            return Ok(());
        }
        Err(Fault::new(Kind::Misaligned, format!("needs a multiple of {alignment}")))
    }

    /// Writes from the host.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        let (i, at) = self.search(address, data.len() as u64, Access::Read)?;
        self.allocations[i].bytes.write(at, data);
        Ok(())
    }

    /// Writes `pattern` `count` times from the host.
    pub fn fill(&mut self, address: u64, pattern: &[u8], count: u64) -> Result<(), Fault> {
        let bytes = count.saturating_mul(pattern.len() as u64);
        if bytes == 0 {
            return Ok(());
        }
        let (i, at) = self.search(address, bytes, Access::Write)?;
        self.allocations[i].bytes.repeat(at, pattern, count as usize);
        Ok(())
    }

    /// Reads from the host, undefined bytes as poison.
    pub fn read(&mut self, address: u64, len: u64) -> Result<Vec<u8>, Fault> {
        if len == 0 {
            return Ok(Vec::new());
        }
        // Bounds first: nobody has memory for any length.
        self.search(address, len, Access::Read)?;
        let mut out = vec![0; len as usize];
        self.read_into(address, &mut out)?;
        Ok(out)
    }

    /// Reads from the host into memory that is there, undefined bytes as poison.
    pub fn read_into(&mut self, address: u64, out: &mut [u8]) -> Result<(), Fault> {
        if out.is_empty() {
            return Ok(());
        }
        let (i, at) = self.search(address, out.len() as u64, Access::Read)?;
        self.allocations[i].bytes.read(at, out);
        Ok(())
    }

    /// The first address of a range whose byte is undefined.
    pub fn first_undefined(&mut self, address: u64, len: u64) -> Result<Option<u64>, Fault> {
        if len == 0 {
            return Ok(None);
        }
        let (i, at) = self.search(address, len, Access::Read)?;
        let a = &self.allocations[i];
        Ok(a.bytes.first_undefined(at, len as usize).map(|byte| a.base + byte as u64))
    }

    /// Copies between allocations, definedness included.
    pub fn copy(&mut self, to: u64, from: u64, len: u64) -> Result<(), Fault> {
        if len == 0 {
            return Ok(());
        }
        let (source, start) = self.search(from, len, Access::Read)?;
        let (target, at) = self.search(to, len, Access::Write)?;
        let (at, start, len) = (at, start, len as usize);
        if source == target {
            self.allocations[source].bytes.copy_within(at, start, len);
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.allocations[source].bytes);
        self.allocations[target].bytes.copy_from(at, &bytes, start, len);
        self.allocations[source].bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
