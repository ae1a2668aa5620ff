//! The error bounds that the products promise, as functions of the exact answer.
//!
//! With `u = 2⁻²⁴` and `S` the sum of the magnitudes of everything that is added up
//! (`|α|·Σ|a||b| + |β·c| + |bias| + |residual|`), an f32 sum of `K` products in any order, in fused,
//! rounded or truncating units, is within `c(K)·u·S + (K + 8)·2⁻¹⁴⁹` of the exact sum:
//!
//! | [`Growth`] | `c(K)` | for |
//! |---|---|---|
//! | `Worst` | `2·(K + ⌈K/4⌉ + 8)` | any data: no correct kernel exceeds it (Higham 2002, §3.1, with a truncating unit's ulp for half an ulp) |
//! | `Expected` | `min(Worst, 16·√K + 2·⌈K/8⌉ + 16)` | data in no special order: a random walk, and the drift of units that truncate in blocks |
//! | `ZeroMean` | `8 + √K/2` | independent data of mean zero |
//!
//! A sum that leaves f32's range on its way is infinite or NaN, whatever its exact value. What falls below that range is lost
//! before it is multiplied by `α`: where `|α| > 1`, add `|α|·K·2⁻¹⁴⁹`. The matrix unit of an MI250X rounds what is below 2⁻¹²⁶
//! to 0 at each of its steps, which only products of bf16 get to: with [`Subnormals::Flush`](super::Subnormals::Flush) add
//! `|α|·2K·2⁻¹²⁶` there.
//!
//! The activation multiplies that by its Lipschitz constant and adds its own error; the output type adds
//! half an ulp (of the largest value within the error). The backward products add what rounding `dz` to the operands' type costs: [`dz`].
//! With [`Subnormals::ThroughBf16`](super::Subnormals::ThroughBf16) the exact answer is that of the rounded factors; what rounding them
//! costs is at most `(2⁻⁷ + 2⁻¹⁶)·|α|·Σ|a||b|` more.
#![forbid(unsafe_code)]

use super::Activation;
use crate::Dtype;

/// The unit roundoff of f32.
const U: f64 = 1.0 / 16_777_216.0;

/// Which of the three constants holds for the data at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Independent values of mean zero.
    ZeroMean,
    /// Values in no special order.
    Expected,
    /// Any values.
    Worst,
}

impl Growth {
    /// `c(K)`.
    ///
    /// ```
    /// use halfstep::gemm::bound::Growth;
    /// assert_eq!(Growth::ZeroMean.constant(1024), 24.0);
    /// assert_eq!(Growth::Expected.constant(1024), 784.0);
    /// assert_eq!(Growth::Worst.constant(1024), 2576.0);
    /// ```
    pub fn constant(self, k: usize) -> f64 {
        let root = (k as f64).sqrt();
        let worst = 2.0 * (k + k.div_ceil(4) + 8) as f64;
        match self {
            Self::ZeroMean => 8.0 + root / 2.0,
            Self::Expected => worst.min(16.0 * root + (2 * k.div_ceil(8)) as f64 + 16.0),
            Self::Worst => worst,
        }
    }

    /// The bound of a sum of `k` products, multiplied by an `|α|` of at most 1, before it is rounded to the output type.
    pub fn sum(self, k: usize, magnitude: f64) -> f64 {
        // Of products and of the epilogue's steps, each may lose half of the smallest number.
        self.constant(k) * U * magnitude + (k + 8) as f64 * 2f64.powi(-149)
    }
}

/// What the bound of one element of a forward product depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forward {
    /// Which constant.
    pub growth: Growth,
    /// Length of the sum.
    pub k: usize,
    /// `|α|·Σ|a||b| + |β·c| + |bias| + |residual|`.
    pub magnitude: f64,
    /// The activation.
    pub activation: Activation,
    /// The exact value before the activation.
    pub preactivation: f64,
    /// The exact element of D, before it is rounded.
    pub exact: f64,
    /// The storage type of D.
    pub output: Dtype,
}

/// How far an element of `D = act(α·A·B + β·C + bias) + residual` may be from its exact value.
///
/// ```
/// use halfstep::gemm::{Activation, bound::{Forward, Growth}};
/// let error = halfstep::gemm::bound(Forward {
///     growth: Growth::Expected,
///     k: 1024,
///     magnitude: 100.0,
///     activation: Activation::None,
///     preactivation: 3.0,
///     exact: 3.0,
///     output: halfstep::Dtype::Bf16,
/// });
/// assert!(error > 0.0078 && error < 0.013); // half an ulp of 3.0 in bf16, and the sum's own
/// ```
pub fn bound(of: Forward) -> f64 {
    let sum = of.growth.sum(of.k, of.magnitude);
    let error = lipschitz(of.activation) * sum + activation_error(of.activation, of.preactivation);
    error + rounding(of.exact.abs() + error, of.output)
}

