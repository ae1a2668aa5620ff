//! Packing: a block of an operand becomes f32 panels, in which the elements that a tile needs for
//! each step of `k` lie side by side.

use super::form::Form;
use super::lanes;
use super::pairs::{self, AFTER_LAST_OF_A, Least};
use super::prefetch::Rectangle;
use crate::Storage;
use crate::gemm::reference;

/// Lanes of A that are fused, summed or packed side by side.
pub(super) const LANES: usize = 8;

/// The first cache, as most processors have it: bytes of a line; bytes from a line to the next that shares its places, and
/// how many places they share.
const LINE: usize = 64;
const PAGE: usize = 4096;
const WAYS: usize = 8;

/// Steps of `k` in a piece, where pieces have to be short.
pub(super) const STEPS: usize = 64;

/// Where a block of an operand lies: `width` lanes (rows of A, columns of B) by steps of `k`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<T> {
    pub start: *const T,
    pub ld: usize,
    /// Whether the lanes of one step are side by side; else the steps of one lane are.
    pub lanes_together: bool,
}

impl<T> Source<T> {
    /// The same elements, of 16 bits, as such.
    #[inline(always)]
    fn bits(self) -> Source<u16> {
        let Self { start, ld, lanes_together } = self;
        Source { start: start.cast(), ld, lanes_together }
    }

    /// Of so many steps, those that are packed before the next panel's turn. Where lanes are together, a line of the
    /// source has elements of several panels, of so many lanes: it should still be in the cache. Else long runs are best.
    #[inline(always)]
    pub fn piece<F: Form>(&self, steps: usize, width: usize) -> usize {
        if !self.lanes_together {
            return steps.max(1);
        }
        // (Forms with AVX-512 were measured on processors whose first cache has more places: it made no difference.)
        #[cfg(halfstep_avx512)]
        if F::WIDE {
            return STEPS;
        }
        if 2 * width * size_of::<T>() >= LINE {
            return STEPS;
        }
        // Of rows a power of two apart, few lines find a place in the first cache at once.
        let apart = (self.ld * size_of::<T>()) | PAGE;
        let least = WAYS.max(F::WORD_STEPS * F::LANE_WORDS);
        ((WAYS * PAGE) >> apart.trailing_zeros()).clamp(least, STEPS)
    }

    /// The part from a lane and a step on, which need not be there.
    #[inline(always)]
    pub fn from(self, lane: usize, step: usize) -> Self {
        if self.start.is_null() {
            return self;
        }
        let (row, column) = if self.lanes_together { (step, lane) } else { (lane, step) };
        Self { start: self.start.wrapping_add(row * self.ld + column), ..self }
    }

    /// What is packed after panel `i` of a group of so many lanes, a panel of which has `width`, where this source is
    /// the group's first lane and the first step of a piece: the next panel's lanes where pieces are long, else, with
    /// the first panel, the next piece of all.
    #[inline(always)]
    pub fn after(
        self,
        i: usize,
        (width, lanes): (usize, usize),
        (steps, all_steps): (usize, usize),
    ) -> Rectangle {
        if !self.lanes_together {
            let next = (i + 1) * width;
            return self.from(next, 0).rectangle(width.min(lanes.saturating_sub(next)), steps);
        }
        if i > 0 {
            return Rectangle::NONE;
        }
        self.from(0, steps).rectangle(lanes, steps.min(all_steps.saturating_sub(steps)))
    }

    /// Where so many lanes and steps from here on lie.
    #[inline(always)]
    pub fn rectangle(&self, lanes: usize, steps: usize) -> Rectangle {
        let size = if self.lanes_together { (steps, lanes) } else { (lanes, steps) };
        Rectangle::new(self.start, self.ld, size)
    }

    /// The address of an element.
    ///
    /// # Safety
    /// The element is in the operand.
    #[inline(always)]
    pub unsafe fn at(&self, lane: usize, step: usize) -> *const T {
        let (row, column) = if self.lanes_together { (step, lane) } else { (lane, step) };
        // SAFETY: the caller's promise.
        unsafe { self.start.add(row * self.ld + column) }
    }
}

