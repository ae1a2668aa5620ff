//! The exchange between processes whose gradients are views of their buckets, in the wire's type: each
//! rank's part is sent from where it lies, averaged into this rank's bucket, and received by the others
//! where they want it. Nothing is packed or unpacked.
//!
//! ```text
//! of each section in turn: of part q to rank q ─ average mine, in my bucket ─ its means to all
//! ```
//!
//! A section is small enough to be averaged, and sent on, while it is in the cache.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::comm::{Moves, Section};
use super::exchange::{Exchange, Exchanged, Job, Sums};
use super::in_place::Layout;
use super::launch::Buckets;
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::{config, launch};
use crate::kernel::params::Partial;
use crate::{Buffer, Error, Result};

impl Exchange {
    /// The bucket of a job, averaged over processes.
    pub(super) fn exchange_sections(&mut self, job: &mut Job) -> Result<Exchanged> {
        let Self { comm, gathered, sums, .. } = self;
        let layout = sums.layouts[job.bucket].clone();
        let (rank, ranks) = (comm.rank(), layout.ranks);
        if rank >= ranks || comm.size() != ranks {
            let expected = "the communicator that it was made with";
            return Err(Error::state("Reducer", expected, format!("rank {rank}")));
        }
        let deadline = config::deadline(sums.deadline);
        let mut log = Log::new(job.started);
        let lost = || Error::state("Reducer", "a communicator", "that it has failed");
        let memory = (take(job, sums)?, gathered.take().ok_or_else(lost)?);
        let sections: Vec<Section> =
            (0..layout.sections()).map(|s| moves(&layout, rank, s, sums.stats)).collect();

        let (stream, mut agreed) = (sums.stream.clone(), None);
        // Bytes move from here on, unless a section is worked on.
        let mut moving = Instant::now();
        let mut work = |section: usize, bucket: &Buffer<u8>, gathered: &Buffer<u8>| {
            log.add(job.bucket, Phase::Wire, moving, moving.elapsed());
            let start = Instant::now();
            let said = match agreed.take() {
                Some(said) => said,
                None => sums.agreed(job, rank, &layout, (bucket, gathered))?,
            };
            sums.average((bucket, gathered), rank, &layout, section, &said)?;
            agreed = Some(said);
            log.add(job.bucket, Phase::Sum, start, start.elapsed());
            moving = Instant::now();
            Ok(())
        };
        let start = Instant::now();
        let (bucket, back, skew) =
            comm.exchange_sections(memory, &sections, &mut work, &stream, deadline)?;
        log.add(job.bucket, Phase::Wire, moving, moving.elapsed());
        log.skew(job.bucket, start, skew);
        for (buffer, bytes) in [(&bucket, layout.bytes), (&back, layout.gathered())] {
            if !stream.device().reaches(buffer.device()) || buffer.len() < bytes {
                const OP: &str = "Communicator::exchange_sections";
                let expected = format!("the buffer of {bytes} bytes that it was given");
                let found = format!("one of {}", buffer.len());
                return Err(Error::shape(OP, "buffer", expected, found));
            }
        }
        *gathered = Some(back);
        let mut trailers = agreed.map_or(Vec::new(), |agreed| agreed.trailers);
        sums.count(&bucket, &layout, &mut trailers)?;
        job.blocks.send = Arc::new(bucket);
        Ok(Exchanged { shards: Vec::new(), trailers, factor: 1.0, log })
    }
}

/// What a bucket's trailers say, all ranks' together.
struct Agreed {
    trailers: Vec<Trailer>,
    /// The factor on weighted sums.
    factor: f32,
    /// Whether there are parameters to leave alone.
    skips: bool,
}

