//! The kinds of precision.

use std::fmt;
use std::str::FromStr;

use halfstep::optim::{Master, Scaler};

/// How numbers are kept and rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything f32.
    F32,
    /// bf16 weights and activations, f32 masters.
    Bf16Master,
    /// bf16 weights without a master, rounded stochastically.
    Bf16Stochastic,
    /// bf16 weights without a master, rounded to nearest: the one that fails.
    Bf16Nearest,
    /// f16 weights and activations, f32 masters, dynamic loss scale.
    F16Scaler,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 5] =
        [Self::F32, Self::Bf16Master, Self::Bf16Stochastic, Self::Bf16Nearest, Self::F16Scaler];
    /// Their names, in the same order.
    pub const NAMES: [&str; 5] = ["f32", "bf16+master", "bf16+sr", "bf16+rn", "f16+scaler"];

    /// What weights are added to.
    pub fn master(self) -> Master {
        match self {
            Self::F32 | Self::Bf16Master | Self::F16Scaler => Master::F32,
            Self::Bf16Stochastic => Master::Stochastic,
            Self::Bf16Nearest => Master::Nearest,
        }
    }

    /// How the loss is scaled.
    pub fn scaler(self) -> Scaler {
        match self {
            Self::F16Scaler => Scaler::PYTORCH,
            _ => Scaler::Off,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = Self::ALL.iter().position(|mode| mode == self).unwrap_or_default();
        f.write_str(Self::NAMES[index])
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let index = Self::NAMES.iter().position(|&known| known == name);
        index.map(|i| Self::ALL[i]).ok_or(format!("one of {}", Self::NAMES.join(", ")))
    }
}
