//! The exponential, as a fixed sequence of IEEE f32 operations.

use super::real::{MAGIC, Real};

/// Below this `eˣ` counts as 0 (it is 1.8e-35): what is made of it is never subnormal, which costs
/// processors a hundred cycles, and which some devices cannot hold.
const LOWEST: f32 = -80.0;

/// `eˣ` for `x ≤ 0` (all that the activations need), within 1 ulp; 0 for `x < −80`.
///
/// `x = n·ln 2 + r` with `|r| ≤ ½ ln 2` (Cody and Waite's two-part reduction), a minimax polynomial
/// of degree 6 for `eʳ` (error 2⁻²⁹, found by Remez' exchange), and an exact scaling by `2ⁿ`.
#[inline(always)]
pub(super) fn exp<R: Real>(x: R) -> R {
    let kept = x.at_least(LOWEST);
    let shifted = kept.mul_add(R::of(std::f32::consts::LOG2_E), R::of(MAGIC));
    let n = shifted - R::of(MAGIC);
    let r = n.mul_add(R::of(-0.693_145_75), kept); // ln 2 to 16 bits: the product is exact
    let r = n.mul_add(R::of(-1.428_606_8e-6), r); // the rest of ln 2
    let p = R::of(0.001_383_679_6);
    let p = p.horner(r, 0.008_374_839);
    let p = p.horner(r, 0.041_668_23);
    let p = p.horner(r, 0.166_664_2);
    let p = p.horner(r, 0.499_999_9);
    let p = p.horner(r, 1.0);
    let p = p.horner(r, 1.0);
    x.if_less(R::of(LOWEST), R::of(0.0), p.scaled(shifted))
}
