//! Sums of A's rows beside the product, of packed panels: gradients of biases. Their order is `gemm::reference`'s: step
//! after step of a block, block after block.

use std::ops::Range;

use super::form::Form;
use super::pack::{self, LANES};
use super::pairs;
use super::panels::PackedA;
use super::product::{Job, Part};
use super::{BF16, F16};
use crate::gemm::reference::{SUM_BLOCK, flushed};
use crate::kernel::params::gemm::{self as params, Product};
use crate::{Storage, bf16, f16};

/// Panels whose sums are made side by side, since each is one chain of additions.
const PANELS: usize = 4;

impl<T: Storage> Job<'_, T> {
    /// Adds packed panels of A to the sums of their rows.
    ///
    /// # Safety
    /// As for [`Self::pack_a`]; the panels are packed.
    #[inline(always)]
    pub(super) unsafe fn sum_a<F: Form>(&self, part: Part, panels: Range<usize>, packed: PackedA) {
        for first in (0..F::MR).step_by(LANES) {
            let some = panels.len() / PANELS * PANELS;
            let (fours, ones) =
                (panels.start..panels.start + some, panels.start + some..panels.end);
            // SAFETY: the caller's promise.
            unsafe {
                for panel in fours.step_by(PANELS) {
                    self.sum_lanes::<F, PANELS>(part, (panel, first), packed);
                }
                for panel in ones {
                    self.sum_lanes::<F, 1>(part, (panel, first), packed);
                }
            }
        }
    }

    /// Adds lanes `first..` of `N` panels to the sums of their rows.
    ///
    /// # Safety
    /// As for [`Self::sum_a`].
    #[inline(always)]
    unsafe fn sum_lanes<F: Form, const N: usize>(
        &self,
        part: Part,
        (panel, first): (usize, usize),
        packed: PackedA,
    ) {
        let row = |n: usize| (panel + n) * F::MR + first;
        let lanes = |n: usize| LANES.min(F::MR - first).min(part.rows.saturating_sub(row(n)));
        let mut totals = [[0.0f32; LANES]; N];
        let mut sums = [[0.0f32; LANES]; N];
        // SAFETY: `a_sums` has a float for each row of the block, and the panels are packed.
        unsafe {
            if part.step > 0 {
                for (n, total) in totals.iter_mut().enumerate() {
                    for (lane, total) in total.iter_mut().enumerate().take(lanes(n)) {
                        *total = *self.a_sums.add(row(n) + lane);
                    }
                }
            }
            for i in 0..part.steps.div_ceil(self.cut.steps.max(1)) {
                let (before, (_, count)) = (i * self.cut.steps, self.range(part, i));
                let panels = std::array::from_fn(|n| packed.panel(i, panel + n).cast_const());
                let mut step = 0;
                while step < count {
                    let block = SUM_BLOCK - (before + step) % SUM_BLOCK;
                    let end = count.min(step + block);
                    add::<F, N>(panels, first, step..end, &mut sums);
                    step = end;
                    let done = before + end;
                    if done % SUM_BLOCK == 0 || (part.last && done == part.steps) {
                        for (total, sum) in
                            totals.as_flattened_mut().iter_mut().zip(sums.as_flattened_mut())
                        {
                            *total += *sum;
                            *sum = 0.0;
                        }
                    }
                }
            }
            for (n, total) in totals.iter().enumerate() {
                let total = &total[..lanes(n)];
                if part.last {
                    let first = part.row + row(n);
                    by_type!(self.block.output, store, self.block, first, total);
                } else {
                    let so_far = self.a_sums.wrapping_add(row(n));
                    so_far.copy_from_nonoverlapping(total.as_ptr(), total.len());
                }
            }
        }
    }
}

/// Sums of rows from `first` on, as they are asked for: added to what is there or not, rounded, flushed.
///
/// # Safety
/// The block's `a_sums` have these rows, of `O`, and nothing else uses them.
#[inline(always)]
unsafe fn store<O: Storage>(block: &Product, first: usize, totals: &[f32]) {
    let has = |flag: u32| block.flags & flag != 0;
    for (i, total) in totals.iter().enumerate() {
        let to = (block.a_sums as *mut O).wrapping_add(first + i);
        // SAFETY: the caller's promise.
        unsafe {
            let sum = if has(params::FLAG_ADD_A_SUMS) { (*to).widen() + total } else { *total };
            *to = flushed(O::narrow(sum), has(params::FLAG_FLUSH));
        }
    }
}

/// Adds steps of 8 lanes of each panel to their sums, those of lanes that are none, too. The first is a word's first.
///
/// # Safety
/// The panels have these steps, and room for 8 lanes.
#[inline(always)]
unsafe fn add<F: Form, const N: usize>(
    panels: [*const f32; N],
    first: usize,
    steps: Range<usize>,
    sums: &mut [[f32; LANES]; N],
) {
    if F::LANE_WORDS > 1 {
        for step in steps {
            for (sums, panel) in sums.iter_mut().zip(panels) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    *sum += unsafe { pack::element::<F>(panel, F::MR, (first + lane, step)) };
                }
            }
        }
        return;
    }
    for step in steps.clone().step_by(F::WORD_STEPS) {
        for (sums, panel) in sums.iter_mut().zip(panels) {
            let at = step / F::WORD_STEPS * F::MR + first;
            // SAFETY: the caller's promise.
            let words = unsafe { panel.add(at).cast::<[f32; LANES]>().read_unaligned() };
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += if F::WORD_STEPS == 1 { word } else { pairs::element::<F>(word, false) };
            }
            if F::WORD_STEPS > 1 && step + 1 < steps.end {
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum += pairs::element::<F>(word, true);
                }
            }
        }
    }
}
