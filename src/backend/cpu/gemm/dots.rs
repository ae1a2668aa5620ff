//! A vector times a matrix whose columns are stored apart: `Σ_p a[p]·B[j,p]`. Lines of rows of B are transposed in
//! registers, so that each sum is the chain over `k` that every form computes.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::form::Form;
use super::prefetch::prefetch;
use super::vendor::amd;
use super::words::Words;
use crate::{Dtype, Storage};

/// Rows that are worked on side by side, at most. A multiply-add waits for the one before it in its chain: so many
/// chains keep the multipliers, and so memory, busy.
const ROWS: usize = 64;
/// Words of a row that a pass takes: a line of the cache. It is read once: where rows lie a power of two apart, they
/// share few places in the first cache, and lines of so many do not stay there.
const WORDS: usize = 16;
const LINE: usize = size_of::<[f32; WORDS]>();
/// Bytes ahead in a row that the second cache is asked for: more rows are read side by side than the hardware follows.
const AHEAD: usize = 256;

/// Words j of all rows, for each word of a line.
#[repr(align(64))]
struct Lines([[f32; ROWS]; WORDS]);

/// `sums[j] = Σ_p a[p]·B[j,p]` for `j < rows`, rows of B `ld` apart. Sums past those are overwritten with anything.
///
/// # Safety
/// B has `rows` rows of as many elements as `a` has; there are sums for `rows` rounded up to 16. Inside
/// `F::vectorized`, and `F::VECTOR`.
#[inline(always)]
pub(super) unsafe fn dots<F: Form, T: Storage>(
    a: &[f32],
    b: (*const T, usize),
    rows: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's promise; the form says which instructions there are.
    unsafe {
        #[cfg(halfstep_avx512)]
        if F::WIDE {
            // Intel's processors follow 32 rows by themselves: 64 take more than twice as long. AMD's take them all,
            // and more chains hide more.
            return match amd() {
                true => groups::<4, __m512, T>(a, b, rows, sums),
                false => groups::<2, __m512, T>(a, b, rows, sums),
            };
        }
        groups::<4, __m256, T>(a, b, rows, sums)
    }
}

/// [`dots`] by vectors of one kind, `G` of them side by side.
///
/// # Safety
/// As for [`dots`], with the vectors' instructions.
#[inline(always)]
unsafe fn groups<const G: usize, V: Words, T: Storage>(
    a: &[f32],
    (b, ld): (*const T, usize),
    rows: usize,
    sums: *mut f32,
) {
    const { assert!(G * V::N <= ROWS) };
    let together = G * V::N;
    let whole = rows / together * together;
    let words = &mut Lines([[0.0; ROWS]; WORDS]);
    // SAFETY: so many rows, and sums of them.
    unsafe {
        for first in (0..whole).step_by(together) {
            group::<G, V, T>(a, (b.add(first * ld), ld), together, words, sums.add(first));
        }
        for first in (whole..rows).step_by(V::N) {
            group::<1, V, T>(a, (b.add(first * ld), ld), rows - first, words, sums.add(first));
        }
    }
}

