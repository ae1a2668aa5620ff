//! The exchange between threads whose gradients are views of their buckets: nothing is packed and
//! nothing is sent. Each rank averages its part of the bucket, and then what is left of the others',
//! reading all ranks' memory and writing the result back into all of it, while a strip is in its cache.
//!
//! ```text
//! meet ─ read trailers ─ average pieces, in every rank's bucket ─ meet
//! ```
//!
//! For sums in no order each rank first writes down its own exponents, behind the elements: blocks are of the bucket, pieces of
//! parameters, so that what a rank writes may be in a block of what another one is reading.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::time::Instant;

use super::comm::{Communicator, Local, check_parts};
use super::exchange::{Exchange, Exchanged, Job, Sums, addresses, exclusive};
use super::fixed::FixedPoint;
use super::launch::Buckets;
use super::plan::{Bucket, Param};
use super::report::{Log, Phase};
use super::targets::pieces;
use super::trailer::Trailer;
use super::{config, launch};
use crate::kernel::params::reduce::Piece;
use crate::kernel::params::{PARTIAL_CHUNK, Partial};
use crate::{Buffer, Device, Dtype, Error, Result};

/// Parts of a bucket start at multiples of this many bytes.
const ALIGN: usize = 256;
/// Bytes of a section: those of all ranks fit a second-level cache together, and a message that long costs
/// little more than its bytes.
const SECTION: usize = 1 << 20;

/// How such a bucket lies in memory: `[elements][trailer][partials][exponents][counts][next]`.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Storage type of the elements.
    pub value: Dtype,
    /// How many there are.
    pub len: usize,
    /// Where the owner's trailer is, in bytes.
    pub trailer: usize,
    /// Where the partials are: one of each piece.
    pub partials: usize,
    /// Where the exponents of fixed point are, where that is what sums are made in: one of each block.
    pub exponents: Option<Range<usize>>,
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
    /// Between processes, bytes that a section of this rank's part has room for where it is gathered: one
    /// slot of each other rank, and as many for the next section.
    slot: usize,
    /// Of each parameter in the bucket's order, the first piece; and the end.
    first: Vec<usize>,
    /// Between processes rank `q` averages a part of the pieces, section by section; a section's first
    /// piece and element, and after the last one's the end.
    parts: Vec<Vec<(usize, usize)>>,
}

impl Layout {
    pub fn new(
        device: &Device,
        params: &[Param],
        bucket: &Bucket,
        (value, fixed): (Dtype, bool),
        ranks: usize,
    ) -> Result<Self> {
        let of = |(&param, &offset): (&usize, &usize)| (param, offset, params[param].len);
        let pieces = pieces(bucket.params.iter().zip(&bucket.offsets).map(of));
        let mut first = vec![0];
        for &param in &bucket.params {
            first.push(first[first.len() - 1] + params[param].len.div_ceil(PARTIAL_CHUNK));
        }
        let trailer = (bucket.len * value.bytes()).next_multiple_of(ALIGN);
        let partials = trailer + Trailer::bytes(bucket.params.len()).next_multiple_of(ALIGN);
        let end = partials + (pieces.len() * size_of::<Partial>()).next_multiple_of(ALIGN);
        let exponents = fixed.then(|| end..end + FixedPoint::exponents(bucket.len));
        let counts = exponents.as_ref().map_or(end, |range| range.end).next_multiple_of(ALIGN);
        let next = counts + ranks * ranks * size_of::<u64>();
        let bytes = (next + ranks * size_of::<u64>()).next_multiple_of(ALIGN);
        // As many elements for each rank, to within a piece; and for each section of a part.
        let share = |rank: usize| (bucket.len as u128 * rank as u128 / ranks as u128) as usize;
        let cut = |element: usize| {
            let piece = pieces.partition_point(|piece| piece.start < element as u64);
            (piece, pieces.get(piece).map_or(bucket.len, |piece| piece.start as usize))
        };
        let part = |rank: usize| {
            let elements = share(rank)..share(rank + 1);
            let sections = elements.clone().step_by(SECTION / value.bytes());
            sections.chain([elements.end]).map(cut).collect()
        };
        let parts: Vec<Vec<(usize, usize)>> = (0..ranks).map(part).collect();
        let lengths = parts.iter().flat_map(|part| part.windows(2).map(|cut| cut[1].1 - cut[0].1));
        let most = lengths.max().unwrap_or(0);
        let slot = (most * value.bytes()).next_multiple_of(ALIGN) + (partials - trailer);
        let (pieces, tensors) = (device.upload(&pieces)?, params.len());
        Ok(Self {
            value,
            len: bucket.len,
            trailer,
            partials,
            exponents,
            counts,
            next,
            bytes,
            ranks,
            tensors,
            pieces,
            slot,
            first,
            parts,
        })
    }

