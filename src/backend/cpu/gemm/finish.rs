//! What is made of a finished weight gradient: its copy, and the statistics.

use std::slice::from_raw_parts;

use super::super::fold;
use super::super::threads::Threads;
use super::{BF16, F16, form::Form, lanes::narrow_all, path::Path, portable};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512, avx512bf16};
use crate::kernel::params::gemm::Product;
use crate::kernel::params::{PARTIAL_CHUNK, Partial};
use crate::optim::round::Lane;
use crate::{Storage, bf16, f16};

/// The copy and the statistics of the finished D of all members.
///
/// # Safety
/// As for `super::run`.
pub(super) unsafe fn finish(threads: &Threads, path: Path, block: &Product) {
    if block.copy == 0 && block.partials == 0 && block.a_sums_partials == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { by_type!(block.output, finish_of, threads, path, block) }
}

/// # Safety
/// As for `super::run`; D and the sums are of `O`, which is f32 where there is a copy.
unsafe fn finish_of<O: Lane>(threads: &Threads, path: Path, block: &Product) {
    // A weight gradient is dense.
    let members = block.groups.max(1);
    let d_len = (members * block.m * block.n) as usize;
    let chunks = d_len.div_ceil(PARTIAL_CHUNK);
    threads.run(chunks, |chunk| {
        let start = chunk * PARTIAL_CHUNK;
        let len = PARTIAL_CHUNK.min(d_len - start);
        // SAFETY: D has `d_len` elements, and is not written any more.
        let d = unsafe { from_raw_parts((block.d as *const O).add(start), len) };
        if block.copy != 0 {
            // SAFETY: the caller's promise; each chunk is written by one task.
            unsafe { copy(path, block, start, len) };
        }
        if block.partials != 0 {
            let partial = fold::partial(block.tensor, d, 1.0);
            // SAFETY: as many partials as chunks (checked in weight_grad.rs); one task writes each.
            unsafe { (block.partials as *mut Partial).add(chunk).write(partial) };
        }
    });
    if block.a_sums_partials != 0 {
        let len = (members * block.m) as usize;
        // SAFETY: `a_sums` has one element for each row, written by now.
        let sums = unsafe { from_raw_parts(block.a_sums as *const O, len) };
        for (i, values) in sums.chunks(PARTIAL_CHUNK).enumerate() {
            let partial = fold::partial(block.a_sums_tensor, values, 1.0);
            // SAFETY: as above.
            unsafe { (block.a_sums_partials as *mut Partial).add(i).write(partial) };
        }
    }
}

/// `len` elements of D, which are f32, from `start` on, rounded into the copy.
///
/// # Safety
/// D and the copy have these elements, which nothing else uses. `Path::runs_here` held when the device was made.
unsafe fn copy(path: Path, block: &Product, start: usize, len: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let d = from_raw_parts((block.d as *const f32).add(start), len);
        match block.copy_type {
            BF16 => narrow_into(path, (block.copy as *mut bf16).add(start), d),
            _ => narrow_into(path, (block.copy as *mut f16).add(start), d),
        }
    }
}

/// # Safety
/// `to` is valid for writes of as many elements as `from` has. `Path::runs_here` held when the device was made.
unsafe fn narrow_into<T: Storage>(path: Path, to: *mut T, from: &[f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        with_form!(
            path,
            T::DTYPE,
            |F| F::vectorized(
                #[inline(always)]
                || narrow_all::<<F as Form>::Around, T>(from, to, false),
            ),
            from.iter().enumerate().for_each(|(i, value)| to.add(i).write(T::narrow(*value)))
        )
    }
}
