//! Steps of which each rank makes a part: reduce-scatter, sharded optimizer, all-gather.

#![forbid(unsafe_code)]

mod alike;
mod core;
pub(super) mod cut;
mod lists;
mod params;
mod rows;
#[cfg(feature = "safetensors")]
mod state;
mod step;

use std::marker::PhantomData;

use self::core::Core;
use super::comm::Communicator;
use super::config::Config;
use super::flight::FlightRecord;
use super::plan::BucketPlan;
#[cfg(doc)]
use super::reducer::Reducer;
#[cfg(doc)]
use crate::Error;
#[cfg(doc)]
use crate::optim::Optimizer;
use crate::optim::{self, Group, Report};
use crate::{Device, Read, Result, Storage, Stream};

/// A [`Reducer`] and an [`Optimizer`] in one, that keep and step on each rank a part of the parameters'
/// state: masters and moments take 1/N of the memory, and a step 1/N of the time, on each of N ranks
/// (stages 1 and 2 of ZeRO, Rajbhandari et al., SC20). Parameters stored as `P`, gradients as `G`.
///
/// ```text
/// ready ─ pack ─▶ all-to-all ─▶ sum a part ─▶ statistics ─▶ step a part ─▶ all-gather ─▶ wait
///         cast                  in f32        of all ranks  P rounded      of parameters
/// ```
///
/// **Numerics.** After each step every rank has the bits of [`Reducer::finish`] followed by
/// [`Optimizer::control`], from the reducer's statistics, and [`Optimizer::step`] of whole tensors: for
/// every rule (LAMB's norms are of whole tensors, added chunk by chunk in their order), kind of master
/// and moment, and any number of ranks that gradients come from. Each bucket is cut in N parts between
/// chunks of 16,384 elements, counted in each tensor, so that no sum is made otherwise; stochastic
/// rounding is keyed by the element's place in its tensor. With a NaN on any rank all skip the step.
///
/// **Memory.** A rank's part of a bucket is 1/N of it to within a chunk; a bucket of fewer chunks than
/// ranks leaves some without a part. Blocks on the wire are as long as the largest part, so buckets
/// should hold many chunks for each rank.
///
/// **Waiting.** A step waits on the host for the statistics of all ranks, and LAMB's for the norms; it
/// cannot be recorded as a graph.
///
/// **Order.** Parameters are passed in the order in which the plan declares them, whichever order the
/// groups have. A step is [`ready`](Self::ready) for each, [`step`](Self::step), and then
/// [`wait`](Self::wait) for each before it is read. Those that are waited for last travel meanwhile.
///
/// **Failure.** As [`Reducer`]: an error of the communicator is reported on every rank, and every later
/// call answers with it. An argument error changes nothing.
///
/// ```
/// use halfstep::optim::{AdamW, Config, Group, Tensor};
/// use halfstep::reduce::{self, BucketPlan, Communicator, Local, Param, Sharded, Unscale, local};
/// use halfstep::{Device, Dtype, bf16};
/// # fn main() -> halfstep::Result<()> {
/// const LEN: usize = 1_000_000;
/// let params = [Param::new("w", LEN), Param::new("b", 10)];
/// let plan = BucketPlan::ddp(&params, Dtype::Bf16, 1 << 20, 25 << 20)?;
/// let rule = AdamW { lr: 0.1, ..AdamW::default() };
/// let groups = [Group::new(rule).tensors([Tensor::new("w", LEN), Tensor::new("b", 10)])];
/// let run = |comm: Local| -> halfstep::Result<()> {
///     let gradient = bf16::from_f32(comm.rank() as f32);
///     let device = Device::cpu_with_threads(1.try_into().unwrap());
///     let stream = device.stream()?;
///     let (comm, config) = (Box::new(comm), reduce::Config::default());
///     let mut sharded = Sharded::<bf16, bf16>::new(
///         &device, plan.clone(), comm, config, &groups, Config::default())?;
///     assert!(sharded.state_bytes() < LEN * 12 * 6 / 10); // f32 master and two moments
///
///     let (mut w, mut b) = (vec![bf16::ONE; LEN], vec![bf16::ONE; 10]);
///     sharded.load_params(&stream, &[&w, &b])?;
///     for _ in 0..3 {
///         sharded.wait(&stream, 0, &mut w)?; // forward
///         sharded.wait(&stream, 1, &mut b)?;
///         sharded.ready(&stream, 1, &vec![gradient; 10])?; // backward
///         sharded.ready(&stream, 0, &vec![gradient; LEN])?;
///         sharded.step(&stream, &mut [&mut w, &mut b], Unscale::Keep)?;
///     }
///     sharded.wait_all(&stream, &mut [&mut w, &mut b])?;
///     assert!(w.iter().chain(&b).all(|&value| value == w[0] && value < bf16::ONE));
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
pub struct Sharded<P: Storage, G: Storage> {
    core: Core,
    storage: PhantomData<(P, G)>,
}

