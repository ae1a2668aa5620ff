//! The gradients of SwiGLU's two halves, in one pass over each row.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::super::threads::Threads;
use super::form::Form;
use super::map::{MOST, Vector};
#[cfg(target_arch = "x86_64")]
use super::wide::Wide256;
#[cfg(halfstep_avx512)]
use super::wide::Wide512;
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
    threads.run(block.rows as usize, |i| {
        // SAFETY: the caller's promise; each row is one task's.
        unsafe {
            let row = row::<T>(block, i);
            by_form::<F::Around, T>(block, row);
        }
    });
}

/// A row's gradients, by the form's vectors.
///
/// # Safety
/// The processor has the form's instructions.
unsafe fn by_form<F: Form, T: Storage>(block: &SwigluGrad, row: Row<'_, T>) {
    let activation = Activation::from_number(block.activation);
    for_activation!(activation, |ACT| {
        // SAFETY: the caller's promise; the form says which instructions there are.
        unsafe {
            F::vectorized(
                #[inline(always)]
                || {
                    #[cfg(halfstep_avx512)]
                    if F::WIDE {
                        return by_vectors::<Wide512, T>(ACT, flushes(block), row);
                    }
                    #[cfg(target_arch = "x86_64")]
                    if F::VECTOR {
                        return by_vectors::<Wide256, T>(ACT, flushes(block), row);
                    }
                    by_vectors::<f32, T>(ACT, flushes(block), row);
                },
            );
        }
    });
}

/// # Safety
/// In code compiled for the instructions of `V`.
#[inline(always)]
unsafe fn by_vectors<V: Vector, T: Storage>(
    activation: Activation,
    flushing: bool,
    row: Row<'_, T>,
) {
    let Row { dy, gate, up, d_gate, d_up } = row;
    let whole = dy.len() / V::LEN * V::LEN;
    let rest = whole..dy.len();
    let mut few = [[T::zeroed(); MOST]; 5];
    let [few_dy, few_gate, few_up, few_d_gate, few_d_up] = &mut few;
    // SAFETY: a vector's elements of each.
    unsafe {
        for i in (0..whole).step_by(V::LEN) {
            let of = (&raw const dy[i], &raw const gate[i], &raw const up[i]);
            vector::<V, T>(activation, of, (&raw mut d_gate[i], &raw mut d_up[i]));
        }
        if !rest.is_empty() {
            few_dy[..rest.len()].copy_from_slice(&dy[rest.clone()]);
            few_gate[..rest.len()].copy_from_slice(&gate[rest.clone()]);
            few_up[..rest.len()].copy_from_slice(&up[rest.clone()]);
            let of = (few_dy.as_ptr(), few_gate.as_ptr(), few_up.as_ptr());
            vector::<V, T>(activation, of, (few_d_gate.as_mut_ptr(), few_d_up.as_mut_ptr()));
            d_gate[rest.clone()].copy_from_slice(&few_d_gate[..rest.len()]);
            d_up[rest.clone()].copy_from_slice(&few_d_up[..rest.len()]);
        }
    }
    if flushing {
        for value in d_gate.iter_mut().chain(d_up) {
            *value = reference::flushed(*value, true);
        }
    }
}

/// The gradients of a vector's elements.
///
/// # Safety
/// Addresses of as many elements, valid for reads and writes. In code compiled for the instructions of `V`.
#[inline(always)]
unsafe fn vector<V: Vector, T: Storage>(
    activation: Activation,
    (dy, gate, up): (*const T, *const T, *const T),
    (d_gate, d_up): (*mut T, *mut T),
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (dy, gate, up) = (V::widened(dy), V::widened(gate), V::widened(up));
        let (value, slope) = activation.both_of(gate);
        ((dy * up) * slope).narrowed(d_gate);
        (dy * value).narrowed(d_up);
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
