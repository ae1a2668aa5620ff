//! A product of few rows: a vector times a matrix, or a few of them. B is read once, as it lies in memory, and is not
//! packed: what counts is how fast memory gives it. Each element is the chain over `k` that every form computes.

use std::ops::Range;

use super::super::threads::Threads;
use super::by_rows;
use super::cut::MOST_STEPS;
use super::dots;
use super::epilogue::{Tile, WIDEST, epilogue};
use super::form::Form;
use super::fused::Fused;
use super::pack::{Source, load, panel};
use super::workspace::{self, SCRATCH};
use crate::Storage;
use crate::gemm::Activation;
use crate::kernel::params::gemm::{self as params, Product};

/// Sums of a task, at most, where the matrix is stored by rows: they stay in the second cache, as do the rows that are asked
/// for ahead.
const SUMS_BY_ROWS: usize = 16_384;
/// Sums of a task, at most, where it is stored by columns.
const SUMS_BY_COLUMNS: usize = 2048;

/// Vectors, at most: those whose sums AVX-512 has registers for, and AVX2 for half of them at a time.
pub(super) const MOST: u64 = 8;

/// Columns of a matrix that is stored by rows, at least, where vectors are several: those of a vector register. Fewer are
/// added one by one, which takes longer than packing them.
pub(super) const LEAST_BY_ROWS: u64 = 16;

/// Whether the product is one that [`product`] computes.
pub(super) fn fits(block: &Product) -> bool {
    // What is done to all of B, or with A besides, is done to packed panels.
    let of_panels = params::FLAG_FLUSH | params::FLAG_THROUGH_BF16;
    let plain = block.flags & of_panels == 0 && block.a_sums == 0;
    let dz = block.fused_a != 0 && block.role != params::ROLE_FUSED_A;
    let few = (1..=MOST).contains(&block.m);
    let by_rows = block.flags & params::FLAG_B_TRANSPOSED == 0;
    let narrow = by_rows && block.m > 1 && block.n < LEAST_BY_ROWS;
    few && !narrow && block.n > 0 && block.k > 0 && plain && !dz
}

/// # Safety
/// As for `super::run`, for this one product; it [`fits`], and the processor has the form's instructions.
pub(super) unsafe fn product<F: Form, T: Storage, O: Storage>(threads: &Threads, block: &Product) {
    let has = |flag: u32| block.flags & flag != 0;
    let (m, n, k) = (block.m as usize, block.n as usize, block.k as usize);
    let halves = if has(params::FLAG_GATED) { 2 } else { 1 };
    let together = m.next_power_of_two();
    workspace::with(|workspace| {
        let a = workspace.a.reserve(together * k + 8);
        // SAFETY: so many floats of this call's own; the form's instructions are there; for the rest the caller's promise.
        let a = unsafe {
            F::vectorized(
                #[inline(always)]
                || gather::<F, T>(block, together, a),
            );
            std::slice::from_raw_parts(a, together * k)
        };
        let by_rows = !has(params::FLAG_B_TRANSPOSED);
        let strip = strip(threads, by_rows, n, halves * together);
        threads.run(n.div_ceil(strip), |task| {
            let first = task * strip;
            // SAFETY: columns of B, and of D that no other task has; for the rest the caller's promise.
            unsafe { columns::<F, T, O>(block, a, first..n.min(first + strip), strip) }
        });
    });
}

/// Columns of the matrix that a task takes, of so many, with so many sums each.
pub(super) fn strip(threads: &Threads, by_rows: bool, columns: usize, sums: usize) -> usize {
    // Where a run along a row ends, what the memory has begun to fetch of the row is lost: so runs are as long as can be.
    // Columns are read from end to end by any task.
    let (parts, most) =
        if by_rows { (threads.count(), SUMS_BY_ROWS) } else { (4, SUMS_BY_COLUMNS) };
    columns.div_ceil(parts).next_multiple_of(WIDEST).min(most / sums)
}

