//! The normal distribution. `erf` enters GELU only as `½(1 + erf(x/√2)) = Φ(x)`, and `Φ` computed
//! as such keeps its relative accuracy in the lower tail, where `1 + erf` cancels.

use super::exp::exp;

/// `Φ(x) = ½ erfc(−x/√2)` and `e^(−x²/2)`; `Φ` within 4 ulp for `|x| ≤ 13`.
///
/// `Φ(−|x|) = e^(−x²/2)·g(t)`, `t = 1/(1 + 0.35|x|)` (the form of Abramowitz and Stegun 7.1.26), with
/// `g` a polynomial of degree 9 without constant term, error 2⁻²⁴·0.54 on `|x| ≤ 14.5` (found by
/// Remez' exchange). The rounding error of `x²` is put back, or it would be amplified by `x²/2`.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let a = x.abs();
    let a = if a > 20.0 { 20.0 } else { a }; // e⁻²⁰⁰ is 0; Inf must not meet 0
    let square = a * a;
    let rest = a.mul_add(a, -square);
    let e = exp(-0.5 * square);
    let e = (-0.5 * rest).mul_add(e, e);
    let t = 1.0 / a.mul_add(0.35, 1.0);
    let g = -0.029_158_1;
    let g = f32::mul_add(g, t, 0.144_031_93);
    let g = g.mul_add(t, -0.255_840_97);
    let g = g.mul_add(t, 0.159_321_83);
    let g = g.mul_add(t, -0.023_213_716);
    let g = g.mul_add(t, 0.105_553_03);
    let g = g.mul_add(t, 0.119_821_17);
    let g = g.mul_add(t, 0.139_863_52);
    let g = g.mul_add(t, 0.139_621_3);
    let tail = e * (g * t);
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, e)
}
