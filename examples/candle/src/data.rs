//! Numbers from a seed, which candle's CPU has none of.

use candle_core::{Device, Result, Shape, Tensor};

/// An f32 tensor of numbers between -1 and 1 (splitmix64).
pub fn uniform(mut seed: u64, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = seed;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let numbers: Vec<f32> = std::iter::repeat_with(next).take(shape.elem_count()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}