/// The sums of `G` vectors of rows, of which there are at least one and, where fewer than the vectors hold, `rows`.
///
/// # Safety
/// As for [`dots`].
#[inline(always)]
unsafe fn group<const G: usize, V: Words, T: Storage>(
    a: &[f32],
    (b, ld): (*const T, usize),
    rows: usize,
    words: &mut Lines,
    sums: *mut f32,
) {
    let (line, k) = (LINE / size_of::<T>(), a.len());
    let mut copies = MaybeUninit::<[[f32; WORDS]; ROWS]>::uninit();
    let (mut b, mut ld, mut last) = (b, ld, rows - 1);
    // The first pass ends where lines of the cache begin.
    let mut end = match b.align_offset(LINE) {
        0 => line,
        head => head,
    };
    // SAFETY: the instructions are there; rows of B have `k` elements, and copies of them a line.
    unsafe {
        if k < line {
            let to = copies.write([[0.0; WORDS]; ROWS]).as_mut_ptr().cast::<T>();
            for i in 0..rows.min(G * V::N) {
                b.add(i * ld).copy_to_nonoverlapping(to.add(i * line), k);
            }
            (b, ld, last, end) = (to, line, ROWS - 1, k);
        }
        let mut chains = [V::zero(); G];
        // Where fewer steps are wanted than a line has, others of the row are read with them.
        let mut step = 0;
        while step < k {
            end = end.min(k);
            let start = step.min(k.saturating_sub(line));
            let mut ahead = step + AHEAD / size_of::<T>();
            if ahead >= k {
                ahead = (ahead - k).wrapping_add(G * V::N * ld); // in the rows that come next
            }
            transpose::<G, V, T>(
                #[inline(always)]
                |i| {
                    prefetch(b.wrapping_add(i * ld + ahead), LINE);
                    // Rows that are not there are computed as the last one is.
                    b.add(i.min(last) * ld + start).cast()
                },
                words,
            );
            add::<G, V, T>(&mut chains, &a[step..end], step - start, words);
            (step, end) = (end, end + line);
        }
        for (i, chain) in chains.into_iter().enumerate() {
            chain.store(sums.add(i * V::N));
        }
    }
}

/// Word `j` of each row to `words[j]`, rows in the order in which [`add`] takes them.
///
/// # Safety
/// `row(i)` is valid for reads of a line, for each row of `G` vectors. The vectors' instructions are there.
#[inline(always)]
unsafe fn transpose<const G: usize, V: Words, T: Storage>(
    row: impl Fn(usize) -> *const f32,
    Lines(words): &mut Lines,
) {
    for group in 0..G {
        for first in (0..WORDS).step_by(V::N) {
            // SAFETY: the caller's promise; rows of `words` have those of all vectors.
            unsafe {
                V::transpose(
                    #[inline(always)]
                    |i| {
                        let i = if T::DTYPE == Dtype::F16 { V::place(i) } else { i };
                        row(group * V::N + i).add(first)
                    },
                    #[inline(always)]
                    |j, vector| {
                        vector.store(words[first + j][group * V::N..][..V::N].as_mut_ptr());
                    },
                );
            }
        }
    }
}

/// Adds the terms of as many steps as `a` has to each chain, step by step, from step `first` of a line on.
///
/// # Safety
/// The vectors' instructions are there.
#[inline(always)]
unsafe fn add<const G: usize, V: Words, T: Storage>(
    chains: &mut [V; G],
    mut a: &[f32],
    first: usize,
    Lines(words): &Lines,
) {
    // SAFETY: the caller's promise; each row of words has those of all vectors.
    unsafe {
        if T::DTYPE == Dtype::F32 {
            for (words, &a) in words[first..].iter().zip(a) {
                for (i, chain) in chains.iter_mut().enumerate() {
                    *chain = V::load(words[i * V::N..][..V::N].as_ptr()).times(a, *chain);
                }
            }
            return;
        }
        if first % 2 == 1 {
            for (i, chain) in chains.iter_mut().enumerate() {
                *chain = halves::<V, T>(&words[first / 2], i)[1].times(a[0], *chain);
            }
            a = &a[1..];
        }
        let words = &words[first.div_ceil(2)..];
        let (pairs, last) = a.as_chunks::<2>();
        for (words, a) in words.iter().zip(pairs) {
            for (i, chain) in chains.iter_mut().enumerate() {
                let [low, high] = halves::<V, T>(words, i);
                *chain = high.times(a[1], low.times(a[0], *chain));
            }
        }
        if let [a] = last {
            for (i, chain) in chains.iter_mut().enumerate() {
                *chain = halves::<V, T>(&words[pairs.len()], i)[0].times(*a, *chain);
            }
        }
    }
}

/// Two steps of the rows of vector `i`, of 16 bits in memory.
///
/// # Safety
/// The vectors' instructions are there.
#[inline(always)]
unsafe fn halves<V: Words, T: Storage>(words: &[f32; ROWS], i: usize) -> [V; 2] {
    let from = words[i * V::N..][..V::N].as_ptr();
    // SAFETY: as many words.
    unsafe { if T::DTYPE == Dtype::F16 { V::f16(from) } else { V::bf16(from) } }
}
