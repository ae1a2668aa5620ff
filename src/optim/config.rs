//! What an optimizer is made of: tensors, groups of them, and how state is kept.
#![forbid(unsafe_code)]

use super::{Rule, Scaler};

/// A tensor to be optimized: its name (in reports and state files) and its length.
///
/// ```
/// use halfstep::optim::Tensor;
/// // Biases are often not decayed.
/// let bias = Tensor::new("encoder.0.bias", 768).decay_factor(0.0);
/// # let _ = bias;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) lr_factor: f64,
    pub(crate) decay_factor: f64,
}

impl Tensor {
    /// A tensor of `len` elements, which may be 0.
    pub fn new(name: impl Into<String>, len: usize) -> Self {
        Self { name: name.into(), len, lr_factor: 1.0, decay_factor: 1.0 }
    }

    /// Multiplies the group's learning rate for this tensor; ≥ 0.
    pub fn lr_factor(mut self, factor: f64) -> Self {
        self.lr_factor = factor;
        self
    }

    /// Multiplies the group's weight decay for this tensor; ≥ 0.
    pub fn decay_factor(mut self, factor: f64) -> Self {
        self.decay_factor = factor;
        self
    }
}

/// Tensors that share hyper-parameters.
///
/// The tensors of all groups, one group after the other, make the optimizer's list: parameters and
/// gradients are passed in its order.
///
/// ```
/// use halfstep::optim::{AdamW, Group, Tensor};
/// let group = Group::new(AdamW::default())
///     .tensor(Tensor::new("weight", 768 * 768))
///     .tensor(Tensor::new("bias", 768).decay_factor(0.0));
/// # let _ = group;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub(crate) rule: Rule,
    pub(crate) tensors: Vec<Tensor>,
}

impl Group {
    /// A group without tensors.
    pub fn new(rule: impl Into<Rule>) -> Self {
        Self { rule: rule.into(), tensors: Vec::new() }
    }

    /// Adds a tensor at the end.
    pub fn tensor(mut self, tensor: Tensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// Adds tensors at the end.
    pub fn tensors(mut self, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        self.tensors.extend(tensors);
        self
    }
}

/// Where the value lives that steps add to, when parameters have 16 bits. f32 parameters are
/// updated themselves, and need [`Master::F32`].
///
/// | master | state bytes | parameter after a step |
/// |---|---|---|
/// | `F32` | 4 | the master, rounded to nearest even |
/// | `Remainder` | 2 | the master, rounded to nearest, ties away from zero |
/// | `Stochastic` | 0 | the updated value, rounded up or down at random |
/// | `Nearest` | 0 | the updated value, rounded to nearest even |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Master {
    /// An f32 copy. It wins: what is in the parameters before a step does not matter.
    #[default]
    F32,
    /// bf16 parameters with the 16 bits that are missing for f32. Parameter and remainder are one
    /// number: whoever changes a parameter by hand calls [`load_params`](super::Optimizer).
    Remainder,
    /// None; unbiased rounding keeps small updates on average.
    Stochastic,
    /// None, **and small updates are lost**: what is below half an ulp of a parameter (for bf16,
    /// 2⁻⁹ of its value) never happens, however many steps ask for it. For demonstrations.
    Nearest,
}

/// Storage of moments and other state arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Moments {
    /// f32.
    #[default]
    F32,
    /// bf16 with stochastic rounding. (To nearest, a second moment with β₂ = 0.999 sticks: it can
    /// neither grow nor decay by less than 1/256 of itself.)
    Bf16,
}

/// How state is kept and steps are decided.
///
/// ```
/// use halfstep::optim::{Config, Scaler};
/// let config = Config { clip: Some(1.0), scaler: Scaler::PYTORCH, ..Config::default() };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Masters of 16-bit parameters.
    pub master: Master,
    /// Storage of moments.
    pub moments: Moments,
    /// Largest global norm of the unscaled gradients: all are multiplied by
    /// min(1, clip/(norm + 10⁻⁶)), as `clip_grad_norm_` of PyTorch.
    pub clip: Option<f64>,
    /// What the gradients have been multiplied by.
    pub scaler: Scaler,
    /// Seed of stochastic rounding. The same on every rank, or replicas drift apart.
    pub seed: u64,
    /// Whether a NaN or ±Inf in a gradient skips the step. Without, it goes where the formulas
    /// take it: into that element of the parameter and its state, and into no other (LAMB: into
    /// no other element's trust ratio either, which becomes 1); it does not enter the norm.
    pub check_finite: bool,
}

impl Default for Config {
    /// f32 masters and moments, no clipping, no loss scale, checks on, seed 0.
    fn default() -> Self {
        Self {
            master: Master::F32,
            moments: Moments::F32,
            clip: None,
            scaler: Scaler::Off,
            seed: 0,
            check_finite: true,
        }
    }
}
