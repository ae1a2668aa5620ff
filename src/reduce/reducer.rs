//! The reducer: gradients in, as backward produces them; averages over all ranks out.

#![forbid(unsafe_code)]

use std::marker::PhantomData;
use std::sync::Arc;

use super::comm::Communicator;
use super::config::{Config, Unscale};
use super::core::Core;
use super::plan::BucketPlan;
use super::report::Reduced;
use crate::lend::List;
use crate::{Device, Error, GradStats, Read, Result, Storage, Stream, Write};

/// Averages gradients of storage type `G` over the ranks of a communicator, bucket by bucket,
/// while the backward pass goes on:
///
/// `g ← unscale · wire( (1/Σ w_r) · Σ_r w_r · wire(scale · g_r) )`, `r` in rank order, sums in f32.
///
/// **Numerics.** Each gradient is rounded to the wire type twice: before the exchange, and after the
/// sum; partial sums are f32 whatever the wire type. With `u` the wire type's unit roundoff,
/// `|g − exact| ≤ 2.01·u·Σ w_r|g_r| / Σ w_r + (W + 2)·2⁻²⁴·Σ w_r|g_r| / Σ w_r`, and half an ulp of
/// `G`. Weights enter at the sum, so nothing is divided before it travels, and an average overflows only where
/// `Σ w_r|g_r|` does in f32, which of f16 and small weights it cannot. The result has the same bits on every rank, for any bucket plan and any order in
/// which gradients become ready. With one rank nothing is rounded or sent.
///
/// A step is: [`ready`](Self::ready) for each parameter, in any order; then
/// [`finish`](Self::finish). Exchanges run on a thread and a stream of their own, in plan order.
///
/// Over a communicator of many nodes, [`Hierarchical`](super::Hierarchical), nodes sum first, which that one documents.
///
/// **Views.** With [`Config::views`] gradients lie in the reducer's memory: a step writes each through
/// [`gradient_mut`](Self::gradient_mut), marks it with [`ready_view`](Self::ready_view), ends with
/// [`finish_views`](Self::finish_views), and reads [`gradient`](Self::gradient). The bits are the same.
///
/// **Failure.** An error of the communicator is reported on every rank, and the reducer answers
/// every later call with it. An argument error changes nothing; the call can be made again.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let params = [Param::new("w", 4), Param::new("b", 2)];
/// let plan = BucketPlan::ddp(&params, Dtype::Bf16, 1 << 20, 25 << 20)?;
/// // What each rank does, in a thread of its own.
/// let run = |comm: Local| -> halfstep::Result<()> {
///     let rank = comm.rank() as f32;
///     let device = Device::cpu_with_threads(1.try_into().unwrap());
///     let stream = device.stream()?;
///     let mut reducer = Reducer::new(&device, plan.clone(), Box::new(comm), Config::default())?;
///     let (mut w, mut b) = (vec![rank; 4], vec![10.0 + rank; 2]);
///     reducer.ready(&stream, 1, &b)?; // backward meets the last layer first
///     reducer.ready(&stream, 0, &w)?;
///     let reduced = reducer.finish(&stream, &mut [&mut w, &mut b], Unscale::Keep)?;
///     assert_eq!((w[0], b[0]), (0.5, 10.5));
///     assert!(reduced.used[0]);
///     Ok(())
/// };
/// std::thread::scope(|scope| {
///     let ranks = local(2.try_into().unwrap()).into_iter();
///     let ranks: Vec<_> = ranks.map(|comm| scope.spawn(move || run(comm))).collect();
///     ranks.into_iter().try_for_each(|rank| rank.join().unwrap())
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct Reducer<G: Storage> {
    pub(super) core: Core,
    gradients: PhantomData<G>,
}

const READY: &str = "Reducer::ready";
const ACCUMULATE: &str = "Reducer::accumulate";
pub(super) const FINISH: &str = "Reducer::finish";

impl<G: Storage> Reducer<G> {
    /// A reducer for the plan's parameters. Takes part in a first exchange in which all ranks
    /// compare their plans. Allocates all that later calls use.
    ///
    /// # Errors
    /// [`Error::Range`] for a bad configuration; [`Error::Comm`] if ranks disagree
    /// ([`Fault::PlanMismatch`](super::Fault::PlanMismatch), on every rank) or are missing;
    /// [`Error::OutOfMemory`]; [`Error::State`] if the system gives no thread.
    pub fn new(
        device: &Device,
        plan: BucketPlan,
        comm: Box<dyn Communicator>,
        config: Config,
    ) -> Result<Self> {
        let core = Core::new(G::DTYPE, device, Arc::new(plan), comm, config, None)?;
        Ok(Self { core, gradients: PhantomData })
    }

    /// This rank's weight in the averages or sums of the step that begins next: its number of samples or
    /// tokens, say. 1 until set; kept until set again. 0 takes part without counting: its
    /// gradients count as zeros, NaN and ±Inf too (views are set to 0); where all ranks weigh 0, averages are 0.
    ///
    /// # Errors
    /// [`Error::Range`] unless 0 or from 2⁻⁶⁴ to 2⁶⁴ (weights and their sums are f32 factors);
    /// [`Error::State`] inside a step.
    pub fn set_weight(&mut self, weight: f64) -> Result<()> {
        self.core.set_weight(weight)
    }

