//! A few vectors times a matrix whose rows are stored one behind the other: `Σ_p a[p]·B[p,j]`. Each pass over the sums adds
//! the terms of a few rows of B.

use std::ops::Range;

use super::form::Form;
use super::map::Vector;
use super::prefetch::prefetch;
use super::unrolled::each;
use super::vendor::amd;
use super::wide::Wide256;
#[cfg(halfstep_avx512)]
use super::wide::Wide512;
use crate::Storage;

/// Steps of `k` whose rows of B are read side by side: as many streams as a core prefetches.
const STEPS: usize = 8;
/// Columns of rows that one task has all of, one behind the other, at most: so B is read from end to end, as AMD's
/// processors like it best, while sums stay in the first cache. (From memory, by one thread of a server, 1.5 times as fast
/// as 8 rows side by side, of f32 1.2 times.)
const WHOLE_ROWS: usize = 8192;

/// `sums[r][j] = Σ_p a[p][r]·B[p,j]` for `j < columns`, rows of B and of sums so far apart.
///
/// # Safety
/// B has as many rows as `a` steps, of so many columns, and so have the sums. Inside `F::vectorized`, and `F::VECTOR`.
#[inline(always)]
pub(super) unsafe fn products<const R: usize, F: Form, T: Storage>(
    a: &[[f32; R]],
    b: (*const T, usize),
    columns: usize,
    sums: (*mut f32, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        if narrow::<R, F, T>(a, b, columns, sums) {
            return;
        }
        for row in 0..R {
            sums.0.add(row * sums.1).write_bytes(0, columns);
        }
        if R == 1 && columns == b.1 && columns <= WHOLE_ROWS && amd() {
            passes::<1, R, F, T>(a, b, columns, sums);
        } else {
            passes::<STEPS, R, F, T>(a, b, columns, sums);
        }
    }
}

/// [`products`] of so few columns that their sums stay in registers. Says whether they were. (Of 8 rows it is no faster.)
///
/// # Safety
/// As for [`products`].
#[inline(always)]
unsafe fn narrow<const R: usize, F: Form, T: Storage>(
    a: &[[f32; R]],
    b: (*const T, usize),
    columns: usize,
    sums: (*mut f32, usize),
) -> bool {
    // SAFETY: the caller's promise; the form says which instructions there are.
    unsafe {
        #[cfg(halfstep_avx512)]
        if F::WIDE && columns >= Wide512::LEN && R < 8 {
            match columns.div_ceil(Wide512::LEN) {
                1 => in_registers::<R, 1, Wide512, T>(a, b, columns, sums),
                2 => in_registers::<R, 2, Wide512, T>(a, b, columns, sums),
                3 => in_registers::<R, 3, Wide512, T>(a, b, columns, sums),
                4 => in_registers::<R, 4, Wide512, T>(a, b, columns, sums),
                _ => return false,
            }
            return true;
        }
        match columns.div_ceil(Wide256::LEN) {
            _ if columns < Wide256::LEN || R == 8 => return false,
            1 => in_registers::<R, 1, Wide256, T>(a, b, columns, sums),
            2 => in_registers::<R, 2, Wide256, T>(a, b, columns, sums),
            3 if R < 4 => in_registers::<R, 3, Wide256, T>(a, b, columns, sums),
            4 if R < 4 => in_registers::<R, 4, Wide256, T>(a, b, columns, sums),
            _ => return false,
        }
        true
    }
}

/// [`narrow`] of `N` vectors of columns, the last of which is moved back over those before where it would not be whole:
/// these are summed twice, to the same bits.
///
/// # Safety
/// As for [`products`], of a vector's columns at least, in code compiled for its instructions.
#[inline(always)]
unsafe fn in_registers<const R: usize, const N: usize, V: Vector, T: Storage>(
    a: &[[f32; R]],
    (b, ld): (*const T, usize),
    columns: usize,
    (sums, apart): (*mut f32, usize),
) {
    let at = |i: usize| if i + 1 < N { i * V::LEN } else { columns - V::LEN };
    let mut chains = [[V::of(0.0); N]; R];
    // SAFETY: rows of B and of sums, each with a vector from there on.
    unsafe {
        for (p, a) in a.iter().enumerate() {
            let row = b.add(p * ld);
            for i in 0..N {
                let b = V::widened(row.add(at(i)));
                for (chains, &a) in chains.iter_mut().zip(a) {
                    chains[i] = b.mul_add(V::of(a), chains[i]);
                }
            }
        }
        for (row, chains) in chains.into_iter().enumerate() {
            for (i, chain) in chains.into_iter().enumerate() {
                chain.narrowed(sums.add(row * apart + at(i)));
            }
        }
    }
}

/// [`products`], `ROWS` rows of B side by side, by the widest vectors that there are columns for.
///
/// # Safety
/// As for [`products`]; the sums are zeros.
#[inline(always)]
unsafe fn passes<const ROWS: usize, const R: usize, F: Form, T: Storage>(
    a: &[[f32; R]],
    b: (*const T, usize),
    columns: usize,
    sums: (*mut f32, usize),
) {
    // SAFETY: the caller's promise; the form says which instructions there are.
    unsafe {
        #[cfg(halfstep_avx512)]
        if F::WIDE && columns >= Wide512::LEN {
            return by_vectors::<ROWS, R, 1, Wide512, T>(a, b, columns, sums);
        }
        match (columns >= Wide256::LEN, R) {
            (true, 1) => by_vectors::<ROWS, R, 2, Wide256, T>(a, b, columns, sums),
            (true, _) => by_vectors::<ROWS, R, 1, Wide256, T>(a, b, columns, sums),
            (false, _) => _ = lines::<ROWS, R, 1, f32, T>(a, b, 0..columns, sums),
        }
    }
}

