//! Adagrad: steps shrink with the squares accumulated so far.
#![forbid(unsafe_code)]

use super::rule::{Apply, Check, scalars};
use crate::Result;
use crate::kernel::params::optim::{Group, Progress, Scalars};

/// Adagrad (Duchi, Hazan, Singer 2011; as PyTorch's `Adagrad`).
///
/// g ← g + λ·p, h ← h + g², p ← p − lr/(1 + (t−1)·lr_decay) · g/(√h + ε)
///
/// **Numerics.** In f32: `g = fma(w, p, g); h = fma(g, g, h); p = p − a·(g / (sqrt(h) + eps))`; the
/// step size a is made in f64 from the integer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adagrad {
    /// Learning rate, ≥ 0.
    pub lr: f64,
    /// ≥ 0.
    pub lr_decay: f64,
    /// λ ≥ 0.
    pub weight_decay: f64,
    /// h before the first step, ≥ 0.
    pub initial_accumulator_value: f64,
    /// ε > 0.
    pub eps: f64,
}

impl Default for Adagrad {
    /// PyTorch's: lr 1e-2, ε 1e-10, all else 0.
    fn default() -> Self {
        Self {
            lr: 1e-2,
            lr_decay: 0.0,
            weight_decay: 0.0,
            initial_accumulator_value: 0.0,
            eps: 1e-10,
        }
    }
}

impl Adagrad {
    pub(super) fn group(&self) -> Group {
        Group {
            lr: self.lr,
            decay: self.weight_decay,
            beta1: 0.0,
            beta2: 0.0,
            eps: self.eps,
            extra: self.lr_decay,
            flags: 0,
            pad: 0,
        }
    }

    pub(super) fn check(&self, check: &Check) -> Result<()> {
        check.not_negative("lr", self.lr)?;
        check.not_negative("lr_decay", self.lr_decay)?;
        check.not_negative("weight_decay", self.weight_decay)?;
        check.not_negative("initial_accumulator_value", self.initial_accumulator_value)?;
        check.eps(self.eps)
    }
}

/// The constants of one step.
pub(crate) fn constants(group: &Group, progress: &Progress, lr: f64, decay: f64) -> Scalars {
    let before = progress.step.saturating_sub(1) as f64;
    Scalars { a: (lr / (1.0 + before * group.extra)) as f32, ..scalars(group, lr, decay) }
}

/// Row `Adagrad`.
pub(crate) struct Plain;

impl Apply<1> for Plain {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, [h]: [f32; 1]) -> (f32, [f32; 1]) {
        let g = s.w.mul_add(p, g);
        let h = g.mul_add(g, h);
        (p - s.a * (g / (h.sqrt() + s.eps)), [h])
    }
}
