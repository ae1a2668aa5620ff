//! The rules an optimizer can follow, and what all of them have in common.
#![forbid(unsafe_code)]

use super::{Adagrad, Adam, AdamW, Lamb, Lion, Sgd};
use crate::kernel::params::optim::{Group, Scalars};
use crate::kernel::table::optim::{Family, Row};
use crate::{Error, Result};

/// A rule with its hyper-parameters. All groups of one optimizer follow the same rule, with their
/// own hyper-parameters.
///
/// ```
/// use halfstep::optim::{AdamW, Rule};
/// let rule = Rule::from(AdamW { lr: 3e-4, ..AdamW::default() });
/// assert_eq!(rule.slots(), ["exp_avg", "exp_avg_sq"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// Adam; decay is part of the gradient.
    Adam(Adam),
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Accumulated squares.
    Adagrad(Adagrad),
    /// Layer-wise trust ratios.
    Lamb(Lamb),
    /// Signs of an interpolated momentum.
    Lion(Lion),
}

macro_rules! from {
    ($($rule:ident),*) => {$(
        impl From<$rule> for Rule {
            fn from(rule: $rule) -> Self {
                Self::$rule(rule)
            }
        }
    )*};
}
from!(AdamW, Adam, Sgd, Adagrad, Lamb, Lion);

impl Rule {
    /// The rule's name, as in state files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Adam(_) => "adam",
            Self::Sgd(_) => "sgd",
            Self::Adagrad(_) => "adagrad",
            Self::Lamb(_) => "lamb",
            Self::Lion(_) => "lion",
        }
    }

    /// Names of the state arrays, in the order of their numbers (PyTorch's names).
    pub fn slots(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW(AdamW { amsgrad: true, .. }) | Self::Adam(Adam { amsgrad: true, .. }) => {
                &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
            }
            Self::AdamW(_) | Self::Adam(_) | Self::Lamb(_) => &["exp_avg", "exp_avg_sq"],
            Self::Sgd(Sgd { momentum, .. }) if *momentum == 0.0 => &[],
            Self::Sgd(_) => &["momentum_buffer"],
            Self::Adagrad(_) => &["sum"],
            Self::Lion(_) => &["exp_avg"],
        }
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.group().lr
    }

    pub(crate) fn set_lr(&mut self, value: f64) {
        match self {
            Self::AdamW(AdamW { lr, .. })
            | Self::Adam(Adam { lr, .. })
            | Self::Sgd(Sgd { lr, .. })
            | Self::Adagrad(Adagrad { lr, .. })
            | Self::Lamb(Lamb { lr, .. })
            | Self::Lion(Lion { lr, .. }) => *lr = value,
        }
    }

    pub(crate) fn family(&self) -> Family {
        match self {
            Self::AdamW(_) => Family::AdamW,
            Self::Adam(_) => Family::Adam,
            Self::Sgd(_) => Family::Sgd,
            Self::Adagrad(_) => Family::Adagrad,
            Self::Lamb(_) => Family::Lamb,
            Self::Lion(_) => Family::Lion,
        }
    }

    /// The rows of the table that make a step, in order.
    pub(crate) fn rows(&self) -> &'static [Row] {
        match self {
            Self::AdamW(AdamW { amsgrad: true, .. }) => &[Row::AdamWMax],
            Self::AdamW(_) => &[Row::AdamW],
            Self::Adam(Adam { amsgrad: true, .. }) => &[Row::AdamMax],
            Self::Adam(_) => &[Row::Adam],
            Self::Sgd(Sgd { momentum, .. }) if *momentum == 0.0 => &[Row::Sgd],
            Self::Sgd(_) => &[Row::SgdMomentum],
            Self::Adagrad(_) => &[Row::Adagrad],
            Self::Lamb(_) => &[Row::LambMoments, Row::LambTrust, Row::LambApply],
            Self::Lion(_) => &[Row::Lion],
        }
    }

    /// What the state arrays hold before the first step.
    pub(crate) fn initial_state(&self) -> f64 {
        match self {
            Self::Adagrad(rule) => rule.initial_accumulator_value,
            _ => 0.0,
        }
    }

    /// Whether a slot may never hold a negative number.
    #[cfg(feature = "safetensors")]
    pub(crate) fn never_negative(&self, slot: usize) -> bool {
        match self {
            Self::AdamW(_) | Self::Adam(_) | Self::Lamb(_) => slot >= 1,
            Self::Adagrad(_) => true,
            Self::Sgd(_) | Self::Lion(_) => false,
        }
    }

    /// The hyper-parameters as the device keeps them.
    pub(crate) fn group(&self) -> Group {
        match self {
            Self::AdamW(rule) => rule.group(),
            Self::Adam(rule) => rule.group(),
            Self::Sgd(rule) => rule.group(),
            Self::Adagrad(rule) => rule.group(),
            Self::Lamb(rule) => rule.group(),
            Self::Lion(rule) => rule.group(),
        }
    }

    /// O-13: every hyper-parameter is inside its range.
    pub(crate) fn check(&self, group: usize) -> Result<()> {
        let check = Check { group };
        match self {
            Self::AdamW(rule) => rule.check(&check),
            Self::Adam(rule) => rule.check(&check),
            Self::Sgd(rule) => rule.check(&check),
            Self::Adagrad(rule) => rule.check(&check),
            Self::Lamb(rule) => rule.check(&check),
            Self::Lion(rule) => rule.check(&check),
        }
    }
}

