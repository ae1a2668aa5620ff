//! Eight elements at a time: conversion from and to f32, and transposition.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps,
    _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
    _mm256_unpacklo_ps,
};

#[cfg(target_arch = "x86_64")]
use super::super::widen::by_8;
use super::form::Form;
#[cfg(target_arch = "x86_64")]
use crate::Dtype;
use crate::Storage;

/// Eight elements as f32.
///
/// # Safety
/// `from` is valid for reads of 8 elements; where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn widen<F: Form, T: Storage>(from: *const T) -> [f32; 8] {
    #[cfg(target_arch = "x86_64")]
    if F::VECTOR && T::DTYPE != Dtype::F32 {
        let mut to = [0.0; 8];
        // SAFETY: 16 bytes to read and 32 to write; the processor has AVX2 and F16C.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), by_8(from));
        }
        return to;
    }
    // SAFETY: the caller's promise.
    let from: [T; 8] = unsafe { from.cast::<[T; 8]>().read_unaligned() };
    let mut to = [0.0; 8];
    for i in 0..8 {
        to[i] = from[i].widen();
    }
    to
}

/// Six elements as f32, and two zeros.
///
/// # Safety
/// `from` is valid for reads of 6 elements; where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn widen_6<F: Form, T: Storage>(from: *const T) -> [f32; 8] {
    let mut six = [T::zeroed(); 8];
    // SAFETY: the caller's promise.
    unsafe {
        let (four, two) = (from.cast::<[T; 4]>(), from.add(4).cast::<[T; 2]>());
        six[..4].copy_from_slice(&four.read_unaligned());
        six[4..6].copy_from_slice(&two.read_unaligned());
        widen::<F, T>(six.as_ptr())
    }
}

/// Eight f32 rounded to elements.
///
/// # Safety
/// `to` is valid for writes of 8 elements; where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn narrow<F: Form, T: Storage>(from: &[f32; 8], to: *mut T) {
    #[cfg(target_arch = "x86_64")]
    if F::VECTOR && T::DTYPE == Dtype::F16 {
        // SAFETY: 32 bytes to read and 16 to write; the processor has F16C.
        unsafe {
            let single = _mm256_loadu_ps(from.as_ptr());
            let half = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(single);
            _mm_storeu_si128(to.cast(), half);
        }
        return;
    }
    let mut values = [T::zeroed(); 8];
    for i in 0..8 {
        values[i] = T::narrow(from[i]);
    }
    // SAFETY: the caller's promise.
    unsafe { to.cast::<[T; 8]>().write_unaligned(values) }
}

/// All of these f32 rounded to elements; where `past`, whole lines of them are stored past the caches, if the form can:
/// [`drain`](super::super::past::drain) has to follow.
///
/// # Safety
/// `to` is valid for writes of as many; where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn narrow_all<F: Form, T: Storage>(from: &[f32], to: *mut T, past: bool) {
    #[cfg(halfstep_avx512)]
    if F::WIDE {
        // Up to a line, if whole lines are asked for.
        let head = if past { to.align_offset(64).min(from.len()) } else { 0 };
        let (first, from) = from.split_at(head);
        let (lines, rest) = from.as_chunks::<32>();
        // SAFETY: elements of both, in order; the form says which instructions there are.
        return unsafe {
            narrow_few::<F, T>(first, to);
            let to = to.add(head);
            for (i, values) in lines.iter().enumerate() {
                narrow_32(values, to.add(32 * i), past);
            }
            narrow_few::<F, T>(rest, to.add(32 * lines.len()));
        };
    }
    let _ = past;
    // SAFETY: the caller's promise.
    unsafe { narrow_few::<F, T>(from, to) }
}

/// [`narrow_all`] by eight.
///
/// # Safety
/// As for [`narrow_all`].
#[inline(always)]
unsafe fn narrow_few<F: Form, T: Storage>(from: &[f32], to: *mut T) {
    let (chunks, rest) = from.as_chunks::<8>();
    for (i, chunk) in chunks.iter().enumerate() {
        // SAFETY: 8 elements of both.
        unsafe { narrow::<F, T>(chunk, to.add(8 * i)) };
    }
    for (i, value) in rest.iter().enumerate() {
        // SAFETY: the elements behind them are there.
        unsafe { to.add(8 * chunks.len() + i).write(T::narrow(*value)) };
    }
}

/// # Safety
/// `to` is valid for writes of 32 elements, and where `past` aligned to 64 bytes; AVX-512F and BW.
#[cfg(halfstep_avx512)]
#[inline(always)]
#[allow(clippy::incompatible_msrv)] // only where the compiler has them
unsafe fn narrow_32<T: Storage>(from: &[f32; 32], to: *mut T, past: bool) {
    use super::super::nearest::by_32;
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise.
    unsafe {
        let store = |i: usize, line: __m512i| {
            let to = to.byte_add(64 * i).cast();
            if past { _mm512_stream_si512(to, line) } else { _mm512_storeu_si512(to.cast(), line) }
        };
        let [low, high] = [0, 16].map(|i| _mm512_loadu_ps(from.as_ptr().add(i)));
        match T::DTYPE {
            Dtype::F32 => {
                store(0, _mm512_castps_si512(low));
                store(1, _mm512_castps_si512(high));
            }
            _ => store(0, by_32::<T>(low, high)),
        }
    }
}

/// `[i][j]` becomes `[j][i]`.
///
/// # Safety
/// Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn transpose<F: Form>(rows: &[[f32; 8]; 8]) -> [[f32; 8]; 8] {
    let mut columns = [[0.0; 8]; 8];
    #[cfg(target_arch = "x86_64")]
    if F::VECTOR {
        // SAFETY: the arrays have 8 floats each; the processor has AVX.
        unsafe {
            let row = |i: usize| _mm256_loadu_ps(rows[i].as_ptr());
            let mut put = |j: usize, v: __m256| _mm256_storeu_ps(columns[j].as_mut_ptr(), v);
            // Pairs, then fours, inside each half; then the halves change places.
            let mut fours = [row(0); 8];
            for i in [0, 4] {
                let low01 = _mm256_unpacklo_ps(row(i), row(i + 1));
                let high01 = _mm256_unpackhi_ps(row(i), row(i + 1));
                let low23 = _mm256_unpacklo_ps(row(i + 2), row(i + 3));
                let high23 = _mm256_unpackhi_ps(row(i + 2), row(i + 3));
                fours[i] = _mm256_shuffle_ps::<0x44>(low01, low23);
                fours[i + 1] = _mm256_shuffle_ps::<0xee>(low01, low23);
                fours[i + 2] = _mm256_shuffle_ps::<0x44>(high01, high23);
                fours[i + 3] = _mm256_shuffle_ps::<0xee>(high01, high23);
            }
            for j in 0..4 {
                put(j, _mm256_permute2f128_ps::<0x20>(fours[j], fours[j + 4]));
                put(j + 4, _mm256_permute2f128_ps::<0x31>(fours[j], fours[j + 4]));
            }
        }
        return columns;
    }
    for (i, row) in rows.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            columns[j][i] = *value;
        }
    }
    columns
}
