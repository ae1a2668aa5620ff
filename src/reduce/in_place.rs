//! The exchange between threads whose gradients are views of their buckets: nothing is packed and
//! nothing is sent. Each rank averages its part of the bucket, and then what is left of the others',
//! reading all ranks' memory and writing the result back into all of it, while a strip is in its cache.
//!
//! ```text
//! meet ─ read trailers ─ average pieces, in every rank's bucket ─ meet
//! ```

#![forbid(unsafe_code)]

use std::ops::Range;
use std::time::Instant;

use super::comm::{Communicator, Local, check_parts};
use super::exchange::{Exchange, Exchanged, Job, addresses};
use super::launch::Buckets;
use super::plan::{Bucket, Param};
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::{config, launch};
use crate::kernel::params::reduce::Piece;
use crate::kernel::params::{PARTIAL_CHUNK, Partial};
use crate::{Buffer, Device, Dtype, Error, Result};

/// Parts of a bucket start at multiples of this many bytes.
const ALIGN: usize = 256;

/// How such a bucket lies in memory: `[elements][trailer][partials][counts][next]`, and between processes
/// `[receive]`.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Storage type of the elements.
    pub value: Dtype,
    /// Where the owner's trailer is, in bytes.
    pub trailer: usize,
    /// Where the partials are: one of each piece.
    pub partials: usize,
    /// Where the counts are: `[by][of]`, how many non-finite values rank `by` has found of rank `of`.
    pub counts: usize,
    /// Where the counters are that ranks claim pieces with, one of each rank's range; those of rank 0's
    /// bucket are used.
    pub next: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// Ranks.
    pub ranks: usize,
    /// Parameters of the plan.
    pub tensors: usize,
    /// The pieces, as the device sees them.
    pub pieces: Buffer<Piece>,
    /// Where rank `q`'s part of the elements is received from rank `r`, between processes.
    receive: usize,
    /// Bytes that are received from each.
    slot: usize,
    /// Of each parameter in the bucket's order, the first piece; and the end.
    first: Vec<usize>,
    /// Between processes rank `q` averages pieces `parts[q]..parts[q + 1]`,
    parts: Vec<usize>,
    /// which are elements `bounds[q]..bounds[q + 1]`.
    bounds: Vec<usize>,
}

impl Layout {
    pub fn new(
        device: &Device,
        params: &[Param],
        bucket: &Bucket,
        value: Dtype,
        ranks: usize,
        receives: bool,
    ) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut first = vec![0];
        for (&param, &offset) in bucket.params.iter().zip(&bucket.offsets) {
            let len = params[param].len;
            pieces.extend((0..len).step_by(PARTIAL_CHUNK).map(|at| Piece {
                start: (offset + at) as u64,
                len: PARTIAL_CHUNK.min(len - at) as u32,
                tensor: param as u32,
            }));
            first.push(pieces.len());
        }
        let trailer = (bucket.len * value.bytes()).next_multiple_of(ALIGN);
        let partials = trailer + Trailer::bytes(bucket.params.len()).next_multiple_of(ALIGN);
        let counts = partials + (pieces.len() * size_of::<Partial>()).next_multiple_of(ALIGN);
        let next = counts + ranks * ranks * size_of::<u64>();
        let receive = (next + ranks * size_of::<u64>()).next_multiple_of(ALIGN);
        // As many elements for each rank, to within a piece.
        let share = |rank: usize| (bucket.len as u128 * rank as u128 / ranks as u128) as u64;
        let parts: Vec<usize> =
            (0..=ranks).map(|r| pieces.partition_point(|piece| piece.start < share(r))).collect();
        let start = |&piece: &usize| pieces.get(piece).map_or(bucket.len, |p| p.start as usize);
        let bounds: Vec<usize> = parts.iter().map(start).collect();
        let most = bounds.windows(2).map(|part| part[1] - part[0]).max().unwrap_or(0);
        let slot = (most * value.bytes()).next_multiple_of(ALIGN) + (partials - trailer);
        let bytes = receive + if receives { slot * (ranks - 1) } else { 0 };
        let (pieces, tensors) = (device.upload(&pieces)?, params.len());
        Ok(Self {
            value,
            trailer,
            partials,
            counts,
            next,
            bytes,
            ranks,
            tensors,
            pieces,
            receive,
            slot,
            first,
            parts,
            bounds,
        })
    }

    /// Bytes of counts and counters, which are zeros at first.
    pub fn beside(&self) -> usize {
        self.next + self.ranks * size_of::<u64>() - self.counts
    }

    /// The pieces of a rank's part.
    pub fn part(&self, rank: usize) -> Range<usize> {
        self.parts[rank]..self.parts[rank + 1]
    }

    /// The bytes of a rank's part.
    pub fn part_bytes(&self, rank: usize) -> Range<usize> {
        self.bounds[rank] * self.value.bytes()..self.bounds[rank + 1] * self.value.bytes()
    }

    /// Where rank `rank` receives its part of what rank `from` has; that one's trailer is behind it.
    pub fn slot(&self, rank: usize, from: usize) -> Range<usize> {
        let start = self.receive + (from - usize::from(from > rank)) * self.slot;
        start..start + self.part_bytes(rank).len()
    }

    /// Where the trailer in such a slot is.
    pub fn slot_trailer(&self, rank: usize, from: usize) -> Range<usize> {
        let end = self.slot(rank, from).start + self.slot;
        end - (self.partials - self.trailer)..end
    }

    /// The pieces of a parameter.
    pub fn of(&self, position: usize) -> Range<usize> {
        self.first[position]..self.first[position + 1]
    }
}