/// Computes columns of D, at most `strip` of them, of A as [`gather`] leaves it.
///
/// # Safety
/// As for [`product`]; nothing else uses these columns of D.
unsafe fn columns<F: Form, T: Storage, O: Storage>(
    block: &Product,
    a: &[f32],
    columns: Range<usize>,
    strip: usize,
) {
    let has = |flag: u32| block.flags & flag != 0;
    let (m, n) = (block.m as usize, block.n as usize);
    let halves = if has(params::FLAG_GATED) { 2 } else { 1 };
    let together = m.next_power_of_two();
    let b = Source {
        start: block.b as *const T,
        ld: block.ldb as usize,
        lanes_together: !has(params::FLAG_B_TRANSPOSED),
    };
    let ld = halves * strip;
    SCRATCH.with_borrow_mut(|scratch| {
        let sums = scratch.tile.reserve(together * ld);
        // SAFETY: `ld` floats of this thread's own for each row; for the rest the caller's promise.
        unsafe {
            for half in 0..halves {
                let b = b.from(half * n + columns.start, 0);
                products::<F, T>((a, together), b, columns.len(), (sums.add(half * strip), ld));
            }
            for first in columns.clone().step_by(WIDEST) {
                let tile = Tile {
                    row: 0,
                    rows: m,
                    column: first,
                    columns: WIDEST.min(columns.end - first),
                    sums: sums.add(first - columns.start),
                    ld,
                    up: strip,
                };
                epilogue::<F, T, O>(block, tile);
            }
        }
    });
}

/// `sums[r][j] = Σ_p a[p][r]·B[p,j]`, for 1, 2, 4 or 8 rows, as many as are together in `a`, and so many columns; rows of
/// sums so far apart.
///
/// # Safety
/// B has as many steps as `a`, and so many columns; there are sums for them, rounded up to 16. The processor has the form's
/// instructions.
pub(super) unsafe fn products<F: Form, T: Storage>(
    (a, together): (&[f32], usize),
    b: Source<T>,
    columns: usize,
    sums: (*mut f32, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        match together {
            1 => of_rows::<1, F, T>(a, b, columns, sums),
            2 => of_rows::<2, F, T>(a, b, columns, sums),
            4 => of_rows::<4, F, T>(a, b, columns, sums),
            _ => of_rows::<8, F, T>(a, b, columns, sums),
        }
    }
}

/// [`products`] of `R` rows.
///
/// # Safety
/// As for [`products`].
unsafe fn of_rows<const R: usize, F: Form, T: Storage>(
    a: &[f32],
    b: Source<T>,
    columns: usize,
    sums: (*mut f32, usize),
) {
    let (a, _) = a.as_chunks::<R>();
    // SAFETY: the caller's promise.
    unsafe {
        F::vectorized(
            #[inline(always)]
            || match b.lanes_together {
                true => by_rows::products::<R, F, T>(a, (b.start, b.ld), columns, sums),
                false => dots::dots::<R, F, T>(a, (b.start, b.ld), columns, sums),
            },
        );
    }
}

/// A as f32, multiplied by a derivative where that is asked for: `[k][together]`, with zeros for rows that are not there.
///
/// # Safety
/// `to` is valid for writes of as many floats, and of 8 more (they are spoilt). As for [`product`], inside `F::vectorized`.
#[inline(always)]
unsafe fn gather<F: Form, T: Storage>(block: &Product, together: usize, to: *mut f32) {
    let (m, k) = (block.m as usize, block.k as usize);
    let lanes_together = block.flags & params::FLAG_A_TRANSPOSED != 0;
    let matrix = |address: u64, ld: u64| Source {
        start: address as *const T,
        ld: ld as usize,
        lanes_together,
    };
    let (a, z) = (matrix(block.a, block.lda), matrix(block.z, block.ldz));
    let dz = matrix(block.fused_a, block.ldf);
    let activation = Activation::from_number(block.activation);
    let fuses = block.role == params::ROLE_FUSED_A;
    let piece = if fuses { z.piece::<F>(MOST_STEPS, WIDEST) } else { k };
    let mut fused = Fused::new();
    for step in (0..k).step_by(piece) {
        let steps = piece.min(k - step);
        // SAFETY: steps of A, z and dz, and places for them.
        unsafe {
            let to = to.add(step * together);
            let mut from = a.from(0, step);
            if fuses {
                let of = (from, z.from(0, step), dz.from(0, step));
                from = fused.compute::<F>(of, activation, (m, steps), false);
            }
            widen::<F, T>(from, (m, together), steps, to);
        }
    }
}

/// Lanes as f32: `[steps][together]`, with zeros for those that are not there.
///
/// # Safety
/// The lanes have these steps; `to` is valid for writes of as many floats, and of 8 more. Inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn widen<F: Form, T: Storage>(
    from: Source<T>,
    (lanes, together): (usize, usize),
    steps: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match together == 1 && !from.lanes_together {
            true => load::<F, T>(from.start, std::slice::from_raw_parts_mut(to, steps)),
            false => panel::<F, T>(from, together, lanes, steps, to),
        }
    }
}
