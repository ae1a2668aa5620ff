//! What a reducer is told once, and what each step is told.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// How gradients are reduced. Must be the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Divide by the sum of the weights: an average over samples, not over ranks. Else: a sum.
    pub average: bool,
    /// Parameters without a gradient on this rank count as zero, with this rank's weight; those
    /// without one on any rank are left alone. Else: an error in [`Reducer::finish`](super::Reducer::finish).
    pub allow_unused: bool,
    /// Allocate an f32 accumulator for each parameter, for [`Reducer::accumulate`](super::Reducer::accumulate).
    pub accumulate: bool,
    /// Gradients lie in memory of the reducer, from the backward pass to the optimizer:
    /// [`Reducer::gradient_mut`](super::Reducer::gradient_mut). On a CPU, and without accumulators, they
    /// are then averaged where they lie: between threads in every rank's memory at once (gradients in the
    /// wire's type, or in f32); between processes of MPI sent from there and received there (gradients in
    /// the wire's type). Otherwise they are packed, as gradients of the caller's are. The bits are the
    /// same.
    pub views: bool,
    /// Sum up squares, and count what is not finite, in the pass that makes the averages: for
    /// [`Reducer::stats`](super::Reducer::stats), which clipping and loss scaling need. Without it,
    /// averaging in place takes about two thirds of the arithmetic.
    pub stats: bool,
    /// Factor on every gradient before it is rounded to the wire type.
    pub scale: f32,
    /// How long one bucket's collective may take before all ranks give up.
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            average: true,
            allow_unused: false,
            accumulate: false,
            views: false,
            stats: true,
            scale: 1.0,
            deadline: Duration::from_secs(120),
        }
    }
}

/// What [`Reducer::finish`](super::Reducer::finish) multiplies each result by, in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Unscale {
    /// Nothing: gradients keep the loss scale.
    Keep,
    /// This factor: `1 / scale` gives gradients without the loss scale.
    Factor(f32),
}

/// `time` from now, or decades from now where the clock cannot count that far.
pub(super) fn deadline(time: Duration) -> Instant {
    const DECADES: Duration = Duration::from_secs(1 << 30);
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + DECADES)
}
