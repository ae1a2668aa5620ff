//! A few vectors times a matrix whose columns are stored apart: `Σ_p a[p]·B[j,p]`. Lines of rows of B are transposed in
//! registers, so that each sum is the chain over `k` that every form computes.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::form::Form;
use super::prefetch::prefetch;
use super::unrolled::each;
#[cfg(halfstep_avx512)]
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

/// `sums[r][j] = Σ_p a[p][r]·B[j,p]` for `j < rows`, rows of B and of sums so far apart.
///
/// # Safety
/// B has `rows` rows of as many elements as `a` has steps; there are sums for `rows` rounded up to 16, and those past `rows`
/// are overwritten with anything. Inside `F::vectorized`, and `F::VECTOR`.
#[inline(always)]
pub(super) unsafe fn dots<const R: usize, F: Form, T: Storage>(
    a: &[[f32; R]],
    b: (*const T, usize),
    rows: usize,
    sums: (*mut f32, usize),
) {
    // SAFETY: the caller's promise; the form says which instructions there are.
    unsafe {
        #[cfg(halfstep_avx512)]
        if F::WIDE {
            // A line of f32 has half the steps: 16 chains keep up with memory.
            return match (amd(), T::DTYPE) {
                (true, Dtype::F32) => groups::<R, R, 1, 512, __m512, T>(a, b, rows, sums),
                (true, _) => groups::<R, R, 2, 512, __m512, T>(a, b, rows, sums),
                (false, _) => groups::<R, R, 2, 256, __m512, T>(a, b, rows, sums),
            };
        }
        // As many chains as there are registers for.
        match R {
            1 | 2 => groups::<R, R, 4, 256, __m256, T>(a, b, rows, sums),
            8 => groups::<R, 4, 2, 256, __m256, T>(a, b, rows, sums),
            _ => groups::<R, R, 2, 256, __m256, T>(a, b, rows, sums),
        }
    }
}

/// [`dots`] by vectors of one kind, `G` of them side by side, and the chains of `C` rows of sums at a time: `R`, or half of
/// them. The second cache is asked for what is so many bytes ahead in each row: processors follow fewer rows by themselves.
///
/// # Safety
/// As for [`dots`], with the vectors' instructions.
#[inline(always)]
unsafe fn groups<
    const R: usize,
    const C: usize,
    const G: usize,
    const AHEAD: usize,
    V: Words,
    T: Storage,
>(
    a: &[[f32; R]],
    (b, ld): (*const T, usize),
    rows: usize,
    (sums, apart): (*mut f32, usize),
) {
    const { assert!(G * V::N <= ROWS) };
    let together = G * V::N;
    let whole = rows / together * together;
    // SAFETY: so many rows, and sums of them.
    unsafe {
        for first in (0..whole).step_by(together) {
            let (b, sums) = ((b.add(first * ld), ld), (sums.add(first), apart));
            group::<R, C, G, AHEAD, V, T>(a, b, together, sums);
        }
        for first in (whole..rows).step_by(V::N) {
            let (b, sums) = ((b.add(first * ld), ld), (sums.add(first), apart));
            group::<R, C, 1, AHEAD, V, T>(a, b, rows - first, sums);
        }
    }
}

/// The sums of `G` vectors of rows, of which there are at least one and, where fewer than the vectors hold, `rows`.
///
/// # Safety
/// As for [`dots`].
#[inline(always)]
unsafe fn group<
    const R: usize,
    const C: usize,
    const G: usize,
    const AHEAD: usize,
    V: Words,
    T: Storage,
