//! Vectors of f32 rounded to 16 bits: to nearest even, and a NaN keeps its upper bits and becomes quiet.

// What needs a newer compiler than the oldest we support is behind `halfstep_avx512`.
#![allow(clippy::incompatible_msrv)]

use std::arch::x86_64::*;

#[cfg(halfstep_avx512)]
use crate::{Dtype, Storage};

/// Half a unit of bf16, less one, as bits of f32: with one more where the last bit kept is odd, ties go to even.
const HALF_LESS_ONE: i32 = 0x7fff;

/// Sixteen f32 as bf16.
///
/// # Safety
/// The processor has AVX2, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn bf16_by_16(low: __m256, high: __m256) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let rounded = |values: __m256| {
            let bits = _mm256_castps_si256(values);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(odd, _mm256_set1_epi32(HALF_LESS_ONE));
            _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, up))
        };
        let (mut first, mut second) = (rounded(low), rounded(high));
        // Unordered: one of the two is a NaN. Seldom: a branch costs less than to choose each time.
        if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(low, high)) != 0 {
            let kept = |values: __m256, rounded: __m256i| {
                let upper = _mm256_srli_epi32::<16>(_mm256_castps_si256(values));
                let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
                let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
                _mm256_blendv_epi8(rounded, quiet, nan)
            };
            (first, second) = (kept(low, first), kept(high, second));
        }
        _mm256_permute4x64_epi64::<0xd8>(_mm256_packus_epi32(first, second))
    }
}

/// Thirty-two f32 as elements of 16 bits.
///
/// # Safety
/// The processor has AVX-512F and BW, and the caller is compiled for them; `T` has 16 bits.
#[cfg(halfstep_avx512)]
#[inline(always)]
pub(super) unsafe fn by_32<T: Storage>(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        if T::DTYPE == Dtype::Bf16 {
            return bf16_by_32(low, high);
        }
        let low = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low);
        let high = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high);
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }
}

/// Thirty-two f32 as bf16.
///
/// # Safety
/// The processor has AVX-512F and BW, and the caller is compiled for them.
#[cfg(halfstep_avx512)]
#[inline(always)]
unsafe fn bf16_by_32(low: __m512, high: __m512) -> __m512i {
    /// The upper halves of two vectors' words.
    static UPPER: [i16; 32] = {
        let mut upper = [0; 32];
        let mut i = 0;
        while i < 32 {
            upper[i] = 2 * i as i16 + 1;
            i += 1;
        }
        upper
    };
    // SAFETY: the caller's promise.
    unsafe {
        let rounded = |values: __m512| {
            let bits = _mm512_castps_si512(values);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(odd, _mm512_set1_epi32(HALF_LESS_ONE));
            _mm512_add_epi32(bits, up)
        };
        let (mut first, mut second) = (rounded(low), rounded(high));
        // As above.
        if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(low, high) != 0 {
            let kept = |values: __m512, rounded: __m512i| {
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
                let quiet = _mm512_set1_epi32(0x40_0000);
                _mm512_mask_or_epi32(rounded, nan, _mm512_castps_si512(values), quiet)
            };
            (first, second) = (kept(low, first), kept(high, second));
        }
        let upper = _mm512_loadu_si512(UPPER.as_ptr().cast());
        _mm512_permutex2var_epi16(first, upper, second)
    }
}