impl Sums {
    /// Reads every rank's trailer, and writes down what follows from them.
    fn agreed(
        &mut self,
        job: &Job,
        rank: usize,
        layout: &Layout,
        (bucket, gathered): (&Buffer<u8>, &Buffer<u8>),
    ) -> Result<Agreed> {
        let params = self.plan.buckets()[job.bucket].params.len();
        let mut bytes = vec![0; Trailer::bytes(params)];
        let mut trailers = Vec::with_capacity(layout.ranks);
        for peer in 0..layout.ranks {
            let (buffer, at) = match peer == rank {
                true => (bucket, layout.trailer),
                false => (gathered, layout.slot_trailer(rank, peer).start),
            };
            buffer.read(&self.stream, at, &mut bytes)?;
            trailers.push(self.expected(job, peer, Trailer::decode(&bytes, params))?);
        }
        let factor = self.weigh(&trailers)?;
        let skips = self.skip(job.bucket, &trailers)?;
        self.own.write(&self.stream, 0, &[bucket.address()])?;
        Ok(Agreed { trailers, factor, skips })
    }

    /// Averages a section of this rank's part, in its bucket.
    fn average(
        &mut self,
        (bucket, gathered): (&Buffer<u8>, &Buffer<u8>),
        rank: usize,
        layout: &Layout,
        section: usize,
        agreed: &Agreed,
    ) -> Result<()> {
        let (pieces, values) = layout.section(rank, section);
        // Where buckets would start whose sections are those received.
        let address = |peer: usize| match peer == rank {
            true => bucket.address(),
            false => {
                let slot = gathered.address() + layout.slot(rank, peer, section).start as u64;
                slot.wrapping_sub(values.start as u64)
            }
        };
        let addresses: Vec<u64> = (0..layout.ranks).map(address).collect();
        self.parts.write(&self.stream, 0, &addresses)?;
        let buckets = Buckets {
            addresses: &self.parts,
            written: (&self.own, 1),
            weights: &self.weights,
            ranks: layout.ranks,
            rank,
            shared: None,
        };
        let skipped = agreed.skips.then_some(&self.skipped);
        let (pieces, wire) = ((layout, pieces), self.plan.wire());
        let factors = (self.scale, agreed.factor);
        launch::in_place(&self.stream, &buckets, pieces, skipped, wire, factors, self.stats)?;
        self.stream.sync()
    }
}

/// What rank `rank` moves for a section: with the first one go trailers, with the last one counts, and with
/// all of them partials if somebody wants them.
fn moves(layout: &Layout, rank: usize, section: usize, stats: bool) -> Section {
    let each = |ranges: &dyn Fn(usize) -> Vec<Range<usize>>| -> Vec<Vec<Range<usize>>> {
        (0..layout.ranks).map(|peer| if peer == rank { Vec::new() } else { ranges(peer) }).collect()
    };
    let (first, last) = (section == 0, section + 1 == layout.sections());
    let means = |owner: usize| {
        let (pieces, values) = layout.section(owner, section);
        let partial = |piece: usize| layout.partials + piece * size_of::<Partial>();
        let row = layout.ranks * size_of::<u64>();
        let counts = layout.counts + owner * row;
        let mut ranges = vec![values];
        ranges.extend(stats.then(|| partial(pieces.start)..partial(pieces.end)));
        ranges.extend(last.then_some(counts..counts + row));
        ranges
    };
    let gather = Moves {
        send: each(&|peer| {
            let (_, values) = layout.section(peer, section);
            [values].into_iter().chain(first.then_some(layout.trailer..layout.partials)).collect()
        }),
        receive: each(&|peer| {
            let slot = layout.slot(rank, peer, section);
            [slot].into_iter().chain(first.then(|| layout.slot_trailer(rank, peer))).collect()
        }),
    };
    let scatter = Moves { send: each(&|_| means(rank)), receive: each(&means) };
    Section { gather, scatter }
}

/// The bucket itself: between processes nobody else has a handle to it.
fn take(job: &mut Job, sums: &Sums) -> Result<Buffer<u8>> {
    let nothing = Arc::new(sums.stream.device().zeros(0)?);
    let bucket = std::mem::replace(&mut job.blocks.send, nothing);
    let shared = || Error::state("Reducer", "a bucket of its own", "that it is shared");
    Arc::try_unwrap(bucket).map_err(|_| shared())
}
