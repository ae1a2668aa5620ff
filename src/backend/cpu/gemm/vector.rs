//! A product with one row: a vector times a matrix. B is read once, as it lies in memory, and nothing is packed: what
//! counts is how fast memory gives it. Each element is the chain over `k` that every form computes.

use super::super::threads::Threads;
use super::dots;
use super::epilogue::{Tile, WIDEST, epilogue};
use super::form::Form;
use super::lanes::widen;
use super::prefetch::prefetch;
use super::unrolled::each;
use super::vendor::amd;
use super::workspace::{self, SCRATCH};
use crate::Storage;
use crate::kernel::params::gemm::{self as params, Product};

/// Steps of `k` whose rows of B are read side by side: as many streams as a core prefetches.
const STEPS: usize = 8;
/// Columns of a task, at most, where B is stored by rows: their sums stay in the second cache, as do the rows that are
/// asked for ahead.
const STRIP_BY_ROWS: usize = 16_384;
/// Columns of rows that one task has all of, one behind the other, at most: so B is read from end to end, as AMD's
/// processors like it best, while sums stay in the first cache. (From memory, by one thread of a server, 1.5 times as fast
/// as 8 rows side by side, of f32 1.2 times.)
const WHOLE_ROWS: usize = 8192;
/// Columns of a task, at most, where B is stored by columns.
const STRIP_BY_COLUMNS: usize = 2048;
/// Columns that a pass takes at once: a line of the cache, of 16 bits.
const LINE: usize = 32;

/// Whether the product is one that [`product`] computes.
pub(super) fn fits<F: Form>(block: &Product) -> bool {
    let has = |flag: u32| block.flags & flag != 0;
    let plain = !has(params::FLAG_GATED
        | params::FLAG_FLUSH
        | params::FLAG_THROUGH_BF16
        | params::FLAG_D_TRANSPOSED)
        && block.role != params::ROLE_FUSED_A
        && block.fused_a == 0
        && block.a_sums == 0;
    block.m == 1 && block.n > 0 && block.k > 0 && plain && F::VECTOR
}

/// # Safety
/// As for `super::run`, for this one product; it [`fits`], and the processor has the form's instructions.
pub(super) unsafe fn product<F: Form, T: Storage, O: Storage>(threads: &Threads, block: &Product) {
    let (n, k) = (block.n as usize, block.k as usize);
    let stride = if block.flags & params::FLAG_A_TRANSPOSED != 0 { block.lda as usize } else { 1 };
    workspace::with(|workspace| {
        // SAFETY: as many floats of this call's own; `k` elements of A, as the caller promised; the form's instructions
        // are there.
        let a = unsafe {
            let a = std::slice::from_raw_parts_mut(workspace.a.reserve(k), k);
            F::vectorized(
                #[inline(always)]
                || gather::<F, T>((block.a as *const T, stride), a),
            );
            &*a
        };
        // Where a run along a row of B ends, what the memory has begun to fetch of the row is lost: so runs are as
        // long as can be. Columns are read from end to end by any task.
        let by_rows = block.flags & params::FLAG_B_TRANSPOSED == 0;
        let (parts, most) =
            if by_rows { (threads.count(), STRIP_BY_ROWS) } else { (4, STRIP_BY_COLUMNS) };
        let strip = n.div_ceil(parts).next_multiple_of(WIDEST).min(most);
        threads.run(n.div_ceil(strip), |task| {
            let column = task * strip;
            let columns = strip.min(n - column);
            SCRATCH.with_borrow_mut(|scratch| {
                let sums = scratch.tile.reserve(strip);
                // SAFETY: the form's instructions are there; `strip` floats of this task's own; its columns of B and D.
                unsafe {
                    F::vectorized(
                        #[inline(always)]
                        || {
                            let all = std::slice::from_raw_parts_mut(sums, strip);
                            all.fill(0.0);
                            let b = (block.b as *const T, block.ldb as usize);
                            if by_rows {
                                rows::<F, T>(a, (b.0.add(column), b.1), &mut all[..columns]);
                            } else {
                                let start = b.0.add(column * b.1);
                                dots::dots::<F, T>(a, (start, b.1), columns, sums);
                            }
                            for first in (0..columns).step_by(WIDEST) {
                                let tile = Tile {
                                    row: 0,
                                    rows: 1,
                                    column: column + first,
                                    columns: WIDEST.min(columns - first),
                                    sums: sums.add(first),
                                    ld: WIDEST,
                                    up: 0,
                                };
                                epilogue::<F::Around, T, O>(block, tile);
                            }
                        },
                    );
                }
            });
        });
    });
}

