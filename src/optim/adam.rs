//! Adam: weight decay, where there is any, is part of the gradient.
#![forbid(unsafe_code)]

use super::adamw::moments;
use super::rule::{Apply, Check, scalars};
use crate::Result;
use crate::kernel::params::optim::{Group, Progress, Scalars};

/// Adam (Kingma and Ba 2015; decay and hyper-parameters as PyTorch's `Adam`).
///
/// g ← g + λ·p, m ← β₁·m + (1−β₁)·g, v ← β₂·v + (1−β₂)·g²,
/// p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)
///
/// With `amsgrad`, the largest v so far takes v's place in the denominator.
///
/// **Numerics.** In f32:
///
/// ```text
/// g = fma(w, p, g);  m = fma(b1, m, c1·g);  v = fma(b2, v, (c2·g)·g)
/// p = p − a·(m / fma(sqrt(v), s, eps))
/// ```
///
/// Constants as [`AdamW`](super::AdamW)'s, but w = λ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate, ≥ 0.
    pub lr: f64,
    /// β₁ in [0, 1).
    pub beta1: f64,
    /// β₂ in [0, 1).
    pub beta2: f64,
    /// ε > 0, outside the root.
    pub eps: f64,
    /// λ ≥ 0.
    pub weight_decay: f64,
    /// Divide by the largest v so far.
    pub amsgrad: bool,
}

impl Default for Adam {
    /// PyTorch's: lr 1e-3, β 0.9 and 0.999, ε 1e-8, no decay.
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

impl Adam {
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

/// The constants of one step.
pub(crate) fn constants(group: &Group, progress: &Progress, lr: f64, decay: f64) -> Scalars {
    Scalars {
        a: (lr / (1.0 - progress.beta1_power)) as f32,
        s: (1.0 / (1.0 - progress.beta2_power).sqrt()) as f32,
        ..scalars(group, lr, decay)
    }
}

#[inline(always)]
fn update(s: &Scalars, p: f32, m: f32, v: f32) -> f32 {
    p - s.a * (m / v.sqrt().mul_add(s.s, s.eps))
}

/// Row `Adam`.
pub(crate) struct Plain;
/// Row `AdamMax`.
pub(crate) struct Max;

impl Apply<2> for Plain {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, [m, v]: [f32; 2]) -> (f32, [f32; 2]) {
        let (m, v) = moments(s, s.w.mul_add(p, g), m, v);
        (update(s, p, m, v), [m, v])
    }
}

impl Apply<3> for Max {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, [m, v, largest]: [f32; 3]) -> (f32, [f32; 3]) {
        let (m, v) = moments(s, s.w.mul_add(p, g), m, v);
        let largest = if v > largest { v } else { largest };
        (update(s, p, m, largest), [m, v, largest])
    }
}
