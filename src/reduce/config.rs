//! What a reducer is told once, and what each step is told.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// In which order the gradients of all ranks are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sum {
    /// In rank order, in f32, rounded once to the wire's type: blocks go to the ranks that add them up, and
    /// sums to all. Moves as many bytes as a ring.
    #[default]
    RankOrder,
    /// In no order: integers of a common exponent are added ([`FixedPoint`](super::FixedPoint)), by an all-reduce of the communicator's, so
    /// that the bits do not depend on its algorithm, on the number of ranks in a node, or on the order of
    /// ranks. Four bytes an element travel, whatever the plan's wire, and one exponent for 256 elements of a
    /// bucket. Between threads of a CPU nothing does: each block is measured, made integers, added up and read where gradients lie,
    /// or where they are packed, with the same bits. The average is of the gradients' type, where that is the plan's wire, and else
    /// f32, until it is unscaled. The error of a sum before it is rounded to that type is at most `ranks · 2^(h−30)·M`, `h = ⌈log2 ranks⌉`, `M` the largest
    /// `|weight · scale · gradient|` of the block on any rank. A NaN or ±Inf makes its block NaN.
    OrderFree,
    /// In the communicator's order, in the wire's type ([`Communicator::all_reduce`](super::Communicator::all_reduce)): over
    /// `NcclComm` and `MpiComm` that of the library, whose rings and trees round to the wire's type at every hop, so
    /// that bf16 sums lose 17 % of the signal at 1,024 ranks, and f16 sums may overflow. For f32 wires, few ranks,
    /// and networks that add up by themselves. Threads have no library: between them it is [`RankOrder`](Self::RankOrder), to the
    /// bit, and as fast.
    Communicator,
    /// In rank order, of 8-bit integers with error feedback: 1.02 bytes an element travel, each way, whatever the
    /// plan's wire. `v = weight · scale · gradient + e` is rounded to 127 steps on either side of 0, blocks of 256
    /// elements having one step; the ranks' values are added up in f32, and the sum plus `e′` is rounded the same
    /// way. `e` and `e′` are what the last step's rounding lost, on each rank and of each sum: exactly, so
    /// that while the sum of the weights stays the same, the results of any number of steps add up to the exact averages, but for
    /// what the last of them lost: at most `(Σ_r m_r + m) / 254` before division by the weights, `m_r` and `m` the
    /// largest `|v|` of the block on a rank and of the sum.
    ///
    /// A step in which any rank packs a NaN or ±Inf, which makes its block NaN, leaves `e` as it was; and so do
    /// averages where all ranks weigh 0, and a step in which no rank has a gradient for a parameter, for that. When the loss scale
    /// changes, so must `e`: [`Reducer::scale_feedback`](super::Reducer::scale_feedback). It is not saved:
    /// a run that is resumed loses what one step's rounding lost.
    ///
    /// Memory: 9 bytes an element, and 9 of a rank's share, of which 4 are the bucket's that f32 need, too. Time: half
    /// of bf16's bytes on the link, for some 20 bytes an element more in memory: for links that are slower than a tenth
    /// of that; of a CPU, whose rounding takes longer, slower than 0.6 GB/s (two ranks of one core). Sources: 1-bit SGD (Seide et al., 2014), error feedback (Karimireddy et al., 2019); both sides rounded
    /// as in 1-bit Adam (Tang et al., 2021).
    Int8,
}

/// How gradients are reduced. Must be the same on every rank, but for times and folders.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Divide by the sum of the weights: an average over samples, not over ranks. Else: the weighted sum.
    pub average: bool,
    /// Parameters without a gradient on this rank count as zero, with this rank's weight; those
    /// without one on any rank are left alone. Else: an error in [`Reducer::finish`](super::Reducer::finish).
    pub allow_unused: bool,
    /// Allocate an f32 accumulator for each parameter, for [`Reducer::accumulate`](super::Reducer::accumulate).
    pub accumulate: bool,
    /// Gradients lie in memory of the reducer, from the backward pass to the optimizer:
    /// [`Reducer::gradient_mut`](super::Reducer::gradient_mut). On a CPU, and without accumulators, they
    /// are then averaged where they lie: between threads in every rank's memory at once (gradients in the
    /// wire's type, or in f32; for sums in no order with a [`scale`](Self::scale) of 1); between processes sent from there and received there (up to 256 of them, and gradients in
    /// the wire's type). Otherwise they are packed, as gradients of the caller's are. The bits are the
    /// same.
    pub views: bool,
    /// Sum up squares, and count what is not finite, in the pass that makes the averages: for
    /// [`Reducer::stats`](super::Reducer::stats), which clipping and loss scaling need. Without it,
    /// averaging in place takes about two thirds of the arithmetic.
    pub stats: bool,
    /// The order of sums, and in what they are made. What a communicator adds up, and 8-bit integers, are weighed before they are
    /// rounded, and packed, also where they are views.
    pub sum: Sum,
    /// Factor on every gradient before it is rounded to the wire type.
    pub scale: f32,
    /// How long one bucket's collective may take before all ranks give up.
    pub deadline: Duration,
    /// A folder, in which a rank writes what it did last at the first fault
    /// ([`FlightRecord`](super::FlightRecord)), as `halfstep-rank-<rank>.txt`. May differ from rank to rank.
    pub flight_record: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            average: true,
            allow_unused: false,
            accumulate: false,
            views: false,
            stats: true,
            sum: Sum::RankOrder,
            scale: 1.0,
            deadline: Duration::from_secs(120),
            flight_record: None,
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
