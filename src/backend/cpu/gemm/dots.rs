//! A vector times a matrix whose columns are stored apart: `Σ_p a[p]·B[j,p]`. Lines of rows of B are transposed in
//! registers, so that each sum is the chain over `k` that every form computes.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::form::Form;
use super::prefetch::prefetch;
use super::unrolled::each;
use super::vendor::amd;
use super::words::Words;
use crate::{Dtype, Storage};

/// Rows that are worked on side by side, at most. A multiply-add waits for the one before it in its chain: so many
/// chains keep the multipliers, and so memory, busy; of 64 rows, processors lose track.
const ROWS: usize = 32;
/// Words of a row that a pass takes: a line of the cache. It is read once: where rows lie a power of two apart, they
/// share few places in the first cache, and lines of so many do not stay there.
const WORDS: usize = 16;
const LINE: usize = size_of::<[f32; WORDS]>();

/// The words of a line of each of a vector's rows: word j of all of them, for each j; the widest vector has 16.
#[repr(align(64))]
struct Lines([[f32; 16]; WORDS]);

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
            // A line of f32 has half the steps: 16 chains keep up with memory.
            return match (amd(), T::DTYPE) {
                (true, Dtype::F32) => groups::<1, 512, __m512, T>(a, b, rows, sums),
                (true, _) => groups::<2, 0, __m512, T>(a, b, rows, sums),
                (false, _) => groups::<2, 256, __m512, T>(a, b, rows, sums),
            };
        }
        match amd() {
            true => groups::<4, 0, __m256, T>(a, b, rows, sums),
            false => groups::<4, 256, __m256, T>(a, b, rows, sums),
        }
    }
}

/// [`dots`] by vectors of one kind, `G` of them side by side. The second cache is asked for what is so many bytes ahead in
/// each row, if any: where processors read ahead by themselves, they do better undisturbed.
///
/// # Safety
/// As for [`dots`], with the vectors' instructions.
#[inline(always)]
unsafe fn groups<const G: usize, const AHEAD: usize, V: Words, T: Storage>(
    a: &[f32],
    (b, ld): (*const T, usize),
    rows: usize,
    sums: *mut f32,
) {
    const { assert!(G * V::N <= ROWS) };
    let together = G * V::N;
    let whole = rows / together * together;
    // SAFETY: so many rows, and sums of them.
    unsafe {
        for first in (0..whole).step_by(together) {
            group::<G, AHEAD, V, T>(a, (b.add(first * ld), ld), together, sums.add(first));
        }
        for first in (whole..rows).step_by(V::N) {
            group::<1, AHEAD, V, T>(a, (b.add(first * ld), ld), rows - first, sums.add(first));
        }
    }
}

/// The sums of `G` vectors of rows, of which there are at least one and, where fewer than the vectors hold, `rows`.
///
/// # Safety
/// As for [`dots`].
#[inline(always)]
unsafe fn group<const G: usize, const AHEAD: usize, V: Words, T: Storage>(
    a: &[f32],
    (b, ld): (*const T, usize),
    rows: usize,
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
    let mut words = [const { Lines([[0.0; 16]; WORDS]) }; G];
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
            each::<G>(
                #[inline(always)]
                |group| {
                    transpose::<V, T>(
                        #[inline(always)]
                        |i| {
                            let i = group * V::N + i;
                            if AHEAD > 0 {
                                prefetch(b.wrapping_add(i * ld + ahead), LINE);
                            }
                            // Rows that are not there are computed as the last one is.
                            b.add(i.min(last) * ld + start).cast()
                        },
                        &mut words[group],
                    );
                },
            );
            add::<G, V, T>(&mut chains, &a[step..end], step - start, &words);
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
/// `row(i)` is valid for reads of a line, for each row of a vector. The vector's instructions are there.
#[inline(always)]
unsafe fn transpose<V: Words, T: Storage>(
    row: impl Fn(usize) -> *const f32,
    Lines(words): &mut Lines,
) {
    for first in (0..WORDS).step_by(V::N) {
        // SAFETY: the caller's promise.
        unsafe {
            V::transpose(
                #[inline(always)]
                |i| row(if T::DTYPE == Dtype::F16 { V::place(i) } else { i }).add(first),
                #[inline(always)]
                |j, vector| vector.store(words[first + j].as_mut_ptr()),
            );
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
    lines: &[Lines; G],
) {
    // SAFETY: the caller's promise; as many lines as chains.
    unsafe {
        if T::DTYPE == Dtype::F32 {
            for (j, &a) in a.iter().enumerate() {
                for (chain, Lines(words)) in chains.iter_mut().zip(lines) {
                    *chain = V::load(words[first + j].as_ptr()).times(a, *chain);
                }
            }
            return;
        }
        if first % 2 == 1 {
            for (chain, Lines(words)) in chains.iter_mut().zip(lines) {
                *chain = halves::<V, T>(&words[first / 2])[1].times(a[0], *chain);
            }
            a = &a[1..];
        }
        let first = first.div_ceil(2);
        let (pairs, last) = a.as_chunks::<2>();
        for (j, a) in pairs.iter().enumerate() {
            for (chain, Lines(words)) in chains.iter_mut().zip(lines) {
                let [low, high] = halves::<V, T>(&words[first + j]);
                *chain = high.times(a[1], low.times(a[0], *chain));
            }
        }
        if let [a] = last {
            for (chain, Lines(words)) in chains.iter_mut().zip(lines) {
                *chain = halves::<V, T>(&words[first + pairs.len()])[0].times(*a, *chain);
            }
        }
    }
}

/// Two steps of a vector's rows, of 16 bits in memory.
///
/// # Safety
/// The vector's instructions are there.
#[inline(always)]
unsafe fn halves<V: Words, T: Storage>(words: &[f32; 16]) -> [V; 2] {
    let from = words.as_ptr();
    // SAFETY: words of as many rows as a vector has, at least.
    unsafe { if T::DTYPE == Dtype::F16 { V::f16(from) } else { V::bf16(from) } }
}