    /// Adds `gradient` to the parameter's f32 accumulator and sends nothing. The next
    /// [`ready`](Self::ready) of the parameter adds its own gradient and sends the sum: one
    /// reduction for any number of micro-batches.
    ///
    /// # Errors
    /// As [`ready`](Self::ready); [`Error::State`] if [`Config::accumulate`] is off.
    pub fn accumulate(
        &mut self,
        stream: &Stream,
        param: usize,
        gradient: &dyn Read<G>,
    ) -> Result<()> {
        self.core.accumulate(stream, param, &mut [gradient].as_slice())
    }

    /// Says that parameter `param`'s gradient is there: packs it into its bucket, in the stream's
    /// order, and lets every bucket go that is complete and next in plan order. The gradient may be
    /// overwritten by work enqueued on `stream` after this call: so each is packed by a launch of its own. Where
    /// that counts, on a GPU with many small parameters, [`Config::views`] packs a bucket in one.
    ///
    /// # Errors
    /// [`Error::Range`] for an index past the declared list, [`Error::Shape`] for another length,
    /// [`Error::State`] if it was marked in this step already or gradients are views
    /// ([`Config::views`]), [`Error::Device`], [`Error::Align`], [`Error::Comm`].
    pub fn ready(&mut self, stream: &Stream, param: usize, gradient: &dyn Read<G>) -> Result<()> {
        self.core.ready(stream, param, &mut [gradient].as_slice())
    }

    /// Ends the step: waits for every bucket and writes each parameter's reduced gradient into
    /// `gradients[i]`, counting non-finite values and summing squares in the same pass (see
    /// [`stats`](Self::stats)). One launch for each bucket; a table of the addresses goes to the device when they are
    /// not those of the last step.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of tensors or other lengths, [`Error::Device`],
    /// [`Error::Align`]: the step goes on and `finish` can be called again. [`Error::State`] naming
    /// the parameters never marked, unless [`Config::allow_unused`]: then the communicator is
    /// aborted, since other ranks wait for them. [`Error::Comm`].
    pub fn finish(
        &mut self,
        stream: &Stream,
        mut gradients: &mut [&mut dyn Write<G>],
        unscale: Unscale,
    ) -> Result<Reduced> {
        self.core.finish(stream, &mut gradients, unscale)
    }

    /// Σg² and non-finite counts of the gradients that the last [`finish`](Self::finish) wrote
    /// (before their last rounding), in the declared order. Those of parameters without a gradient
    /// are 0.
    ///
    /// # Errors
    /// [`Error::State`] without [`Config::stats`].
    pub fn stats(&self) -> Result<&GradStats> {
        self.core.stats()
    }

    /// The plan.
    pub fn plan(&self) -> &BucketPlan {
        &self.core.plan
    }
}

impl Core {
    pub(super) fn set_weight(&mut self, weight: f64) -> Result<()> {
        const OP: &str = "Reducer::set_weight";
        self.check_fault()?;
        const LIMIT: f64 = 18_446_744_073_709_551_616.0; // 2^64
        if !(weight == 0.0 || (1.0 / LIMIT..=LIMIT).contains(&weight)) {
            return Err(Error::range(OP, "weight", "0, or a number from 2^-64 to 2^64", weight));
        }
        if !(weight == 0.0 || self.scale(weight).is_normal()) {
            return Err(Error::range(
                OP,
                "weight",
                "a number whose product with the scale is f32",
                weight,
            ));
        }
        if self.started.is_some() {
            return Err(Error::state(OP, "no gradient marked ready yet", "a step in progress"));
        }
        self.weight = weight;
        Ok(())
    }

    pub(super) fn accumulate(
        &mut self,
        stream: &Stream,
        param: usize,
        gradient: &mut dyn List,
    ) -> Result<()> {
        let span = self.check_gradient(ACCUMULATE, stream, param, gradient)?;
        self.add(ACCUMULATE, stream, param, span)
    }

    pub(super) fn ready(
        &mut self,
        stream: &Stream,
        param: usize,
        gradient: &mut dyn List,
    ) -> Result<()> {
        let span = self.check_gradient(READY, stream, param, gradient)?;
        self.mark(stream, param, span)
    }

    pub(super) fn finish(
        &mut self,
        stream: &Stream,
        gradients: &mut dyn List,
        unscale: Unscale,
    ) -> Result<Reduced> {
        self.check_gradients_lie(FINISH, false)?;
        let spans = self.check_outputs(stream, gradients, unscale)?;
        self.end(stream, &spans, unscale)
    }

    pub(super) fn stats(&self) -> Result<&GradStats> {
        match self.config.stats {
            true => Ok(&self.stats),
            false => Err(Error::state("Reducer::stats", "Config::stats", "a reducer without it")),
        }
    }
}