    /// Bytes of counts and counters, which are zeros at first.
    pub fn beside(&self) -> usize {
        self.next + self.ranks * size_of::<u64>() - self.counts
    }

    /// How many sections the longest part has; one at least, since trailers go with it.
    pub fn sections(&self) -> usize {
        self.parts.iter().map(|part| part.len() - 1).max().unwrap_or(0).max(1)
    }

    /// The pieces of a section of a rank's part, and its bytes. Both are empty behind the last one.
    pub fn section(&self, rank: usize, section: usize) -> (Range<usize>, Range<usize>) {
        let part = &self.parts[rank];
        let at = |section: usize| part[section.min(part.len() - 1)];
        let (start, end) = (at(section), at(section + 1));
        (start.0..end.0, start.1 * self.value.bytes()..end.1 * self.value.bytes())
    }

    /// Bytes of all slots.
    pub fn gathered(&self) -> usize {
        2 * (self.ranks - 1) * self.slot
    }

    /// Where rank `rank` gathers a section of its part from rank `from`, the first one with that rank's
    /// trailer behind it. The next section's is elsewhere.
    pub fn slot(&self, rank: usize, from: usize, section: usize) -> Range<usize> {
        let slots = (section % 2) * (self.ranks - 1) + from - usize::from(from > rank);
        let start = slots * self.slot;
        start..start + self.section(rank, section).1.len()
    }

    /// Where the trailer in such a slot is.
    pub fn slot_trailer(&self, rank: usize, from: usize) -> Range<usize> {
        let end = self.slot(rank, from, 0).start + self.slot;
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
        let Self { comm, sums, .. } = self;
        let layout = sums.layouts[job.bucket].clone();
        let deadline = config::deadline(sums.deadline);
        let mut log = Log::new(job.started);

        if layout.exponents.is_some() {
            let start = Instant::now();
            let bucket = exclusive(&mut job.blocks.send, deadline)?;
            launch::measure_in_place(&sums.stream, bucket, &layout, job.weight as f32)?;
            log.add(job.bucket, Phase::Sum, start, start.elapsed());
        }
        let bucket = &job.blocks.send;
        let ranks = sums.parts.len();
        let comm = threads(&mut **comm, ranks)?;
        // Its own word: parts that this rank writes must be nobody else's.
        let rank = comm.rank();
        let start = Instant::now();
        let lent = comm.lend(bucket, &sums.stream, deadline)?;
        log.add(job.bucket, Phase::Skew, start, lent.skew);
        check_parts(&lent.parts, &sums.stream, ranks, layout.bytes)?;
        let mut trailers = sums.trailers(job, layout.trailer, &lent.parts)?;

        let start = Instant::now();
        sums.parts.write(&sums.stream, 0, &addresses(&lent.parts))?;
        let factor = sums.weigh(&trailers)?;
        let skipped = sums.skip(job.bucket, &trailers)?;
        let buckets = Buckets {
            addresses: &sums.parts,
            written: (&sums.parts, ranks),
            weights: &sums.weights,
            ranks,
            rank,
            shared: Some(&lent.parts[0].buffer),
        };
        let skipped = skipped.then_some(&sums.skipped);
        let factors = (sums.scale, factor);
        let wire = sums.wire;
        let pieces = (&*layout, 0..layout.pieces.len());
        launch::in_place(&sums.stream, &buckets, pieces, skipped, wire, factors, sums.stats)?;
        sums.stream.sync()?;
        log.add(job.bucket, Phase::Sum, start, start.elapsed());

        let start = Instant::now();
        let met = comm.lend(bucket, &sums.stream, deadline)?;
        log.add(job.bucket, Phase::Skew, start, met.skew);
        sums.count(bucket, &layout, &mut trailers)?;
        Ok(Exchanged { shards: Vec::new(), trailers, factor: 1.0, log })
    }
}

impl Sums {
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