/// Packs a panel of a whole operand's or fused lanes and steps in the words of the form, with subnormal elements as
/// zeros where `flushing`. Says what is least in words of pairs, the last of which has `after_last` where steps are odd.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
pub(super) unsafe fn words<F: Form, T: Storage>(
    from: Source<T>,
    width: usize,
    (lanes, steps): (usize, usize),
    (flushing, after_last): (bool, u16),
    to: *mut f32,
) -> Least {
    // SAFETY: the caller's promise; a form with pairs is for bf16, which has the size of u16.
    unsafe {
        if F::WORD_STEPS == 1 {
            panel::<F, T>(from, width, lanes, steps, to);
        } else {
            pairs::panel::<F>(from.bits(), width, lanes, steps, after_last, to);
        }
        let words = steps.div_ceil(F::WORD_STEPS);
        let missing = words.next_multiple_of(F::LANE_WORDS) - words;
        to.add(words * width).write_bytes(0, missing * width);
        finish::<F, T>(std::slice::from_raw_parts_mut(to, words * width), flushing)
    }
}

/// Packs a panel of A, as [`words`] or as the form has them, a few lanes at a time, whose source `of_lanes` says.
///
/// # Safety
/// As for [`panel`], for `F::MR` lanes.
#[inline(always)]
pub(super) unsafe fn words_of_a<F: Form, T: Storage>(
    mut of_lanes: impl FnMut(usize, usize) -> Source<T>,
    (lanes, steps): (usize, usize),
    flushing: bool,
    to: *mut f32,
) -> Least {
    // SAFETY: the caller's promise; a form with words of lanes side by side is for bf16.
    unsafe {
        if F::LANE_WORDS == 1 {
            let how = (flushing, AFTER_LAST_OF_A);
            return words::<F, T>(of_lanes(0, lanes), F::MR, (lanes, steps), how, to);
        }
        #[cfg(target_arch = "x86_64")]
        for first in (0..F::MR).step_by(LANES) {
            let here = lanes.saturating_sub(first).min(LANES);
            let from = of_lanes(first.min(lanes), here).bits();
            super::amx::lanes_of_a::<F>(from, (first, here), steps, to);
        }
        let words = steps.div_ceil(F::WORD_STEPS).next_multiple_of(F::LANE_WORDS);
        finish::<F, T>(std::slice::from_raw_parts_mut(to, words * F::MR), flushing)
    }
}

/// What is least in rows that stay where they lie, for forms with words of pairs.
///
/// # Safety
/// The elements are in the operand, so many steps that words are whole. Inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn least_of_rows<F: Form, T>(
    from: Source<T>,
    (lanes, steps): (usize, usize),
) -> Least {
    #[cfg(halfstep_avx512)]
    if F::WORD_STEPS > 1 {
        // SAFETY: the caller's promise; forms that take such rows have AVX-512.
        let least = |lane| unsafe { Least::of_lines(from.at(lane, 0).cast(), steps) };
        return (0..lanes).map(least).fold(Least::NONE, Least::min);
    }
    let _ = (from, lanes, steps);
    Least::NONE
}

/// Flushes packed words where asked to, and says what is least in words of pairs.
#[inline(always)]
fn finish<F: Form, T: Storage>(packed: &mut [f32], flushing: bool) -> Least {
    match (F::WORD_STEPS, flushing) {
        (1, true) => flush(packed, reference::smallest_normal(T::DTYPE)),
        (1, false) => {}
        (_, true) => pairs::flush(packed),
        (_, false) => {}
    }
    if F::WORD_STEPS == 1 { Least::NONE } else { Least::of::<F>(packed) }
}

/// The element of a packed panel.
///
/// # Safety
/// The panel has that lane and step.
#[inline(always)]
pub(super) unsafe fn element<F: Form>(
    panel: *const f32,
    width: usize,
    (lane, step): (usize, usize),
) -> f32 {
    let word = step / F::WORD_STEPS;
    #[cfg(target_arch = "x86_64")]
    let place =
        if F::LANE_WORDS == 1 { word * width + lane } else { super::amx::place(lane, word) };
    #[cfg(not(target_arch = "x86_64"))]
    let place = word * width + lane;
    // SAFETY: the caller's promise.
    let word = unsafe { *panel.add(place) };
    if F::WORD_STEPS == 1 { word } else { pairs::element::<F>(word, step % 2 == 1) }
}

/// Packs `lanes ≤ width` lanes of `steps` steps as `[steps][width]`; missing lanes become zeros.
///
/// # Safety
/// The elements are in the operand. `to` is valid for writes of `steps·width` floats, and of 8 more
/// where `width` is no multiple of 8 (they are spoilt). Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn panel<F: Form, T: Storage>(
    from: Source<T>,
    width: usize,
    lanes: usize,
    steps: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if from.lanes_together {
            together::<F, T>(from, width, lanes, steps, to);
        } else {
            apart::<F, T>(from, width, lanes, steps, to);
        }
    }
}

