//! The exchange of whole buckets, by all-reduces of the communicator's: its own sum, or one of integers,
//! whose order changes nothing.
//!
//! ```text
//! gather trailers ─ sum, in the wire's type
//!                 └ largest exponent of each block ─ encode ─ sum of integers ─ decode
//! ```
//!
//! What the communicator adds up carries its rank's weight already, and what the sum is divided by goes into the factor
//! that it is unpacked with. Integers are made of weighted values, and read as averages.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use super::comm::{Collective, Communicator, Part, Reduction, check_parts};
use super::config::Sum;
use super::exchange::{Exchange, Exchanged, Job, exclusive};
use super::fixed::FixedPoint;
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::{config, launch};
use crate::kernel::params::reduce::{Block, Fixed};
use crate::{Buffer, Device, Dtype, Error, Result, Stream};

/// Memory for the integers of the largest bucket, and its exponents; lost with the communicator.
pub(crate) struct Integers {
    fixed: FixedPoint,
    exponents: Option<Buffer<u8>>,
    sums: Option<Buffer<u8>>,
}

impl Integers {
    /// For sums of up to `len` elements of each rank.
    pub fn new(device: &Device, len: usize, ranks: usize) -> Result<Self> {
        Ok(Self {
            fixed: FixedPoint::new(ranks)?,
            exponents: Some(device.zeros(FixedPoint::exponents(len))?),
            sums: Some(device.zeros(len * size_of::<i32>())?),
        })
    }
}

/// A communicator and what its all-reduces need.
struct AllReduce<'a> {
    comm: &'a mut dyn Communicator,
    stream: &'a Stream,
    deadline: Instant,
    log: &'a mut Log,
    bucket: usize,
}

impl AllReduce<'_> {
    /// The first `len` bytes of a buffer, of all ranks.
    fn run(&mut self, buffer: Buffer<u8>, len: usize, reduction: Reduction) -> Result<Buffer<u8>> {
        let (given, start) = (buffer.len(), Instant::now());
        let (stream, deadline) = (self.stream, self.deadline);
        let (buffer, skew) = self.comm.all_reduce(buffer, len, reduction, stream, deadline)?;
        self.log.add_exchange(self.bucket, start, skew);
        if buffer.len() != given || !stream.device().reaches(buffer.device()) {
            let expected = format!("the buffer of {given} bytes that it was given");
            let found = format!("one of {}", buffer.len());
            return Err(Error::shape("Communicator::all_reduce", "buffer", expected, found));
        }
        Ok(buffer)
    }
}

impl Exchange {
    /// The bucket of a job, added up over all ranks.
    pub(super) fn exchange_whole(&mut self, job: &mut Job) -> Result<Exchanged> {
        let deadline = config::deadline(self.sums.deadline);
        let stream = self.sums.stream.clone();
        let mut log = Log::new(job.started);

        let start = Instant::now();
        let gather = Collective::AllGather;
        let said = self.comm.exchange(gather, &job.blocks.result, &stream, deadline)?;
        let params = self.sums.plan.buckets()[job.bucket].params.len();
        check_parts(&said.parts, &stream, self.sums.parts.len(), Trailer::bytes(params))?;
        log.add_exchange(job.bucket, start, said.skew);
        let trailers = self.sums.trailers(job, 0, &said.parts)?;
        let factor = self.sums.weigh(&trailers)?;
        drop(said);

        exclusive(&mut job.blocks.send, deadline)?;
        let empty = Arc::new(stream.device().zeros(0)?);
        let bucket = Arc::into_inner(std::mem::replace(&mut job.blocks.send, empty));
        let bucket = bucket.expect("just seen to be the only handle");
        let geometry = self.sums.geometry[job.bucket];
        let index = job.bucket;
        let (comm, sum) = (&mut *self.comm, self.sums.sum);
        let mut all = AllReduce { comm, stream: &stream, deadline, log: &mut log, bucket: index };
        let mean = self.sums.mean;
        let (bucket, factor) = match (sum, &mut self.integers) {
            (Sum::OrderFree, Some(integers)) => {
                // No further: what is behind the elements is never written but here, and would keep a NaN.
                let len = self.sums.plan.buckets()[index].len.max(1);
                let factors = (job.weight as f32, factor);
                (order_free(&mut all, bucket, len, integers, factors, mean)?, 1.0)
            }
            _ => (all.run(bucket, geometry.shard_bytes, Reduction::Sum(mean))?, factor),
        };
        job.blocks.send = Arc::new(bucket);
        let len = geometry.shard * mean.bytes();
        let whole = Part { buffer: job.blocks.send.clone(), start: 0, len };
        Ok(Exchanged { shards: vec![whole], trailers, factor, log })
    }
}

/// Sums of `len` f32 by integers, and in their place averages, in the type `mean`.
fn order_free(
    all: &mut AllReduce<'_>,
    bucket: Buffer<u8>,
    len: usize,
    integers: &mut Integers,
    (weight, factor): (f32, f32),
    mean: Dtype,
) -> Result<Buffer<u8>> {
    let lost = || Error::state("Reducer", "a communicator", "that it has failed");
    let exponents = integers.exponents.take().ok_or_else(lost)?;
    let sums = integers.sums.take().ok_or_else(lost)?;
    let headroom = integers.fixed.headroom();
    let block = |exponents: &Buffer<u8>, sums: &Buffer<u8>, (factor, dtype)| Fixed {
        values: bucket.address(),
        exponents: exponents.address(),
        sums: sums.address(),
        len: len as u64,
        factor,
        value_type: dtype as u32,
        headroom,
        padding: 0,
    };
    assert!(bucket.len() >= 4 * len && sums.len() >= 4 * len, "sized for the largest bucket");
    assert!(exponents.len() >= FixedPoint::exponents(len), "sized for the largest bucket");
    let (stream, index) = (all.stream, all.bucket);
    let work = |all: &mut AllReduce<'_>, row: fn(Fixed) -> Block, block: Fixed| {
        let start = Instant::now();
        launch::fixed(stream, row, block)?;
        stream.sync()?;
        all.log.add(index, Phase::Sum, start, start.elapsed());
        Ok::<(), Error>(())
    };
    let (values, means) = ((weight, Dtype::F32), (factor, mean));
    work(all, Block::Measure, block(&exponents, &sums, values))?;
    let exponents = all.run(exponents, FixedPoint::exponents(len), Reduction::MaxU8)?;
    work(all, Block::Encode, block(&exponents, &sums, values))?;
    let sums = all.run(sums, 4 * len, Reduction::SumI32)?;
    work(all, Block::Decode, block(&exponents, &sums, means))?;
    (integers.exponents, integers.sums) = (Some(exponents), Some(sums));
    Ok(bucket)
}
