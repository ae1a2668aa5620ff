//! Activations and their derivatives: fixed sequences of IEEE f32 operations, without branches, so
//! that every device gives the same bits and loops over them become vector code.
#![forbid(unsafe_code)]

mod exp;
mod logistic;
mod normal;
mod real;

use self::logistic::{logistic, logistic_and_rest};
use self::normal::normal;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::real::MAGIC;
pub(crate) use self::real::Real;

/// The function applied to `z = α·A·B + β·C + bias`.
///
/// | | `apply(z)` | `derivative(z)` |
/// |---|---|---|
/// | `None` | `z` | `1` |
/// | `Relu` | `z` for `z ≥ 0`, else `0` | `1` for `z > 0`, else `0` |
/// | `GeluTanh` | `z·σ(2u)`, `u = √(2/π)·(z + 0.044715 z³)`, which is `½z(1 + tanh u)` | `σ + 2z·σ(1−σ)·u'` |
/// | `GeluErf` | `z·Φ(z)`, which is `½z(1 + erf(z/√2))` | `Φ(z) + z·φ(z)` |
/// | `Silu` | `z·σ(z)` | `σ(1 + z(1−σ))` |
///
/// **Numerics.** Error of `apply`, in ulps of its value: `Relu` and `None` 0; `Silu` 4; `GeluErf` 8;
/// `GeluTanh` 4 for `z ≥ −1` and `4 + 6·z²` below (where its value fades); values smaller than 10⁻³²
/// may become 0. Error of `derivative`: `4·2⁻²⁴` absolute, `0` for `Relu` and `None`. Tests check
/// both on every bf16 and f16 value and on a sweep of f32. GELU as published: Hendrycks and Gimpel
/// 2016 (both forms); SiLU: Elfwing, Uchibe and Doya 2017.
///
/// **Special values.** NaN gives NaN. `apply`: `+Inf` gives `+Inf`; `−Inf` and everything that
/// underflows gives `−0` (`Relu`: `+0`); `±0` gives `±0`. `derivative`: `+Inf` gives 1, `−Inf` gives
/// 0 (or `−0`), `±0` gives `½` (`Relu`: 0, as PyTorch).
///
/// ```
/// use halfstep::gemm::Activation;
/// assert_eq!(Activation::Relu.apply(-3.0), 0.0);
/// assert_eq!(Activation::GeluErf.apply(f32::NEG_INFINITY), 0.0);
/// assert!((Activation::Silu.derivative(0.0) - 0.5).abs() < 1e-7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u32)]
pub enum Activation {
    /// `z`.
    #[default]
    None = 0,
    /// `max(z, 0)`.
    Relu = 1,
    /// GELU in the form with tanh (cuBLASLt's, and PyTorch's `approximate="tanh"`).
    GeluTanh = 2,
    /// GELU in the form with erf (PyTorch's default).
    GeluErf = 3,
    /// `z / (1 + e⁻ᶻ)`, also called swish.
    Silu = 4,
}

/// `2√(2/π)` and `2√(2/π)·0.044715`: `2u = z·(A + B·z²)`.
const A: f32 = 1.595_769_2;
const B: f32 = 0.071_354_814;
/// `1/√(2π)`.
const DENSITY: f32 = 0.398_942_3;

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 5] = [Self::None, Self::Relu, Self::GeluTanh, Self::GeluErf, Self::Silu];

    /// The function's value; the table above has the formula.
    #[inline(always)]
    pub fn apply(self, z: f32) -> f32 {
        self.apply_to(z)
    }

    /// The derivative's value; the table above has the formula.
    #[inline(always)]
    pub fn derivative(self, z: f32) -> f32 {
        self.derivative_of(z)
    }

    /// [`apply`](Self::apply) to one number or many.
    #[inline(always)]
    pub(crate) fn apply_to<R: Real>(self, z: R) -> R {
        match self {
            Self::None => z,
            Self::Relu => relu(z),
            Self::GeluTanh => gelu_tanh(z),
            Self::GeluErf => gelu_erf(z),
            Self::Silu => silu(z),
        }
    }

    /// [`derivative`](Self::derivative) of one number or many.
    #[inline(always)]
    pub(crate) fn derivative_of<R: Real>(self, z: R) -> R {
        match self {
            Self::None => R::of(1.0),
            Self::Relu => relu_derivative(z),
            Self::GeluTanh => gelu_tanh_derivative(z),
            Self::GeluErf => gelu_erf_derivative(z),
            Self::Silu => silu_derivative(z),
        }
    }

    /// [`apply_to`](Self::apply_to) and [`derivative_of`](Self::derivative_of), with their bits: what SiLU's have in common
    /// is computed once.
    #[inline(always)]
    pub(crate) fn both_of<R: Real>(self, z: R) -> (R, R) {
        match self {
            // σ is 0 or 1 long before 110.
            Self::Silu => (z.at_least(-110.0) * logistic(limited(z, 110.0)), silu_derivative(z)),
            _ => (self.apply_to(z), self.derivative_of(z)),
        }
    }

    /// The name used in golden files: `none`, `relu`, `gelu_tanh`, `gelu_erf`, `silu`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::GeluTanh => "gelu_tanh",
            Self::GeluErf => "gelu_erf",
            Self::Silu => "silu",
        }
    }

    /// The activation of a number in a parameter block.
    pub(crate) fn from_number(number: u32) -> Self {
        Self::ALL[number as usize % Self::ALL.len()]
    }
}

/// `x` limited to `±limit`; NaN passes. Beyond it every function here is constant to f32.
#[inline(always)]
fn limited<R: Real>(x: R, limit: f32) -> R {
    x.at_most(limit).at_least(-limit)
}

#[inline(always)]
fn relu<R: Real>(z: R) -> R {
    z.at_least(0.0)
}

#[inline(always)]
fn relu_derivative<R: Real>(z: R) -> R {
    let zero = R::of(0.0);
    // 1 above, 0 below; what is left is ±0 or NaN, and its own derivative.
    zero.if_less(z, R::of(1.0), z.if_less(zero, zero, z))
}

/// `2u = z·(A + B·z²)`.
#[inline(always)]
fn two_u<R: Real>(z: R, square: R) -> R {
    z * square.mul_add(R::of(B), R::of(A))
}

#[inline(always)]
fn gelu_tanh<R: Real>(z: R) -> R {
    let z = z.at_least(-30.0); // σ is 0 there: keeps −Inf·0 away
    z * logistic(two_u(z, z * z))
}

#[inline(always)]
fn gelu_tanh_derivative<R: Real>(z: R) -> R {
    let z = limited(z, 30.0);
    let square = z * z;
    let (s, rest) = logistic_and_rest(two_u(z, square));
    let slope = z * square.mul_add(R::of(3.0 * B), R::of(A)); // z·(2u)'
    (slope * s).mul_add(rest, s)
}

#[inline(always)]
fn gelu_erf<R: Real>(z: R) -> R {
    let z = z.at_least(-30.0);
    z * normal(z).0
}

#[inline(always)]
fn gelu_erf_derivative<R: Real>(z: R) -> R {
    let z = limited(z, 30.0);
    let (cdf, e) = normal(z);
    (z * R::of(DENSITY)).mul_add(e, cdf)
}

#[inline(always)]
fn silu<R: Real>(z: R) -> R {
    let z = z.at_least(-110.0);
    z * logistic(z)
}

#[inline(always)]
fn silu_derivative<R: Real>(z: R) -> R {
    let z = limited(z, 110.0);
    let (s, rest) = logistic_and_rest(z);
    (z * rest).mul_add(s, s)
}
