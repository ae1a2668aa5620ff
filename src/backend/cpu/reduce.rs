//! The kernels of `reduce` on the CPU: `reduce::reference`, cut into tasks and compiled for the
//! processor's vector units.

use super::threads::Threads;
use super::wide::{Work, vector};
use crate::kernel::params::PARTIAL_CHUNK;
use crate::kernel::params::reduce::{Accumulate, Block, INT8};
use crate::reduce::reference;
use crate::{Dtype, Storage, bf16, f16};
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Elements of one task: as for partials, small enough for the first-level cache.
const TASK: usize = PARTIAL_CHUNK;

/// Calls `$body` with `$G` and `$W` as the types that the two codes stand for.
macro_rules! with_types {
    ($g:expr, $w:expr, |$G:ident, $W:ident| $body:expr) => {
        with_type!($g, |$G| with_type!($w, |$W| $body))
    };
}
macro_rules! with_type {
    ($code:expr, |$T:ident| $body:expr) => {{
        const BF16: u32 = Dtype::Bf16 as u32;
        const F16: u32 = Dtype::F16 as u32;
        const F32: u32 = Dtype::F32 as u32;
        match $code {
            BF16 => {
                type $T = bf16;
                $body
            }
            F16 => {
                type $T = f16;
                $body
            }
            F32 => {
                type $T = f32;
                $body
            }
            code => unreachable!("storage type {code} in a parameter block"),
        }
    }};
}

mod fixed;
mod in_place;
mod int8;
mod pack;
mod strips;
mod sum;
#[cfg(test)]
mod tests;
mod unpack;

pub(crate) use sum::total;

/// What MPI adds with: [`reference::add`].
#[cfg(feature = "mpi")]
pub(crate) fn add<T: Storage>(from: &[T], to: &mut [T]) {
    struct Adding<'a, T>(&'a [T], &'a mut [T]);
    impl<T: Storage> Work for Adding<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            reference::add(self.0, self.1);
        }
    }
    vector(Adding(from, to));
}

/// Runs one kernel.
///
/// # Safety
/// The addresses in the block are valid for the lengths it gives, and outputs are not touched by
/// anything else meanwhile.
pub(super) unsafe fn run(threads: &Threads, block: &Block) {
    // SAFETY (all): the caller's promise, passed on unchanged.
    match block {
        Block::Pack(b) => with_types!(b.gradient_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            pack::run::<G, W>(threads, b)
        }),
        Block::Accumulate(b) => with_type!(b.gradient_type, |G| unsafe {
            // SAFETY: as above.
            run_accumulate::<G>(threads, b)
        }),
        Block::Sum(b) if b.from_type == INT8 => unsafe {
            // SAFETY: as above.
            int8::run_sum(threads, b)
        },
        Block::Sum(b) => with_types!(b.from_type, b.to_type, |W, T| unsafe {
            // SAFETY: as above.
            sum::run::<W, T>(threads, b)
        }),
        Block::SumFixed(b) => with_types!(b.from_type, b.to_type, |V, T| unsafe {
            // SAFETY: as above.
            fixed::run_sum::<V, T>(threads, b)
        }),
        Block::Unpack(b) if b.wire == INT8 => with_type!(b.gradient_type, |G| unsafe {
            // SAFETY: as above.
            unpack::run::<G, int8::Blocks>(threads, b)
        }),
        Block::Unpack(b) => with_types!(b.gradient_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            unpack::run::<G, unpack::Elements<W>>(threads, b)
        }),
        Block::Quantize(b) => unsafe {
            // SAFETY: as above.
            int8::run_quantize(threads, b)
        },
        Block::InPlace(b) => with_types!(b.value_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            in_place::run::<G, W>(threads, b)
        }),
        Block::Measure(b) | Block::Encode(b) | Block::Decode(b) => {
            with_type!(b.value_type, |G| unsafe {
                // SAFETY: as above.
                fixed::run::<G>(threads, block, b)
            })
        }
    }
}

/// Whether shards of so many elements are too long for the caches, with those of other ranks beside them.
fn large_shard<W>(len: u64) -> bool {
    len * size_of::<W>() as u64 >= 1 << 20
}

/// `[start, start + len)` of task `i`.
fn task(i: usize, len: usize) -> (usize, usize) {
    let start = i * TASK;
    (start, TASK.min(len - start))
}

/// # Safety
/// See [`run`].
unsafe fn run_accumulate<G: Storage>(threads: &Threads, block: &Accumulate) {
    let len = block.len as usize;
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        // SAFETY: the caller's promise; tasks do not overlap.
        let (g, sum) = unsafe {
            (
                from_raw_parts((block.gradient as *const G).add(start), len),
                from_raw_parts_mut((block.accumulated as *mut f32).add(start), len),
            )
        };
        vector(Accumulating { gradient: g, sum });
    });
}

/// A gradient, and what it is added to.
struct Accumulating<'a, G> {
    gradient: &'a [G],
    sum: &'a mut [f32],
}

impl<G: Storage> Work for Accumulating<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        reference::accumulate(self.gradient, self.sum);
    }
}
