//! Words of many rows side by side: what a product of few rows makes of a matrix that is stored by columns.

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
    // No loops: compilers leave some of them, and an array that one indexes lies in memory.
    // SAFETY: the caller's promise.
    unsafe {
        let ab = four_rows([row(0), row(1), row(2), row(3)]);
        let cd = four_rows([row(4), row(5), row(6), row(7)]);
        let ef = four_rows([row(8), row(9), row(10), row(11)]);
        let gh = four_rows([row(12), row(13), row(14), row(15)]);
        let words = [
            quarters([ab[0], cd[0], ef[0], gh[0]]),
            quarters([ab[1], cd[1], ef[1], gh[1]]),
            quarters([ab[2], cd[2], ef[2], gh[2]]),
            quarters([ab[3], cd[3], ef[3], gh[3]]),
        ];
        put(0, words[0][0]);
        put(1, words[1][0]);
        put(2, words[2][0]);
        put(3, words[3][0]);
        put(4, words[0][1]);
        put(5, words[1][1]);
        put(6, words[2][1]);
        put(7, words[3][1]);
        put(8, words[0][2]);
        put(9, words[1][2]);
        put(10, words[2][2]);
        put(11, words[3][2]);
        put(12, words[0][3]);
        put(13, words[1][3]);
        put(14, words[2][3]);
        put(15, words[3][3]);
    }
}

/// In quarter `q` of vector `j`, word `4q + j` of each of four rows.
///
/// # Safety
/// As for [`transpose512`].
#[cfg(halfstep_avx512)]
#[inline(always)]
unsafe fn four_rows([a, b, c, d]: [*const f32; 4]) -> [__m512; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm512_loadu_ps(a), _mm512_loadu_ps(b));
        let (c, d) = (_mm512_loadu_ps(c), _mm512_loadu_ps(d));
        let (low_ab, high_ab) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (low_cd, high_cd) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(low_ab, low_cd),
            _mm512_shuffle_ps::<0xee>(low_ab, low_cd),
            _mm512_shuffle_ps::<0x44>(high_ab, high_cd),
            _mm512_shuffle_ps::<0xee>(high_ab, high_cd),
        ]
    }
}

/// Quarter `q` of each of four vectors, for each `q`.
///
/// # Safety
/// AVX-512F.
#[cfg(halfstep_avx512)]
#[inline(always)]
unsafe fn quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let low_ab = _mm512_shuffle_f32x4::<0x44>(a, b);
        let high_ab = _mm512_shuffle_f32x4::<0xee>(a, b);
        let low_cd = _mm512_shuffle_f32x4::<0x44>(c, d);
        let high_cd = _mm512_shuffle_f32x4::<0xee>(c, d);
        [
            _mm512_shuffle_f32x4::<0x88>(low_ab, low_cd),
            _mm512_shuffle_f32x4::<0xdd>(low_ab, low_cd),
            _mm512_shuffle_f32x4::<0x88>(high_ab, high_cd),
            _mm512_shuffle_f32x4::<0xdd>(high_ab, high_cd),
        ]
    }
}
