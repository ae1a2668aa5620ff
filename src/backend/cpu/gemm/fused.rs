//! A whose elements are multiplied by a derivative on their way into panels.

use std::mem::MaybeUninit;

use super::cut::MOST_STEPS;
use super::form::Form;
use super::map::times_derivative;
use super::pack::{LANES, STEPS, Source};
use crate::Storage;
use crate::gemm::{Activation, reference};

/// A few lanes of `round(A∘act'(z))`, lanes or steps together as in the source.
pub(super) struct Fused<T> {
    values: [MaybeUninit<T>; LANES * MOST_STEPS],
}

impl<T: Storage> Fused<T> {
    pub fn new() -> Self {
        Self { values: [MaybeUninit::uninit(); LANES * MOST_STEPS] }
    }

    /// Computes them, stores them at `out` where that is not null, and says where they are.
    ///
    /// # Safety
    /// `lanes ≤ 8` and as many steps as a panel has at most, or where lanes are together a piece, of `a` and `z` are in the
    /// operands, and those of `out` are valid for writes. The processor has the form's instructions.
    #[inline(always)]
    pub unsafe fn compute<F: Form>(
        &mut self,
        (a, z, out): (Source<T>, Source<T>, Source<T>),
        activation: Activation,
        (lanes, steps): (usize, usize),
        flushing: bool,
    ) -> Source<T> {
        let together = a.lanes_together;
        let (rows, columns, ld) =
            if together { (steps, lanes, LANES) } else { (lanes, steps, MOST_STEPS) };
        debug_assert!(rows * ld <= LANES * MOST_STEPS && columns <= ld); // `cut` tests it
        let values: *mut T = self.values.as_mut_ptr().cast();
        // SAFETY: rows of `columns` elements, in the operands and in `values`; for the rest the caller's promise.
        unsafe {
            if together {
                // Rows of a few elements, side by side.
                let [mut a_rows, mut z_rows] = [[T::zeroed(); STEPS * LANES]; 2];
                a.copy(rows, columns, a_rows.as_mut_ptr(), ld);
                z.copy(rows, columns, z_rows.as_mut_ptr(), ld);
                let of = (a_rows.as_ptr(), z_rows.as_ptr());
                times_derivative::<F, T>(activation, of, values, rows * ld);
            } else {
                for row in 0..rows {
                    let of = (a.start.add(row * a.ld), z.start.add(row * z.ld));
                    times_derivative::<F, T>(activation, of, values.add(row * ld), columns);
                }
            }
            let fused = Source { start: values.cast_const(), ld, lanes_together: together };
            if flushing {
                for row in 0..rows {
                    for value in std::slice::from_raw_parts_mut(values.add(row * ld), columns) {
                        *value = reference::flushed(*value, true);
                    }
                }
            }
            if !out.start.is_null() {
                fused.copy(rows, columns, out.start.cast_mut(), out.ld);
            }
            fused
        }
    }
}

impl<T: Copy> Source<T> {
    /// Copies so many rows of so many elements, as they lie.
    ///
    /// # Safety
    /// They are in the operand, and valid for writes where they go.
    #[inline(always)]
    unsafe fn copy(self, rows: usize, columns: usize, to: *mut T, ld: usize) {
        for row in 0..rows {
            // SAFETY: the caller's promise.
            unsafe {
                let (from, to) = (self.start.add(row * self.ld), to.add(row * ld));
                match columns {
                    LANES => to
                        .cast::<[T; LANES]>()
                        .write_unaligned(from.cast::<[T; LANES]>().read_unaligned()),
                    _ => std::ptr::copy_nonoverlapping(from, to, columns),
                }
            }
        }
    }
}