impl<P: Storage, G: Storage> Sharded<P, G> {
    /// A reducer for the plan's parameters with an optimizer of this rank's parts. The groups' tensors are
    /// the plan's parameters, by name, in any order. Takes part in a first exchange in which all ranks
    /// compare their plans and optimizers. Allocates all memory of this rank's state.
    ///
    /// Of `config`, `stats` is always as if set.
    ///
    /// # Errors
    /// As [`Reducer::new`] and [`Optimizer::new`]; [`Error::Range`] for a parameter that no group has or a
    /// tensor that the plan lacks, [`Error::Shape`] for one of another length;
    /// [`Error::Unsupported`] with [`Config::views`], or sums in another than rank order.
    pub fn new(
        device: &Device,
        plan: BucketPlan,
        comm: Box<dyn Communicator>,
        config: Config,
        groups: &[Group],
        optimizer: optim::Config,
    ) -> Result<Self> {
        let core = Core::new((P::DTYPE, G::DTYPE), device, plan, comm, config, groups, optimizer)?;
        Ok(Self { core, storage: PhantomData })
    }

    /// [`Reducer::set_weight`].
    ///
    /// # Errors
    /// As there.
    pub fn set_weight(&mut self, weight: f64) -> Result<()> {
        self.core.reducer.set_weight(weight)
    }

    /// [`Reducer::accumulate`].
    ///
    /// # Errors
    /// As there.
    pub fn accumulate(
        &mut self,
        stream: &Stream,
        param: usize,
        gradient: &dyn Read<G>,
    ) -> Result<()> {
        self.core.reducer.accumulate(stream, param, &mut [gradient].as_slice())
    }

    /// Says that parameter `param`'s gradient is there: [`Reducer::ready`].
    ///
    /// # Errors
    /// As there.
    pub fn ready(&mut self, stream: &Stream, param: usize, gradient: &dyn Read<G>) -> Result<()> {
        self.core.reducer.ready(stream, param, &mut [gradient].as_slice())
    }

    /// [`Optimizer::report`]: the same on every rank; tensors by their place in the groups' list.
    ///
    /// # Errors
    /// As there.
    pub fn report(&self, stream: &Stream) -> Result<Report> {
        self.core.optimizer.report(stream)
    }

    /// [`Optimizer::last_report`].
    pub fn last_report(&self) -> Option<Report> {
        self.core.optimizer.last_report()
    }

    /// [`Optimizer::scale`]: what the next loss is to be multiplied by, the same on every rank.
    ///
    /// # Errors
    /// As there.
    pub fn scale(&self, stream: &Stream) -> Result<f32> {
        self.core.optimizer.scale(stream)
    }

    /// [`Optimizer::set_lr`], to be called on every rank: ranks whose rates differ are told by the next step.
    ///
    /// # Errors
    /// As there.
    pub fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        self.core.optimizer.set_lr(group, lr)
    }

    /// [`Reducer::flight_record`].
    pub fn flight_record(&self) -> FlightRecord {
        self.core.reducer.flight_record()
    }

    /// Bytes of masters and moments on this rank.
    pub fn state_bytes(&self) -> usize {
        self.core.optimizer.state_bytes()
    }

    /// The plan.
    pub fn plan(&self) -> &BucketPlan {
        &self.core.reducer.plan
    }
}
