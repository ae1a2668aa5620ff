//! A vector times a matrix whose columns are stored apart: `Σ_p a[p]·B[j,p]`. Rows of B become columns of vectors in
//! registers, so that each sum is the chain over `k` that every form computes.

use std::arch::x86_64::*;

use crate::{Dtype, Storage};

/// Vectors of chains, each of eight rows, that hide each other's latency.
const GROUPS: usize = 2;
const ROWS: usize = 8 * GROUPS;
/// Bytes of a row that a pass takes: a line of the cache.
const LINE: usize = 64;
/// Bytes ahead in a row that the second cache is asked for: more rows are read side by side than the hardware follows.
const AHEAD: usize = 512;

/// `sums[j] = Σ_p a[p]·B[j,p]`, rows of B `ld` apart.
///
/// # Safety
/// B has as many rows as there are sums, of as many elements as `a` has. In code compiled for AVX2, FMA and F16C.
#[inline(always)]
pub(super) unsafe fn dots<T: Storage>(a: &[f32], (b, ld): (*const T, usize), sums: &mut [f32]) {
    let line = LINE / size_of::<T>();
    let (lines, last) = a.split_at(a.len() / line * line);
    let (groups, rest) = sums.as_chunks_mut::<ROWS>();
    let rest_of_b = b.wrapping_add(ROWS * groups.len() * ld);
    for (i, sums) in groups.iter_mut().enumerate() {
        let b = b.wrapping_add(ROWS * i * ld);
        // SAFETY: the instructions are there; whole lines of these rows.
        unsafe {
            let mut chains = [_mm256_setzero_ps(); GROUPS];
            for (pass, a) in lines.chunks_exact(line).enumerate() {
                for (group, chain) in chains.iter_mut().enumerate() {
                    let rows = b.wrapping_add(8 * group * ld + pass * line);
                    for row in 0..8 {
                        prefetch(rows.wrapping_add(row * ld).wrapping_byte_add(AHEAD), line);
                    }
                    *chain = add_line(*chain, a, (rows, ld));
                }
            }
            for (sums, chain) in sums.as_chunks_mut::<8>().0.iter_mut().zip(chains) {
                _mm256_storeu_ps(sums.as_mut_ptr(), chain);
            }
            add_one_by_one(last, (b.wrapping_add(lines.len()), ld), sums);
        }
    }
    rest.fill(0.0);
    // SAFETY: the rows that are left.
    unsafe { add_one_by_one(a, (rest_of_b, ld), rest) };
}

/// Adds the terms of as many steps as `a` has to each sum, step by step.
///
/// # Safety
/// B has as many rows as there are sums, of as many elements as `a` has.
#[inline(always)]
unsafe fn add_one_by_one<T: Storage>(a: &[f32], (b, ld): (*const T, usize), sums: &mut [f32]) {
    for (j, sum) in sums.iter_mut().enumerate() {
        for (p, a) in a.iter().enumerate() {
            // SAFETY: an element of row `j`.
            *sum = a.mul_add(unsafe { (*b.add(j * ld + p)).widen() }, *sum);
        }
    }
}

/// The next steps of eight chains: a line of each row.
///
/// # Safety
/// Eight rows, `ld` apart, have as many elements as `a`. In code compiled for AVX2, FMA and F16C.
#[inline(always)]
unsafe fn add_line<T: Storage>(
    mut chain: __m256,
    a: &[f32],
    (rows, ld): (*const T, usize),
) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        if T::DTYPE == Dtype::Bf16 {
            // Pairs of elements are transposed as if they were numbers.
            let high = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
            for (i, a) in a.as_chunks::<8>().0.iter().enumerate() {
                let at = |row: usize| rows.add(row * ld + 8 * i).cast::<f32>();
                let four = transposed(|j| two_rows(at(j), at(j + 4)));
                for (pair, a) in four.into_iter().zip(a.as_chunks::<2>().0) {
                    let low = _mm256_slli_epi32::<16>(_mm256_castps_si256(pair));
                    let low = _mm256_castsi256_ps(low);
                    chain = _mm256_fmadd_ps(_mm256_set1_ps(a[0]), low, chain);
                    chain = _mm256_fmadd_ps(_mm256_set1_ps(a[1]), _mm256_and_ps(pair, high), chain);
                }
            }
            return chain;
        }
        for (i, a) in a.as_chunks::<4>().0.iter().enumerate() {
            let at = |row: usize| rows.add(row * ld + 4 * i);
            let four = transposed(|j| match T::DTYPE {
                Dtype::F16 => {
                    let low = _mm_loadl_epi64(at(j).cast());
                    _mm256_cvtph_ps(_mm_unpacklo_epi64(low, _mm_loadl_epi64(at(j + 4).cast())))
                }
                _ => two_rows(at(j).cast(), at(j + 4).cast()),
            });
            for (b, a) in four.into_iter().zip(a) {
                chain = _mm256_fmadd_ps(_mm256_set1_ps(*a), b, chain);
            }
        }
    }
    chain
}

/// Four floats of one row in the low half, of another in the high half.
///
/// # Safety
/// Both are valid for reads of four floats. In code compiled for AVX.
#[inline(always)]
unsafe fn two_rows(low: *const f32, high: *const f32) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high))
    }
}

/// Four steps of eight rows, from `rows(j)`: four steps of row j, then of row j + 4.
///
/// # Safety
/// In code compiled for AVX.
#[inline(always)]
unsafe fn transposed(rows: impl Fn(usize) -> __m256) -> [__m256; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let [low01, high01, low23, high23] = [
            _mm256_unpacklo_ps(rows(0), rows(1)),
            _mm256_unpackhi_ps(rows(0), rows(1)),
            _mm256_unpacklo_ps(rows(2), rows(3)),
            _mm256_unpackhi_ps(rows(2), rows(3)),
        ];
        [
            _mm256_shuffle_ps::<0x44>(low01, low23),
            _mm256_shuffle_ps::<0xee>(low01, low23),
            _mm256_shuffle_ps::<0x44>(high01, high23),
            _mm256_shuffle_ps::<0xee>(high01, high23),
        ]
    }
}

/// Asks the second cache for so many elements from an address on, which need not be valid.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T, elements: usize) {
    for byte in (0..elements * size_of::<T>()).step_by(64) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.wrapping_byte_add(byte).cast()) };
    }
}
