//! Rows of `optim`. Storage types are uniform branches at the ends of a row's loop; the update in
//! the middle of it is what makes a row.

/// What control has to know of a rule: which constants it makes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Family {
    /// Decoupled decay inside the update.
    AdamW = 0,
    /// Decay as part of the gradient.
    Adam = 1,
    /// Stochastic gradient descent.
    Sgd = 2,
    /// Accumulated squares.
    Adagrad = 3,
    /// Trust ratios.
    Lamb = 4,
    /// Signs.
    Lion = 5,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::AdamW, Self::Adam, Self::Sgd, Self::Adagrad, Self::Lamb, Self::Lion];

    /// The family with this number.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.get(code as usize).copied()
    }
}

/// A device entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Row {
    /// Gradients → partials.
    Stats = 0,
    /// Partials → decision and constants; one block.
    Control = 1,
    /// Masters from, or to, parameters or f32 values.
    Convert = 2,
    /// AdamW.
    AdamW = 3,
    /// AdamW with the largest second moment so far.
    AdamWMax = 4,
    /// Adam.
    Adam = 5,
    /// Adam with the largest second moment so far.
    AdamMax = 6,
    /// SGD without state.
    Sgd = 7,
    /// SGD with momentum.
    SgdMomentum = 8,
    /// Adagrad.
    Adagrad = 9,
    /// Lion.
    Lion = 10,
    /// LAMB: moments, and the norms of parameters and updates.
    LambMoments = 11,
    /// LAMB: trust ratios; one block.
    LambTrust = 12,
    /// LAMB: the update.
    LambApply = 13,
}

impl Row {
    /// Every row, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Stats,
        Self::Control,
        Self::Convert,
        Self::AdamW,
        Self::AdamWMax,
        Self::Adam,
        Self::AdamMax,
        Self::Sgd,
        Self::SgdMomentum,
        Self::Adagrad,
        Self::Lion,
        Self::LambMoments,
        Self::LambTrust,
        Self::LambApply,
    ];

    /// The row with this number.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.get(code as usize).copied()
    }

    /// The symbol on devices.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Stats => "hs_optim_stats",
            Self::Control => "hs_optim_control",
            Self::Convert => "hs_optim_convert",
            Self::AdamW => "hs_optim_step_adamw",
            Self::AdamWMax => "hs_optim_step_adamw_max",
            Self::Adam => "hs_optim_step_adam",
            Self::AdamMax => "hs_optim_step_adam_max",
            Self::Sgd => "hs_optim_step_sgd",
            Self::SgdMomentum => "hs_optim_step_sgd_momentum",
            Self::Adagrad => "hs_optim_step_adagrad",
            Self::Lion => "hs_optim_step_lion",
            Self::LambMoments => "hs_optim_step_lamb_moments",
            Self::LambTrust => "hs_optim_step_lamb_trust",
            Self::LambApply => "hs_optim_step_lamb_apply",
        }
    }

    /// Symbol, block and source.
    pub const fn entry(self) -> super::Entry {
        let (block, header, function) = match self {
            Self::Stats => ("Stats", "optim/stats.h", "stats"),
            Self::Control => ("Control", "optim/control.h", "control"),
            Self::Convert => ("Convert", "optim/convert.h", "convert"),
            Self::AdamW => ("Step", "optim/rules/adamw.h", "step<hs::AdamW>"),
            Self::AdamWMax => ("Step", "optim/rules/adamw.h", "step<hs::AdamWMax>"),
            Self::Adam => ("Step", "optim/rules/adam.h", "step<hs::Adam>"),
            Self::AdamMax => ("Step", "optim/rules/adam.h", "step<hs::AdamMax>"),
            Self::Sgd => ("Step", "optim/rules/sgd.h", "step<hs::Sgd>"),
            Self::SgdMomentum => ("Step", "optim/rules/sgd.h", "step<hs::SgdMomentum>"),
            Self::Adagrad => ("Step", "optim/rules/adagrad.h", "step<hs::Adagrad>"),
            Self::Lion => ("Step", "optim/rules/lion.h", "step<hs::Lion>"),
            Self::LambMoments => ("Step", "optim/lamb.h", "lamb_moments"),
            Self::LambTrust => ("Step", "optim/lamb.h", "lamb_trust"),
            Self::LambApply => ("Step", "optim/lamb.h", "step<hs::LambApply>"),
        };
        let source =
            super::Source { header, function, team: super::Team::Threads, asked: 0, only: None };
        super::Entry { symbol: self.symbol(), block, device: Some(source) }
    }

    /// State arrays that the row reads and writes.
    pub const fn slots(self) -> usize {
        match self {
            Self::Stats | Self::Control | Self::Convert | Self::Sgd | Self::LambTrust => 0,
            Self::SgdMomentum | Self::Adagrad | Self::Lion => 1,
            Self::AdamW | Self::Adam | Self::LambMoments | Self::LambApply => 2,
            Self::AdamWMax | Self::AdamMax => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_and_symbols_differ() {
        for (place, row) in Row::ALL.into_iter().enumerate() {
            assert_eq!(Row::from_code(row as u32), Some(row));
            assert_eq!(row as usize, place);
            assert!(Row::ALL[..place].iter().all(|other| other.symbol() != row.symbol()));
        }
        for (place, family) in Family::ALL.into_iter().enumerate() {
            assert_eq!((family as usize, Family::from_code(place as u32)), (place, Some(family)));
        }
    }
}
