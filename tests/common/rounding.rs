//! The oracle's own rounding from f64, since `half`'s `from_f64` rounds twice.

use halfstep::Dtype;

/// Significant bits, smallest exponent of a normal number, largest finite value.
fn format(dtype: Dtype) -> (i32, i32, f64) {
    match dtype {
        Dtype::Bf16 => (8, -126, (2.0 - 2f64.powi(-7)) * 2f64.powi(127)),
        Dtype::F16 => (11, -14, 65504.0),
        Dtype::F32 => (24, -126, f64::from(f32::MAX)),
    }
}

/// The distance of neighbouring values of the type around `value`.
pub fn ulp(value: f64, dtype: Dtype) -> f64 {
    let (bits, min_exponent, _) = format(dtype);
    if value == 0.0 || !value.is_finite() {
        return 2f64.powi(min_exponent - bits + 1);
    }
    // The exponent, exactly: value = ±m·2^e with 1 ≤ m < 2 (f64's own subnormals are far below).
    let exponent = ((value.abs().to_bits() >> 52) as i32 - 1023).max(min_exponent);
    2f64.powi(exponent - bits + 1)
}

/// The nearest value of the type, ties to even, once. Overflow gives infinity.
pub fn round(value: f64, dtype: Dtype) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let (_, _, max) = format(dtype);
    let ulp = ulp(value, dtype);
    let rounded = (value / ulp).round_ties_even() * ulp; // both exact: ulp is a power of two
    if rounded.abs() > max { f64::INFINITY.copysign(value) } else { rounded }
}
