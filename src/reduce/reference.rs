//! The numerics of the reduction, written down: three loops. Each result is one fixed sequence of
//! f32 operations, so every device gives the same bits.

#![forbid(unsafe_code)]

use crate::Storage;

/// Whether an f32 is NaN or ±Inf: its exponent bits are all ones.
#[inline(always)]
pub(crate) fn non_finite(value: f32) -> bool {
    value.to_bits() & 0x7f80_0000 == 0x7f80_0000
}

/// `to[i] = wire(scale · (gradient[i] + accumulated[i]))`; returns how many are not finite. Counts
/// what goes on the wire: an f32 too large for f16 counts too.
#[inline(always)]
pub(crate) fn pack<G: Storage, W: Storage>(
    gradient: &[G],
    accumulated: Option<&mut [f32]>,
    to: &mut [W],
    scale: f32,
) -> u64 {
    let mut bad = 0;
    let mut send = |to: &mut W, sum: f32| {
        *to = W::narrow(scale * sum);
        bad += u64::from(non_finite(to.widen()));
    };
    match accumulated {
        None => to.iter_mut().zip(gradient).for_each(|(to, g)| send(to, g.widen())),
        Some(accumulated) => {
            for ((to, g), sum) in to.iter_mut().zip(gradient).zip(accumulated) {
                send(to, g.widen() + *sum);
                *sum = 0.0;
            }
        }
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

/// `to[i] = wire(factor · Σ_r weights[r] · parts[r][i])`, `r` ascending: `s = w₀·x₀`, then
/// `s = fma(w_r, x_r, s)`.
#[inline(always)]
pub(crate) fn sum<W: Storage>(parts: &[&[W]], weights: &[f32], to: &mut [W], factor: f32) {
    for (i, to) in to.iter_mut().enumerate() {
        let mut sum = weights[0] * parts[0][i].widen();
        for (part, &weight) in parts.iter().zip(weights).skip(1) {
            sum = weight.mul_add(part[i].widen(), sum);
        }
        *to = W::narrow(sum * factor);
    }
}

/// `to[i] = type(factor · from[i])`; `products[i]` is the f32 before the rounding.
#[inline(always)]
pub(crate) fn unpack<G: Storage, W: Storage>(
    from: &[W],
    to: &mut [G],
    products: &mut [f32],
    factor: f32,
) {
    for ((from, to), product) in from.iter().zip(to).zip(products) {
        *product = factor * from.widen();
        *to = G::narrow(*product);
    }
}
