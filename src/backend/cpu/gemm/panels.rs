//! Packing the panels of a product, with what is asked of A besides.

use std::ops::Range;

use super::form::Form;
use super::fused::Fused;
use super::pack::{self, Source};
use super::pairs::Least;
use super::product::{Job, Part};
use crate::Storage;
use crate::gemm::Activation;
use crate::kernel::params::gemm as params;

/// Packed panels of A, some of a part's: `[range][panel]`.
#[derive(Clone, Copy)]
pub(super) struct PackedA {
    pub start: *mut f32,
    /// The first of them, of the part's, and how many there are in each range.
    pub first: usize,
    pub count: usize,
    /// Floats from panel to panel.
    pub apart: usize,
}

// SAFETY: who packs has panels of its own; others read them after that.
unsafe impl Sync for PackedA {}

impl PackedA {
    /// A panel of a range.
    #[inline(always)]
    pub fn panel(self, range: usize, panel: usize) -> *mut f32 {
        let index = range * self.count + panel - self.first;
        self.start.wrapping_add(index * self.apart)
    }
}

impl<T: Storage> Job<'_, T> {
    /// Packs panels of B for one range of steps, a piece at a time.
    ///
    /// # Safety
    /// As for [`product`](super::product::product), inside `F::vectorized`; `to` gives room for a panel.
    #[inline(always)]
    pub(super) unsafe fn pack_b<F: Form>(
        &self,
        part: Part,
        i: usize,
        half: usize,
        panels: Range<usize>,
        to: impl Fn(usize) -> *mut f32,
    ) {
        let (first, steps) = self.range(part, i);
        let flushing = self.has(params::FLAG_FLUSH);
        let stride = self.halves * part.columns.div_ceil(F::NR);
        let piece = self.b.piece::<F>(steps, F::NR);
        let group = half * self.block.n as usize + part.column + panels.start * F::NR;
        let of_group = (panels.len() * F::NR).min(part.columns - panels.start * F::NR);
        for step in (0..steps).step_by(piece) {
            let all_steps = self.block.k as usize - (first + step);
            let source = self.b.from(group, first + step);
            let steps = piece.min(steps - step);
            for panel in panels.clone() {
                if self.ahead {
                    let next =
                        source.after(panel - panels.start, (F::NR, of_group), (steps, all_steps));
                    next.prefetch();
                }
                let lanes = F::NR.min(part.columns - panel * F::NR);
                let lane = half * self.block.n as usize + part.column + panel * F::NR;
                // SAFETY: lanes and steps of the operand, as the caller promised; an entry of this panel's own.
                unsafe {
                    let start = self.b.at(lane, first + step);
                    let to = to(panel).add(step / F::WORD_STEPS * F::NR);
                    let source = Source { start, ..self.b };
                    let least =
                        pack::words::<F, T>(source, F::NR, (lanes, steps), (flushing, 0), to);
                    if self.has(params::FLAG_THROUGH_BF16) {
                        pack::to_bf16(std::slice::from_raw_parts_mut(to, steps * F::NR));
                    }
                    let index = half * part.columns.div_ceil(F::NR) + panel;
                    self.lower(self.least_b(part), (i, stride, index), part, step, least);
                }
            }
        }
    }

    /// Notes what is least in a piece of a panel, which starts at a step of range `i`; the least of all earlier
    /// steps goes with it, since sums have all of them.
    ///
    /// # Safety
    /// The entries `[range][stride]` are those of one operand, and nothing else uses the panel's meanwhile.
    #[inline(always)]
    unsafe fn lower(
        &self,
        entries: *mut Least,
        (i, stride, index): (usize, usize, usize),
        part: Part,
        step: usize,
        least: Least,
    ) {
        let ranges = self.cut.block_steps.div_ceil(self.cut.steps);
        let before = match (step, i, part.step) {
            (0, 0, 0) => None,
            (0, 0, _) => Some(ranges - 1), // of the part before
            (0, _, _) => Some(i - 1),
            _ => Some(i),
        };
        // SAFETY: the caller's promise.
        unsafe {
            let before = before.map_or(Least::NONE, |i| *entries.add(i * stride + index));
            entries.add(i * stride + index).write(before.min(least));
        }
    }

    /// Packs panels of A, as far as they are there, for all steps of the part, with what is asked of A besides.
    ///
    /// # Safety
    /// As for [`product`](super::product::product); the panels are in `to`, for all ranges.
    pub(super) unsafe fn pack_a<F: Form>(&self, part: Part, panels: Range<usize>, to: PackedA) {
        // SAFETY: the form's instructions are there, as the caller promised.
        unsafe {
            F::vectorized(
                #[inline(always)]
                || self.pack_panels_of_a::<F>(part, panels, to),
            );
        }
    }

    /// # Safety
    /// As for [`Self::pack_a`], inside `F::vectorized`.
    #[inline(always)]
    unsafe fn pack_panels_of_a<F: Form>(&self, part: Part, panels: Range<usize>, packed: PackedA) {
        let (first, last) = (panels.start, panels.end.min(part.rows.div_ceil(F::MR)));
        let of_group = ((last - first) * F::MR).min(part.rows - first * F::MR);
        let block = self.block;
        let flushing = self.has(params::FLAG_FLUSH);
        let activation = Activation::from_number(block.activation);
        let fused = block.role == params::ROLE_FUSED_A;
        let mut values = Fused::<T>::new();
        // SAFETY, for the blocks below: lanes and steps of the operands, as the caller promised; panels of
        // this task.
        for i in 0..part.steps.div_ceil(self.cut.steps.max(1)) {
            let (start, count) = self.range(part, i);
            let piece = self.a.piece::<F>(count, F::MR);
            for step in (0..count).step_by(piece) {
                let all_steps = block.k as usize - (start + step);
                let group = self.a.from(part.row + first * F::MR, start + step);
                let steps = piece.min(count - step);
                for panel in first..last {
                    let lanes = F::MR.min(part.rows - panel * F::MR);
                    let lane = part.row + panel * F::MR;
                    if self.in_place && lanes == F::MR {
                        // SAFETY: see above.
                        unsafe {
                            let rows = self.a.from(lane, start + step);
                            let least = pack::least_of_rows::<F, T>(rows, (lanes, steps));
                            let stride = part.rows.div_ceil(F::MR);
                            self.lower(self.least_a, (i, stride, panel), part, step, least);
                        }
                        continue;
                    }
                    if self.ahead {
                        group
                            .after(panel - first, (F::MR, of_group), (steps, all_steps))
                            .prefetch();
                    }
                    let at = |address: u64, ld: u64| {
                        let whole = Source {
                            start: address as *const T,
                            ld: ld as usize,
                            lanes_together: self.a.lanes_together,
                        };
                        // SAFETY: see above.
                        let start = unsafe { whole.at(lane, start + step) };
                        Source { start, ..whole }
                    };
                    // SAFETY: see above.
                    unsafe {
                        let to = packed.panel(i, panel).add(step / F::WORD_STEPS * F::MR);
                        let size = (lanes, steps);
                        let least = pack::words_of_a::<F, T>(
                            #[inline(always)]
                            |first: usize, lanes: usize| {
                                let source = at(block.a, block.lda).from(first, 0);
                                if !fused {
                                    return source;
                                }
                                let z = at(block.z, block.ldz).from(first, 0);
                                let out = match block.fused_a {
                                    0 => Source { start: std::ptr::null(), ..source },
                                    address => at(address, block.ldf).from(first, 0),
                                };
                                let size = (lanes, steps);
                                values.compute::<F::Around>(
                                    (source, z, out),
                                    activation,
                                    size,
                                    flushing,
                                )
                            },
                            size,
                            flushing && !fused,
                            to,
                        );
                        let stride = part.rows.div_ceil(F::MR);
                        self.lower(self.least_a, (i, stride, panel), part, step, least);
                        if !fused && block.fused_a != 0 {
                            let out = at(block.fused_a, block.ldf);
                            unpack::<F, T>(to, out, (lanes, steps));
                        }
                    }
                }
            }
        }
        // Each column of blocks of D packs A again; the sums are of the first.
        if block.a_sums != 0 && part.column == 0 {
            // SAFETY: see above.
            unsafe { self.sum_a::<F>(part, first..last, packed) };
        }
        // What is stored of A and summed is f16: factors are rounded behind it.
        if self.has(params::FLAG_THROUGH_BF16) {
            for i in 0..part.steps.div_ceil(self.cut.steps.max(1)) {
                let (_, count) = self.range(part, i);
                for panel in first..last {
                    // SAFETY: the panel is packed, `count` steps of f32 (pairs of steps are of bf16 only), and this task's.
                    unsafe {
                        pack::to_bf16(std::slice::from_raw_parts_mut(
                            packed.panel(i, panel),
                            count * F::MR,
                        ));
                    }
                }
            }
        }
    }
}

/// Stores a packed panel of A as elements: `dz` where there is no derivative to take.
///
/// # Safety
/// The panel is packed; lanes and steps of `out` are valid for writes.
#[inline(always)]
unsafe fn unpack<F: Form, T: Storage>(
    panel: *const f32,
    out: Source<T>,
    (lanes, steps): (usize, usize),
) {
    for step in 0..steps {
        for lane in 0..lanes {
            // SAFETY: the caller's promise.
            unsafe {
                let value = T::narrow(pack::element::<F>(panel, F::MR, (lane, step)));
                out.at(lane, step).cast_mut().write(value);
            }
        }
    }
}
