//! The reducer: gradients in, as backward produces them; averages over all ranks out.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agree::agree;
use super::comm::Communicator;
use super::config::{Config, Unscale, deadline};
use super::exchange::{Blocks, Done, Exchange, Exchanged, Geometry, Job, exclusive};
use super::launch::{self, Span};
use super::outbox::Outbox;
use super::plan::BucketPlan;
use super::report::{BucketTimes, Reduced};
use super::trailer::Trailer;
use crate::backend::Address;
use crate::{Buffer, Device, Dtype, Error, GradStats, Read, Result, Storage, Stream, Write};

/// Averages gradients of storage type `G` over the ranks of a communicator, bucket by bucket,
/// while the backward pass goes on:
///
/// `g ← unscale · wire( (1/Σ w_r) · Σ_r w_r · wire(scale · g_r) )`, `r` in rank order, sums in f32.
///
/// **Numerics.** Each gradient is rounded to the wire type twice: before the exchange, and after the
/// sum; partial sums are f32 whatever the wire type. With `u` the wire type's unit roundoff,
/// `|g − exact| ≤ 2.01·u·Σ w_r|g_r| / Σ w_r + (W + 2)·2⁻²⁴·Σ w_r|g_r| / Σ w_r`, and half an ulp of
/// `G`. Weights enter at the sum, so nothing is divided before it travels, and an average cannot
/// overflow. The result has the same bits on every rank, for any bucket plan and any order in
/// which gradients become ready. With one rank nothing is rounded or sent.
///
/// A step is: [`ready`](Self::ready) for each parameter, in any order; then
/// [`finish`](Self::finish). Exchanges run on a thread and a stream of their own, in plan order.
///
/// **Failure.** An error of the communicator is reported on every rank, and the reducer answers
/// every later call with it. An argument error changes nothing; the call can be made again.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let params = [Param::new("w", 4), Param::new("b", 2)];
/// let plan = BucketPlan::ddp(&params, Dtype::Bf16, 1 << 20, 25 << 20)?;
/// std::thread::scope(|scope| {
///     for comm in local(2.try_into().unwrap()) {
///         let plan = plan.clone();
///         scope.spawn(move || -> halfstep::Result<()> {
///             let rank = comm.rank() as f32;
///             let device = Device::cpu_with_threads(1.try_into().unwrap());
///             let stream = device.stream()?;
///             let mut reducer = Reducer::new(&device, plan, Box::new(comm), Config::default())?;
///             let (mut w, mut b) = (vec![rank; 4], vec![10.0 + rank; 2]);
///             reducer.ready(&stream, 1, &b)?; // backward meets the last layer first
///             reducer.ready(&stream, 0, &w)?;
///             let reduced = reducer.finish(&stream, &mut [&mut w, &mut b], Unscale::Keep)?;
///             assert_eq!((w[0], b[0]), (0.5, 10.5));
///             assert!(reduced.used[0]);
///             Ok(())
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub struct Reducer<G: Storage> {
    pub(super) plan: Arc<BucketPlan>,
    config: Config,
    hash: u64,
    ranks: usize,
    /// The plan's wire type; the gradients' own if there is nobody to send to.
    wire: Dtype,
    geometry: Vec<Geometry>,
    buckets: Vec<Filling>,
    /// The next bucket to go out.
    next: usize,
    pub(super) marked: Vec<bool>,
    accumulators: Vec<Option<Buffer<f32>>>,
    accumulated: Vec<bool>,
    weight: f64,
    step: u64,
    started: Option<Instant>,
    /// The point where the step's first call had prepared the buckets.
    begun: Option<crate::Event>,
    shard_table: Buffer<u64>,
    /// Where each parameter's partials start.
    first_partial: Vec<usize>,
    stats: GradStats,
    outbox: Outbox,
    pub(super) fault: Option<Error>,
    gradient: std::marker::PhantomData<G>,
}

/// A bucket on this side of the exchange.
struct Filling {
    pending: usize,
    /// `None` while the communication thread has them.
    blocks: Option<Blocks>,
    filled: Vec<crate::Event>,
    non_finite: Buffer<u64>,
    pack: Duration,
    ready: Duration,
}

