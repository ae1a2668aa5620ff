//! The reducer: gradients in, as backward produces them; averages over all ranks out.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::agree::agree;
use super::comm::Communicator;
use super::config::{Config, Sum, Unscale};
use super::exchange::{Blocks, Exchange, Geometry, Sums};
use super::feedback::Feedback;
use super::flight::Flight;
use super::in_place::Layout;
use super::outbox::Outbox;
use super::plan::{Bucket, BucketPlan};
use super::report::{Log, Reduced};
use super::sharded::cut::Cut;
use super::targets::Targets;
use super::trailer::Trailer;
use super::way::Way;
use super::whole::Integers;
use super::wire::{Int8Geometry, Wire};
use crate::kernel::params::reduce::FIXED_BLOCK;
use crate::{Buffer, Device, Dtype, Error, GradStats, Read, Result, Storage, Stream, Write};

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
    pub(super) plan: Arc<BucketPlan>,
    pub(super) config: Config,
    pub(super) hash: u64,
    pub(super) rank: usize,
    /// The process that made it.
    pub(super) process: u32,
    /// How buckets are exchanged.
    pub(super) way: Way,
    /// What gradients are packed in: the gradients' own type if there is nobody to send to.
    pub(super) wire: Dtype,
    /// What comes back.
    pub(super) returned: Wire,
    pub(super) geometry: Vec<Geometry>,
    pub(super) buckets: Vec<Filling>,
    /// The next bucket to go out.
    pub(super) next: usize,
    pub(super) marked: Vec<bool>,
    pub(super) gradients: Gradients,
    /// Of each bucket, in its order; empty without [`Config::accumulate`].
    pub(super) accumulators: Vec<Buffer<f32>>,
    pub(super) accumulated: Vec<bool>,
    pub(super) weight: f64,
    pub(super) step: u64,
    pub(super) started: Option<Started>,
    pub(super) log: Log,
    /// The point where the step's first call had prepared the buckets.
    pub(super) begun: Option<crate::Event>,
    pub(super) shard_table: Buffer<u64>,
    pub(super) targets: Targets,
    pub(super) stats: GradStats,
    /// Which part of each bucket stays here, if not all of all.
    pub(super) own: Option<Own>,
    pub(super) outbox: Outbox,
    pub(super) flight: Flight,
    pub(super) fault: Option<Error>,
    pub(super) storage: std::marker::PhantomData<G>,
}

/// When a step began, on two clocks: one that never goes back, and one that other processes have.
#[derive(Clone, Copy)]
pub(super) struct Started {
    pub at: Instant,
    pub on: SystemTime,
}

/// A bucket on this side of the exchange.
pub(super) struct Filling {
    pub(super) pending: usize,
    /// `None` while the communication thread has them.
    pub(super) blocks: Option<Blocks>,
    pub(super) filled: Vec<crate::Event>,
    /// The last work that added to accumulators, behind all before.
    pub(super) added: Option<crate::Event>,
    pub(super) non_finite: Buffer<u64>,
    pub(super) ready: Duration,
}

/// A rank's parts of the buckets.
pub(super) struct Own {
    pub(super) cut: Arc<Cut>,
    pub(super) rank: usize,
}

/// Where gradients lie.
pub(super) enum Gradients {
    /// With the caller.
    Callers,
    /// In memory of ours, one buffer for each bucket; they are packed from there.
    Ours(Vec<Buffer<u8>>),
    /// In the buckets that are exchanged: averaged where they lie.
    InPlace {
        layouts: Vec<Arc<Layout>>,
        /// The weight of one rank alone.
        one: Buffer<f32>,
        /// `[params]`, not 0 where nobody has a gradient.
        skipped: Buffer<u8>,
    },
}

