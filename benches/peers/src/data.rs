//! The numbers that every peer computes with: a function of the place, so that each makes its own.

use halfstep::Storage;

/// Seeds of A, B and the bias; of parameters and gradients.
pub const A: u64 = 1;
pub const B: u64 = 2;
pub const BIAS: u64 = 3;

/// In [-1, 1), of 16 bits.
pub fn value(place: usize, seed: u64) -> f32 {
    let mixed =
        (place as u64 + seed * 1_000_003).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & 0xffff;
    mixed as f32 / 32_768.0 - 1.0
}

pub fn values<T: Storage>(len: usize, seed: u64, scale: f32) -> Vec<T> {
    (0..len).map(|place| T::narrow(scale * value(place, seed))).collect()
}

/// Weights and biases are smaller than activations.
pub const WEIGHT: f32 = 1.0 / 16.0;
/// Gradients, with a loss scale of 1,024.
pub const GRADIENT: f32 = 0.01;
pub const LOSS_SCALE: f32 = 1024.0;

/// Which elements are compared.
pub fn places(len: usize) -> [usize; 4] {
    [0, len / 3, len / 2 + 1, len - 1].map(|place| place.min(len - 1))
}
