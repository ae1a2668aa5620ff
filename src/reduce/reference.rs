//! The numerics of the reduction, written down as loops. Each result is one fixed sequence of
//! f32 operations, so every device gives the same bits.

#![forbid(unsafe_code)]

use crate::{Dtype, Storage};

/// Whether an f32 is NaN or ±Inf: its exponent bits are all ones.
#[inline(always)]
pub(crate) fn non_finite(value: f32) -> bool {
    value.to_bits() & 0x7f80_0000 == 0x7f80_0000
}

/// Elements that a loop holds in f32 at a time. Strips change no result: elements do not meet.
const STRIP: usize = 256;

/// `to[i] = wire(scale · (gradient[i] + accumulated[i]))`; returns how many are not finite. Counts
/// what goes on the wire: an f32 too large for f16 counts too.
#[inline(always)]
pub(crate) fn pack<G: Storage, W: Storage>(
    gradient: &[G],
    mut accumulated: Option<&mut [f32]>,
    to: &mut [W],
    scale: f32,
) -> u64 {
    let mut bad = 0;
    let mut values = [0.0f32; STRIP];
    for (strip, to) in to.chunks_mut(STRIP).enumerate() {
        let range = strip * STRIP..strip * STRIP + to.len();
        let values = &mut values[..to.len()];
        for (value, g) in values.iter_mut().zip(&gradient[range.clone()]) {
            *value = g.widen();
        }
        if let Some(accumulated) = &mut accumulated {
            for (value, sum) in values.iter_mut().zip(&mut accumulated[range]) {
                *value += *sum;
                *sum = 0.0;
            }
        }
        let mut bad_here = 0u32;
        for (value, to) in values.iter().zip(to) {
            *to = W::narrow(scale * value);
            bad_here += u32::from(non_finite(to.widen()));
        }
        bad += u64::from(bad_here);
    }
    bad
}

/// `accumulated[i] += gradient[i]`.
#[inline(always)]
pub(crate) fn accumulate<G: Storage>(gradient: &[G], accumulated: &mut [f32]) {
    for (sum, g) in accumulated.iter_mut().zip(gradient) {
        *sum += g.widen();
    }
}

/// `to[i] = type(to[i] + from[i])`. A NaN is one NaN, whichever of the two it comes from.
#[cfg(feature = "mpi")]
#[inline(always)]
pub(crate) fn add<T: Storage>(from: &[T], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        let sum = to.widen() + from.widen();
        *to = T::narrow(if sum.is_nan() { f32::NAN } else { sum });
    }
}

/// `to[i] = type(factor · Σ_r weights[r] · parts[r][i])`, `r` ascending: `s = w₀·x₀`, then
/// `s = fma(w_r, x_r, s)`. What computes it, by [`add_weighted`] and [`round_mean`], is compared with this.
#[cfg(test)]
pub(crate) fn sum<W: Storage, T: Storage>(
    parts: &[&[W]],
    weights: &[f32],
    to: &mut [T],
    factor: f32,
) {
    let mut sums = [0.0f32; STRIP];
    for (strip, to) in to.chunks_mut(STRIP).enumerate() {
        let range = strip * STRIP..strip * STRIP + to.len();
        let sums = &mut sums[..to.len()];
        for (sum, x) in sums.iter_mut().zip(&parts[0][range.clone()]) {
            *sum = weights[0] * x.widen();
        }
        for (part, &weight) in parts.iter().zip(weights).skip(1) {
            for (sum, x) in sums.iter_mut().zip(&part[range.clone()]) {
                *sum = weight.mul_add(x.widen(), *sum);
            }
        }
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = T::narrow(*sum * factor);
        }
    }
}

/// `to[i] = type(factor · from[i])`.
#[inline(always)]
pub(crate) fn unpack<G: Storage, W: Storage>(from: &[W], to: &mut [G], factor: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = G::narrow(factor * from.widen());
    }
}

/// `sums[i] = weight · wire(scale · values[i])` of the first rank; then
/// `sums[i] = fma(weight, wire(scale · values[i]), sums[i])` of each other: [`pack`] and [`sum`] in one.
#[inline(always)]
pub(crate) fn add_weighted<G: Storage, W: Storage>(
    values: &[G],
    sums: &mut [f32],
    weight: f32,
    scale: f32,
    first: bool,
) {
    // A type rounds its own values to themselves.
    let exact = scale == 1.0 && G::DTYPE == W::DTYPE;
    for (sum, value) in sums.iter_mut().zip(values) {
        let value = value.widen();
        let sent = if exact { value } else { W::narrow(scale * value).widen() };
        *sum = if first { weight * sent } else { weight.mul_add(sent, *sum) };
    }
}

/// `to[i] = type(wire(factor · sums[i]))`; returns whether all `factor · sums[i]` are finite: the end of
/// [`sum`], and [`unpack`] without a factor, in one.
#[inline(always)]
pub(crate) fn round_mean<G: Storage, W: Storage>(sums: &[f32], to: &mut [G], factor: f32) -> bool {
    let mut largest = 0;
    for (to, sum) in to.iter_mut().zip(sums) {
        let product = *sum * factor;
        largest = largest.max(product.to_bits() & 0x7fff_ffff);
        *to = retype(narrow_number::<W>(product));
    }
    let finite = largest < 0x7f80_0000;
    if !finite {
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = retype(W::narrow(*sum * factor));
        }
    }
    finite
}

/// A value of one type in another.
#[inline(always)]
fn retype<W: Storage, G: Storage>(value: W) -> G {
    match G::DTYPE == W::DTYPE {
        true => bytemuck::cast(value), // the same type
        false => G::narrow(value.widen()),
    }
}