/// Elements of A, `stride` apart, as f32.
///
/// # Safety
/// There are as many. Inside `F::vectorized`.
#[inline(always)]
unsafe fn gather<F: Form, T: Storage>((from, stride): (*const T, usize), a: &mut [f32]) {
    let together = if stride == 1 { a.len() / 8 } else { 0 };
    let (vectors, rest) = a.split_at_mut(8 * together);
    for (i, vector) in vectors.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // SAFETY: eight elements side by side.
        *vector = unsafe { widen::<F, T>(from.add(8 * i)) };
    }
    for (p, a) in rest.iter_mut().enumerate() {
        // SAFETY: an element of A.
        *a = unsafe { *from.add((8 * together + p) * stride) }.widen();
    }
}

/// `sums[j] += Σ_p a[p]·B[p,j]`, rows of B `ld` apart.
///
/// # Safety
/// B has as many rows as `a` elements, of as many columns as there are sums. Inside `F::vectorized`.
#[inline(always)]
unsafe fn rows<F: Form, T: Storage>(a: &[f32], b: (*const T, usize), sums: &mut [f32]) {
    let end_to_end = sums.len() == b.1 && sums.len() <= WHOLE_ROWS && amd();
    // SAFETY: the caller's promise.
    unsafe {
        match end_to_end {
            true => passes::<1, F, T>(a, b, sums),
            false => passes::<STEPS, F, T>(a, b, sums),
        }
    }
}

/// [`rows`], `ROWS` of them side by side.
///
/// # Safety
/// As for [`rows`].
#[inline(always)]
unsafe fn passes<const ROWS: usize, F: Form, T: Storage>(
    a: &[f32],
    (b, ld): (*const T, usize),
    sums: &mut [f32],
) {
    let (groups, rest) = sums.as_chunks_mut::<LINE>();
    let whole = LINE * groups.len();
    for (block, a) in a.chunks(ROWS).enumerate() {
        let b = b.wrapping_add(block * ROWS * ld);
        for (i, sums) in groups.iter_mut().enumerate() {
            // A line of each row at once: rows that lie a power of two apart share few places in the cache.
            let mut chains = [[0.0f32; 8]; LINE / 8];
            chains.as_flattened_mut().copy_from_slice(sums);
            let line = b.wrapping_add(LINE * i);
            if a.len() == ROWS {
                each::<ROWS>(
                    #[inline(always)]
                    // SAFETY: a line of row `p` of these.
                    |p| unsafe {
                        row::<ROWS, F, T>(a[p], line.wrapping_add(p * ld), ld, &mut chains)
                    },
                );
            } else {
                for (p, a) in a.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { row::<ROWS, F, T>(*a, line.wrapping_add(p * ld), ld, &mut chains) };
                }
            }
            sums.copy_from_slice(chains.as_flattened());
        }
        for (p, a) in a.iter().enumerate() {
            for (i, sum) in rest.iter_mut().enumerate() {
                // SAFETY: an element of row `p`.
                *sum = a.mul_add(unsafe { (*b.add(p * ld + whole + i)).widen() }, *sum);
            }
        }
    }
}

/// Adds `a` times a line of a row of B, and asks for the one that the next pass over `ROWS` rows reads.
///
/// # Safety
/// The line is in B. Inside `F::vectorized`.
#[inline(always)]
unsafe fn row<const ROWS: usize, F: Form, T: Storage>(
    a: f32,
    b: *const T,
    ld: usize,
    chains: &mut [[f32; 8]; LINE / 8],
) {
    prefetch(b.wrapping_add(ROWS * ld), LINE * size_of::<T>());
    for (group, chain) in chains.iter_mut().enumerate() {
        // SAFETY: eight elements of the line.
        let row = unsafe { widen::<F, T>(b.add(8 * group)) };
        for (chain, b) in chain.iter_mut().zip(row) {
            *chain = a.mul_add(b, *chain);
        }
    }
}
