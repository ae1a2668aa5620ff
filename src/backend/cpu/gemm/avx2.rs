//! The 6×16 tile in 256-bit registers: 12 sums, two vectors of B, one or two broadcasts of A, which
//! fills the sixteen registers.

use std::arch::x86_64::{
    _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::form::Form;

/// AVX2 with FMA and F16C.
pub(super) struct Avx2;

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// # Safety
/// As for [`Form::tile`], with `ROWS` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize>(
    k: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    // SAFETY: rows of C and steps of the panels, as the caller promised.
    unsafe {
        if add {
            for (i, row) in sums.iter_mut().enumerate() {
                row[0] = _mm256_loadu_ps(c.add(i * ldc));
                row[1] = _mm256_loadu_ps(c.add(i * ldc + 8));
            }
        }
        for _ in 0..k {
            let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            for (i, row) in sums.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*a.add(i));
                row[0] = _mm256_fmadd_ps(a, b0, row[0]);
                row[1] = _mm256_fmadd_ps(a, b1, row[1]);
            }
            (a, b) = (a.add(Avx2::MR), b.add(Avx2::NR));
        }
        for (i, row) in sums.iter().enumerate() {
            _mm256_storeu_ps(c.add(i * ldc), row[0]);
            _mm256_storeu_ps(c.add(i * ldc + 8), row[1]);
        }
    }
}

impl Form for Avx2 {
    type Around = Self;
    const MR: usize = 6;
    const NR: usize = 16;
    const VECTOR: bool = true;

    #[inline(always)]
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
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => tile::<1>(k, a, b, c, ldc, add),
                ..=4 => tile::<4>(k, a, b, c, ldc, add),
                _ => tile::<6>(k, a, b, c, ldc, add),
            }
        }
    }

    #[inline(always)]
    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe { vectorized(f) }
    }
}
