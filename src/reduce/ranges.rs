//! The exchange between processes whose gradients are views of their buckets, in the wire's type: each
//! rank's part is sent from where it lies, averaged into this rank's bucket, and received by the others
//! where they want it. Nothing is packed or unpacked.
//!
//! ```text
//! send part q to rank q ─ average my part, in my bucket ─ send it to all, with its partials
//! ```

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use super::exchange::{Exchange, Exchanged, Job};
use super::in_place::Layout;
use super::launch::Buckets;
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::{config, launch};
use crate::kernel::params::Partial;
use crate::{Buffer, Error, Result};

type Ranges = Vec<Vec<std::ops::Range<usize>>>;

impl Exchange {
    /// The bucket of a job, averaged over processes.
    pub(super) fn exchange_ranges(&mut self, job: &mut Job) -> Result<Exchanged> {
        let layout = self.layouts[job.bucket].clone();
        let (rank, ranks) = (self.comm.rank(), self.parts.len());
        if rank >= ranks || self.comm.size() != ranks {
            let expected = "the communicator that it was made with";
            return Err(Error::state("Reducer", expected, format!("rank {rank}")));
        }
        let deadline = config::deadline(self.deadline);
        let mut log = Log::new(job.started);

        let peers = || (0..ranks).map(|peer| (peer, peer != rank));
        let to_owners: Ranges = peers()
            .map(|(peer, other)| match other {
                true => vec![layout.part_bytes(peer), layout.trailer..layout.partials],
                false => Vec::new(),
            })
            .collect();
        let from_owners: Ranges = peers()
            .map(|(peer, other)| match other {
                true => vec![layout.slot(rank, peer), layout.slot_trailer(rank, peer)],
                false => Vec::new(),
            })
            .collect();
        let start = Instant::now();
        let bucket = self.take(job)?;
        let (bucket, skew) =
            self.comm.exchange_ranges(bucket, &to_owners, &from_owners, &self.stream, deadline)?;
        let mut bucket = self.check(bucket, &layout)?;
        log.add_exchange(job.bucket, start, skew);

        let start = Instant::now();
        let params = self.plan.buckets()[job.bucket].params.len();
        let mut bytes = vec![0; Trailer::bytes(params)];
        let mut trailers = Vec::with_capacity(ranks);
        for peer in 0..ranks {
            let at = match peer == rank {
                true => layout.trailer,
                false => layout.slot_trailer(rank, peer).start,
            };
            bucket.read(&self.stream, at, &mut bytes)?;
            trailers.push(self.expected(job, peer, Trailer::decode(&bytes, params))?);
        }
        // Where buckets would start whose parts are those received.
        let part = layout.part_bytes(rank).start as u64;
        let address = |peer: usize| match peer == rank {
            true => bucket.address(),
            false => (bucket.address() + layout.slot(rank, peer).start as u64).wrapping_sub(part),
        };
        let addresses: Vec<u64> = (0..ranks).map(address).collect();
        let factor = self.weigh(&addresses, &trailers)?;
        self.own.write(&self.stream, 0, &[bucket.address()])?;
        let skipped = self.skip(job.bucket, &trailers)?;
        let buckets = Buckets {
            addresses: &self.parts,
            written: (&self.own, 1),
            weights: &self.weights,
            ranks,
            rank,
            shared: None,
        };
        let (skipped, factors) = (skipped.then_some(&self.skipped), (self.scale, factor));
        let (pieces, wire) = ((&*layout, layout.part(rank)), self.plan.wire());
        launch::in_place(&self.stream, &buckets, pieces, skipped, wire, factors, self.stats)?;
        self.stream.sync()?;
        log.add(job.bucket, Phase::Sum, start, start.elapsed());

        let result = |owner: usize| {
            let (row, pieces) = (ranks * size_of::<u64>(), layout.part(owner));
            let partial = |piece: usize| layout.partials + piece * size_of::<Partial>();
            let counts = layout.counts + owner * row;
            vec![
                layout.part_bytes(owner),
                partial(pieces.start)..partial(pieces.end),
                counts..counts + row,
            ]
        };
        let mine: Ranges =
            peers().map(|(_, other)| if other { result(rank) } else { Vec::new() }).collect();
        let theirs: Ranges =
            peers().map(|(peer, other)| if other { result(peer) } else { Vec::new() }).collect();
        let start = Instant::now();
        let (back, skew) =
            self.comm.exchange_ranges(bucket, &mine, &theirs, &self.stream, deadline)?;
        bucket = self.check(back, &layout)?;
        log.add_exchange(job.bucket, start, skew);
        self.count(&bucket, &layout, &mut trailers)?;
        job.blocks.send = Arc::new(bucket);
        Ok(Exchanged { shards: Vec::new(), trailers, log })
    }

    /// The bucket itself: between processes nobody else has a handle to it.
    fn take(&self, job: &mut Job) -> Result<Buffer<u8>> {
        let nothing = Arc::new(self.stream.device().zeros(0)?);
        let bucket = std::mem::replace(&mut job.blocks.send, nothing);
        let shared = || Error::state("Reducer", "a bucket of its own", "that it is shared");
        Arc::try_unwrap(bucket).map_err(|_| shared())
    }

    /// A bucket that comes back from a communicator, whoever wrote that.
    fn check(&self, bucket: Buffer<u8>, layout: &Layout) -> Result<Buffer<u8>> {
        const OP: &str = "Communicator::exchange_ranges";
        if !self.stream.device().reaches(bucket.device()) || bucket.len() != layout.bytes {
            let expected = format!("the buffer of {} bytes", layout.bytes);
            return Err(Error::shape(OP, "buffer", expected, format!("one of {}", bucket.len())));
        }
        Ok(bucket)
    }
}
