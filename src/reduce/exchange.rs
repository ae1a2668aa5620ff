//! The communication thread: takes filled buckets in plan order, exchanges them, gives them back.
//! A bucket's buffers belong to whoever holds the job; nothing is shared but what a communicator
//! lends between ranks.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::comm::{Abort, Collective, Communicator, Fault, Part, check_parts};
use super::config::Sum;
use super::feedback::Feedback;
use super::in_place::Layout;
use super::plan::BucketPlan;
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::way::Way;
use super::whole::Integers;
use super::wire::Wire;
use super::{config, launch};
use crate::environment::Environment;
use crate::{Buffer, Dtype, Error, Event, Result, Stream};

/// How a bucket lies in memory: blocks of `[shard elements][trailer]`, one for each rank that this one sends
/// to first: of all ranks, or of its node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Geometry {
    /// Blocks.
    pub blocks: usize,
    /// Elements of one shard.
    pub shard: usize,
    /// Bytes of the shard.
    pub shard_bytes: usize,
    /// Bytes of shard and trailer.
    pub block_bytes: usize,
    /// Elements of what one rank makes of the result: a shard, or of many nodes each a part of one.
    pub part: usize,
}

impl Geometry {
    /// For nodes of so many ranks each; 1 node, if they are not told apart.
    pub fn new(len: usize, params: usize, wire: Dtype, (ranks, nodes): (usize, usize)) -> Self {
        Self::of_parts(len.div_ceil(ranks * nodes), params, wire, (ranks, nodes))
    }

    /// With parts of so many elements, or a little more: they start at multiples of 256 bytes, so that each
    /// can be read 16 bytes at a time.
    pub fn of_parts(
        part: usize,
        params: usize,
        wire: Dtype,
        (ranks, nodes): (usize, usize),
    ) -> Self {
        let part = part.max(1).next_multiple_of(256 / wire.bytes());
        let shard = nodes * part;
        let shard_bytes = shard * wire.bytes();
        let block_bytes = (shard_bytes + Trailer::bytes(params)).next_multiple_of(256);
        Self { blocks: ranks, shard, shard_bytes, block_bytes, part }
    }
}

/// The memory of one bucket. Shared with other ranks while an exchange runs, ours alone before
/// and after.
pub(crate) struct Blocks {
    /// Every rank's block, to send.
    pub send: Arc<Buffer<u8>>,
    /// This rank's shard of the result.
    pub result: Arc<Buffer<u8>>,
    /// Of buckets that travel as 8-bit integers.
    pub feedback: Option<Feedback>,
}

/// A filled bucket on its way out.
pub(crate) struct Job {
    pub bucket: usize,
    pub step: u64,
    /// This rank's.
    pub weight: f64,
    /// When the step began.
    pub started: Instant,
    pub blocks: Blocks,
    /// The work that filled `send`, on the streams it ran on.
    pub filled: Vec<Event>,
}

/// A bucket on its way back.
pub(crate) struct Done {
    pub bucket: usize,
    pub blocks: Blocks,
    pub filled: Vec<Event>,
    pub outcome: Result<Exchanged>,
}

/// What an exchange brought.
pub(crate) struct Exchanged {
    /// The result, one shard of each rank.
    pub shards: Vec<Part>,
    /// What every rank said.
    pub trailers: Vec<Trailer>,
    /// What the result has still to be multiplied by.
    pub factor: f32,
    pub log: Log,
}

/// What the communication thread is asked for, in the same order on every rank.
pub(crate) enum Task {
    Bucket(Job),
    Gather(Gather),
}

/// A buffer of every rank's, as long on each, to every rank.
pub(crate) struct Gather {
    pub send: Arc<Buffer<u8>>,
    /// The work that filled it.
    pub filled: Event,
    /// Where the parts go.
    pub to: Sender<Result<Vec<Part>>>,
}

/// Where parts start.
pub(super) fn addresses(parts: &[Part]) -> Vec<u64> {
    parts.iter().map(|part| part.buffer.address() + part.start as u64).collect()
}

/// The thread's state.
pub(crate) struct Exchange {
    pub comm: Box<dyn Communicator>,
    /// Where sections of all buckets are gathered; lost with the communicator.
    pub gathered: Option<Buffer<u8>>,
    /// Of sums in no order.
    pub integers: Option<Integers>,
    pub sums: Sums,
}

