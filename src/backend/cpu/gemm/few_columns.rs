//! A product of few columns, that of few rows turned around: rows of A take the place of columns of B. A is read once, as it
//! lies in memory, and is not packed. Each element is the chain over `k` that every form computes.

use std::ops::Range;

use super::super::threads::Threads;
use super::epilogue::{Tile, epilogue};
use super::few;
use super::form::Form;
use super::pack::Source;
use super::workspace::{self, SCRATCH};
use crate::Storage;
use crate::kernel::params::gemm::{self as params, Product};

/// Rows of D that go through the epilogue at a time: their sums stay in the first cache.
const ROWS: usize = 256;
/// Floats from row to row of sums as the epilogue has them: it works on 16 columns.
const LD: usize = 16;

/// Steps, at least, where rows of A lie one behind the other: so short ones are copied before they are transposed, which takes
/// a little longer than packing them.
const LEAST_STEPS: u64 = 64;

/// Whether the product is one that [`product`] computes: one of few rows comes first.
pub(super) fn fits(block: &Product) -> bool {
    // What is done to all of A, or with it besides, is done to packed panels.
    let of_panels = params::FLAG_FLUSH | params::FLAG_THROUGH_BF16 | params::FLAG_GATED;
    let plain = block.flags & of_panels == 0 && block.a_sums == 0;
    let as_it_lies = block.role != params::ROLE_FUSED_A && block.fused_a == 0;
    let few = (1..=few::MOST).contains(&block.n);
    let by_rows = block.flags & params::FLAG_A_TRANSPOSED != 0;
    let long = match by_rows {
        true => block.k > 0 && (block.n == 1 || block.m >= few::LEAST_BY_ROWS),
        false => block.k >= LEAST_STEPS,
    };
    few && long && block.m > 0 && plain && as_it_lies
}

/// # Safety
/// As for `super::run`, for this one product; it [`fits`], and the processor has the form's instructions.
pub(super) unsafe fn product<F: Form, T: Storage, O: Storage>(threads: &Threads, block: &Product) {
    let has = |flag: u32| block.flags & flag != 0;
    let (m, n, k) = (block.m as usize, block.n as usize, block.k as usize);
    let together = n.next_power_of_two();
    let from = Source {
        start: block.b as *const T,
        ld: block.ldb as usize,
        lanes_together: !has(params::FLAG_B_TRANSPOSED),
    };
    workspace::with(|workspace| {
        let b = workspace.a.reserve(together * k + 8);
        // SAFETY: so many floats of this call's own; the form's instructions are there; for the rest the caller's promise.
        let b = unsafe {
            F::vectorized(
                #[inline(always)]
                || few::widen::<F, T>(from, (n, together), k, b),
            );
            std::slice::from_raw_parts(b, together * k)
        };
        let strip = few::strip(threads, has(params::FLAG_A_TRANSPOSED), m, together);
        threads.run(m.div_ceil(strip), |task| {
            let first = task * strip;
            // SAFETY: rows of A, and of D that no other task has; for the rest the caller's promise.
            unsafe { rows::<F, T, O>(block, b, first..m.min(first + strip), strip) }
        });
    });
}

/// Computes rows of D, at most `strip` of them, of a B that is f32, `[k][n]`, n rounded up to a power of two.
///
/// # Safety
/// As for [`product`]; nothing else uses these rows of D.
unsafe fn rows<F: Form, T: Storage, O: Storage>(
    block: &Product,
    b: &[f32],
    rows: Range<usize>,
    strip: usize,
) {
    let n = block.n as usize;
    let together = n.next_power_of_two();
    let a = Source {
        start: block.a as *const T,
        ld: block.lda as usize,
        lanes_together: block.flags & params::FLAG_A_TRANSPOSED != 0,
    };
    SCRATCH.with_borrow_mut(|scratch| {
        let turned = scratch.tile.reserve(ROWS * LD + together * strip);
        // SAFETY: so many floats of this thread's own; for the rest the caller's promise.
        unsafe {
            let sums = turned.add(ROWS * LD);
            few::products::<F, T>((b, together), a.from(rows.start, 0), rows.len(), (sums, strip));
            turned.write_bytes(0, ROWS * LD); // columns that are not there
            for first in rows.clone().step_by(ROWS) {
                let count = ROWS.min(rows.end - first);
                for row in 0..count {
                    for column in 0..n {
                        let sum = *sums.add(column * strip + first - rows.start + row);
                        *turned.add(row * LD + column) = sum;
                    }
                }
                let (row, sums, ld) = (first, turned, LD);
                let tile = Tile { row, rows: count, column: 0, columns: n, sums, ld, up: 0 };
                epilogue::<F, T, O>(block, tile);
            }
        }
    });
}