/// What a number has to be that is not negative, and one in f32, too.
pub(crate) const NOT_NEGATIVE: &str = "a number from 0 to 3.4e38";

/// Range checks of one group's hyper-parameters.
pub(crate) struct Check {
    pub(crate) group: usize,
}

impl Check {
    fn that(&self, ok: bool, name: &str, expected: &str, found: f64) -> Result<()> {
        if ok {
            return Ok(());
        }
        let arg = format!("groups[{}].{name}", self.group);
        Err(Error::range("optim::new", arg, expected, format!("{found:?}"))) // not hundreds of zeros
    }

    pub(crate) fn not_negative(&self, name: &str, value: f64) -> Result<()> {
        // The arithmetic is f32: what overflows there is no number here.
        let ok = value >= 0.0 && (value as f32).is_finite();
        self.that(ok, name, NOT_NEGATIVE, value)
    }

    /// [0, 1), also after rounding to f32.
    pub(crate) fn fraction(&self, name: &str, value: f64) -> Result<()> {
        let ok = value >= 0.0 && (value as f32) < 1.0;
        self.that(ok, name, "a number in [0, 1), in f32, too", value)
    }

    pub(crate) fn dampening(&self, value: f64) -> Result<()> {
        self.that((0.0..=1.0).contains(&value), "dampening", "a number in [0, 1]", value)
    }

    /// ε keeps 0/0 out of elements whose gradient has always been 0, so it may not vanish in f32.
    pub(crate) fn eps(&self, value: f64) -> Result<()> {
        let ok = value > 0.0 && (value as f32) >= f32::MIN_POSITIVE && (value as f32).is_finite();
        self.that(ok, "eps", "a number from 1.2e-38 to 3.4e38", value)
    }

    pub(crate) fn require(&self, ok: bool, name: &str, expected: &str, found: f64) -> Result<()> {
        self.that(ok, name, expected, found)
    }
}

/// A rule's update of one element: a fixed sequence of IEEE f32 operations, with `mul_add` where
/// one rounding is meant and nowhere else. Devices repeat it bit for bit.
pub(crate) trait Apply<const SLOTS: usize> {
    /// `g` is unscaled and clipped; returns the new parameter and the new state.
    fn apply(s: &Scalars, g: f32, p: f32, slots: [f32; SLOTS]) -> (f32, [f32; SLOTS]);
}

/// The constants that every rule makes the same way, in f64, each rounded once.
pub(crate) fn scalars(group: &Group, lr: f64, decay: f64) -> Scalars {
    Scalars {
        a: lr as f32,
        w: decay as f32,
        b1: group.beta1 as f32,
        c1: (1.0 - group.beta1) as f32,
        b2: group.beta2 as f32,
        c2: (1.0 - group.beta2) as f32,
        s: 1.0,
        eps: group.eps as f32,
        n: 0.0,
        flags: group.flags,
        active: 1,
        pad: 0,
    }
}
