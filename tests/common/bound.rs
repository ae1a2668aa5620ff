//! The bounds that suites test with, derived here once more and apart from the library's own, so that
//! a mistake in those shows.

use halfstep::Dtype;
use halfstep::gemm::Activation;

use super::gemm_case::{Case, Exact, Role};
use super::oracle_gemm::{act, act_derivative};
use super::rounding::ulp;

/// Which constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Growth {
    ZeroMean,
    Expected,
    Worst,
}

const U: f64 = 1.0 / 16_777_216.0;

/// `c(k)`.
pub fn constant(growth: Growth, k: usize) -> f64 {
    let (k, root) = (k as f64, (k as f64).sqrt());
    let worst = 2.0 * (k + (k / 4.0).ceil() + 8.0);
    match growth {
        Growth::ZeroMean => 8.0 + root / 2.0,
        Growth::Expected => worst.min(16.0 * root + 2.0 * (k / 8.0).ceil() + 16.0),
        Growth::Worst => worst,
    }
}

/// Of a sum before it is rounded.
pub fn sum(growth: Growth, k: usize, magnitude: f64) -> f64 {
    constant(growth, k) * U * magnitude + (k + 8) as f64 * 2f64.powi(-149)
}

/// What a matrix unit that flushes may lose of a sum: each product of two bf16, and each step of adding them up, is 0 where it
/// would be subnormal. Products of f16 are not that small.
pub fn flushed_steps(k: usize, input: Dtype) -> f64 {
    if input == Dtype::Bf16 { (2 * k) as f64 * smallest_normal(input) } else { 0.0 }
}

/// Half an ulp of the output.
pub fn half_ulp(value: f64, dtype: Dtype) -> f64 {
    0.5 * ulp(value, dtype) * (1.0 + 1.0 / 128.0)
}

pub fn lipschitz(activation: Activation) -> f64 {
    match activation {
        Activation::None | Activation::Relu => 1.0,
        Activation::Silu => 1.10,
        _ => 1.13,
    }
}

/// The promised error of the activation.
pub fn activation(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::None | Activation::Relu => 0.0,
        _ => U * (8.0 * act(activation.name(), z).abs() + z.abs()),
    }
}

/// Of an element of D.
pub fn forward(case: &Case, growth: Growth, exact: &Exact, output: Dtype) -> f64 {
    let inner = sum(growth, case.k, exact.magnitude);
    // What is rounded is the value with its error, which may lie in the next binade.
    let outer = |error: f64| error + half_ulp(exact.value.abs() + error, output);
    let applied = lipschitz(case.activation) * inner + activation(case.activation, exact.z);
    match case.role {
        Role::Forward => outer(applied),
        Role::Gated => {
            let up = sum(growth, case.k, exact.up_magnitude);
            let gate = act(case.activation.name(), exact.z).abs();
            let product = exact.up.abs() * applied + gate * up + applied * up;
            outer(product + 2.0 * U * (gate * exact.up.abs() + exact.value.abs()))
        }
        // A slope of at most 1.13, off by 4u.
        Role::Derivative => {
            outer(1.13 * inner + 5.0 * U * exact.z.abs() + 2.0 * U * exact.magnitude)
        }
    }
}

/// Of `dz = round(dy·act'(z))`, where `z` is read as given.
pub fn dz(activation: Activation, input: Dtype, dy: f64, z: f64) -> f64 {
    match activation {
        Activation::None => 0.0,
        Activation::Relu => half_ulp(dy, input),
        _ => {
            let product = dy.abs() * (act_derivative(activation.name(), z).abs() + 4.0 * U);
            dy.abs() * 4.0 * U + 2.0 * U * product + half_ulp(product, input)
        }
    }
}

/// The smallest normal number of a 16-bit type.
pub fn smallest_normal(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Bf16 => 2f64.powi(-126),
        Dtype::F16 => 2f64.powi(-14),
        Dtype::F32 => 0.0,
    }
}

/// Whether `got` is a right answer for `exact`.
pub fn within(got: f64, exact: f64, bound: f64, output: Dtype) -> bool {
    if got.is_nan() || exact.is_nan() {
        return got.is_nan() && exact.is_nan();
    }
    let limit = match output {
        Dtype::Bf16 => (2.0 - 2f64.powi(-8)) * 2f64.powi(127),
        Dtype::F16 => 65520.0,
        Dtype::F32 => (2.0 - 2f64.powi(-24)) * 2f64.powi(127),
    };
    if got.is_infinite() {
        return got.signum() == exact.signum() && exact.abs() >= limit - bound;
    }
    got == exact || (got - exact).abs() <= bound
}
