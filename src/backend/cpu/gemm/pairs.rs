//! Panels of bf16 as they are: a word holds an element of two steps of `k`, the first in the high half.

use super::form::Form;
use super::lanes;
use super::pack::Source;

/// Bits of a magnitude: 1 sign, 8 exponent and 7 fraction bits make an element.
const MAGNITUDE: u16 = 0x7fff;
/// The exponent's.
const EXPONENT: u16 = 0x7f80;

/// The smallest magnitude other than 0 among so many elements, as bits less one; the largest number there is where
/// all are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Least(u16);

impl Least {
    /// Of no elements.
    pub const NONE: Self = Self(u16::MAX);

    /// Whether sums of products of two such sets have no subnormal values, whatever is rounded on the way.
    ///
    /// Elements are multiples of 2^(e−7), with e the smallest exponent; so products, and sums of them, and what those
    /// round to, are multiples of q = 2^(e_a+e_b−14): 0, or at least q, which has to be 2⁻¹²⁶ or more.
    pub fn all_normal(self, other: Self) -> bool {
        let exponent = |least: Self| i32::from(least.0.wrapping_add(1) >> 7) - 127;
        if self == Self::NONE || other == Self::NONE {
            return true;
        }
        let subnormal = |least: Self| least.0.wrapping_add(1) & EXPONENT == 0;
        !subnormal(self)
            && !subnormal(other)
            && exponent(self) + exponent(other) - 14 >= f32::MIN_EXP - 1
    }

    /// Of the elements in a packed panel.
    #[inline(always)]
    pub fn of(words: &[f32]) -> Self {
        // 0 becomes the largest.
        let key = |element: u32| (element as u16 & MAGNITUDE).wrapping_sub(1);
        let mut least = [u16::MAX; 16];
        let (chunks, rest) = words.as_chunks::<8>();
        for chunk in chunks {
            for (i, word) in chunk.iter().enumerate() {
                let word = word.to_bits();
                least[i] = least[i].min(key(word));
                least[i + 8] = least[i + 8].min(key(word >> 16));
            }
        }
        for word in rest {
            let word = word.to_bits();
            least[0] = least[0].min(key(word)).min(key(word >> 16));
        }
        Self(least.into_iter().fold(u16::MAX, u16::min))
    }
}

/// An element of a packed panel: of the first or the second step of its word.
#[inline(always)]
pub(super) fn element(word: f32, second: bool) -> f32 {
    let bits = word.to_bits();
    f32::from_bits(if second { bits << 16 } else { bits & 0xffff_0000 })
}

/// Subnormal elements become zeros of their sign.
#[inline(always)]
pub(super) fn flush(words: &mut [f32]) {
    let flushed =
        |element: u16| if element & EXPONENT == 0 { element & !MAGNITUDE } else { element };
    for word in words {
        let bits = word.to_bits();
        let (first, second) = (flushed((bits >> 16) as u16), flushed(bits as u16));
        *word = f32::from_bits(u32::from(first) << 16 | u32::from(second));
    }
}

/// What stands in A for the step after an odd last one; in B it is 0. Their product is −0, which changes no sum: +0
/// would make a −0 of it.
pub(super) const AFTER_LAST_OF_A: u16 = 0x8000;

/// Packs `lanes ≤ width` lanes of `steps` steps as words `[⌈steps/2⌉][width]`; missing lanes become zeros, a missing
/// last step `after_last`.
///
/// # Safety
/// As for [`super::pack::panel`], with a word for a float. The width is a multiple of 8.
#[inline(always)]
pub(super) unsafe fn panel<F: Form>(
    from: Source<u16>,
    width: usize,
    lanes: usize,
    steps: usize,
    after_last: u16,
    to: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if from.lanes_together {
            together(from, width, (lanes, steps), after_last, to);
        } else {
            apart::<F>(from, width, (lanes, steps), after_last, to);
        }
    }
}

