//! Σg² and non-finite counts of a chunk, fast: the bits of [`crate::grad_stats::partial`].

use super::wide::{Work, vector};
use crate::grad_stats;
use crate::kernel::params::{FOLD_LANES, PARTIAL_CHUNK, Partial};
use crate::optim::round::Lane;

/// Lanes whose sums stay in registers: a line of 16-bit elements of each row.
const COLUMN: usize = 32;
/// Full rows of lanes in a chunk.
const ROWS: usize = PARTIAL_CHUNK / FOLD_LANES;

/// Bytes that memory delivers at once.
const LINE: usize = 64;

/// Asks for memory that will be read soon; a hint, which never faults.
#[inline(always)]
fn ahead<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and ignores addresses that are not mapped.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The partial of one chunk of a gradient, each element first multiplied by `factor` in f32; compiled once for each type,
/// whatever is done with the chunk besides.
pub(super) fn partial<T: Lane>(tensor: u32, chunk: &[T], factor: f32) -> Partial {
    vector(Folding { tensor, chunk, factor })
}

/// A chunk whose partial is wanted.
struct Folding<'a, T> {
    tensor: u32,
    chunk: &'a [T],
    factor: f32,
}

impl<T: Lane> Work for Folding<'_, T> {
    type Output = Partial;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> Partial {
        fold::<T, FUSED>(self.tensor, self.chunk, self.factor)
    }
}

/// [`partial`]. `FUSED` inside the vector form of a kernel only; see [`add_square`].
///
/// The sum alone tells whether all is well: squares of finite f32 and their sums over a chunk are
/// finite in f64, so a sum that is not finite, and only it, needs the slow way.
#[inline(always)]
fn fold<T: Lane, const FUSED: bool>(tensor: u32, chunk: &[T], factor: f32) -> Partial {
    debug_assert!(chunk.len() <= PARTIAL_CHUNK);
    let sum_squares = sum_squares::<T, FUSED>(chunk, factor);
    if sum_squares.is_finite() {
        return Partial { sum_squares, non_finite: 0, tensor };
    }
    grad_stats::partial(tensor, chunk.iter().map(|value| value.widen() * factor))
}

/// Σ(factor·x)² in the order of [`Partial`]. Lanes that a short chunk leaves at 0 do not change the
/// folds they would take part in.
#[inline(always)]
fn sum_squares<T: Lane, const FUSED: bool>(chunk: &[T], factor: f32) -> f64 {
    match chunk.len() {
        0..=64 => short::<T, 64>(chunk, factor),
        65..=128 => short::<T, 128>(chunk, factor),
        129..=512 => short::<T, 512>(chunk, factor),
        _ => long::<T, FUSED>(chunk, factor),
    }
}

#[inline(always)]
fn short<T: Lane, const LANES: usize>(chunk: &[T], factor: f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for (lane, value) in lanes.iter_mut().zip(chunk) {
        let value = f64::from(value.widen() * factor);
        *lane = value * value;
    }
    halve(&mut lanes)
}

#[inline(always)]
fn long<T: Lane, const FUSED: bool>(chunk: &[T], factor: f32) -> f64 {
    let mut lanes = [0.0f64; FOLD_LANES];
    let rows = chunk.chunks_exact(FOLD_LANES);
    let tail = rows.remainder();
    for (number, lanes) in lanes.chunks_exact_mut(COLUMN).enumerate() {
        // A column's rows are 4 KiB or more apart, which no prefetcher of the machine follows. The
        // next chunk, which usually lies behind this one, is fetched in order meanwhile.
        let share = ROWS * COLUMN;
        for line in (0..share).step_by(LINE / size_of::<T>()) {
            ahead(chunk.as_ptr().wrapping_add(chunk.len() + number * share + line));
        }
        let mut sums = [0.0f64; COLUMN];
        let column = rows.clone().filter_map(|row| row[number * COLUMN..].first_chunk::<COLUMN>());
        for row in column {
            // On their own, f32 values fill whole vectors.
            let mut values = [0.0f32; COLUMN];
            for (to, value) in values.iter_mut().zip(row) {
                *to = value.widen() * factor;
            }
            for (sum, value) in sums.iter_mut().zip(values) {
                add_square::<FUSED>(sum, f64::from(value));
            }
        }
        lanes.copy_from_slice(&sums);
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        add_square::<FUSED>(lane, f64::from(value.widen() * factor));
    }
    halve(&mut lanes)
}

/// `sum += value²` for an f32 value: the square is exact (24 bits twice), so that one operation
/// and two have the same bits. `FUSED` where the machine has the one.
#[inline(always)]
pub(super) fn add_square<const FUSED: bool>(sum: &mut f64, value: f64) {
    *sum = if FUSED { value.mul_add(value, *sum) } else { *sum + value * value };
}

/// The fold of the lanes: by halves.
#[inline(always)]
pub(super) fn halve<const LANES: usize>(lanes: &mut [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(&high[..half]) {
            *low += high;
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn agree<T: Lane>(make: impl Fn(f32) -> T) {
        let values: Vec<T> = (0..PARTIAL_CHUNK as u32)
            .map(|i| make(((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0) * 30.0))
            .collect();
        for len in [
            0, 1, 7, 63, 64, 65, 127, 128, 129, 511, 512, 513, 2047, 2048, 2049, 5000, 16383, 16384,
        ] {
            for factor in [1.0f32, 1.0 / 1024.0, 0.3] {
                let chunk = &values[..len];
                let slow = grad_stats::partial(3, chunk.iter().map(|v| v.widen() * factor));
                for fast in [
                    partial(3, chunk, factor),
                    fold::<T, true>(3, chunk, factor),
                    fold::<T, false>(3, chunk, factor),
                ] {
                    assert_eq!(fast.sum_squares.to_bits(), slow.sum_squares.to_bits(), "{len}");
                    assert_eq!(fast, slow);
                }
            }
        }
    }

    #[test]
    fn the_fast_fold_has_the_bits_of_the_definition() {
        agree(f32::from);
        agree(bf16::from_f32);
        agree(f16::from_f32);
    }

    #[test]
    fn one_bad_element_anywhere_is_counted() {
        for at in [0, 1, 2047, 2048, 9999, 16383] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
                let mut chunk = vec![1.0f32; PARTIAL_CHUNK];
                chunk[at] = bad;
                let fast = partial(0, &chunk, 2.0);
                assert_eq!((fast.non_finite, fast.sum_squares), (1, 4.0 * 16383.0));
            }
        }
    }
}
