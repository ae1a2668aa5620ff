//! Gradients into buckets.

use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::threads::Threads;
use super::super::wide::{Work, vector};
use super::strips::{Make, STRIP, make_all};
use super::{TASK, large_shard, task};
use crate::kernel::params::reduce::Pack;
use crate::reduce::reference;
use crate::{Dtype, Storage};

/// # Safety
/// See [`run`](super::run).
pub(super) unsafe fn run<G: Storage, W: Storage>(threads: &Threads, block: &Pack) {
    let (len, shard) = (block.len as usize, block.shard as usize);
    let bad = AtomicU64::new(0);
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        let mut done = 0;
        // The bucket is cut in shards; so is a task that crosses from one into the next.
        while done < len {
            let at = block.offset as usize + start + done;
            let piece = (shard - at % shard).min(len - done);
            let to = block.bucket as usize + at / shard * block.stride as usize;
            // SAFETY: the caller's promise; tasks do not overlap.
            let found = unsafe {
                let to = from_raw_parts_mut((to as *mut W).add(at % shard), piece);
                pack_some::<G, W>(block, start + done, to)
            };
            bad.fetch_add(found, Ordering::Relaxed);
            done += piece;
        }
    });
    // SAFETY: one aligned u64, by the caller's promise; all tasks have ended.
    unsafe { *(block.non_finite as *mut u64) += bad.into_inner() }
}

/// Packs the elements from `start` on that go to `to`.
///
/// # Safety
/// See [`run`](super::run).
unsafe fn pack_some<G: Storage, W: Storage>(block: &Pack, start: usize, to: &mut [W]) -> u64 {
    let len = to.len();
    // SAFETY: the caller's promise.
    let gradient = (block.gradient != 0)
        .then(|| unsafe { from_raw_parts((block.gradient as *const G).add(start), len) });
    // SAFETY: the caller's promise; tasks do not overlap.
    let accumulated = (block.accumulated != 0)
        .then(|| unsafe { from_raw_parts_mut((block.accumulated as *mut f32).add(start), len) });
    let source = Source { gradient, accumulated, scale: block.scale, bad: 0 };
    vector(Packing { source, to, past: large_shard::<W>(block.shard) })
}

/// What is packed.
pub(super) struct Source<'a, G> {
    /// Absent: zeros.
    pub gradient: Option<&'a [G]>,
    pub accumulated: Option<&'a mut [f32]>,
    pub scale: f32,
    /// How many elements are not finite.
    pub bad: u64,
}

impl<G: Storage, W: Storage> Make<W> for Source<'_, G> {
    #[inline(always)]
    fn make(&mut self, at: usize, to: &mut [W]) {
        let zeros = [G::narrow(0.0); STRIP];
        let gradient = match self.gradient {
            Some(gradient) => &gradient[at..at + to.len()],
            None => &zeros[..to.len()],
        };
        let Some(accumulated) = &mut self.accumulated else {
            self.bad += pack(gradient, to, self.scale);
            return;
        };
        let mut values = [0.0f32; STRIP];
        let sums = &mut accumulated[at..at + to.len()];
        for ((value, g), sum) in values.iter_mut().zip(gradient).zip(sums) {
            *value = g.widen() + *sum;
            *sum = 0.0;
        }
        self.bad += pack(&values[..to.len()], to, self.scale);
    }
}

/// A source, and where it goes.
pub(super) struct Packing<'a, G, W> {
    pub source: Source<'a, G>,
    pub to: &'a mut [W],
    pub past: bool,
}

impl<G: Storage, W: Storage> Work for Packing<'_, G, W> {
    type Output = u64;

    #[inline(always)]
    fn run<const FUSED: bool>(mut self) -> u64 {
        make_all(self.to, &mut self.source, self.past);
        self.source.bad
    }
}

/// [`reference::pack`] of a strip. What is not finite, or may not stay so, needs the slow way.
#[inline(always)]
fn pack<G: Storage, W: Storage>(values: &[G], to: &mut [W], scale: f32) -> u64 {
    let mut largest = 0;
    let limit;
    if scale == 1.0 && G::DTYPE == W::DTYPE {
        // A type rounds its own values to themselves.
        for (to, value) in to.iter_mut().zip(values) {
            *to = bytemuck::cast(*value);
            largest = largest.max(value.widen().to_bits() & 0x7fff_ffff);
        }
        limit = f32::INFINITY;
    } else {
        for (to, value) in to.iter_mut().zip(values) {
            let value = scale * value.widen();
            *to = reference::narrow_number(value);
            largest = largest.max(value.to_bits() & 0x7fff_ffff);
        }
        limit = largest_number::<W>();
    }
    match largest < limit.to_bits() {
        true => 0,
        false => slow(values, to, scale),
    }
}

#[cold]
#[inline(never)]
fn slow<G: Storage, W: Storage>(values: &[G], to: &mut [W], scale: f32) -> u64 {
    reference::pack(values, None, to, scale)
}

/// No value below it is rounded to infinity.
#[inline(always)]
fn largest_number<W: Storage>() -> f32 {
    match W::DTYPE {
        Dtype::Bf16 => crate::bf16::MAX.to_f32_const(),
        Dtype::F16 => crate::f16::MAX.to_f32_const(),
        Dtype::F32 => f32::INFINITY,
    }
}
