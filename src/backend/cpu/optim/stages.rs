//! The three stages, over the whole work list.

use super::super::fold;
use super::super::wide::vector;
use super::Threads;
use super::chunk::{self, Grad};
use super::memory::{Work, part, slice, slice_mut};
use crate::kernel::params::Partial;
use crate::kernel::params::optim::{
    Control, Group, Post, Progress, Scalars, Source, Stats, Status, Step, Tensor,
};
use crate::kernel::table::optim::Row;
use crate::optim::control::{self, Rules};
use crate::optim::rows::trust;

/// Gradients → partials.
///
/// # Safety
/// As [`super::run`].
pub(super) unsafe fn stats(threads: &Threads, block: &Stats) {
    // SAFETY: the caller's promise: tables of these lengths, which no kernel writes.
    let (work, grads) = unsafe {
        let chunks = slice(block.chunks, block.chunk_count);
        let tensors = slice::<Tensor>(block.tensors, block.tensor_count);
        (Work { chunks, tensors }, slice::<u64>(block.grads, block.tensor_count))
    };
    // SAFETY: the caller's promise; `stats` only reads it.
    let inverse = unsafe { slice::<Status>(block.status, 1) }[0].inverse;
    work.run(threads, |index, chunk, tensor| {
        let address = grads[chunk.tensor as usize];
        // SAFETY: the plan checked that the tensor has `tensor.len` elements, of which the chunk is
        // a part.
        let grad = unsafe { Grad::new(block.grad, address, chunk.start, u64::from(chunk.len)) };
        // SAFETY: one partial for each chunk, and one task for each chunk.
        let partial = unsafe { part::<Partial>(block.partials, index as u64, 1) };
        partial[0] = match grad {
            Grad::Bf16(grad) => fold::partial(tensor.id, grad, inverse),
            Grad::F16(grad) => fold::partial(tensor.id, grad, inverse),
            Grad::F32(grad) => fold::partial(tensor.id, grad, inverse),
        };
    });
}

/// Partials → decision and constants.
///
/// # Safety
/// As [`super::run`].
pub(super) unsafe fn control(block: &Control) {
    // SAFETY: the caller's promise: tables of these lengths, which nothing else touches meanwhile.
    let (status, progress, scalars) = unsafe {
        (
            slice_mut::<Status>(block.status, 1),
            slice_mut::<Progress>(block.progress, block.tensor_count),
            slice_mut::<Scalars>(block.scalars, block.tensor_count),
        )
    };
    // SAFETY: as above, only read.
    let (tensors, groups, grads, sources) = unsafe {
        (
            slice::<Tensor>(block.tensors, block.tensor_count),
            slice::<Group>(block.groups, block.group_count),
            slice::<u64>(block.grads, block.tensor_count),
            slice::<Source>(block.sources, block.source_count),
        )
    };
    // SAFETY: lists of partials that the caller of `control` lent, with their lengths.
    let lists = sources.iter().map(|s| unsafe { slice::<Partial>(s.partials, s.count) });
    let rules = Rules::of(block);
    let applied = control::decide(&rules, lists.flatten().copied(), &mut status[0]);
    let (attempts, status) = (status[0].attempts, status[0]);
    // SAFETY: the optimizer's own; the host reads it on the thread that called this.
    let post = unsafe { slice_mut::<Post>(block.post, 1) };
    post[0] = Post { begun: attempts, status, ended: attempts };
    for (row, tensor) in tensors.iter().enumerate() {
        let group = &groups[tensor.group as usize];
        scalars[row] = if applied && grads[row] != 0 {
            control::advance(rules.family, tensor, group, &mut progress[row])
        } else {
            control::inactive(group)
        };
    }
}

/// The update.
///
/// # Safety
/// As [`super::run`].
pub(super) unsafe fn step(threads: &Threads, block: &Step) {
    // SAFETY: the caller's promise; only read.
    let status = unsafe { slice::<Status>(block.status, 1) }[0];
    if status.skip != control::APPLIED {
        return;
    }
    let Some(row) = Row::from_code(block.row) else { return };
    // SAFETY: the caller's promise: tables of these lengths, which nothing writes meanwhile (but
    // for LAMB's ratios, alone, below).
    let work = unsafe {
        let chunks = slice(block.chunks, block.chunk_count);
        Work { chunks, tensors: slice::<Tensor>(block.tensors, block.tensor_count) }
    };
    if row == Row::LambTrust {
        // SAFETY: nothing else runs.
        return unsafe { ratios(block, work.tensors) };
    }
    // SAFETY: as for the work list.
    let scalars = unsafe { slice::<Scalars>(block.scalars, block.tensor_count) };
    work.run(threads, |index, chunk, tensor| {
        let scalars = &scalars[chunk.tensor as usize];
        if scalars.active == 1 {
            // SAFETY: the caller's promise; one task for each chunk, and chunks are apart.
            let job = unsafe { chunk::Job::new(block, &status, index, chunk, tensor) };
            vector(chunk::Update { job, row, scalars });
        }
    });
}

/// LAMB: a = lr·‖p‖/‖u‖ of every tensor; chunks are added in order.
///
/// # Safety
/// As [`super::run`].
unsafe fn ratios(block: &Step, tensors: &[Tensor]) {
    // SAFETY: two sums for each chunk, written by the row before; one row of constants a tensor.
    let (norms, scalars) = unsafe {
        (
            slice::<[f64; 2]>(block.norms, block.chunk_count),
            slice_mut::<Scalars>(block.scalars, block.tensor_count),
        )
    };
    for (tensor, scalars) in tensors.iter().zip(scalars) {
        if scalars.active == 1 {
            let first = tensor.first_chunk as usize;
            let mut sums = [0.0f64; 2];
            for norms in &norms[first..first + tensor.chunks as usize] {
                sums = [sums[0] + norms[0], sums[1] + norms[1]];
            }
            scalars.a = (f64::from(scalars.a) * trust(sums[0], sums[1])) as f32;
        }
    }
}
