//! The logistic function. `tanh` enters GELU only as `½(1 + tanh u) = σ(2u)`, and `σ` keeps its
//! relative accuracy where `1 + tanh` cancels.

use super::exp::exp;
use super::real::Real;

/// `σ(x) = 1 / (1 + e⁻ˣ)`, within 2 ulp; 0 for `x < −80`.
#[inline(always)]
pub(super) fn logistic<R: Real>(x: R) -> R {
    let e = exp(-x.abs()); // at most 1: nothing overflows on either side
    let numerator = x.if_less(R::of(0.0), e, R::of(1.0));
    numerator / (R::of(1.0) + e)
}

/// `σ(x)` and `1 − σ(x)`, each within 3 ulp: the derivatives need both, and a difference would cancel.
#[inline(always)]
pub(super) fn logistic_and_rest<R: Real>(x: R) -> (R, R) {
    let e = exp(-x.abs());
    let large = R::of(1.0) / (R::of(1.0) + e);
    let small = e * large;
    let zero = R::of(0.0);
    (x.if_less(zero, small, large), x.if_less(zero, large, small))
}