/// The bound of an element of `D = act(gate) ∘ up + residual`, from the exact gate and `up` and the
/// magnitudes of their sums.
pub fn gated(of: Forward, up: f64, up_magnitude: f64) -> f64 {
    let gate_error = lipschitz(of.activation) * of.growth.sum(of.k, of.magnitude)
        + activation_error(of.activation, of.preactivation);
    let up_error = of.growth.sum(of.k, up_magnitude);
    let gate = apply(of.activation, of.preactivation);
    let product = up.abs() * gate_error + gate.abs() * up_error + gate_error * up_error;
    let error = product + 2.0 * U * (gate * up).abs() + U * of.exact.abs();
    error + rounding(of.exact.abs() + error, of.output)
}

/// How far `dz = round(dy·act'(z))` may be from the exact `dy·act'(z)`. `z` is exact and `z_error`
/// bounds the error of the `z` that is read: 0 where `z` is an input, [`bound`] (with the input type as
/// output) where a forward product stored it.
pub fn dz(activation: Activation, input: Dtype, dy: f64, z: f64, z_error: f64) -> f64 {
    if activation == Activation::None {
        return 0.0;
    }
    let slope = derivative(activation, z);
    let slope_error = match activation {
        Activation::None => 0.0,
        // A step at 0: within reach of it either side is right.
        Activation::Relu if z.abs() <= z_error => 1.0,
        Activation::Relu => 0.0,
        Activation::GeluTanh | Activation::GeluErf => 0.81 * z_error + DERIVATIVE_ERROR,
        Activation::Silu => 0.5 * z_error + DERIVATIVE_ERROR,
    };
    let product = dy.abs() * (slope.abs() + slope_error);
    // ReLU's product is exact; the others' is rounded to f32 first.
    let in_f32 = if activation == Activation::Relu { 0.0 } else { 2.0 * U * product };
    dy.abs() * slope_error + in_f32 + rounding(product, input)
}

/// How far an element of a backward product may be from its exact value: `Σ dz·w` for
/// [`DataGrad`](super::DataGrad), `Σ dz·x (+ dw)` for [`WeightGrad`](super::WeightGrad), `Σ dz (+ db)` with `w = 1`.
/// `magnitude` is `Σ|dz||w|` (and `|dw|` where accumulated), `inherited` is `Σ error(dz)·|w|` by [`dz`].
pub fn backward(
    growth: Growth,
    k: usize,
    magnitude: f64,
    inherited: f64,
    exact: f64,
    output: Dtype,
) -> f64 {
    let error = growth.sum(k, magnitude + inherited) + inherited;
    error + rounding(exact.abs() + error, output)
}

/// Half an ulp of the value in the output type, and a little. For a value that is known but for an error,
/// pass the largest that it can be: its ulp may be the next binade's.
pub fn rounding(exact: f64, output: Dtype) -> f64 {
    let (bits, min_exponent) = match output {
        Dtype::Bf16 => (8, -126),
        Dtype::F16 => (11, -14),
        Dtype::F32 => (24, -126),
    };
    let exponent = if exact == 0.0 || !exact.is_finite() {
        min_exponent
    } else {
        ((exact.abs().to_bits() >> 52) as i32 - 1023).max(min_exponent)
    };
    0.5 * 2f64.powi(exponent - bits + 1) * (1.0 + 1.0 / 128.0)
}

/// Whether `got` is an acceptable answer for `exact`: within the bound, or an infinity of the right
/// sign where the bound reaches the largest number of the output type, or NaN for NaN.
pub fn within(got: f64, exact: f64, bound: f64, output: Dtype) -> bool {
    if got.is_nan() || exact.is_nan() {
        return got.is_nan() && exact.is_nan();
    }
    // Nothing is near an infinity; and a bound that is one, of operands that are, bounds nothing.
    if got == exact || !(exact.is_finite() && bound.is_finite()) {
        return got == exact;
    }
    // From here on everything rounds to infinity.
    let limit = match output {
        Dtype::Bf16 => (2.0 - 2f64.powi(-8)) * 2f64.powi(127),
        Dtype::F16 => 65520.0,
        Dtype::F32 => (2.0 - 2f64.powi(-24)) * 2f64.powi(127),
    };
    if got.is_infinite() {
        return got.is_sign_positive() == exact.is_sign_positive() && exact.abs() >= limit - bound;
    }
    (got - exact).abs() <= bound
}

/// The largest slope of the activation.
pub fn lipschitz(activation: Activation) -> f64 {
    match activation {
        Activation::None | Activation::Relu => 1.0,
        Activation::GeluTanh | Activation::GeluErf => 1.13,
        Activation::Silu => 1.10,
    }
}

/// Of `derivative`, absolute.
const DERIVATIVE_ERROR: f64 = 4.0 * U;

/// The error of `apply` at `z`. Its relative error grows slowly in the far tail, where the value fades
/// faster: `|z|·2⁻²⁴` covers that.
pub fn activation_error(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::None | Activation::Relu => 0.0,
        _ => U * (8.0 * apply(activation, z).abs() + z.abs()),
    }
}

/// The activation's value, near enough for a bound (the exact one is the caller's affair).
fn apply(activation: Activation, z: f64) -> f64 {
    f64::from(activation.apply(z as f32))
}

fn derivative(activation: Activation, z: f64) -> f64 {
    f64::from(activation.derivative(z as f32))
}
