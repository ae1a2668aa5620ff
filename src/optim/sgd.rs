//! Stochastic gradient descent, with momentum if asked for.
#![forbid(unsafe_code)]

use super::rule::{Apply, Check, scalars};
use crate::Result;
use crate::kernel::params::optim::{Group, Progress, Scalars};

/// SGD (momentum of Sutskever et al. 2013 in the form and with the hyper-parameters of PyTorch's
/// `SGD`).
///
/// g ← g + λ·p; with momentum μ: b ← g in a tensor's first step, else μ·b + (1−dampening)·g, and
/// g ← b, or g + μ·b if `nesterov`; p ← p − lr·g
///
/// A tensor's first step is the first that was applied to it: skipped ones do not count.
///
/// **Numerics.** In f32: `g = fma(w, p, g); b = fma(b1, b, c1·g); d = nesterov ? fma(n, b, g) : b;
/// p = fma(−a, d, p)` with b1 = 0 and c1 = 1 in the first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate, ≥ 0.
    pub lr: f64,
    /// μ in [0, 1). Groups without momentum may stand beside groups with it.
    pub momentum: f64,
    /// In [0, 1].
    pub dampening: f64,
    /// λ ≥ 0.
    pub weight_decay: f64,
    /// Look ahead; needs momentum and no dampening.
    pub nesterov: bool,
}

impl Default for Sgd {
    /// PyTorch's: lr 1e-3, all else 0.
    fn default() -> Self {
        Self { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

impl Sgd {
    pub(super) fn group(&self) -> Group {
        Group {
            lr: self.lr,
            decay: self.weight_decay,
            beta1: self.momentum,
            beta2: 0.0,
            eps: 0.0,
            // Without momentum there is nothing to dampen.
            extra: if self.momentum == 0.0 { 0.0 } else { self.dampening },
            flags: u32::from(self.nesterov),
            pad: 0,
        }
    }

    pub(super) fn check(&self, check: &Check) -> Result<()> {
        check.not_negative("lr", self.lr)?;
        check.fraction("momentum", self.momentum)?;
        check.dampening(self.dampening)?;
        check.not_negative("weight_decay", self.weight_decay)?;
        if self.nesterov {
            let momentum = "a number above 0, since nesterov is set";
            check.require(self.momentum > 0.0, "momentum", momentum, self.momentum)?;
            let dampening = "0, since nesterov is set";
            check.require(self.dampening == 0.0, "dampening", dampening, self.dampening)?;
        }
        Ok(())
    }
}

/// The constants of one step.
pub(crate) fn constants(group: &Group, progress: &Progress, lr: f64, decay: f64) -> Scalars {
    let all = scalars(group, lr, decay);
    let first = progress.step == 1;
    Scalars {
        b1: if first { 0.0 } else { all.b1 },
        c1: if first { 1.0 } else { (1.0 - group.extra) as f32 },
        n: all.b1,
        ..all
    }
}

/// Row `Sgd`.
pub(crate) struct Plain;
/// Row `SgdMomentum`.
pub(crate) struct Momentum;

impl Apply<0> for Plain {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, _: [f32; 0]) -> (f32, [f32; 0]) {
        ((-s.a).mul_add(s.w.mul_add(p, g), p), [])
    }
}

impl Apply<1> for Momentum {
    #[inline(always)]
    fn apply(s: &Scalars, g: f32, p: f32, [b]: [f32; 1]) -> (f32, [f32; 1]) {
        let g = s.w.mul_add(p, g);
        let b = s.b1.mul_add(b, s.c1 * g);
        let ahead = s.n.mul_add(b, g);
        let d = if s.flags & 1 != 0 { ahead } else { b };
        ((-s.a).mul_add(d, p), [b])
    }
}