const NEW: &str = "Reducer::new";
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
    /// [`Error::OutOfMemory`].
    pub fn new(
        device: &Device,
        plan: BucketPlan,
        mut comm: Box<dyn Communicator>,
        config: Config,
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
        let plan = Arc::new(plan);
        let wire = if ranks == 1 { G::DTYPE } else { plan.wire() };
        let hash = agree(&mut *comm, &plan, &config, G::DTYPE, device)?;

        let mut geometry = Vec::new();
        let mut buckets = Vec::new();
        for bucket in plan.buckets() {
            let shape = Geometry::new(bucket.len, bucket.params.len(), wire, ranks);
            let send = Arc::new(device.zeros(shape.block_bytes * ranks)?);
            // Alone, the bucket is its own result.
            let result = Arc::new(device.zeros(if ranks == 1 { 0 } else { shape.shard_bytes })?);
            geometry.push(shape);
            buckets.push(Filling {
                pending: bucket.params.len(),
                blocks: Some(Blocks { send, result }),
                filled: Vec::with_capacity(bucket.params.len()),
                non_finite: device.zeros(1)?,
                pack: Duration::ZERO,
                ready: Duration::ZERO,
            });
        }
        let lengths: Vec<usize> = plan.params().iter().map(|p| p.len).collect();
        let accumulators = lengths
            .iter()
            .map(|&len| config.accumulate.then(|| device.zeros(len)).transpose())
            .collect::<Result<_>>()?;
        let mut partials = 0;
        let first_partial = lengths
            .iter()
            .map(|len| {
                partials += len.div_ceil(crate::kernel::params::PARTIAL_CHUNK);
                partials - len.div_ceil(crate::kernel::params::PARTIAL_CHUNK)
            })
            .collect();
        let outbox = if ranks == 1 {
            Outbox::Alone(Vec::with_capacity(buckets.len()))
        } else {
            Outbox::start(Exchange {
                plan: plan.clone(),
                geometry: geometry.clone(),
                hash,
                average: config.average,
                deadline: config.deadline,
                stream,
                parts: device.zeros(ranks)?,
                weights: device.zeros(ranks)?,
                comm,
            })
        };
        Ok(Self {
            hash,
            ranks,
            wire,
            geometry,
            buckets,
            next: 0,
            marked: vec![false; lengths.len()],
            accumulated: vec![false; lengths.len()],
            accumulators,
            weight: 1.0,
            step: 0,
            started: None,
            begun: None,
            shard_table: device.zeros(ranks)?,
            first_partial,
            stats: GradStats::new(device, &lengths)?,
            outbox,
            fault: None,
            config,
            plan,
            gradient: std::marker::PhantomData,
        })
    }

    /// This rank's weight in the averages of the step that begins next: its number of samples or
    /// tokens, say. 1 until set; kept until set again. 0 takes part without counting.
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
        let span = self.check_gradient(ACCUMULATE, stream, param, gradient)?;
        let Some(accumulator) = &mut self.accumulators[param] else {
            return Err(Error::state(ACCUMULATE, "Config::accumulate", "a reducer without it"));
        };
        launch::accumulate::<G>(stream, span, accumulator)?;
        self.accumulated[param] = true;
        Ok(())
    }

    /// Says that parameter `param`'s gradient is there: packs it into its bucket, in the stream's
    /// order, and lets every bucket go that is complete and next in plan order. The gradient may be
    /// overwritten by work enqueued on `stream` after this call.
    ///
    /// # Errors
    /// [`Error::Range`] for an index past the declared list, [`Error::Shape`] for another length,
    /// [`Error::State`] if it was marked in this step already, [`Error::Device`], [`Error::Align`],
    /// [`Error::Comm`].
    pub fn ready(&mut self, stream: &Stream, param: usize, gradient: &dyn Read<G>) -> Result<()> {
        let span = self.check_gradient(READY, stream, param, gradient)?;
        self.begin(stream)?;
        self.pack(stream, param, span)?;
        self.marked[param] = true;
        self.send_complete(stream)
    }

    /// Ends the step: waits for every bucket and writes each parameter's reduced gradient into
    /// `gradients[i]`, counting non-finite values and summing squares in the same pass (see
    /// [`stats`](Self::stats)).
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
        let spans = self.check_outputs(stream, gradients, unscale)?;
        self.begin(stream)?;
        let outcome =
            self.send_rest(stream).and_then(|()| self.unpack_all(stream, &spans, unscale));
        if let Err(error) = &outcome {
            self.fail(error.clone());
        }
        outcome
    }

    /// Σg² and non-finite counts of the gradients that the last [`finish`](Self::finish) wrote
    /// (before their last rounding), in the declared order. Those of parameters without a gradient
    /// are 0.
    pub fn stats(&self) -> &GradStats {
        &self.stats
    }

    /// The plan.
    pub fn plan(&self) -> &BucketPlan {
        &self.plan
    }

    /// The first mark of a step.
    fn begin(&mut self, stream: &Stream) -> Result<()> {
        if self.started.is_some() {
            return Ok(());
        }
        for bucket in &mut self.buckets {
            bucket.non_finite.clear(stream)?;
            (bucket.pack, bucket.ready) = (Duration::ZERO, Duration::ZERO);
        }
        self.begun = Some(stream.record()?);
        self.started = Some(Instant::now());
        Ok(())
    }

    fn pack(&mut self, stream: &Stream, param: usize, gradient: Span) -> Result<()> {
        let start = Instant::now();
        let (index, position) = self.plan.place(param);
        let bucket = &mut self.buckets[index];
        let Some(blocks) = &mut bucket.blocks else {
            unreachable!("a bucket leaves when its last parameter is marked, and marks are unique")
        };
        if let Some(begun) = &self.begun {
            stream.wait(begun)?; // gradients may come on several streams
        }
        let accumulated = std::mem::take(&mut self.accumulated[param]);
        launch::pack::<G>(
            stream,
            gradient,
            self.accumulators[param].as_mut().filter(|_| accumulated),
            exclusive(&mut blocks.send, deadline(self.config.deadline))?,
            &mut bucket.non_finite,
            self.geometry[index],
            (self.plan.buckets()[index].offsets[position], self.wire),
            self.config.scale,
        )?;
        bucket.filled.push(stream.record()?);
        bucket.pending -= 1;
        bucket.pack += start.elapsed();
        Ok(())
    }

    /// Sends every bucket that is complete and whose turn it is. In plan order, whatever the order
    /// of marks: ranks then agree without asking each other.
    fn send_complete(&mut self, stream: &Stream) -> Result<()> {
        while self.next < self.buckets.len() && self.buckets[self.next].pending == 0 {
            if let Err(error) = self.send(stream, self.next) {
                self.fail(error.clone());
                return Err(error);
            }
            self.next += 1;
        }
        Ok(())
    }

    fn send(&mut self, stream: &Stream, index: usize) -> Result<()> {
        let geometry = self.geometry[index];
        let used = self.plan.buckets()[index].params.iter().map(|&p| self.marked[p]).collect();
        let bucket = &mut self.buckets[index];
        bucket.ready = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        for event in &bucket.filled {
            stream.wait(event)?;
        }
        let mut non_finite = [0];
        bucket.non_finite.read(stream, 0, &mut non_finite)?;
        let trailer = Trailer {
            step: self.step,
            plan: self.hash,
            weight: self.weight,
            non_finite: non_finite[0],
            used,
        };
        let mut blocks = bucket.blocks.take().expect("complete buckets are sent once");
        let to = exclusive(&mut blocks.send, deadline(self.config.deadline))?;
        for rank in 0..self.ranks {
            let start = rank * geometry.block_bytes + geometry.shard_bytes;
            to.write(stream, start, &trailer.encode())?;
        }
        let mut filled = std::mem::take(&mut bucket.filled);
        filled.clear();
        filled.push(stream.record()?); // packed by all streams, and the trailers written
        let job = Job { bucket: index, step: self.step, blocks, filled };
        self.outbox.send(job, trailer, geometry)
    }

    /// Zeros, or an error, for what was never marked; then everything is sent.
    fn send_rest(&mut self, stream: &Stream) -> Result<()> {
        let unmarked: Vec<usize> = (0..self.marked.len()).filter(|&p| !self.marked[p]).collect();
        let names = || {
            let names = unmarked.iter().map(|&p| self.plan.params()[p].name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        // What was accumulated in earlier micro-batches is a gradient.
        let really = unmarked.iter().any(|&p| !self.accumulated[p]);
        if really && !self.config.allow_unused {
            let found = format!("never marked: {}", names());
            let error = Error::state(FINISH, "every parameter marked ready", &found);
            self.outbox.abort(&found);
            self.fail(error.clone());
            return Err(error);
        }
        for param in unmarked {
            self.marked[param] = self.accumulated[param];
            let len = self.plan.params()[param].len;
            self.pack(stream, param, Span { address: Address::NULL, len })?;
        }
        self.send_complete(stream)
    }

    fn unpack_all(&mut self, stream: &Stream, spans: &[Span], unscale: Unscale) -> Result<Reduced> {
        let factor = match unscale {
            Unscale::Keep => 1.0,
            Unscale::Factor(factor) => factor,
        };
        let mut reduced = Reduced::new(spans.len());
        self.stats.partials.clear(stream)?;
        for index in 0..self.buckets.len() {
            let waited = Instant::now();
            let done = self.outbox.receive()?;
            let exposed = waited.elapsed();
            let start = Instant::now();
            let exchanged = self.unpack_bucket(stream, done, spans, factor)?;
            let bucket = &mut self.buckets[index];
            bucket.pending = self.plan.buckets()[index].params.len();
            reduced.add(&self.plan.buckets()[index], index, &exchanged.trailers);
            reduced.times.push(BucketTimes {
                bytes: self.geometry[index].block_bytes * self.ranks,
                ready: bucket.ready,
                pack: bucket.pack,
                skew: exchanged.times.skew,
                wire: exchanged.times.wire,
                sum: exchanged.times.sum,
                unpack: start.elapsed(),
                exposed,
            });
        }
        self.marked.fill(false);
        self.next = 0;
        self.step += 1;
        self.started = None;
        Ok(reduced)
    }

    fn unpack_bucket(
        &mut self,
        stream: &Stream,
        done: Done,
        spans: &[Span],
        factor: f32,
    ) -> Result<Exchanged> {
        let Done { bucket: index, blocks, filled, outcome } = done;
        self.buckets[index].filled = filled;
        let exchanged = outcome?;
        let addresses: Vec<u64> = exchanged
            .shards
            .iter()
            .map(|shard| shard.buffer.address() + (shard.start) as u64)
            .collect();
        self.shard_table.write(stream, 0, &addresses)?;
        let bucket = &self.plan.buckets()[index];
        for (position, (&param, &offset)) in bucket.params.iter().zip(&bucket.offsets).enumerate() {
            // Nobody has a gradient for it: it stays as it is.
            if !exchanged.trailers.iter().any(|trailer| trailer.used[position]) {
                continue;
            }
            launch::unpack::<G>(
                stream,
                &self.shard_table,
                spans[param],
                (&mut self.stats.partials, self.first_partial[param]),
                self.geometry[index],
                (offset, self.wire),
                factor,
                param,
            )?;
        }
        stream.sync()?; // shards of other ranks are read no more
        self.buckets[index].blocks = Some(blocks);
        Ok(Exchanged { shards: Vec::new(), ..exchanged })
    }

    fn fail(&mut self, error: Error) {
        self.fault.get_or_insert(error);
    }
}

impl<G: Storage> Drop for Reducer<G> {
    fn drop(&mut self) {
        if self.started.is_some() {
            self.outbox.abort("reducer dropped inside a step");
        }
        self.outbox.close();
    }
}
