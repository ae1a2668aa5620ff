//! Panels of bf16 as they are: a word holds an element of two steps of `k`.

// What needs a newer compiler than the oldest we support is behind `halfstep_avx512`.
#![allow(clippy::incompatible_msrv)]

use std::ops::Range;

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

    /// Of the elements in a packed panel. Where `F::VECTOR`, inside `F::vectorized`.
    #[inline(always)]
    pub fn of<F: Form>(words: &[f32]) -> Self {
        #[cfg(halfstep_avx512)]
        if F::WIDE {
            let (lines, rest) = words.as_chunks::<16>();
            let start = lines.as_ptr().cast();
            // SAFETY: words of two elements; the form says which instructions there are.
            return unsafe { Self::of_lines(start, 32 * lines.len()) }.min(Self::of_few(rest));
        }
        Self::of_few(words)
    }

    #[inline(always)]
    fn of_few(words: &[f32]) -> Self {
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

    /// Of so many elements, a multiple of 32, side by side.
    ///
    /// # Safety
    /// They are there, and the processor has AVX-512F and BW.
    #[cfg(halfstep_avx512)]
    #[inline(always)]
    pub unsafe fn of_lines(elements: *const u16, count: usize) -> Self {
        use std::arch::x86_64::*;
        let mut least = [[u16::MAX; 32]; 2];
        // SAFETY: the caller's promise; lines are as long as vectors.
        unsafe {
            let (magnitude, one) = (_mm512_set1_epi16(MAGNITUDE as i16), _mm512_set1_epi16(1));
            let key = |line: usize| {
                let elements = _mm512_loadu_si512(elements.add(32 * line).cast());
                _mm512_sub_epi16(_mm512_and_si512(elements, magnitude), one)
            };
            let [mut first, mut second] = [_mm512_set1_epi16(-1); 2];
            let lines = count / 32;
            for line in (0..lines / 2 * 2).step_by(2) {
                first = _mm512_min_epu16(first, key(line));
                second = _mm512_min_epu16(second, key(line + 1));
            }
            if lines % 2 == 1 {
                first = _mm512_min_epu16(first, key(lines - 1));
            }
            _mm512_storeu_si512(least[0].as_mut_ptr().cast(), first);
            _mm512_storeu_si512(least[1].as_mut_ptr().cast(), second);
        }
        Self(least.into_iter().flatten().fold(u16::MAX, u16::min))
    }
}

/// An element of a packed panel: of the first or the second step of its word.
#[inline(always)]
pub(super) fn element<F: Form>(word: f32, second: bool) -> f32 {
    let bits = word.to_bits();
    f32::from_bits(if second == F::LOW_FIRST { bits & 0xffff_0000 } else { bits << 16 })
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
            together::<F>(from, width, (lanes, steps), after_last, to);
        } else {
            apart::<F>(from, width, (lanes, steps), after_last, to);
        }
    }
}

/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn together<F: Form>(
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
                    to.add(i).write(word::<F>(*first.add(i), after_last));
                }
            } else {
                let second = first.add(from.ld);
                let done = interleave::<F, 16>((first, second), 0..lanes, to);
                let done = interleave::<F, 8>((first, second), done..lanes, to);
                for i in done..lanes {
                    to.add(i).write(word::<F>(*first.add(i), *second.add(i)));
                }
            }
            for i in lanes..width {
                to.add(i).write(0.0);
            }
        }
    }
}