const NEW: &str = "Reducer::new";
pub(super) const READY: &str = "Reducer::ready";
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
        Self::build(device, Arc::new(plan), comm, config, None)
    }

    /// As [`new`](Self::new); with `sharded`, each rank keeps its part of the averages; the hash is of what
    /// it does with them.
    pub(super) fn build(
        device: &Device,
        plan: Arc<BucketPlan>,
        mut comm: Box<dyn Communicator>,
        config: Config,
        sharded: Option<(Arc<Cut>, u64)>,
    ) -> Result<Self> {
        if !(config.scale.is_finite() && config.scale > 0.0) {
            return Err(Error::range(NEW, "scale", "a finite number above 0", config.scale));
        }
        let (rank, ranks) = (comm.rank(), comm.size());
        if rank >= ranks {
            let found = format!("rank {rank} of {ranks}");
            return Err(Error::range(NEW, "comm", "a rank below the number of ranks", found));
        }
        let stream = device.stream()?;
        // Threads have no library that would add up: their order is that of ranks.
        let sum = match config.sum {
            Sum::Communicator if comm.threads().is_some() => Sum::RankOrder,
            sum => sum,
        };
        let shape = comm.nodes().map(|comm| comm.shape());
        let (types, same) = ((G::DTYPE, plan.wire()), G::DTYPE == plan.wire());
        let way = Way::of(&mut *comm, device, &config, types, (sum, sharded.is_some()));
        let (hash, way) = agree(
            &mut *comm,
            &plan,
            &config,
            (G::DTYPE, sharded.as_ref().map(|(_, hash)| *hash)),
            device,
            way,
        )?;
        let in_place = matches!(way, Way::Lent | Way::Sections);
        // In what gradients are packed, and averages are until they are unscaled.
        let (wire, mean) = match sum {
            _ if ranks == 1 => (G::DTYPE, G::DTYPE),
            Sum::Int8 => (Dtype::F32, Dtype::F32),
            Sum::OrderFree => {
                let exact = way != Way::Whole && !config.accumulate && config.scale == 1.0;
                let or_f32 = |gradients| if gradients { G::DTYPE } else { Dtype::F32 };
                (or_f32(exact), or_f32(same))
            }
            Sum::RankOrder | Sum::Communicator => (plan.wire(), plan.wire()),
        };
        let nodes = match way {
            Way::Whole => (1, 1), // one block
            Way::Nodes => shape.unwrap_or((ranks, 1)),
            _ => (ranks, 1),
        };
        let own = sharded.map(|(cut, _)| Own { cut, rank });

        let mut layouts = Vec::new();
        let mut geometry = Vec::new();
        let mut buckets = Vec::new();
        for (index, bucket) in plan.buckets().iter().enumerate() {
            let (params, largest) = (bucket.params.len(), |own: &Own| own.cut.largest(index));
            let shape = match &own {
                _ if way == Way::Quantized => Int8Geometry::packed(bucket.len, params, ranks),
                Some(own) => Geometry::of_parts(largest(own), params, wire, nodes),
                None if sum == Sum::OrderFree => {
                    let part = bucket.len.div_ceil(nodes.0).next_multiple_of(FIXED_BLOCK);
                    Geometry::of_parts(part, params, wire, nodes)
                }
                None => Geometry::new(bucket.len, params, wire, nodes),
            };
            let send = shape.block_bytes * shape.blocks;
            let (mut send, mut result) = (send, shape.part * mean.bytes());
            if in_place {
                let fixed = sum == Sum::OrderFree;
                let layout = Layout::new(device, plan.params(), bucket, (G::DTYPE, fixed), ranks)?;
                (send, result) = (layout.bytes, 0);
                layouts.push(Arc::new(layout));
            } else if way == Way::Whole {
                result = Trailer::bytes(params);
            } else if way == Way::Quantized {
                result = Int8Geometry::new(shape.part, params).result;
            } else if ranks == 1 {
                result = 0; // alone, the bucket is its own result
            }
            let (send, result) = (Arc::new(device.zeros(send)?), Arc::new(device.zeros(result)?));
            let feedback = (way == Way::Quantized)
                .then(|| Feedback::new(device, shape, params))
                .transpose()?;
            geometry.push(shape);
            buckets.push(Filling {
                pending: bucket.params.len(),
                blocks: Some(Blocks { send, result, feedback }),
                filled: Vec::with_capacity(bucket.params.len()),
                added: None,
                non_finite: device.zeros(1)?,
                ready: Duration::ZERO,
            });
        }
        let lengths: Vec<usize> = plan.params().iter().map(|p| p.len).collect();
        let accumulators = plan.buckets().iter().map(|bucket| match config.accumulate {
            true => device.zeros(bucket.len),
            false => device.zeros(0),
        });
        let accumulators = accumulators.collect::<Result<_>>()?;
        let room = |bucket: &Bucket| device.zeros(bucket.len * size_of::<G>());
        let gradients = match (config.views, in_place) {
            (false, _) => Gradients::Callers,
            (true, false) => {
                Gradients::Ours(plan.buckets().iter().map(room).collect::<Result<_>>()?)
            }
            (true, true) => {
                let (one, skipped) = (device.upload(&[1.0])?, device.zeros(lengths.len())?);
                Gradients::InPlace { layouts: layouts.clone(), one, skipped }
            }
        };
        let outbox = if ranks == 1 {
            let done = Vec::with_capacity(buckets.len());
            Outbox::Alone { average: config.average, done }
        } else {
            let gathered = match way {
                Way::Sections => layouts.iter().map(|layout| layout.gathered()).max(),
                _ => None,
            };
            let longest = geometry.iter().map(|shape| shape.shard).max().unwrap_or(0);
            let integers = (sum == Sum::OrderFree && way == Way::Whole)
                .then(|| Integers::new(device, longest, ranks))
                .transpose()?;
            let sums = Sums {
                aborter: comm.aborter(),
                plan: plan.clone(),
                geometry: geometry.clone(),
                layouts,
                way,
                hash,
                sum,
                wire,
                mean,
                average: config.average,
                scale: config.scale,
                stats: config.stats,
                deadline: config.deadline,
                stream: Arc::new(stream),
                parts: device.zeros(ranks)?,
                own: device.zeros(1)?,
                weights: device.zeros(ranks)?,
                skipped: device.zeros(lengths.len())?,
            };
            let gathered = Some(device.zeros(gathered.unwrap_or(0))?);
            Outbox::start(Exchange { comm, gathered, integers, sums })?
        };
        Ok(Self {
            hash,
            rank,
            process: std::process::id(),
            way,
            wire,
            returned: match way {
                Way::Quantized => Wire::Int8,
                _ => Wire::Elements(mean),
            },
            geometry,
            buckets,
            next: 0,
            marked: vec![false; lengths.len()],
            gradients,
            accumulated: vec![false; lengths.len()],
            accumulators,
            weight: 1.0,
            step: 0,
            started: None,
            log: Log::new(Instant::now()),
            begun: None,
            shard_table: device.zeros(ranks)?,
            targets: Targets::new(device, &plan, own.as_ref())?,
            stats: GradStats::new(device, &lengths)?,
            own,
            outbox,
            flight: Flight::new(rank, ranks),
            fault: None,
            config,
            plan,
            storage: std::marker::PhantomData,
        })
    }

    /// This rank's weight in the averages or sums of the step that begins next: its number of samples or
    /// tokens, say. 1 until set; kept until set again. 0 takes part without counting: its
    /// gradients count as zeros, NaN and ±Inf too (views are set to 0); where all ranks weigh 0, averages are 0.
    ///
    /// # Errors
    /// [`Error::Range`] unless 0 or from 2⁻⁶⁴ to 2⁶⁴ (weights and their sums are f32 factors);
    /// [`Error::State`] inside a step.
    pub fn set_weight(&mut self, weight: f64) -> Result<()> {
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
        self.check_gradients_lie(ACCUMULATE, false)?;
        let span = self.check_gradient(ACCUMULATE, stream, param, gradient)?;
        self.add(ACCUMULATE, stream, param, span)
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
        self.check_gradients_lie(READY, false)?;
        let span = self.check_gradient(READY, stream, param, gradient)?;
        self.mark(stream, param, span)
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
        gradients: &mut [&mut dyn Write<G>],
        unscale: Unscale,
    ) -> Result<Reduced> {
        self.check_gradients_lie(FINISH, false)?;
        let spans = self.check_outputs(stream, gradients, unscale)?;
        self.end(stream, &spans, unscale)
    }

    /// Σg² and non-finite counts of the gradients that the last [`finish`](Self::finish) wrote
    /// (before their last rounding), in the declared order. Those of parameters without a gradient
    /// are 0.
    ///
    /// # Errors
    /// [`Error::State`] without [`Config::stats`].
    pub fn stats(&self) -> Result<&GradStats> {
        match self.config.stats {
            true => Ok(&self.stats),
            false => Err(Error::state("Reducer::stats", "Config::stats", "a reducer without it")),
        }
    }

    /// What gradients are multiplied by when they are packed.
    pub(super) fn scale(&self, weight: f64) -> f32 {
        match (self.way, self.config.sum) {
            (Way::Whole, Sum::Communicator) | (Way::Quantized, _) => {
                (f64::from(self.config.scale) * weight) as f32
            }
            _ => self.config.scale,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &BucketPlan {
        &self.plan
    }
}

impl<G: Storage> Drop for Reducer<G> {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A fork: the thread that would have to end is not here.
            return std::mem::forget(std::mem::replace(
                &mut self.outbox,
                Outbox::Alone { average: true, done: Vec::new() },
            ));
        }
        if self.started.is_some() {
            self.outbox.abort("reducer dropped inside a step");
        }
        self.outbox.close();
    }
}
