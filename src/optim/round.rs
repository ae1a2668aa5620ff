//! Roundings to 16 bits, branch-free so that loops over them become vector code.
#![forbid(unsafe_code)]

use half::{bf16, f16};

use crate::Storage;

const EXPONENT: u32 = 0x7f80_0000;

/// Stochastic rounding to bf16: up with probability equal to the distance from the value below, in
/// units of 2⁻¹⁶ of the gap. Values of the type stay as they are, NaN and ±Inf too; a finite value
/// becomes infinite only where rounding to nearest makes it so.
#[inline(always)]
pub(crate) fn stochastic_bf16(value: f32, random: u16) -> bf16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Above the largest bf16 only the nearest will do; half an ulp rounds there (the tie is even).
    let up = if magnitude >= 0x7f7f_0000 { 0x8000 } else { u32::from(random) };
    let rounded = bits.wrapping_add(up);
    let chosen = if magnitude > EXPONENT { bits | 0x40_0000 } else { rounded };
    bf16::from_bits((chosen >> 16) as u16)
}

/// Stochastic rounding to f16, likewise; exact in units of 2⁻¹³ of the gap for normal results, of
/// 2⁻¹⁶ for subnormal ones.
#[inline(always)]
pub(crate) fn stochastic_f16(value: f32, random: u16) -> f16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let normal = (magnitude.wrapping_add(u32::from(random & 0x1fff)) >> 13).wrapping_sub(112 << 10);
    // 2⁻¹⁴ and less: units of 2⁻²⁴, in fixed point with 16 more bits (the product is exact).
    let scaled = f32::from_bits(magnitude.min(0x3880_0000)) * 1_099_511_627_776.0;
    let subnormal = (scaled as i32 as u32).wrapping_add(u32::from(random)) >> 16;
    let rounded = if magnitude < 0x3880_0000 { subnormal } else { normal };
    if magnitude >= 0x477f_e000 {
        f16::narrow(value) // 65504 and more
    } else {
        f16::from_bits(sign | rounded as u16)
    }
}

/// Splits f32 into bf16 and the 16 bits that make it whole again. The bf16 is the nearest, ties
/// away from zero (so that a remainder's sign says where the master lies; at ties it differs from
/// rounding to even). NaN becomes the quiet NaN of its sign.
#[inline(always)]
pub(crate) fn split(value: f32) -> (bf16, u16) {
    let bits = value.to_bits();
    let quiet = bits & 0x8000_0000 | 0x7fc0_0000;
    let bits = if value.is_nan() { quiet } else { bits };
    (bf16::from_bits((bits.wrapping_add(0x8000) >> 16) as u16), bits as u16)
}

/// The value that [`split`] split.
#[inline(always)]
pub(crate) fn join(high: bf16, low: u16) -> f32 {
    let high = high.to_bits().wrapping_sub(low >> 15);
    f32::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// A storage type with stochastic rounding.
pub(crate) trait Lane: Storage {
    /// Stochastic rounding; f32 has nothing to round.
    fn stochastic(value: f32, random: u16) -> Self;
}

impl Lane for f32 {
    #[inline(always)]
    fn stochastic(value: f32, _: u16) -> Self {
        value
    }
}

impl Lane for bf16 {
    #[inline(always)]
    fn stochastic(value: f32, random: u16) -> Self {
        stochastic_bf16(value, random)
    }
}

impl Lane for f16 {
    #[inline(always)]
    fn stochastic(value: f32, random: u16) -> Self {
        stochastic_f16(value, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// O-30: special and representable values are left alone, whatever the random bits.
    #[test]
    fn stochastic_rounding_leaves_values_of_the_type_alone() {
        for bits in 0..=u16::MAX {
            for random in [0, 1, 0x7fff, 0x8000, u16::MAX] {
                let value = bf16::from_bits(bits);
                let rounded = stochastic_bf16(value.widen(), random);
                assert!(rounded.to_bits() == bits || value.is_nan() && rounded.is_nan());
                let value = f16::from_bits(bits);
                let rounded = stochastic_f16(value.to_f32(), random);
                assert!(rounded.to_bits() == bits || value.is_nan() && rounded.is_nan());
            }
        }
    }

    #[test]
    fn stochastic_rounding_never_makes_infinity_that_nearest_would_not() {
        for random in [0, 0x7fff, u16::MAX] {
            let below_tie = f32::from_bits(0x7f7f_7fff);
            assert_eq!(stochastic_bf16(below_tie, random).to_bits() & 0x7fff, 0x7f7f);
            let largest = stochastic_bf16(f32::MAX, random);
            assert!(largest == bf16::MAX && random == 0 || largest == bf16::INFINITY);
            assert_eq!(stochastic_f16(-65519.9, random), f16::MIN);
            assert_eq!(stochastic_f16(65520.0, random), f16::INFINITY);
            // NaNs whose payload a plain addition would carry away.
            for bits in [0x7f80_0001, 0x7fff_ffff, 0xffff_ffff, 0xff80_0001] {
                assert!(stochastic_bf16(f32::from_bits(bits), random).is_nan());
                assert!(stochastic_f16(f32::from_bits(bits), random).is_nan());
            }
        }
    }

    /// O-31: the mean over all random numbers is the value.
    #[test]
    fn stochastic_rounding_is_exact_on_average() {
        for value in [1.001f32, -3.3e-5, 7.77e-6, 1e-30, 123.456, 6.1e-5, 65000.5, 0.1] {
            let all = 0..=u16::MAX;
            let bf16s: f64 = all.clone().map(|r| stochastic_bf16(value, r).to_f64()).sum();
            assert_eq!(bf16s / 65536.0, f64::from(value), "bf16 {value:e}");
            let f16s: f64 = all.map(|r| stochastic_f16(value, r).to_f64()).sum();
            let tolerance = if value.abs() < 6.1e-5 { 2f64.powi(-40) } else { 0.0 };
            assert!((f16s / 65536.0 - f64::from(value)).abs() <= tolerance, "f16 {value:e}");
        }
    }

    #[test]
    fn remainders_lose_nothing() {
        for bits in (0..=u32::MAX).step_by(509).chain([0x7f7f_ffff, 0x8000_0000, 0xff7f_8000]) {
            let value = f32::from_bits(bits);
            let (high, low) = split(value);
            let whole = join(high, low);
            assert!(whole.to_bits() == bits || value.is_nan() && whole.is_nan(), "{bits:#x}");
            if value.is_nan() {
                assert!(high.is_nan());
            } else if low != 0x8000 {
                assert_eq!(high.to_bits(), bf16::narrow(value).to_bits(), "{bits:#x}");
            }
        }
    }
}