impl Exchange {
    /// The bucket of a job, averaged in place on every rank.
    pub(super) fn exchange_in_place(&mut self, job: &mut Job) -> Result<Exchanged> {
        let layout = self.layouts[job.bucket].clone();
        let deadline = config::deadline(self.deadline);
        let mut log = Log::new(job.started);

        let bucket = &job.blocks.send;
        let ranks = self.parts.len();
        let comm = threads(&mut *self.comm, ranks)?;
        // Its own word: parts that this rank writes must be nobody else's.
        let rank = comm.rank();
        let start = Instant::now();
        let lent = comm.lend(bucket, &self.stream, deadline)?;
        log.add(job.bucket, Phase::Skew, start, lent.skew);
        check_parts(&lent.parts, &self.stream, ranks, layout.bytes)?;
        let mut trailers = self.trailers(job, layout.trailer, &lent.parts)?;

        let start = Instant::now();
        let addresses = addresses(&lent.parts);
        let factor = self.weigh(&addresses, &trailers)?;
        let skipped = self.skip(job.bucket, &trailers)?;
        let buckets = Buckets {
            addresses: &self.parts,
            written: (&self.parts, ranks),
            weights: &self.weights,
            ranks,
            rank,
            shared: Some(&lent.parts[0].buffer),
        };
        let skipped = skipped.then_some(&self.skipped);
        let factors = (self.scale, factor);
        let wire = self.plan.wire();
        let pieces = (&*layout, 0..layout.pieces.len());
        launch::in_place(&self.stream, &buckets, pieces, skipped, wire, factors, self.stats)?;
        self.stream.sync()?;
        log.add(job.bucket, Phase::Sum, start, start.elapsed());

        let start = Instant::now();
        let met = threads(&mut *self.comm, ranks)?.lend(bucket, &self.stream, deadline)?;
        log.add(job.bucket, Phase::Skew, start, met.skew);
        self.count(bucket, &layout, &mut trailers)?;
        Ok(Exchanged { shards: Vec::new(), trailers, log })
    }
}

impl Exchange {
    /// Adds up how many non-finite values all ranks have found of each.
    pub(super) fn count(
        &self,
        bucket: &Buffer<u8>,
        layout: &Layout,
        trailers: &mut [Trailer],
    ) -> Result<()> {
        let mut counts = vec![0; layout.ranks * layout.ranks * size_of::<u64>()];
        bucket.read(&self.stream, layout.counts, &mut counts)?;
        for (i, count) in counts.chunks_exact(size_of::<u64>()).enumerate() {
            let count = u64::from_le_bytes(std::array::from_fn(|byte| count[byte]));
            trailers[i % layout.ranks].non_finite += count;
        }
        Ok(())
    }

    /// Writes down which parameters of a bucket nobody uses; whether there is one.
    pub(super) fn skip(&mut self, bucket: usize, trailers: &[Trailer]) -> Result<bool> {
        let unused = |at: usize| trailers.iter().all(|trailer| !trailer.used[at]);
        let params = &self.plan.buckets()[bucket].params;
        if !(0..params.len()).any(unused) {
            return Ok(false);
        }
        for (position, &param) in params.iter().enumerate() {
            self.skipped.write(&self.stream, param, &[unused(position).into()])?;
        }
        Ok(true)
    }
}

/// The communicator between threads that was there when the reducer was made.
fn threads(comm: &mut dyn Communicator, ranks: usize) -> Result<&mut Local> {
    let size = comm.size();
    match comm.threads() {
        Some(local) if local.size() == ranks => Ok(local),
        _ => {
            let found = format!("another, of {size} ranks");
            Err(Error::state("Reducer", "the communicator that it was made with", found))
        }
    }
}
