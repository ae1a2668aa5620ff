//! The exchange of packed buckets over many nodes: each node sums its ranks' blocks, nodes add their sums.
//!
//! ```text
//! block l to rank l of the node ─ trailers to all ─ Σ of the node, f32 ─ part m to node m
//!   ─ Σ of nodes, rounded ─ results across ─ results inside
//! ```

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use super::comm::{Collective, Hierarchical, Level, Part};
use super::exchange::{Exchange, Exchanged, Geometry, Job, Sums, addresses, exclusive};
use super::report::{Log, Phase};
use super::trailer::Trailer;
use super::wire::Wire;
use super::{config, launch};
use crate::{Buffer, Dtype, Error, Result};

impl Exchange {
    /// The result of a job's bucket, summed by nodes.
    pub(super) fn exchange_nodes(&mut self, job: &mut Job) -> Result<Exchanged> {
        let Self { comm, sums, .. } = self;
        let bucket = job.bucket;
        let geometry = sums.geometry[bucket];
        let deadline = config::deadline(sums.deadline);
        let ranks = sums.parts.len();
        let comm = nodes(comm.nodes(), ranks)?;
        let mut log = Log::new(job.started);
        let stream = sums.stream.clone();
        let mut exchange = |comm: &mut Hierarchical, level, how, send: &Arc<Buffer<u8>>| {
            let start = Instant::now();
            let came = comm.of(level, how, send, &stream, deadline)?;
            log.add_exchange(bucket, start, came.skew);
            Ok::<Vec<Part>, Error>(came.parts)
        };
        use Collective::{AllGather, AllToAll};
        use Level::{Across, Inside};

        let blocks = exchange(comm, Inside, AllToAll, &job.blocks.send)?;
        // What the ranks of a node say goes to all nodes, before sums that it is needed for.
        let words = |block: &Part| {
            let start = block.start + geometry.shard_bytes;
            Part { start, len: geometry.block_bytes - geometry.shard_bytes, ..block.clone() }
        };
        let words: Vec<Part> = blocks.iter().map(words).collect();
        let joined = comm.join(&words, &stream)?;
        let said = exchange(comm, Across, AllGather, &joined)?;
        let trailers = sums.trailers_of_nodes(job, geometry, &said, words.len())?;
        drop(said);

        let sum = Instant::now();
        let factor = sums.weigh(&trailers)?;
        let first = comm.place().1 * words.len();
        let partial = sums.sum_of_node(comm, geometry, &blocks, first)?;
        drop((words, blocks));
        let summed = sum.elapsed();
        let partials = exchange(comm, Across, AllToAll, &partial)?;
        let round = Instant::now();
        sums.sum_of_nodes(job, geometry, &partials, factor, deadline)?;
        drop(partials);
        let rounded = round.elapsed();

        let results = exchange(comm, Across, AllGather, &job.blocks.result)?;
        let joined = comm.join(&results, &stream)?;
        drop(results);
        let shards = exchange(comm, Inside, AllGather, &joined)?;
        log.add(bucket, Phase::Sum, sum, summed);
        log.add(bucket, Phase::Sum, round, rounded);
        // Block l of the bucket is cut in a part for each node.
        let len = geometry.part * sums.plan.wire().bytes();
        let cut = |shard: Part| {
            let starts = (shard.start..shard.start + shard.len).step_by(len);
            starts.map(move |start| Part { start, len, ..shard.clone() })
        };
        Ok(Exchanged {
            shards: shards.into_iter().flat_map(cut).collect(),
            trailers,
            factor: 1.0,
            log,
        })
    }
}

impl Sums {
    /// Every rank's trailer, in rank order: `said` holds those of each node's.
    fn trailers_of_nodes(
        &self,
        job: &Job,
        geometry: Geometry,
        said: &[Part],
        ranks: usize,
    ) -> Result<Vec<Trailer>> {
        let each = geometry.block_bytes - geometry.shard_bytes;
        let one = |node: &Part, rank: usize| Part {
            start: node.start + rank * each,
            len: each,
            ..node.clone()
        };
        let all: Vec<Part> =
            said.iter().flat_map(|node| (0..ranks).map(move |rank| one(node, rank))).collect();
        self.trailers(job, 0, &all)
    }

    /// The weighted sum of the node's blocks for this rank, in f32; weights are those from `first` on.
    fn sum_of_node(
        &mut self,
        comm: &mut Hierarchical,
        geometry: Geometry,
        blocks: &[Part],
        first: usize,
    ) -> Result<Arc<Buffer<u8>>> {
        self.parts.write(&self.stream, 0, &addresses(blocks))?;
        let mut to = comm.room(geometry.shard * size_of::<f32>(), &self.stream)?;
        let parts = (&self.parts, blocks.len());
        let types = (Wire::Elements(self.plan.wire()), Dtype::F32);
        launch::sum(
            &self.stream,
            parts,
            (&self.weights, first),
            &mut to,
            geometry.shard,
            1.0,
            types,
        )?;
        self.stream.sync()?;
        Ok(comm.keep(to))
    }

    /// The sum of the nodes' sums of this rank's part, rounded.
    fn sum_of_nodes(
        &mut self,
        job: &mut Job,
        geometry: Geometry,
        partials: &[Part],
        factor: f32,
        deadline: Instant,
    ) -> Result<()> {
        self.parts.write(&self.stream, 0, &addresses(partials))?;
        self.weights.write(&self.stream, 0, &vec![1.0; partials.len()])?; // they are weighted
        let to = exclusive(&mut job.blocks.result, deadline)?;
        let parts = (&self.parts, partials.len());
        let types = (Wire::Elements(Dtype::F32), self.plan.wire());
        launch::sum(&self.stream, parts, (&self.weights, 0), to, geometry.part, factor, types)?;
        self.stream.sync()
    }
}

/// The communicator of many nodes that was there when the reducer was made.
fn nodes(comm: Option<&mut Hierarchical>, ranks: usize) -> Result<&mut Hierarchical> {
    let expected = "the communicator that it was made with";
    let other = || Error::state("Reducer", expected, "another");
    comm.filter(|comm| comm.shape().0 * comm.shape().1 == ranks).ok_or_else(other)
}
