//! Lion: the sign of an interpolated momentum.
#![forbid(unsafe_code)]

use super::rule::{Apply, Check, scalars};
use crate::Result;
use crate::kernel::params::optim::{Group, Progress, Scalars};

/// Lion (Chen et al. 2023, algorithm 2).
///
/// c = β₁·m + (1−β₁)·g, p ← p − (lr·sign(c) + lr·λ·p), m ← β₂·m + (1−β₂)·g, with sign(0) = 0
///
/// **Numerics.** In f32: `c = fma(b1, m, c1·g); p = p − fma(w, p, a·sign(c)); m = fma(b2, m, c2·g)`
/// with w = lr·λ; decay is summed into the update. sign(NaN) is NaN: with the check of gradients
/// off, damage stays visible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    /// Learning rate, ≥ 0.
    pub lr: f64,
    /// β₁ in [0, 1): interpolation of the update.
    pub beta1: f64,
    /// β₂ in [0, 1): decay of the momentum.
    pub beta2: f64,
    /// λ ≥ 0.
    pub weight_decay: f64,
}

impl Default for Lion {
    /// The paper's code: lr 1e-4, β 0.9 and 0.99, no decay.
    fn default() -> Self {
        Self { lr: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 }
    }
}

impl Lion {
    pub(super) fn group(&self) -> Group {
        Group {
            lr: self.lr,
            decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: 0.0,
            extra: 0.0,
            flags: 0,
            pad: 0,
        }
    }

    pub(super) fn check(&self, check: &Check) -> Result<()> {
        check.not_negative("lr", self.lr)?;
        check.fraction("beta1", self.beta1)?;
        check.fraction("beta2", self.beta2)?;
        check.not_negative("weight_decay", self.weight_decay)
    }
}

/// The constants of one step.
pub(crate) fn constants(group: &Group, _: &Progress, lr: f64, decay: f64) -> Scalars {
    Scalars { w: (lr * decay) as f32, ..scalars(group, lr, decay) }
}

/// −1, 0 or 1; NaN stays NaN. (`f32::signum` gives ±1 at ±0, which drifts parameters whose
/// gradient is always 0.)
#[inline(always)]
fn sign(c: f32) -> f32 {
    let one = if c > 0.0 { 1.0 } else { -1.0 };
    if c == 0.0 || c.is_nan() { c } else { one }
}

/// Row `Lion`.
pub(crate) struct Plain;

impl Apply<1> for Plain {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, [m]: [f32; 1]) -> (f32, [f32; 1]) {
        let c = s.b1.mul_add(m, s.c1 * g);
        (p - s.w.mul_add(p, s.a * sign(c)), [s.b2.mul_add(m, s.c2 * g)])
    }
}
