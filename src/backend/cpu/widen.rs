//! Vectors of elements of 16 bits as f32, which hold each of them exactly.

// What needs a newer compiler than the oldest we support is behind `halfstep_avx512`.
#![allow(clippy::incompatible_msrv)]

use std::arch::x86_64::*;

use crate::{Dtype, Storage};

/// Eight elements of 16 bits.
///
/// # Safety
/// `from` is valid for reads of eight; the processor has AVX2 and F16C, and the caller is compiled for them.
#[inline(always)]
pub(super) unsafe fn by_8<T: Storage>(from: *const T) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let half = _mm_loadu_si128(from.cast());
        match T::DTYPE {
            Dtype::F16 => _mm256_cvtph_ps(half),
            _ => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half))),
        }
    }
}

/// Sixteen elements of 16 bits.
///
/// # Safety
/// `from` is valid for reads of sixteen; the processor has AVX-512F, and the caller is compiled for it.
#[cfg(halfstep_avx512)]
#[inline(always)]
pub(super) unsafe fn by_16<T: Storage>(from: *const T) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let half = _mm256_loadu_si256(from.cast());
        match T::DTYPE {
            Dtype::F16 => _mm512_cvtph_ps(half),
            _ => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))),
        }
    }
}
