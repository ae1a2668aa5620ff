//! What a step did.
#![forbid(unsafe_code)]

use super::control::{NON_FINITE, NORM_OVERFLOW};
use crate::kernel::params::optim::{NONE, Status};

/// Why a step was skipped: parameters, masters, moments, counters and random numbers are bit for
/// bit what they were.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Skip {
    /// A gradient has a NaN or ±Inf, in memory or once unscaled.
    NonFinite {
        /// The first such tensor, by its place in the optimizer's list.
        tensor: usize,
        /// How many elements of all tensors.
        count: u64,
    },
    /// Gradients are finite, but the factor clip/scale that would clip them is below all normal f32:
    /// their norm or the scale is too large; or a norm beyond f32 shows that unscaling by a scale
    /// below 1 overflows.
    NormOverflow,
}

/// The outcome of the last control stage.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a skipped step must not advance the learning rate's schedule"]
#[non_exhaustive]
pub struct Report {
    /// Steps asked for, this one included.
    pub attempts: u64,
    /// Steps applied.
    pub applied: u64,
    /// Why this step was skipped; None if it was applied.
    pub skipped: Option<Skip>,
    /// Global norm of the unscaled gradients, before clipping; of their finite elements if there
    /// are others.
    pub norm: f64,
    /// min(1, clip/(norm + 10⁻⁶)); 1 without a limit.
    pub clip: f64,
    /// The scale that this step's gradients carried.
    pub scale: f32,
    /// The scale for the next loss.
    pub next_scale: f32,
    /// The one f32 that each gradient is multiplied by as it is read, clip/scale: a clipped,
    /// unscaled gradient is `gradient_factor * gradient`.
    pub gradient_factor: f32,
    /// Good steps counted towards the scale's growth.
    pub growth_tracker: u32,
    /// Skipped steps in a row, this one included.
    pub consecutive_skips: u32,
    /// Whether this step was skipped with the scale already at its minimum: no scale will help.
    pub scale_exhausted: bool,
}

impl Report {
    pub(super) fn of(status: &Status) -> Self {
        let tensor = if status.tensor == NONE { 0 } else { status.tensor as usize };
        Self {
            attempts: status.attempts,
            applied: status.applied,
            skipped: match status.skip {
                NON_FINITE => Some(Skip::NonFinite { tensor, count: status.non_finite }),
                NORM_OVERFLOW => Some(Skip::NormOverflow),
                _ => None,
            },
            norm: status.norm,
            clip: status.clip,
            scale: status.used_scale,
            next_scale: status.scale,
            gradient_factor: status.factor,
            growth_tracker: status.growth_tracker,
            consecutive_skips: status.skips,
            scale_exhausted: status.exhausted == 1,
        }
    }
}
