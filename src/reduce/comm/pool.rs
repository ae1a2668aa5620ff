//! Buffers that collectives are received in, or sent from, used again when nobody holds their parts.

#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::ALIGN;
use crate::{Buffer, Device, Result};

/// Buffers that are kept, at most: more lengths than that do not come again and again.
const MOST: usize = 256;

/// Buffers of one communicator, or of the all-reduces of one thread.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Arc<Buffer<u8>>>);

impl Pool {
    /// The smallest free buffer that has the room, or a new one.
    pub fn take(&mut self, device: &Device, bytes: usize) -> Result<Buffer<u8>> {
        self.take_of(device, bytes..=2 * bytes)
    }

    /// A free buffer of this length, or a new one.
    pub fn take_exactly(&mut self, device: &Device, bytes: usize) -> Result<Buffer<u8>> {
        self.take_of(device, bytes..=bytes)
    }

    fn take_of(&mut self, device: &Device, bytes: RangeInclusive<usize>) -> Result<Buffer<u8>> {
        let fits =
            |at: &usize| bytes.contains(&self.0[*at].len()) && device.reaches(self.0[*at].device());
        let found = (0..self.0.len()).filter(|&at| self.free(at)).filter(fits);
        if let Some(at) = found.min_by_key(|&at| self.0[at].len())
            && let Ok(buffer) = Arc::try_unwrap(self.0.remove(at))
        {
            return Ok(buffer);
        }
        device.zeros(*bytes.start())
    }

    /// A buffer that something was received in: free again when all that is returned is dropped.
    pub fn keep(&mut self, buffer: Buffer<u8>) -> Arc<Buffer<u8>> {
        if self.0.len() >= MOST
            && let Some(longest_unused) = (0..self.0.len()).find(|&at| self.free(at))
        {
            self.0.remove(longest_unused);
        }
        let buffer = Arc::new(buffer);
        self.0.push(buffer.clone());
        buffer
    }

    fn free(&self, at: usize) -> bool {
        Arc::strong_count(&self.0[at]) == 1
    }
}

/// Where what `peer` sends lies in `rank`'s receive buffer, which has no room for its own part.
pub(super) fn slot(peer: usize, rank: usize, part: usize) -> usize {
    (peer - usize::from(peer > rank)) * part.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slots of a receive buffer are one after the other, aligned, and none is a rank's own.
    #[test]
    fn slots_are_aligned_and_apart() {
        for (rank, slots) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
            assert_eq!(slots.map(|peer| slot(peer, rank, 17)), [0, 32]);
        }
    }

    #[test]
    fn a_buffer_is_used_again_once_its_parts_are_dropped() {
        let (device, mut pool) = (Device::cpu(), Pool::default());
        let buffer = pool.take(&device, 64).unwrap();
        let (first, held) = (buffer.address(), pool.keep(buffer));
        assert_ne!(pool.take(&device, 64).unwrap().address(), first);
        drop(held);
        assert_eq!(pool.take(&device, 48).unwrap().address(), first);
        assert_ne!(pool.take(&device, 48).unwrap().address(), first);
    }

    #[test]
    fn a_buffer_of_a_length_is_of_that_length() {
        let (device, mut pool) = (Device::cpu(), Pool::default());
        let buffer = pool.take_exactly(&device, 64).unwrap();
        let first = buffer.address();
        drop(pool.keep(buffer));
        assert_eq!(pool.take_exactly(&device, 48).unwrap().len(), 48);
        assert_eq!(pool.take_exactly(&device, 64).unwrap().address(), first);
    }

    /// Of lengths that do not come again, those that were used last are kept, and those that somebody holds.
    #[test]
    fn no_more_than_some_are_kept() {
        let (device, mut pool) = (Device::cpu(), Pool::default());
        let address = |pool: &mut Pool, bytes| {
            let buffer = pool.take_exactly(&device, bytes).unwrap();
            (buffer.address(), pool.keep(buffer))
        };
        let (held, first) = address(&mut pool, 1);
        for bytes in 2..2 * MOST {
            address(&mut pool, bytes);
        }
        assert_eq!(pool.0.len(), MOST);
        drop(first);
        assert_eq!(address(&mut pool, 1).0, held);
        assert!(pool.0.iter().all(|buffer| buffer.len() == 1 || buffer.len() > MOST));
    }
}