/// What sums and means of buckets are made with.
pub(crate) struct Sums {
    /// Breaks the communicator.
    pub aborter: Arc<dyn Abort>,
    pub plan: Arc<BucketPlan>,
    pub geometry: Vec<Geometry>,
    /// Of buckets that are averaged in place; else none.
    pub layouts: Vec<Arc<Layout>>,
    pub way: Way,
    pub hash: u64,
    pub sum: Sum,
    /// In what gradients are packed.
    pub wire: Dtype,
    /// In what averages are, until they are unscaled.
    pub mean: Dtype,
    pub average: bool,
    pub scale: f32,
    pub stats: bool,
    pub deadline: Duration,
    pub stream: Arc<Stream>,
    /// `[ranks]` addresses of the blocks to sum.
    pub parts: Buffer<u64>,
    /// The address of this rank's bucket.
    pub own: Buffer<u64>,
    /// `[ranks]` weights.
    pub weights: Buffer<f32>,
    /// `[params]`, not 0 where nobody uses one: of buckets that are averaged in place.
    pub skipped: Buffer<u8>,
}

impl Exchange {
    /// Serves until the sender is dropped.
    pub fn run(mut self, tasks: &Receiver<Task>, done: &Sender<Done>) {
        let _environment = Environment::standard();
        while let Ok(task) = tasks.recv() {
            let mut job = match task {
                Task::Bucket(job) => job,
                Task::Gather(gather) => {
                    let parts = self.gather(&gather);
                    self.tell(parts.as_ref().err());
                    // Nobody may be waiting any more; then the parts are dropped.
                    let _ = gather.to.send(parts);
                    continue;
                }
            };
            let outcome = self.exchange(&mut job);
            self.tell(outcome.as_ref().err());
            let Job { bucket, blocks, filled, .. } = job;
            if done.send(Done { bucket, blocks, filled, outcome }).is_err() {
                return; // the reducer is gone
            }
        }
    }

    /// What went wrong on this rank alone ends the communicator: the others would wait, or take this rank's next bucket for
    /// the one that it has not exchanged.
    fn tell(&mut self, error: Option<&Error>) {
        if let Some(error) = error
            && self.comm.check().is_ok()
        {
            self.sums.aborter.abort(&error.to_string());
        }
    }

    fn exchange(&mut self, job: &mut Job) -> Result<Exchanged> {
        for event in job.filled.drain(..) {
            self.sums.stream.wait(&event)?;
        }
        match self.sums.way {
            Way::Packed | Way::Scattered => {}
            Way::Nodes => return self.exchange_nodes(job),
            Way::Lent => return self.exchange_in_place(job),
            Way::Sections => return self.exchange_sections(job),
            Way::Whole => return self.exchange_whole(job),
            Way::Quantized => return self.exchange_quantized(job),
        }
        let geometry = self.sums.geometry[job.bucket];
        let deadline = config::deadline(self.sums.deadline);
        let mut log = Log::new(job.started);

        let start = Instant::now();
        let blocks = self.comm.exchange(
            Collective::AllToAll,
            &job.blocks.send,
            &self.sums.stream,
            deadline,
        )?;
        check_parts(&blocks.parts, &self.sums.stream, self.sums.parts.len(), geometry.block_bytes)?;
        log.add_exchange(job.bucket, start, blocks.skew);
        let trailers = self.sums.trailers(job, geometry.shard_bytes, &blocks.parts)?;

        let start = Instant::now();
        self.sums.sum(job, geometry, &blocks.parts, &trailers, deadline)?;
        // Until the sum has run, its operands are read.
        self.sums.stream.sync()?;
        log.add(job.bucket, Phase::Sum, start, start.elapsed());
        // The senders may write their buckets again once nobody holds their blocks.
        drop(blocks);
        if self.sums.way == Way::Scattered {
            let buffer = job.blocks.result.clone();
            let own = Part { len: buffer.len(), buffer, start: 0 };
            return Ok(Exchanged { shards: vec![own], trailers, factor: 1.0, log });
        }

        let start = Instant::now();
        let shards = self.comm.exchange(
            Collective::AllGather,
            &job.blocks.result,
            &self.sums.stream,
            deadline,
        )?;
        let bytes = job.blocks.result.len();
        check_parts(&shards.parts, &self.sums.stream, self.sums.parts.len(), bytes)?;
        log.add_exchange(job.bucket, start, shards.skew);
        Ok(Exchanged { shards: shards.parts, trailers, factor: 1.0, log })
    }
}

