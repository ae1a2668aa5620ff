//! Addresses become slices here, and nowhere else in this op.

use crate::kernel::params::optim::{Chunk, Tensor};

/// # Safety
/// `address` is 0 with `len` 0, or valid and initialised for reads of `len` elements, aligned to
/// them, and not written while the slice lives.
pub(super) unsafe fn slice<'a, T>(address: u64, len: u64) -> &'a [T] {
    if len == 0 || address == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(address as *const T, len as usize) }
}

/// # Safety
/// As [`slice`], for reads and writes, and nothing else touches the memory while the slice lives.
pub(super) unsafe fn slice_mut<'a, T>(address: u64, len: u64) -> &'a mut [T] {
    if len == 0 || address == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(address as *mut T, len as usize) }
}

/// The address of element `start` of the array at `address`, modulo 2⁶⁴: arrays that hold a part of a
/// tensor are given by where its element 0 would be, which may be before all memory.
fn element<T>(address: u64, start: u64) -> u64 {
    address.wrapping_add(start.wrapping_mul(size_of::<T>() as u64))
}

/// `len` elements of `T` from element `start` of the array at `address`; for no array, none.
///
/// # Safety
/// As [`slice_mut`], for that part of the array.
pub(super) unsafe fn part<'a, T>(address: u64, start: u64, len: u64) -> &'a mut [T] {
    if address == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { slice_mut(element::<T>(address, start), len) }
}

/// As [`part`], to read.
///
/// # Safety
/// As [`slice`], for that part of the array.
pub(super) unsafe fn part_ref<'a, T>(address: u64, start: u64, len: u64) -> &'a [T] {
    if address == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice(element::<T>(address, start), len) }
}

/// The work list.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) chunks: &'a [Chunk],
    pub(super) tensors: &'a [Tensor],
}

/// Chunks that one task takes: small tensors are many, and a task costs a fraction of a
/// microsecond.
const TASK: usize = 4;

impl Work<'_> {
    /// Runs `each` on every chunk and the tensor it belongs to.
    pub(super) fn run(
        &self,
        threads: &super::Threads,
        each: impl Fn(usize, &Chunk, &Tensor) + Sync,
    ) {
        threads.run(self.chunks.len().div_ceil(TASK), |task| {
            let first = task * TASK;
            let end = (first + TASK).min(self.chunks.len());
            for (offset, chunk) in self.chunks[first..end].iter().enumerate() {
                each(first + offset, chunk, &self.tensors[chunk.tensor as usize]);
            }
        });
    }
}
