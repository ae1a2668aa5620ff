//! Sums of the ranks' parts.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::super::threads::Threads;
use super::super::wide::vector;
use super::strips::{Make, Making, STRIP};
use super::{TASK, large_shard, task};
use crate::Storage;
use crate::kernel::params::reduce::Sum;
use crate::reduce::reference;

/// # Safety
/// See [`run`](super::run).
pub(super) unsafe fn run<W: Storage, T: Storage>(threads: &Threads, block: &Sum) {
    let (len, ranks) = (block.len as usize, block.ranks as usize);
    // SAFETY: the caller's promise.
    let (addresses, weights) = unsafe {
        (
            from_raw_parts(block.parts as *const u64, ranks),
            from_raw_parts(block.weights as *const f32, ranks),
        )
    };
    // SAFETY: as above.
    let part = |&address| unsafe { from_raw_parts(address as *const W, len) };
    let parts: Vec<&[W]> = addresses.iter().map(part).collect();
    let (factor, past) = (block.factor, large_shard::<T>(block.len));
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        // SAFETY: the caller's promise; tasks do not overlap.
        let to = unsafe { from_raw_parts_mut((block.to as *mut T).add(start), len) };
        vector(Making { maker: Sums { parts: &parts, weights, start, factor }, to, past });
    });
}

/// What is summed: elements from `start` on of all parts.
pub(super) struct Sums<'a, W> {
    pub parts: &'a [&'a [W]],
    pub weights: &'a [f32],
    pub start: usize,
    pub factor: f32,
}

impl<W: Storage, T: Storage> Make<T> for Sums<'_, W> {
    #[inline(always)]
    fn make(&mut self, at: usize, to: &mut [T]) {
        let mut sums = [0.0f32; STRIP];
        let sums = &mut sums[..to.len()];
        let at = self.start + at;
        for (rank, (part, &weight)) in self.parts.iter().zip(self.weights).enumerate() {
            let part = &part[at..at + to.len()];
            reference::add_weighted::<W, W>(part, sums, weight, 1.0, rank == 0);
        }
        reference::round_mean::<T, T>(sums, to, self.factor);
    }
}

/// `to[i] = type(0 + Σ_r parts[r][i])`, `r` ascending, in f32: what a communicator's ranks add up on the host.
pub(crate) fn total<T: Storage>(parts: &[&[T]], to: &mut [T]) {
    let past = large_shard::<T>(to.len() as u64);
    vector(Making { maker: Total(parts), to, past });
}

struct Total<'a, T>(&'a [&'a [T]]);

impl<T: Storage> Make<T> for Total<'_, T> {
    #[inline(always)]
    fn make(&mut self, at: usize, to: &mut [T]) {
        let mut sums = [0.0f32; STRIP];
        let sums = &mut sums[..to.len()];
        for part in self.0 {
            reference::accumulate(&part[at..at + to.len()], sums);
        }
        reference::round_mean::<T, T>(sums, to, 1.0);
    }
}
