//! Buckets into gradients.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::super::fold;
use super::super::past::LARGE;
use super::super::threads::Threads;
use super::super::wide::{Work, vector};
use super::strips::{Make, make_all};
use crate::Storage;
use crate::kernel::params::reduce::{Piece, Target, Unpack};
use crate::kernel::params::{PARTIAL_CHUNK, Partial};
use crate::optim::round::Lane;
use crate::reduce::reference;

/// How a bucket's shards are read.
pub(super) trait Shard {
    /// What the elements are, or become.
    type Value: Lane;

    /// Elements `at..at + len` of a shard, where they lie.
    ///
    /// # Safety
    /// The shard is valid for as many elements, as long as the slice is used.
    unsafe fn lent<'a>(shard: u64, at: usize, len: usize) -> Option<&'a [Self::Value]>;

    /// The same, copied.
    ///
    /// # Safety
    /// The shard is valid for as many elements.
    unsafe fn read(shard: u64, at: usize, to: &mut [Self::Value]);
}

/// Shards of elements of a storage type.
pub(super) struct Elements<W>(std::marker::PhantomData<W>);

impl<W: Lane> Shard for Elements<W> {
    type Value = W;

    unsafe fn lent<'a>(shard: u64, at: usize, len: usize) -> Option<&'a [W]> {
        // SAFETY: the caller's promise.
        Some(unsafe { from_raw_parts((shard as *const W).add(at), len) })
    }

    unsafe fn read(shard: u64, at: usize, to: &mut [W]) {
        // SAFETY: as above.
        to.copy_from_slice(unsafe { from_raw_parts((shard as *const W).add(at), to.len()) });
    }
}

/// # Safety
/// See [`run`](super::run); and no two pieces of the list share elements.
pub(super) unsafe fn run<G: Storage, S: Shard>(threads: &Threads, block: &Unpack) {
    let shard = block.shard as usize;
    let past = block.count * PARTIAL_CHUNK as u64 >= LARGE;
    threads.run(block.count as usize, |i| {
        // SAFETY: the caller's promise: so many pieces, and a target for each one's tensor.
        let (Piece { start, len, tensor }, target) = unsafe {
            let piece = *(block.pieces as *const Piece).add(i);
            (piece, *(block.targets as *const Target).add(piece.tensor as usize))
        };
        if target.to == 0 {
            return;
        }
        let (start, len) = (start as usize, len as usize);
        let within = start - target.offset as usize;
        // SAFETY: the caller's promise; pieces do not overlap.
        let to = unsafe { from_raw_parts_mut((target.to as *mut G).add(within), len) };
        // SAFETY: as above: one address for each shard.
        let address = |at: usize| unsafe { *(block.shards as *const u64).add(at / shard) };
        let (at, factor) = (start % shard, block.factor);
        // SAFETY: as above.
        let lent = (at + len <= shard).then(|| unsafe { S::lent(address(start), at, len) });
        let partial = match lent.flatten() {
            Some(from) => vector(Unpacking { means: Means { from, factor }, to, tensor, past }),
            None => {
                let mut room = [S::Value::narrow(0.0); PARTIAL_CHUNK];
                let from = &mut room[..len];
                let mut done = 0;
                while done < len {
                    let at = start + done;
                    let some = (shard - at % shard).min(len - done);
                    // SAFETY: as above.
                    unsafe { S::read(address(at), at % shard, &mut from[done..done + some]) };
                    done += some;
                }
                vector(Unpacking { means: Means { from, factor }, to, tensor, past })
            }
        };
        let place = target.partial as usize + within / PARTIAL_CHUNK;
        // SAFETY: the caller's promise: one partial for each piece.
        unsafe { *(block.partials as *mut Partial).add(place) = partial }
    });
}

/// What is unpacked.
pub(super) struct Means<'a, V> {
    pub from: &'a [V],
    pub factor: f32,
}

impl<V: Storage, G: Storage> Make<G> for Means<'_, V> {
    #[inline(always)]
    fn make(&mut self, at: usize, to: &mut [G]) {
        reference::unpack(&self.from[at..at + to.len()], to, self.factor);
    }
}

/// A piece of a tensor, and where it goes.
pub(super) struct Unpacking<'a, V, G> {
    pub means: Means<'a, V>,
    pub to: &'a mut [G],
    pub tensor: u32,
    pub past: bool,
}

impl<V: Lane, G: Storage> Work for Unpacking<'_, V, G> {
    type Output = Partial;

    #[inline(always)]
    fn run<const FUSED: bool>(mut self) -> Partial {
        let Means { from, factor } = self.means;
        // Of the f32 before their last rounding; and then what was read is in the cache.
        let partial = fold::partial(self.tensor, from, factor);
        make_all(self.to, &mut self.means, self.past);
        partial
    }
}
