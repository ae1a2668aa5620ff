//! Bytes that cost only what is touched: zeroed memory of any size, or somebody else's memory.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// From this size on memory is mapped, so that pages nobody touched cost nothing.
const MAP_FROM: usize = 1 << 20;

/// Who gives the bytes back, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// A boxed slice.
    Heap,
    /// A mapping.
    Map,
    /// Somebody else.
    Host,
}

/// A run of bytes with a fixed address.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

// SAFETY: a region owns its bytes as a box does. Memory of the host is lent with `Region::host`,
// whose caller answers for it.
unsafe impl Send for Region {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Region {}

impl Region {
    /// `len` bytes of zero.
    pub fn zeroed(len: usize) -> Self {
        if len < MAP_FROM {
            return vec![0; len].into();
        }
        // Without a reservation: the kernel would refuse more than there is memory, touched or not.
        // SAFETY: a new private mapping; nothing else is at the address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let start = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED);
        let start = start.unwrap_or_else(|| panic!("no address space for {len} bytes"));
        Self { start, len, owner: Owner::Map }
    }

    /// `len` bytes of one.
    pub fn ones(len: usize) -> Self {
        let mut region = Self::zeroed(len);
        region.fill(1);
        region
    }

    /// The host's memory at `start`.
    ///
    /// # Safety
    /// The bytes are readable and writable for as long as the region lives, and nobody uses them
    /// while a method of this module runs, or the two accept that they see half of what the other
    /// wrote.
    pub unsafe fn host(start: *mut u8, len: usize) -> Self {
        let start = NonNull::new(start).unwrap_or(NonNull::dangling());
        Self { start, len, owner: Owner::Host }
    }

    /// Whether it is the host's memory.
    pub fn is_host(&self) -> bool {
        self.owner == Owner::Host
    }
}

impl From<Vec<u8>> for Region {
    fn from(data: Vec<u8>) -> Self {
        let boxed = Box::leak(data.into_boxed_slice());
        Self { len: boxed.len(), start: NonNull::from(boxed).cast(), owner: Owner::Heap }
    }
}

impl Default for Region {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl Clone for Region {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.owner {
            Owner::Heap => {
                let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
                // SAFETY: leaked from a box of this length in `from`.
                drop(unsafe { Box::from_raw(slice) });
            }
            Owner::Map => {
                // SAFETY: mapped with this length in `zeroed`, unmapped only here.
                unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
            }
            Owner::Host => {}
        }
    }
}

impl Deref for Region {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are one live allocation, initialised, as the constructors say.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Region {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the region is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_memory_costs_what_is_touched() {
        let mut region = Region::zeroed(1 << 42);
        region[1 << 41] = 7;
        assert_eq!((region[(1 << 41) - 1], region[1 << 41]), (0, 7));
    }

    #[test]
    fn the_hosts_memory_is_written_in_place() {
        let mut data = [1, 2, 3];
        // SAFETY: `data` outlives the region and is not used while it lives.
        let mut region = unsafe { Region::host(data.as_mut_ptr(), 3) };
        region[1] = 9;
        drop(region);
        assert_eq!(data, [1, 9, 3]);
    }
}