/// [`Storage::narrow`] of what is no NaN, in fewer steps.
#[inline(always)]
pub(crate) fn narrow_number<W: Storage>(value: f32) -> W {
    if W::DTYPE != Dtype::Bf16 {
        return W::narrow(value);
    }
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    bytemuck::cast((rounded >> 16) as u16)
}

/// The exponent of a block of fixed point: the largest exponent field of its f32 products; 255 where
/// one is not finite. What computes it is compared with this.
#[cfg(test)]
pub(crate) fn measure<G: Storage>(values: &[G], factor: f32) -> u8 {
    let exponent = |value: &G| (factor * value.widen()).to_bits() >> 23 & 0xff;
    values.iter().map(exponent).max().unwrap_or(0) as u8
}

/// log2 of a number of ranks, rounded up: bits that integers leave free, so that so many can be added.
#[inline(always)]
pub(crate) fn headroom(ranks: usize) -> u32 {
    ranks.next_power_of_two().trailing_zeros()
}

/// log2 of what f32 products of a block with this exponent are multiplied by: they are below
/// 2^(exponent − 126), so that sums of 2^headroom of them stay within 2³⁰.
#[inline(always)]
pub(crate) fn shift(exponent: u8, headroom: u32) -> i64 {
    30 - i64::from(headroom) + 126 - i64::from(exponent)
}

/// 2^n in f64.
#[inline(always)]
pub(crate) fn power(n: i64) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

/// `to[i] = round(factor · values[i] · 2^shift)`, ties to even; 0 where the block is not finite.
#[inline(always)]
pub(crate) fn encode<G: Storage>(
    values: &[G],
    exponent: u8,
    to: &mut [i32],
    factor: f32,
    headroom: u32,
) {
    let scale = if exponent == 255 { 0.0 } else { power(shift(exponent, headroom)) };
    for (value, to) in values.iter().zip(to) {
        let scaled = f64::from(factor * value.widen()) * scale;
        // 0·∞ is NaN, which becomes 0.
        *to = scaled.round_ties_even() as i32;
    }
}

/// `to[i] = type(factor · f32(sums[i] · 2^−shift))`; NaN where the block is not finite.
#[inline(always)]
pub(crate) fn decode<G: Storage>(
    sums: &[i32],
    exponent: u8,
    to: &mut [G],
    factor: f32,
    headroom: u32,
) {
    let scale = if exponent == 255 { f64::NAN } else { power(-shift(exponent, headroom)) };
    for (sum, to) in sums.iter().zip(to) {
        *to = G::narrow(factor * (f64::from(*sum) * scale) as f32);
    }
}

/// Bits of 2⁻¹⁰⁰: below it, blocks of 8-bit integers are not rounded.
pub(crate) const TINY: u32 = (127 - 100) << 23;
/// Bits of 2¹²⁷: from it on, they have no scale.
pub(crate) const HUGE: u32 = (127 + 127) << 23;

/// A block of 8-bit integers: `codes[i] = round(v · (127 / m))`, `v = values[i] + carried[i]`, `m = max |v|`;
/// `values[i] = v − scale · codes[i]`, which is exact. Returns the scale, `m · (1/127)`: 0 below 2⁻¹⁰⁰, where
/// everything stays in `values`; NaN from 2¹²⁷ on, or where something is not finite, with codes and values
/// of 0.
#[inline(always)]
pub(crate) fn quantize(values: &mut [f32], carried: &[f32], codes: &mut [i8]) -> f32 {
    let mut largest = 0;
    for (value, carried) in values.iter_mut().zip(carried) {
        *value += *carried;
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    match largest {
        HUGE.. => {
            values.fill(0.0);
            codes.fill(0);
            return f32::NAN;
        }
        ..TINY => {
            codes.fill(0);
            return 0.0;
        }
        _ => {}
    }
    let largest = f32::from_bits(largest);
    let (scale, inverse) = (largest * (1.0 / 127.0), 127.0 / largest);
    for (value, code) in values.iter_mut().zip(codes) {
        *code = (*value * inverse).round_ties_even() as i8;
        *value -= scale * f32::from(*code);
    }
    scale
}

/// `to[i] = scale · codes[i]`.
#[inline(always)]
pub(crate) fn dequantize(codes: &[i8], scale: f32, to: &mut [f32]) {
    for (code, to) in codes.iter().zip(to) {
        *to = scale * f32::from(*code);
    }
}

#[cfg(all(test, feature = "mpi"))]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use std::hint::black_box;

    /// Ranks that add the same two values in either order get the same bits.
    #[test]
    fn sums_of_two_have_no_order() {
        fn check<T: Storage + PartialEq>(values: &[T], bits: impl Fn(T) -> u16) {
            for &a in values {
                for &b in values {
                    let (mut one, mut other) = ([b], [a]);
                    // Or else the compiler would see that it is the same sum.
                    add(black_box(&[a]), black_box(&mut one));
                    add(black_box(&[b]), black_box(&mut other));
                    assert_eq!(bits(one[0]), bits(other[0]));
                    let exact = T::narrow(a.widen() + b.widen());
                    assert!(one[0] == exact || exact.widen().is_nan());
                }
            }
        }
        let values = [0, 0x8000, 1, 0x3f81, 0x7f80, 0xff80, 0x7f81, 0x7fc1, 0xffd5, 0x7f7f];
        check(&values.map(bf16::from_bits), bf16::to_bits);
        let values = [0, 0x8000, 1, 0x3c01, 0x7c00, 0xfc00, 0x7c01, 0x7e01, 0xff55, 0x7bff];
        check(&values.map(f16::from_bits), f16::to_bits);
    }
}