/// [`passes`] by vectors, `N` of them at a time as far as that goes. Where the last one is not whole, it is moved back over
/// columns of the one before, which are summed again. (Element by element, 15 columns of 8 rows took 3 times as long as
/// packing B.)
///
/// # Safety
/// As for [`passes`], of a vector's columns at least, in code compiled for its instructions.
#[inline(always)]
unsafe fn by_vectors<const ROWS: usize, const R: usize, const N: usize, V: Vector, T: Storage>(
    a: &[[f32; R]],
    b: (*const T, usize),
    columns: usize,
    sums: (*mut f32, usize),
) {
    let (whole, last) = (columns / V::LEN * V::LEN, columns - V::LEN);
    // SAFETY: the caller's promise.
    unsafe {
        if whole < columns {
            lines::<ROWS, R, 1, V, T>(a, b, last..columns, sums);
            for row in 0..R {
                sums.0.add(row * sums.1 + last).write_bytes(0, whole - last);
            }
        }
        let done = lines::<ROWS, R, N, V, T>(a, b, 0..whole, sums);
        lines::<ROWS, R, 1, V, T>(a, b, done..whole, sums);
    }
}

/// Adds all steps' terms to the sums of these columns, `N` vectors of them at a time; gives back the first of those that
/// are too few for that.
///
/// # Safety
/// As for [`products`], in code compiled for the vector's instructions.
#[inline(always)]
unsafe fn lines<const ROWS: usize, const R: usize, const N: usize, V: Vector, T: Storage>(
    a: &[[f32; R]],
    (b, ld): (*const T, usize),
    columns: Range<usize>,
    (sums, apart): (*mut f32, usize),
) -> usize {
    let width = N * V::LEN;
    let end = columns.start + columns.len() / width * width;
    for (block, a) in a.chunks(ROWS).enumerate() {
        let b = b.wrapping_add(block * ROWS * ld);
        for column in (columns.start..end).step_by(width) {
            // As many sums at a time as there are registers for: the line is in the first cache.
            each::<2>(
                #[inline(always)]
                |part| {
                    let rows = part * V::ROWS..R.min((part + 1) * V::ROWS);
                    let line = (b.wrapping_add(column), ld);
                    if !rows.is_empty() {
                        // SAFETY: columns of B and of the sums.
                        unsafe {
                            let sums = (sums.add(column), apart);
                            lines_of_rows::<ROWS, R, N, V, T>(a, rows, line, sums)
                        }
                    }
                },
            );
        }
    }
    end
}

/// Adds the terms of up to `ROWS` steps to `N` vectors of some rows of sums.
///
/// # Safety
/// As for [`lines`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // by iterators, 4 rows took a quarter longer
unsafe fn lines_of_rows<
    const ROWS: usize,
    const R: usize,
    const N: usize,
    V: Vector,
    T: Storage,
>(
    a: &[[f32; R]],
    rows: Range<usize>,
    (line, ld): (*const T, usize),
    (sums, apart): (*mut f32, usize),
) {
    let sum = |row: usize, i: usize| sums.wrapping_add(row * apart + i * V::LEN);
    let mut chains = [[V::of(0.0); N]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for row in rows.clone() {
            for i in 0..N {
                chains[row][i] = V::widened(sum(row, i).cast_const());
            }
        }
        // A line of each row of B at once: rows that lie a power of two apart share few places in the cache.
        if a.len() == ROWS {
            each::<ROWS>(
                #[inline(always)]
                |p| {
                    let line = line.wrapping_add(p * ld);
                    line_of_row::<ROWS, R, N, V, T>(&a[p], rows.clone(), line, ld, &mut chains)
                },
            );
        } else {
            for (p, a) in a.iter().enumerate() {
                let line = line.wrapping_add(p * ld);
                line_of_row::<ROWS, R, N, V, T>(a, rows.clone(), line, ld, &mut chains);
            }
        }
        for row in rows {
            for i in 0..N {
                chains[row][i].narrowed(sum(row, i));
            }
        }
    }
}

/// Adds some rows' `a` times a line of a row of B, and asks for the one that the next pass over `ROWS` rows reads.
///
/// # Safety
/// The line is in B, in code compiled for the vector's instructions.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // one vector of the line is read at a time, for all rows
unsafe fn line_of_row<const ROWS: usize, const R: usize, const N: usize, V: Vector, T: Storage>(
    a: &[f32; R],
    rows: Range<usize>,
    b: *const T,
    ld: usize,
    chains: &mut [[V; N]; R],
) {
    if V::LEN > 1 && rows.start == 0 {
        prefetch(b.wrapping_add(ROWS * ld), N * V::LEN * size_of::<T>());
    }
    for i in 0..N {
        // SAFETY: a vector of the line.
        let b = unsafe { V::widened(b.add(i * V::LEN)) };
        for row in rows.clone() {
            chains[row][i] = b.mul_add(V::of(a[row]), chains[row][i]);
        }
    }
}
