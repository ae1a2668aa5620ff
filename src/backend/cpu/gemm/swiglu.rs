//! The gradients of SwiGLU's two halves: of each row a strip at a time, by short loops over f32 values, in the order
//! that `gemm::reference` defines.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::super::threads::Threads;
use super::epilogue::{WIDEST, store};
use super::form::Form;
use super::map::{apply, derivative};
use super::pack::load;
use crate::Storage;
use crate::gemm::{Activation, reference};
use crate::kernel::params::gemm::{self as params, SwigluGrad};

/// One row of `dy`, `z` and `dz`.
struct Row<'a, T> {
    dy: &'a [T],
    gate: &'a [T],
    up: &'a [T],
    d_gate: &'a mut [T],
    d_up: &'a mut [T],
}

/// # Safety
/// As for `super::run`; nothing else uses this row of `dz`.
unsafe fn row<'a, T: Storage>(block: &SwigluGrad, row: usize) -> Row<'a, T> {
    let n = block.n as usize;
    let at = |ld: u64| row * ld as usize;
    // SAFETY: rows of the lengths that the plan checked.
    let (dy, z, dz) = unsafe {
        (
            from_raw_parts((block.dy as *const T).add(at(block.ldy)), n),
            from_raw_parts((block.z as *const T).add(at(block.ldz)), 2 * n),
            from_raw_parts_mut((block.dz as *mut T).add(at(block.ldd)), 2 * n),
        )
    };
    let ((gate, up), (d_gate, d_up)) = (z.split_at(n), dz.split_at_mut(n));
    Row { dy, gate, up, d_gate, d_up }
}

fn flushes(block: &SwigluGrad) -> bool {
    block.flags & params::FLAG_FLUSH != 0
}

/// The gradients by a form's instructions.
///
/// # Safety
/// As for `super::run`; the processor has the form's instructions.
pub(super) unsafe fn gradients<F: Form, T: Storage>(threads: &Threads, block: &SwigluGrad) {
    let n = block.n as usize;
    threads.run(block.rows as usize, |i| {
        // SAFETY: the caller's promise; each row is one task's.
        unsafe {
            let mut row = row::<T>(block, i);
            F::vectorized(
                #[inline(always)]
                || {
                    for first in (0..n).step_by(WIDEST) {
                        strip::<F::Around, T>(block, &mut row, first);
                    }
                },
            );
        }
    });
}

/// At most [`WIDEST`] columns of a row, from `first` on.
///
/// # Safety
/// Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
unsafe fn strip<F: Form, T: Storage>(block: &SwigluGrad, row: &mut Row<'_, T>, first: usize) {
    let activation = Activation::from_number(block.activation);
    let how = (flushes(block), false);
    let columns = first..row.dy.len().min(first + WIDEST);
    let mut lines = [[0.0f32; WIDEST]; 4];
    let [dy, up, value, slope] = lines.each_mut().map(|line| &mut line[..columns.len()]);
    // SAFETY: as many elements as the lines have; the form's instructions are there.
    unsafe {
        load::<F, T>(row.dy[columns.clone()].as_ptr(), dy);
        load::<F, T>(row.up[columns.clone()].as_ptr(), up);
        load::<F, T>(row.gate[columns.clone()].as_ptr(), value);
        slope.copy_from_slice(value);
        apply::<F>(activation, value);
        derivative::<F>(activation, slope);
    }
    for (((dy, up), value), slope) in dy.iter().zip(up).zip(&mut *value).zip(&mut *slope) {
        (*slope, *value) = ((dy * *up) * *slope, dy * *value);
    }
    // SAFETY: as above.
    unsafe {
        store::<F, T>(slope, row.d_gate[columns.clone()].as_mut_ptr(), how);
        store::<F, T>(value, row.d_up[columns].as_mut_ptr(), how);
    }
}

/// The gradients by the reference.
///
/// # Safety
/// As for `super::run`.
pub(super) unsafe fn by_reference<T: Storage>(block: &SwigluGrad) {
    let activation = Activation::from_number(block.activation);
    for i in 0..block.rows as usize {
        // SAFETY: the caller's promise.
        let Row { dy, gate, up, d_gate, d_up } = unsafe { row::<T>(block, i) };
        for j in 0..dy.len() {
            let (dy, gate, up) = (dy[j].widen(), gate[j].widen(), up[j].widen());
            let (for_gate, for_up) = reference::swiglu_grad(activation, dy, gate, up);
            d_gate[j] = reference::flushed(T::narrow(for_gate), flushes(block));
            d_up[j] = reference::flushed(T::narrow(for_up), flushes(block));
        }
    }
}
