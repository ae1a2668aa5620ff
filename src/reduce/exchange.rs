//! The communication thread: takes filled buckets in plan order, exchanges them, gives them back.
//! A bucket's buffers belong to whoever holds the job; nothing is shared but what a communicator
//! lends between ranks.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::comm::{Collective, Communicator, Fault, Part, check_parts};
use super::plan::BucketPlan;
use super::trailer::Trailer;
use super::{config, launch};
use crate::{Buffer, Dtype, Event, Result, Stream};

/// How a bucket lies in memory: one block for each rank, `[shard elements][trailer]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Geometry {
    /// Elements of one shard.
    pub shard: usize,
    /// Bytes of the shard.
    pub shard_bytes: usize,
    /// Bytes of shard and trailer.
    pub block_bytes: usize,
}

impl Geometry {
    /// Shards start at multiples of 256 bytes, so that each can be read 16 bytes at a time.
    pub fn new(len: usize, params: usize, wire: Dtype, ranks: usize) -> Self {
        let shard = len.div_ceil(ranks).max(1).next_multiple_of(256 / wire.bytes());
        let shard_bytes = shard * wire.bytes();
        let block_bytes = (shard_bytes + Trailer::bytes(params)).next_multiple_of(256);
        Self { shard, shard_bytes, block_bytes }
    }
}

/// The memory of one bucket. Shared with other ranks while an exchange runs, ours alone before
/// and after.
pub(crate) struct Blocks {
    /// Every rank's block, to send.
    pub send: Arc<Buffer<u8>>,
    /// This rank's shard of the result.
    pub result: Arc<Buffer<u8>>,
}

/// A filled bucket on its way out.
pub(crate) struct Job {
    pub bucket: usize,
    pub step: u64,
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
    pub times: Times,
}

/// Where the time of one bucket's exchange went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Times {
    pub skew: Duration,
    pub wire: Duration,
    pub sum: Duration,
}

/// The thread's state.
pub(crate) struct Exchange {
    pub comm: Box<dyn Communicator>,
    pub plan: Arc<BucketPlan>,
    pub geometry: Vec<Geometry>,
    pub hash: u64,
    pub average: bool,
    pub deadline: Duration,
    pub stream: Stream,
    /// `[ranks]` addresses of the blocks to sum.
    pub parts: Buffer<u64>,
    /// `[ranks]` weights.
    pub weights: Buffer<f32>,
}

impl Exchange {
    /// Serves until the sender is dropped.
    pub fn run(mut self, jobs: &Receiver<Job>, done: &Sender<Done>) {
        while let Ok(mut job) = jobs.recv() {
            let outcome = self.exchange(&mut job);
            let Job { bucket, blocks, filled, .. } = job;
            if done.send(Done { bucket, blocks, filled, outcome }).is_err() {
                return; // the reducer is gone
            }
        }
    }

    fn exchange(&mut self, job: &mut Job) -> Result<Exchanged> {
        for event in job.filled.drain(..) {
            self.stream.wait(&event)?;
        }
        let geometry = self.geometry[job.bucket];
        let deadline = config::deadline(self.deadline);
        let mut times = Times::default();

        let start = Instant::now();
        let blocks =
            self.comm.exchange(Collective::AllToAll, &job.blocks.send, &self.stream, deadline)?;
        check_parts(&blocks.parts, &self.stream, self.parts.len(), geometry.block_bytes)?;
        times.skew += blocks.skew;
        times.wire += start.elapsed().saturating_sub(blocks.skew);
        let trailers = self.trailers(job, geometry, &blocks.parts)?;

        let start = Instant::now();
        self.sum(job, geometry, &blocks.parts, &trailers, deadline)?;
        // Until the sum has run, its operands are read.
        self.stream.sync()?;
        times.sum = start.elapsed();
        // The senders may write their buckets again once nobody holds their blocks.
        drop(blocks);

        let start = Instant::now();
        let shards = self.comm.exchange(
            Collective::AllGather,
            &job.blocks.result,
            &self.stream,
            deadline,
        )?;
        check_parts(&shards.parts, &self.stream, self.parts.len(), geometry.shard_bytes)?;
        times.skew += shards.skew;
        times.wire += start.elapsed().saturating_sub(shards.skew);
        Ok(Exchanged { shards: shards.parts, trailers, times })
    }

    /// Reads every rank's trailer; a rank that is in another step ends the communicator.
    fn trailers(&self, job: &Job, geometry: Geometry, blocks: &[Part]) -> Result<Vec<Trailer>> {
        let params = self.plan.buckets()[job.bucket].params.len();
        let mut bytes = vec![0; Trailer::bytes(params)];
        let mut trailers = Vec::with_capacity(blocks.len());
        for (rank, block) in blocks.iter().enumerate() {
            block.buffer.read(&self.stream, block.start + geometry.shard_bytes, &mut bytes)?;
            let trailer = Trailer::decode(&bytes, params);
            if trailer.step != job.step || trailer.plan != self.hash {
                let (expected, found) = (job.step, trailer.step);
                let fault = Fault::StepSkew { bucket: job.bucket, rank, expected, found };
                self.comm.aborter().abort(&fault.to_string());
                return Err(fault.into());
            }
            trailers.push(trailer);
        }
        Ok(trailers)
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
        let total: f64 = trailers.iter().map(|t| t.weight).sum();
        let factor = match self.average {
            true if total > 0.0 => (1.0 / total) as f32,
            true => 0.0, // nobody has a sample: every weight is 0, and so is the average
            false => 1.0,
        };
        let addresses: Vec<u64> =
            blocks.iter().map(|b| b.buffer.address() + (b.start) as u64).collect();
        let weights: Vec<f32> = trailers.iter().map(|t| t.weight as f32).collect();
        self.parts.write(&self.stream, 0, &addresses)?;
        self.weights.write(&self.stream, 0, &weights)?;
        let to = exclusive(&mut job.blocks.result, deadline)?;
        launch::sum(
            &self.stream,
            &self.parts,
            &self.weights,
            to,
            geometry,
            factor,
            self.plan.wire(),
        )
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