impl Exchange {
    fn gather(&mut self, gather: &Gather) -> Result<Vec<Part>> {
        let stream = &self.sums.stream;
        stream.wait(&gather.filled)?;
        let deadline = config::deadline(self.sums.deadline);
        let all = self.comm.exchange(Collective::AllGather, &gather.send, stream, deadline)?;
        check_parts(&all.parts, stream, self.sums.parts.len(), gather.send.len())?;
        stream.sync()?; // they are read on other streams
        Ok(all.parts)
    }
}

impl Sums {
    /// Reads every rank's trailer, `at` so many bytes from its block's start; a rank that is in another
    /// step ends the communicator.
    pub(super) fn trailers(&self, job: &Job, at: usize, blocks: &[Part]) -> Result<Vec<Trailer>> {
        let params = self.plan.buckets()[job.bucket].params.len();
        let mut bytes = vec![0; Trailer::bytes(params)];
        let mut trailers = Vec::with_capacity(blocks.len());
        for (rank, block) in blocks.iter().enumerate() {
            block.buffer.read(&self.stream, block.start + at, &mut bytes)?;
            let trailer = Trailer::decode(&bytes, params);
            trailers.push(self.expected(job, rank, trailer)?);
        }
        Ok(trailers)
    }

    /// A trailer, if it is of this step and plan.
    pub(super) fn expected(&self, job: &Job, rank: usize, trailer: Trailer) -> Result<Trailer> {
        if trailer.step == job.step && trailer.plan == self.hash {
            return Ok(trailer);
        }
        let (expected, found) = (job.step, trailer.step);
        let fault = Fault::StepSkew { bucket: job.bucket, rank, expected, found };
        self.aborter.abort(&fault.to_string());
        Err(fault.into())
    }

    /// Writes down what every rank's block weighs; returns the factor on the sum.
    pub(super) fn weigh(&mut self, trailers: &[Trailer]) -> Result<f32> {
        let total: f64 = trailers.iter().map(|t| t.weight).sum();
        let factor = match self.average {
            true if total > 0.0 => (1.0 / total) as f32,
            true => 0.0, // nobody has a sample: every weight is 0, and so is the average
            false => 1.0,
        };
        let weights: Vec<f32> = trailers.iter().map(|t| t.weight as f32).collect();
        self.weights.write(&self.stream, 0, &weights)?;
        Ok(factor)
    }

    /// This rank's shard: the weighted sum or average of every rank's block.
    fn sum(
        &mut self,
        job: &mut Job,
        geometry: Geometry,
        blocks: &[Part],
        trailers: &[Trailer],
        deadline: Instant,
    ) -> Result<()> {
        self.parts.write(&self.stream, 0, &addresses(blocks))?;
        let factor = self.weigh(trailers)?;
        let to = exclusive(&mut job.blocks.result, deadline)?;
        let (parts, weights) = ((&self.parts, blocks.len()), (&self.weights, 0));
        match self.sum {
            Sum::OrderFree => {
                let types = (self.wire, self.mean);
                launch::sum_fixed(&self.stream, parts, weights, to, geometry.shard, factor, types)
            }
            _ => {
                let types = (Wire::Elements(self.wire), self.mean);
                launch::sum(&self.stream, parts, weights, to, geometry.shard, factor, types)
            }
        }
    }
}

/// The buffer, once no other rank reads it any more. The protocol says that none does by now;
/// waiting makes a rank that breaks it a fault, and never a torn read.
pub(crate) fn exclusive(
    buffer: &mut Arc<Buffer<u8>>,
    deadline: Instant,
) -> Result<&mut Buffer<u8>> {
    while Arc::get_mut(buffer).is_none() {
        if Instant::now() >= deadline {
            return Err(Fault::Deadline { sequence: 0, waiting_on: Vec::new() }.into());
        }
        std::thread::yield_now();
    }
    Ok(Arc::get_mut(buffer).expect("just seen to be the only handle"))
}
