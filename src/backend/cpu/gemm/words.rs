//! Words of many rows side by side: what a product with one row makes of a matrix that is stored by columns.

// What needs a newer compiler than the oldest we support is behind `halfstep_avx512`.
#![allow(clippy::incompatible_msrv)]

use std::arch::x86_64::*;

/// A vector of words of four bytes, of which each has one float or two of 16 bits: one word of each of `N` rows.
pub(super) trait Words: Copy {
    const N: usize;

    /// # Safety
    /// In code compiled for the instructions, AVX2, FMA and F16C, and so all below.
    unsafe fn zero() -> Self;

    /// # Safety
    /// `from` is valid for reads of `N` words.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `to` is valid for writes of `N` words.
    unsafe fn store(self, to: *mut f32);

    /// `a·self + sum`, rounded once.
    ///
    /// # Safety
    /// As for [`Self::zero`].
    unsafe fn times(self, a: f32, sum: Self) -> Self;

    /// The low halves and the high halves of words, which are bf16.
    ///
    /// # Safety
    /// As for [`Self::load`].
    unsafe fn bf16(from: *const f32) -> [Self; 2];

    /// The low halves and the high halves of words, which are f16; those of word `i` come to [`Self::place`]`(i)`.
    ///
    /// # Safety
    /// As for [`Self::load`].
    unsafe fn f16(from: *const f32) -> [Self; 2];

    /// `put(j, …)` with the words j of all rows, for each `j < N`.
    ///
    /// # Safety
    /// `row(i)` is valid for reads of `N` words, for each `i < N`.
    unsafe fn transpose(row: impl Fn(usize) -> *const f32, put: impl FnMut(usize, Self));

    /// Where [`Self::f16`] puts the halves of a word.
    fn place(word: usize) -> usize {
        let (half, i) = (word / (Self::N / 2), word % (Self::N / 2));
        i / 2 * 4 + 2 * half + i % 2
    }
}

/// Implements [`Words`] by intrinsics.
macro_rules! words {
    (
        $vector:ty: $n:literal words, zero $zero:ident, load $load:ident, store $store:ident,
        of $of:ident, fma $fma:ident, shift $shift:ident, and $and:ident, integers $of_integers:ident,
        to integers $to_integers:ident, floats $to_floats:ident,
        f16 $load_f16:ident $from_f16:ident, shuffle $shuffle:ident, transpose $transpose:ident
    ) => {
        impl Words for $vector {
            const N: usize = $n;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's promise.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn times(self, a: f32, sum: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $fma($of(a), self, sum) }
            }
            #[inline(always)]
            unsafe fn bf16(from: *const f32) -> [Self; 2] {
                // SAFETY: the caller's promise.
                unsafe {
                    let words = $to_integers($load(from));
                    let high = $and(words, $of_integers(0xffff_0000_u32 as i32));
                    [$to_floats($shift::<16>(words)), $to_floats(high)]
                }
            }
            #[inline(always)]
            unsafe fn f16(from: *const f32) -> [Self; 2] {
                // SAFETY: the caller's promise.
                unsafe {
                    let first = $from_f16($load_f16(from.cast()));
                    let second = $from_f16($load_f16(from.add($n / 2).cast()));
                    [$shuffle::<0x88>(first, second), $shuffle::<0xdd>(first, second)]
                }
            }
            #[inline(always)]
            unsafe fn transpose(row: impl Fn(usize) -> *const f32, put: impl FnMut(usize, Self)) {
                // SAFETY: the caller's promise.
                unsafe { $transpose(row, put) }
            }
        }
    };
}

words! {
    __m256: 8 words, zero _mm256_setzero_ps, load _mm256_loadu_ps, store _mm256_storeu_ps,
    of _mm256_set1_ps, fma _mm256_fmadd_ps, shift _mm256_slli_epi32, and _mm256_and_si256,
    integers _mm256_set1_epi32, to integers _mm256_castps_si256, floats _mm256_castsi256_ps,
    f16 _mm_loadu_si128 _mm256_cvtph_ps,
    shuffle _mm256_shuffle_ps, transpose transpose256
}

#[cfg(halfstep_avx512)]
words! {
    __m512: 16 words, zero _mm512_setzero_ps, load _mm512_loadu_ps, store _mm512_storeu_ps,
    of _mm512_set1_ps, fma _mm512_fmadd_ps, shift _mm512_slli_epi32, and _mm512_and_si512,
    integers _mm512_set1_epi32, to integers _mm512_castps_si512, floats _mm512_castsi512_ps,
    f16 _mm256_loadu_si256 _mm512_cvtph_ps,
    shuffle _mm512_shuffle_ps, transpose transpose512
}

/// # Safety
/// As for [`Words::transpose`], with AVX2.
#[inline(always)]
unsafe fn transpose256(row: impl Fn(usize) -> *const f32, mut put: impl FnMut(usize, __m256)) {
    // SAFETY: the caller's promise.
    unsafe {
        // Four words of rows i and i + 4, so that halves never have to change places.
        for j in [0, 4] {
            let [mut a, mut b, mut c, mut d] = [_mm256_setzero_ps(); 4];
            for (i, rows) in [&mut a, &mut b, &mut c, &mut d].into_iter().enumerate() {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(row(i).add(j)));
                *rows = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(row(i + 4).add(j)));
            }
            let (low_ab, high_ab) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (low_cd, high_cd) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            put(j, _mm256_shuffle_ps::<0x44>(low_ab, low_cd));
            put(j + 1, _mm256_shuffle_ps::<0xee>(low_ab, low_cd));
            put(j + 2, _mm256_shuffle_ps::<0x44>(high_ab, high_cd));
            put(j + 3, _mm256_shuffle_ps::<0xee>(high_ab, high_cd));
        }
    }
}

/// # Safety
/// As for [`Words::transpose`], with AVX-512F.
#[cfg(halfstep_avx512)]
#[inline(always)]
unsafe fn transpose512(row: impl Fn(usize) -> *const f32, mut put: impl FnMut(usize, __m512)) {
    // SAFETY: the caller's promise.
    unsafe {
        // Four rows: in each quarter of a vector, a word of each.
        let mut fours = [[_mm512_setzero_ps(); 4]; 4];
        for (i, fours) in fours.iter_mut().enumerate() {
            let (a, b) = (_mm512_loadu_ps(row(4 * i)), _mm512_loadu_ps(row(4 * i + 1)));
            let (c, d) = (_mm512_loadu_ps(row(4 * i + 2)), _mm512_loadu_ps(row(4 * i + 3)));
            let (low_ab, high_ab) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (low_cd, high_cd) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            *fours = [
                _mm512_shuffle_ps::<0x44>(low_ab, low_cd),
                _mm512_shuffle_ps::<0xee>(low_ab, low_cd),
                _mm512_shuffle_ps::<0x44>(high_ab, high_cd),
                _mm512_shuffle_ps::<0xee>(high_ab, high_cd),
            ];
        }
        let [ab, cd, ef, gh] = fours;
        for j in 0..4 {
            let (a, b, c, d) = (ab[j], cd[j], ef[j], gh[j]);
            let (low_ab, high_ab) =
                (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            let (low_cd, high_cd) =
                (_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
            put(j, _mm512_shuffle_f32x4::<0x88>(low_ab, low_cd));
            put(j + 4, _mm512_shuffle_f32x4::<0xdd>(low_ab, low_cd));
            put(j + 8, _mm512_shuffle_f32x4::<0x88>(high_ab, high_cd));
            put(j + 12, _mm512_shuffle_f32x4::<0xdd>(high_ab, high_cd));
        }
    }
}