/// The words of as many lanes as are whole multiples of `N`; says where those end.
///
/// # Safety
/// Both rows have the lanes, and `to` has room for their words.
#[inline(always)]
unsafe fn interleave<F: Form, const N: usize>(
    (first, second): (*const u16, *const u16),
    lanes: Range<usize>,
    to: *mut f32,
) -> usize {
    let end = lanes.end - lanes.len() % N;
    for i in (lanes.start..end).step_by(N) {
        // SAFETY: the caller's promise.
        unsafe {
            let first = first.add(i).cast::<[u16; N]>().read_unaligned();
            let second = second.add(i).cast::<[u16; N]>().read_unaligned();
            to.add(i).cast::<[f32; N]>().write_unaligned(words::<F, N>(first, second));
        }
    }
    end
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
    #[cfg(halfstep_avx512)]
    if F::WIDE && width.is_multiple_of(16) && lanes == width {
        // SAFETY: the caller's promise; the form says which instructions there are.
        return unsafe { apart_by_16::<F>(from, width, steps, after_last, to) };
    }
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
                let turned = turned::<F, 8>(column.map(f32::to_bits));
                // SAFETY: 8 words of the panel.
                unsafe {
                    to.add((step / 2 + i) * width + first).cast::<[f32; 8]>().write(turned);
                }
            }
        }
        // SAFETY: as the caller promised.
        unsafe {
            rest::<F>((from, lanes, steps), after_last, (first..first + 8, whole), (to, width))
        };
    }
}

/// Elements one by one: of lanes in a range, from a step on.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn rest<F: Form>(
    (from, lanes, steps): (Source<u16>, usize, usize),
    after_last: u16,
    (range, whole): (Range<usize>, usize),
    (to, width): (*mut f32, usize),
) {
    for step in (whole..steps).step_by(2) {
        for lane in range.clone() {
            // SAFETY: only elements that are there are read.
            unsafe {
                let read = |step: usize| match (lane < lanes, step < steps) {
                    (true, true) => *from.at(lane, step),
                    (_, true) => 0,
                    (_, false) => after_last,
                };
                to.add(step / 2 * width + lane).write(word::<F>(read(step), read(step + 1)));
            }
        }
    }
}

/// [`apart`] of whole panels, 16 lanes at a time.
///
/// # Safety
/// As for [`panel`], with AVX-512F.
#[cfg(halfstep_avx512)]
#[inline(always)]
unsafe fn apart_by_16<F: Form>(
    from: Source<u16>,
    width: usize,
    steps: usize,
    after_last: u16,
    to: *mut f32,
) {
    use super::words::Words;
    use std::arch::x86_64::{__m512, _mm512_castps_si512, _mm512_rol_epi32, _mm512_storeu_si512};
    let whole = steps / 32 * 32;
    for first in (0..width).step_by(16) {
        for step in (0..whole).step_by(32) {
            // SAFETY: 16 words of each of 16 lanes, and as many of the panel.
            unsafe {
                <__m512 as Words>::transpose(
                    #[inline(always)]
                    |i| from.start.add((first + i) * from.ld + step).cast(),
                    #[inline(always)]
                    |j, words| {
                        let mut words = _mm512_castps_si512(words);
                        if !F::LOW_FIRST {
                            words = _mm512_rol_epi32::<16>(words);
                        }
                        _mm512_storeu_si512(to.add((step / 2 + j) * width + first).cast(), words);
                    },
                );
            }
        }
        // SAFETY: as the caller promised.
        unsafe {
            rest::<F>((from, width, steps), after_last, (first..first + 16, whole), (to, width))
        };
    }
}

/// The word of two steps.
#[inline(always)]
pub(super) fn word<F: Form>(first: u16, second: u16) -> f32 {
    let (high, low) = if F::LOW_FIRST { (second, first) } else { (first, second) };
    f32::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[inline(always)]
pub(super) fn words<F: Form, const N: usize>(first: [u16; N], second: [u16; N]) -> [f32; N] {
    std::array::from_fn(
        #[inline(always)]
        |i| word::<F>(first[i], second[i]),
    )
}

/// Words as memory has them, as panels have them.
#[inline(always)]
pub(super) fn turned<F: Form, const N: usize>(words: [u32; N]) -> [f32; N] {
    words.map(
        #[inline(always)]
        |word| f32::from_bits(if F::LOW_FIRST { word } else { word.rotate_left(16) }),
    )
}

#[cfg(test)]
mod tests {
    use super::super::portable::Portable;
    use super::*;
    use crate::{Storage, bf16};

    fn least(values: &[f32]) -> Least {
        let word = |value: &f32| word::<Portable>(bf16::narrow(*value).to_bits(), 0);
        Least::of::<Portable>(&values.iter().map(word).collect::<Vec<_>>())
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
