//! Σg² and non-finite counts of a chunk, fast: the bits of [`crate::grad_stats::partial`].
#![forbid(unsafe_code)]

use crate::grad_stats;
use crate::kernel::params::{FOLD_LANES, PARTIAL_CHUNK, Partial};
use crate::optim::round::Lane;

/// Lanes that stay in registers while their column of the chunk is summed.
const COLUMN: usize = 16;

/// The partial of one chunk of a gradient, each element first multiplied by `factor` in f32.
///
/// The sum alone tells whether all is well: squares of finite f32 and their sums over a chunk are
/// finite in f64, so a sum that is not finite, and only it, needs the slow way.
#[inline(always)]
pub(super) fn partial<T: Lane>(tensor: u32, chunk: &[T], factor: f32) -> Partial {
    debug_assert!(chunk.len() <= PARTIAL_CHUNK);
    let sum_squares = sum_squares(chunk, factor);
    if sum_squares.is_finite() {
        return Partial { sum_squares, non_finite: 0, tensor };
    }
    grad_stats::partial(tensor, chunk.iter().map(|value| value.wide() * factor))
}

/// Σ(factor·x)² in the order of [`Partial`].
#[inline(always)]
pub(super) fn sum_squares<T: Lane>(chunk: &[T], factor: f32) -> f64 {
    let mut lanes = [0.0f64; FOLD_LANES];
    let rows = chunk.chunks_exact(FOLD_LANES);
    let tail = rows.remainder();
    let full = chunk.len() - tail.len();
    if full > 0 {
        for column in (0..FOLD_LANES).step_by(COLUMN) {
            let mut sums = [0.0f64; COLUMN];
            for row in (column..full).step_by(FOLD_LANES) {
                let values: &[T; COLUMN] = chunk[row..row + COLUMN].try_into().expect("one column");
                for (sum, value) in sums.iter_mut().zip(values) {
                    let value = f64::from(value.wide() * factor);
                    *sum += value * value; // the square is exact: 24 bits twice
                }
            }
            lanes[column..column + COLUMN].copy_from_slice(&sums);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        let value = f64::from(value.wide() * factor);
        *lane += value * value;
    }
    halve(&mut lanes)
}

/// The fold of the lanes: by halves.
#[inline(always)]
pub(super) fn halve(lanes: &mut [f64; FOLD_LANES]) -> f64 {
    let mut half = FOLD_LANES / 2;
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
        for len in [0, 1, 7, 15, 16, 17, 2047, 2048, 2049, 4096, 5000, 16383, 16384] {
            for factor in [1.0f32, 1.0 / 1024.0, 0.3] {
                let chunk = &values[..len];
                let slow = grad_stats::partial(3, chunk.iter().map(|v| v.widen() * factor));
                let fast = partial(3, chunk, factor);
                assert_eq!(fast.sum_squares.to_bits(), slow.sum_squares.to_bits(), "{len}");
                assert_eq!(fast, slow);
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
