//! The exponential, as a fixed sequence of IEEE f32 operations.

/// `eˣ`, within 1 ulp of the exact value (subnormal results: within one subnormal step).
///
/// `x = n·ln 2 + r` with `|r| ≤ ½ ln 2` (Cody and Waite's two-part reduction), a minimax polynomial
/// of degree 6 for `eʳ` (error 2⁻²⁹, found by Remez' exchange), and two exact scalings by powers of
/// two, so that the last one rounds once where the result is subnormal.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Comparisons, not `clamp`: NaN must pass.
    let x = if x > 89.0 { 89.0 } else { x }; // e⁸⁹ overflows
    let x = if x < -105.0 { -105.0 } else { x }; // e⁻¹⁰⁵ rounds to 0
    // Adding 1.5·2²³ leaves the nearest integer in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-0.693_145_75, x); // ln 2 to 16 bits: the product is exact
    let r = n.mul_add(-1.428_606_8e-6, r); // the rest of ln 2
    let p = 0.001_383_679_6;
    let p = f32::mul_add(p, r, 0.008_374_839);
    let p = p.mul_add(r, 0.041_668_23);
    let p = p.mul_add(r, 0.166_664_2);
    let p = p.mul_add(r, 0.499_999_9);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    let n = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `2ⁿ` for `n` in the range of normal numbers; anything for others (the result is NaN then).
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
