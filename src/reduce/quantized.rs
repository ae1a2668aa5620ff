//! The exchange of buckets in 8-bit integers.
//!
//! ```text
//! values + carried ─ round ─ all-to-all ─ Σ in f32 + carried ─ round ─ all-gather
//! ```
//!
//! Both times what rounding loses stays behind, in [`Feedback`](super::feedback::Feedback). Values carry their rank's weight already; what the
//! sum is divided by goes into the factor that it is unpacked with.

#![forbid(unsafe_code)]

use std::time::Instant;

use super::comm::{Collective, check_parts};
use super::exchange::{Blocks, Exchange, Exchanged, Job, addresses, exclusive};
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::wire::{Int8Geometry, Wire};
use super::{config, launch};
use crate::{Dtype, Error, Result};

impl Exchange {
    /// The bucket of a job, in parts of 8-bit integers.
    pub(super) fn exchange_quantized(&mut self, job: &mut Job) -> Result<Exchanged> {
        let Self { comm, sums, .. } = self;
        let (index, ranks) = (job.bucket, sums.parts.len());
        let packed = sums.geometry[index];
        let params = sums.plan.buckets()[index].params.len();
        let int8 = Int8Geometry::new(packed.part, params);
        let deadline = config::deadline(sums.deadline);
        let stream = sums.stream.clone();
        let mut log = Log::new(job.started);

        let start = Instant::now();
        let Blocks { send, feedback, .. } = &mut job.blocks;
        let feedback = feedback.as_mut().ok_or_else(no_room)?;
        let values = exclusive(send, deadline)?;
        let codes = exclusive(&mut feedback.codes, deadline)?;
        let carried = &feedback.carried;
        launch::quantize(&stream, values, carried, codes, (packed.shard, int8.part, int8.stride))?;
        let said = packed.shard_bytes..packed.shard_bytes + Trailer::bytes(params);
        for rank in 0..ranks {
            let at = rank * int8.stride + int8.part_bytes;
            let mut to = codes.view_mut(at..at + said.len())?;
            to.copy_from_view(&stream, &values.view(said.clone())?)?;
        }
        log.add(index, Phase::Sum, start, start.elapsed());

        let start = Instant::now();
        let all = Collective::AllToAll;
        let blocks = comm.exchange(all, &feedback.codes, &stream, deadline)?;
        check_parts(&blocks.parts, &stream, ranks, int8.stride)?;
        log.add_exchange(index, start, blocks.skew);
        let trailers = sums.trailers(job, int8.part_bytes, &blocks.parts)?;

        let start = Instant::now();
        let factor = sums.weigh(&trailers)?;
        sums.weights.write(&stream, 0, &vec![1.0; ranks])?; // values are weighed
        sums.parts.write(&stream, 0, &addresses(&blocks.parts))?;
        let Blocks { result, feedback, .. } = &mut job.blocks;
        let feedback = feedback.as_mut().ok_or_else(no_room)?;
        let (parts, weights) = ((&sums.parts, ranks), (&sums.weights, 0));
        let types = (Wire::Int8, Dtype::F32);
        launch::sum(&stream, parts, weights, &mut feedback.sums, int8.part, 1.0, types)?;
        let (values, carried) = (&mut feedback.sums, &feedback.carried_sums);
        let to = exclusive(result, deadline)?;
        launch::quantize(&stream, values, carried, to, (int8.part, int8.part, int8.result))?;
        stream.sync()?; // until then its operands are read
        log.add(index, Phase::Sum, start, start.elapsed());
        drop(blocks);

        let start = Instant::now();
        let shards = comm.exchange(Collective::AllGather, &job.blocks.result, &stream, deadline)?;
        check_parts(&shards.parts, &stream, ranks, int8.result)?;
        log.add_exchange(index, start, shards.skew);
        Ok(Exchanged { shards: shards.parts, trailers, factor, log })
    }
}

fn no_room() -> Error {
    Error::state("Reducer", "buckets with room for what rounding loses", "others")
}
