//! The logistic function. `tanh` enters GELU only as `½(1 + tanh u) = σ(2u)`, and `σ` keeps its
//! relative accuracy where `1 + tanh` cancels.

use super::exp::exp;

/// `σ(x) = 1 / (1 + e⁻ˣ)`, within 2 ulp for every x.
#[inline(always)]
pub(super) fn logistic(x: f32) -> f32 {
    let e = exp(-x.abs()); // at most 1: no overflow on either side
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// `σ(x)` and `1 − σ(x)`, each within 3 ulp: the derivatives need both, and a difference would cancel.
#[inline(always)]
pub(super) fn logistic_and_rest(x: f32) -> (f32, f32) {
    let e = exp(-x.abs());
    let large = 1.0 / (1.0 + e);
    let small = e * large;
    if x < 0.0 { (small, large) } else { (large, small) }
}
