//! The normal distribution. `erf` enters GELU only as `½(1 + erf(x/√2)) = Φ(x)`, and `Φ` computed
//! as such keeps its relative accuracy in the lower tail, where `1 + erf` cancels.

use super::exp::exp;
use super::real::Real;

/// `Φ(x) = ½ erfc(−x/√2)` and `e^(−x²/2)`; `Φ` within 6 ulp for `|x| ≤ 12.6`, then 0 or 1.
///
/// `Φ(−|x|) = e^(−x²/2)·g(t)`, `t = 1/(1 + 0.35|x|)` (the form of Abramowitz and Stegun 7.1.26), with
/// `g` a polynomial of degree 9 without constant term, error 2⁻²⁴·0.54 on `|x| ≤ 14.5` (found by
/// Remez' exchange). The rounding error of `x²` is put back, or it would be amplified by `x²/2`.
#[inline(always)]
pub(super) fn normal<R: Real>(x: R) -> (R, R) {
    let a = x.abs().at_most(20.0); // 0 there; Inf must not meet 0
    let square = a * a;
    let rest = a.mul_add(a, -square);
    let e = exp(R::of(-0.5) * square);
    let e = (R::of(-0.5) * rest).mul_add(e, e);
    let t = R::of(1.0) / a.horner(R::of(0.35), 1.0);
    let g = R::of(-0.029_158_1);
    let g = g.horner(t, 0.144_031_93);
    let g = g.horner(t, -0.255_840_97);
    let g = g.horner(t, 0.159_321_83);
    let g = g.horner(t, -0.023_213_716);
    let g = g.horner(t, 0.105_553_03);
    let g = g.horner(t, 0.119_821_17);
    let g = g.horner(t, 0.139_863_52);
    let g = g.horner(t, 0.139_621_3);
    let tail = e * (g * t);
    (x.if_less(R::of(0.0), tail, R::of(1.0) - tail), e)
}
