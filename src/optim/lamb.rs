//! LAMB: Adam's direction, with a trust ratio for each tensor.
#![forbid(unsafe_code)]

use super::adamw::moments;
use super::rule::{Apply, Check, scalars};
use crate::Result;
use crate::kernel::params::optim::{Group, Progress, Scalars};

/// LAMB (You et al. 2020, algorithm 2, bias-corrected).
///
/// m ← β₁·m + (1−β₁)·g, v ← β₂·v + (1−β₂)·g², u = m/(1−β₁ᵗ) / (√v/√(1−β₂ᵗ) + ε) + λ·p,
/// p ← p − lr·r·u with r = ‖p‖/‖u‖ over the whole tensor, 1 where either norm is 0
///
/// Limit the gradient's global norm, as the paper's code does, with `Config::clip`.
///
/// **Numerics.** In f32: moments as [`AdamW`](super::AdamW)'s;
/// `u = fma(w, p, (m·n) / fma(sqrt(v), s, eps)); p = fma(−a, u, p)`, n = 1/(1−β₁ᵗ), w = λ,
/// a = lr·r. The norms are sums of exact squares in f64, in the fixed order of
/// [`GradStats`](crate::GradStats). u is made from the moments as they are stored, twice, instead
/// of being kept: with bf16 moments both passes read the rounded ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lamb {
    /// Learning rate, ≥ 0.
    pub lr: f64,
    /// β₁ in [0, 1).
    pub beta1: f64,
    /// β₂ in [0, 1).
    pub beta2: f64,
    /// ε > 0, outside the root.
    pub eps: f64,
    /// λ ≥ 0, inside the trust ratio.
    pub weight_decay: f64,
}

impl Default for Lamb {
    /// lr 1e-3, β 0.9 and 0.999, ε 1e-6, λ 1e-2 (NVIDIA Apex's `FusedLAMB`).
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 1e-2 }
    }
}

impl Lamb {
    pub(super) fn group(&self) -> Group {
        Group {
            lr: self.lr,
            decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            extra: 0.0,
            flags: 0,
            pad: 0,
        }
    }

    pub(super) fn check(&self, check: &Check) -> Result<()> {
        check.not_negative("lr", self.lr)?;
        check.fraction("beta1", self.beta1)?;
        check.fraction("beta2", self.beta2)?;
        check.eps(self.eps)?;
        check.not_negative("weight_decay", self.weight_decay)
    }
}

/// The constants of one step; `a` is multiplied by the trust ratio later.
pub(crate) fn constants(group: &Group, progress: &Progress, lr: f64, decay: f64) -> Scalars {
    Scalars {
        n: (1.0 / (1.0 - progress.beta1_power)) as f32,
        s: (1.0 / (1.0 - progress.beta2_power).sqrt()) as f32,
        ..scalars(group, lr, decay)
    }
}

/// ‖p‖/‖u‖, or 1 where that says nothing.
pub(crate) fn trust(squares_of_p: f64, squares_of_u: f64) -> f64 {
    let ratio = (squares_of_p / squares_of_u).sqrt();
    let says = squares_of_p > 0.0 && squares_of_u > 0.0 && ratio.is_finite() && ratio > 0.0;
    if says { ratio } else { 1.0 }
}

/// The direction, decay included.
#[inline(always)]
pub(crate) fn direction(s: &Scalars, p: f32, m: f32, v: f32) -> f32 {
    s.w.mul_add(p, (m * s.n) / v.sqrt().mul_add(s.s, s.eps))
}

/// Row `LambMoments`: leaves the parameter.
pub(crate) struct Moments;
/// Row `LambApply`: leaves the moments.
pub(crate) struct Update;

impl Apply<2> for Moments {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, [m, v]: [f32; 2]) -> (f32, [f32; 2]) {
        let (m, v) = moments(s, g, m, v);
        (p, [m, v])
    }
}

impl Apply<2> for Update {
    #[inline(always)]
    fn apply(s: &Scalars, _: f32, p: f32, [m, v]: [f32; 2]) -> (f32, [f32; 2]) {
        ((-s.a).mul_add(direction(s, p, m, v), p), [m, v])
    }
}
