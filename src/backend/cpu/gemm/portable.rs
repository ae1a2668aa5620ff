//! The 4×16 tile in plain Rust.

use super::form::Form;

/// Whatever the target has; fast where `f32::mul_add` is an instruction (64-bit ARM).
pub(super) struct Portable;

impl Form for Portable {
    type Around = Self;
    const MR: usize = 4;
    const NR: usize = 16;
    const VECTOR: bool = false;

    unsafe fn tile(
        (rows, _): (usize, usize),
        k: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        add: bool,
        _normal: bool,
    ) {
        let mut sums = [[0.0f32; Self::NR]; Self::MR];
        let row = |i: usize| {
            // SAFETY: a row of C, as the caller promised.
            unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc), Self::NR) }
        };
        // SAFETY: `k` steps of the panels, as the caller promised.
        let (a, b) = unsafe {
            (
                std::slice::from_raw_parts(a, k * Self::MR),
                std::slice::from_raw_parts(b, k * Self::NR),
            )
        };
        if add {
            for (i, sums) in sums.iter_mut().enumerate().take(rows) {
                sums.copy_from_slice(row(i));
            }
        }
        for (a, b) in a.chunks_exact(Self::MR).zip(b.chunks_exact(Self::NR)) {
            for (sums, a) in sums.iter_mut().zip(a).take(rows) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = a.mul_add(*b, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate().take(rows) {
            row(i).copy_from_slice(sums);
        }
    }

    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
}