/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn together(
    from: Source<u16>,
    width: usize,
    (lanes, steps): (usize, usize),
    after_last: u16,
    to: *mut f32,
) {
    for pair in 0..steps.div_ceil(2) {
        // SAFETY: the caller's promise.
        unsafe {
            let first = from.start.add(2 * pair * from.ld);
            let to = to.add(pair * width);
            if 2 * pair + 1 == steps {
                for i in 0..lanes {
                    to.add(i).write(word(*first.add(i), after_last));
                }
            } else {
                let second = first.add(from.ld);
                let whole = lanes / 8 * 8;
                for i in (0..whole).step_by(8) {
                    let high = first.add(i).cast::<[u16; 8]>().read_unaligned();
                    let low = second.add(i).cast::<[u16; 8]>().read_unaligned();
                    to.add(i).cast::<[f32; 8]>().write(words(high, low));
                }
                for i in whole..lanes {
                    to.add(i).write(word(*first.add(i), *second.add(i)));
                }
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
unsafe fn apart<F: Form>(
    from: Source<u16>,
    width: usize,
    (lanes, steps): (usize, usize),
    after_last: u16,
    to: *mut f32,
) {
    let whole = steps / 16 * 16;
    for first in (0..width).step_by(8) {
        let here = lanes.saturating_sub(first).min(8);
        for step in (0..whole).step_by(16) {
            // Pairs of elements are transposed as if they were numbers.
            let mut rows = [[0.0f32; 8]; 8];
            let read = |lane: usize| {
                let start = from.start.wrapping_add((first + lane) * from.ld + step);
                // SAFETY: 16 elements of a lane that is there.
                unsafe { start.cast::<[f32; 8]>().read_unaligned() }
            };
            if here == 8 {
                rows = std::array::from_fn(read);
            } else {
                for (i, row) in rows.iter_mut().enumerate().take(here) {
                    *row = read(i);
                }
            }
            // SAFETY: inside `F::vectorized`, as the caller promised.
            let columns = unsafe { lanes::transpose::<F>(&rows) };
            for (i, column) in columns.iter().enumerate() {
                let turned = column.map(|pair| f32::from_bits(pair.to_bits().rotate_left(16)));
                // SAFETY: 8 words of the panel.
                unsafe {
                    to.add((step / 2 + i) * width + first).cast::<[f32; 8]>().write(turned);
                }
            }
        }
        for step in (whole..steps).step_by(2) {
            for lane in first..first + 8 {
                // SAFETY: only elements that are there are read.
                unsafe {
                    let read = |step: usize| match (lane < lanes, step < steps) {
                        (true, true) => *from.at(lane, step),
                        (_, true) => 0,
                        (_, false) => after_last,
                    };
                    to.add(step / 2 * width + lane).write(word(read(step), read(step + 1)));
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn word(first: u16, second: u16) -> f32 {
    f32::from_bits(u32::from(first) << 16 | u32::from(second))
}

#[inline(always)]
pub(super) fn words(first: [u16; 8], second: [u16; 8]) -> [f32; 8] {
    std::array::from_fn(|i| word(first[i], second[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Storage, bf16};

    fn least(values: &[f32]) -> Least {
        let word = |value: &f32| word(bf16::narrow(*value).to_bits(), 0);
        Least::of(&values.iter().map(word).collect::<Vec<_>>())
    }

    #[test]
    fn the_least_magnitude_is_that_of_no_zero() {
        assert_eq!(least(&[0.0, -0.0]), Least::NONE);
        for len in [1, 7, 8, 9, 40] {
            for at in [0, len / 2, len - 1] {
                let mut values = vec![f32::INFINITY; len];
                values[0] = 0.0;
                values[at] = -1.5;
                assert_eq!(least(&values), least(&[1.5]), "{len} {at}");
            }
        }
        assert!(least(&[1e-40]) < least(&[1e-38]) && least(&[1.0]) < least(&[f32::NAN]));
    }

    #[test]
    fn products_of_small_numbers_may_have_subnormal_sums() {
        let power = |e: i32| least(&[2f32.powi(e)]);
        // 7 bits below each leading one.
        assert!(power(-56).all_normal(power(-56)));
        assert!(!power(-57).all_normal(power(-56)) && !power(-56).all_normal(power(-57)));
        assert!(power(0).all_normal(power(-112)) && !power(0).all_normal(power(-113)));
        assert!(power(126).all_normal(power(-126)));
        // Subnormal elements are flushed as such.
        assert!(!power(127).all_normal(power(-127)));
        assert!(Least::NONE.all_normal(power(-130)) && power(-130).all_normal(Least::NONE));
    }
}