/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn together<F: Form, T: Storage>(
    from: Source<T>,
    width: usize,
    lanes: usize,
    steps: usize,
    to: *mut f32,
) {
    let all = lanes == width;
    let whole = lanes / 8 * 8;
    for step in 0..steps {
        // SAFETY: the caller's promise.
        unsafe {
            let (row, to) = (from.start.add(step * from.ld), to.add(step * width));
            // (The same number; one of a form's width is known where this is compiled, and its loop unrolled.)
            for i in (0..if all { width / 8 * 8 } else { whole }).step_by(8) {
                to.add(i).cast::<[f32; 8]>().write(lanes::widen::<F, T>(row.add(i)));
            }
            if all && F::VECTOR && width % 8 == 6 {
                // Two reach into the next step, which is written later, and behind the last into the spare ones.
                to.add(whole).cast::<[f32; 8]>().write(lanes::widen_6::<F, T>(row.add(whole)));
                continue;
            }
            for i in whole..lanes {
                to.add(i).write((*row.add(i)).widen());
            }
            for i in lanes..width {
                to.add(i).write(0.0);
            }
        }
    }
}

/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn apart<F: Form, T: Storage>(
    from: Source<T>,
    width: usize,
    lanes: usize,
    steps: usize,
    to: *mut f32,
) {
    let whole = if F::VECTOR { steps / 8 * 8 } else { 0 };
    for first in (0..width).step_by(8) {
        let here = lanes.saturating_sub(first).min(8);
        for step in (0..whole).step_by(8) {
            let start = from.start.wrapping_add(first * from.ld + step);
            // Loops over as many lanes as panels have are unrolled.
            // SAFETY: `here` lanes of 8 steps each.
            let rows = unsafe {
                match here {
                    8 => square::<F, T>(start, from.ld, 8),
                    6 => square::<F, T>(start, from.ld, 6),
                    _ => square::<F, T>(start, from.ld, here),
                }
            };
            // SAFETY: inside `F::vectorized`, as the caller promised.
            let columns = unsafe { lanes::transpose::<F>(&rows) };
            for (i, column) in columns.iter().enumerate() {
                // SAFETY: 8 floats of step `step + i`; where the panel is narrower they reach into the
                // next step, which is written later, and behind the last into the 8 spare ones.
                unsafe {
                    to.add((step + i) * width + first).cast::<[f32; 8]>().write_unaligned(*column);
                }
            }
        }
        for step in whole..steps {
            for lane in first..width.min(first + 8) {
                // SAFETY: only lanes that are there are read.
                unsafe {
                    let value = if lane < lanes { (*from.at(lane, step)).widen() } else { 0.0 };
                    to.add(step * width + lane).write(value);
                }
            }
        }
    }
}

/// Eight elements of each of a few rows as f32, and zeros.
///
/// # Safety
/// They are valid for reads. Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
unsafe fn square<F: Form, T: Storage>(start: *const T, ld: usize, rows: usize) -> [[f32; 8]; 8] {
    let mut square = [[0.0; 8]; 8];
    for (i, row) in square.iter_mut().enumerate().take(rows) {
        // SAFETY: the caller's promise.
        *row = unsafe { lanes::widen::<F, T>(start.add(i * ld)) };
    }
    square
}

/// Subnormal values of a 16-bit type become zeros of their sign.
#[inline(always)]
pub(super) fn flush(values: &mut [f32], smallest: f32) {
    for value in values {
        *value = if value.abs() < smallest { 0.0f32.copysign(*value) } else { *value };
    }
}

/// Packed f16 elements are rounded to bf16. A NaN stays one.
#[inline(always)]
pub(super) fn to_bf16(values: &mut [f32]) {
    for value in values {
        // To nearest, ties to even; no f16 is near bf16's largest.
        let bits = value.to_bits();
        let rounded = (bits + (0x7fff + (bits >> 16 & 1))) & 0xffff_0000;
        let finite = bits & 0x7f80_0000 != 0x7f80_0000;
        *value = f32::from_bits(if finite { rounded } else { bits });
    }
}

/// A row of elements as f32.
///
/// # Safety
/// `from` is valid for reads of as many elements as `to` has. Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn load<F: Form, T: Storage>(from: *const T, to: &mut [f32]) {
    let (chunks, rest) = to.as_chunks_mut::<8>();
    let whole = chunks.len() * 8;
    for (i, chunk) in chunks.iter_mut().enumerate() {
        // SAFETY: elements `8i..8i+8` are there.
        *chunk = unsafe { lanes::widen::<F, T>(from.add(8 * i)) };
    }
    for (i, value) in rest.iter_mut().enumerate() {
        // SAFETY: the elements behind the whole chunks are there.
        *value = unsafe { (*from.add(whole + i)).widen() };
    }
}