>(
    a: &[[f32; R]],
    (b, ld): (*const T, usize),
    rows: usize,
    (sums, apart): (*mut f32, usize),
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
        let mut chains = [[V::zero(); C]; G];
        let sum = |i: usize, row: usize| sums.wrapping_add(row * apart + i * V::N);
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
                            prefetch(b.wrapping_add(i * ld + ahead), LINE);
                            // Rows that are not there are computed as the last one is.
                            b.add(i.min(last) * ld + start).cast()
                        },
                        &mut words[group],
                    );
                },
            );
            // As many chains at a time as there are registers for; the others' sums wait in memory.
            each::<2>(
                #[inline(always)]
                |part| {
                    let row = part * C;
                    if row >= R {
                        return;
                    }
                    if R > C {
                        chains = [[V::zero(); C]; G];
                        if step > 0 {
                            each_chain(
                                &mut chains,
                                #[inline(always)]
                                |i, c, chain| *chain = V::load(sum(i, row + c)),
                            );
                        }
                    }
                    add::<R, C, G, V, T>(&mut chains, row, &a[step..end], step - start, &words);
                    if R > C || end == k {
                        each_chain(
                            &mut chains,
                            #[inline(always)]
                            |i, c, chain| chain.store(sum(i, row + c)),
                        );
                    }
                },
            );
            (step, end) = (end, end + line);
        }
    }
}

/// Calls `f` with each chain, of vector `i` and row `c`.
#[inline(always)]
fn each_chain<const C: usize, const G: usize, V>(
    chains: &mut [[V; C]; G],
    mut f: impl FnMut(usize, usize, &mut V),
) {
    for (i, chains) in chains.iter_mut().enumerate() {
        for (c, chain) in chains.iter_mut().enumerate() {
            f(i, c, chain);
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

/// Adds the terms of as many steps as `a` has to the chains of rows `row..row + C` of sums, step by step, from step `first`
/// of a line on.
///
/// # Safety
/// The vectors' instructions are there.
#[inline(always)]
unsafe fn add<const R: usize, const C: usize, const G: usize, V: Words, T: Storage>(
    chains: &mut [[V; C]; G],
    row: usize,
    mut a: &[[f32; R]],
    first: usize,
    lines: &[Lines; G],
) {
    let steps = size_of::<f32>() / size_of::<T>();
    let mut word = first / steps;
    // SAFETY: the caller's promise.
    unsafe {
        if a.len() == steps * WORDS {
            // A whole line: code without a condition, that the processor runs through while it reads the next line.
            for word in 0..WORDS {
                add_word::<R, C, G, V, T>(
                    chains,
                    row,
                    &a[steps * word..][..steps],
                    (word, 0),
                    lines,
                );
            }
            return;
        }
        if first % steps == 1 {
            add_word::<R, C, G, V, T>(chains, row, &a[..1], (word, 1), lines);
            (word, a) = (word + 1, &a[1..]);
        }
        for a in a.chunks(steps) {
            add_word::<R, C, G, V, T>(chains, row, a, (word, 0), lines);
            word += 1;
        }
    }
}

/// Adds the terms of a word's steps, from one of them on, as many as `a` has.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn add_word<const R: usize, const C: usize, const G: usize, V: Words, T: Storage>(
    chains: &mut [[V; C]; G],
    row: usize,
    a: &[[f32; R]],
    (word, first): (usize, usize),
    lines: &[Lines; G],
) {
    for (chains, Lines(words)) in chains.iter_mut().zip(lines) {
        // SAFETY: words of as many rows as a vector has, at least.
        unsafe {
            if T::DTYPE == Dtype::F32 {
                add_step(chains, V::load(words[word].as_ptr()), &a[0][row..]);
                continue;
            }
            let halves = halves::<V, T>(&words[word]);
            for (half, a) in halves[first..].iter().zip(a) {
                add_step(chains, *half, &a[row..]);
            }
        }
    }
}

/// Adds a step's terms to the chains of a vector of rows of B.
///
/// # Safety
/// The vector's instructions are there.
#[inline(always)]
unsafe fn add_step<const C: usize, V: Words>(chains: &mut [V; C], b: V, a: &[f32]) {
    for (chain, &a) in chains.iter_mut().zip(a) {
        // SAFETY: the caller's promise.
        *chain = unsafe { b.times(a, *chain) };
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
