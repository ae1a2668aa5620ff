//! What a reducer is: a plan's buckets on this side of the exchange, whatever the type of gradients.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::agree::agree;
use super::comm::Communicator;
use super::config::{Config, Sum};
use super::exchange::{Blocks, Exchange, Geometry, Sums};
use super::feedback::Feedback;
use super::flight::Flight;
use super::in_place::Layout;
use super::outbox::Outbox;
use super::plan::{Bucket, BucketPlan};
use super::report::Log;
use super::sharded::cut::Cut;
use super::targets::Targets;
use super::trailer::Trailer;
use super::way::Way;
use super::whole::Integers;
use super::wire::{Int8Geometry, Wire};
use crate::kernel::params::reduce::FIXED_BLOCK;
use crate::{Buffer, Device, Dtype, Error, GradStats, Result};

/// A [`Reducer`](super::Reducer) whose type is a value: all that it does is compiled once, and not for each.
pub(super) struct Core {
    /// What gradients are stored as.
    pub(super) dtype: Dtype,
    pub(super) plan: Arc<BucketPlan>,
    pub(super) config: Config,
    pub(super) hash: u64,
    pub(super) rank: usize,
    /// The process that made it.
    pub(super) process: u32,
    /// How buckets are exchanged.
    pub(super) way: Way,
    /// What gradients are packed in: the gradients' own type if there is nobody to send to.
    pub(super) wire: Dtype,
    /// What comes back.
    pub(super) returned: Wire,
    pub(super) geometry: Vec<Geometry>,
    pub(super) buckets: Vec<Filling>,
    /// The next bucket to go out.
    pub(super) next: usize,
    pub(super) marked: Vec<bool>,
    pub(super) gradients: Gradients,
    /// Of each bucket, in its order; empty without [`Config::accumulate`].
    pub(super) accumulators: Vec<Buffer<f32>>,
    pub(super) accumulated: Vec<bool>,
    pub(super) weight: f64,
    pub(super) step: u64,
    pub(super) started: Option<Started>,
    pub(super) log: Log,
    /// The point where the step's first call had prepared the buckets.
    pub(super) begun: Option<crate::Event>,
    pub(super) shard_table: Buffer<u64>,
    pub(super) targets: Targets,
    pub(super) stats: GradStats,
    /// Which part of each bucket stays here, if not all of all.
    pub(super) own: Option<Own>,
    pub(super) outbox: Outbox,
    pub(super) flight: Flight,
    pub(super) fault: Option<Error>,
}

/// When a step began, on two clocks: one that never goes back, and one that other processes have.
#[derive(Clone, Copy)]
pub(super) struct Started {
    pub at: Instant,
    pub on: SystemTime,
}

/// A bucket on this side of the exchange.
pub(super) struct Filling {
    pub(super) pending: usize,
    /// `None` while the communication thread has them.
    pub(super) blocks: Option<Blocks>,
    pub(super) filled: Vec<crate::Event>,
    /// The last work that added to accumulators, behind all before.
    pub(super) added: Option<crate::Event>,
    pub(super) non_finite: Buffer<u64>,
    pub(super) ready: Duration,
}

/// A rank's parts of the buckets.
pub(super) struct Own {
    pub(super) cut: Arc<Cut>,
    pub(super) rank: usize,
}

/// Where gradients lie.
pub(super) enum Gradients {
    /// With the caller.
    Callers,
    /// In memory of ours, one buffer for each bucket; they are packed from there.
    Ours(Vec<Buffer<u8>>),
    /// In the buckets that are exchanged: averaged where they lie.
    InPlace {
        layouts: Vec<Arc<Layout>>,
        /// The weight of one rank alone.
        one: Buffer<f32>,
        /// `[params]`, not 0 where nobody has a gradient.
        skipped: Buffer<u8>,
    },
}

const NEW: &str = "Reducer::new";

impl Core {
    /// With `sharded`, each rank keeps its part of the averages; the hash is of what it does with them.
    pub(super) fn new(
        dtype: Dtype,
        device: &Device,
        plan: Arc<BucketPlan>,
        mut comm: Box<dyn Communicator>,
        config: Config,
        sharded: Option<(Arc<Cut>, u64)>,
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
        // Threads have no library that would add up: their order is that of ranks.
        let sum = match config.sum {
            Sum::Communicator if comm.threads().is_some() => Sum::RankOrder,
            sum => sum,
        };
        let shape = comm.nodes().map(|comm| comm.shape());
        let (types, same) = ((dtype, plan.wire()), dtype == plan.wire());
        let way = Way::of(&mut *comm, device, &config, types, (sum, sharded.is_some()));
        let (hash, way) = agree(
            &mut *comm,
            &plan,
            &config,
            (dtype, sharded.as_ref().map(|(_, hash)| *hash)),
            device,
            way,
        )?;
        let in_place = matches!(way, Way::Lent | Way::Sections);
        // In what gradients are packed, and averages are until they are unscaled.
        let (wire, mean) = match sum {
            _ if ranks == 1 => (dtype, dtype),
            Sum::Int8 => (Dtype::F32, Dtype::F32),
            Sum::OrderFree => {
                let exact = way != Way::Whole && !config.accumulate && config.scale == 1.0;
                let or_f32 = |gradients| if gradients { dtype } else { Dtype::F32 };
                (or_f32(exact), or_f32(same))
            }
            Sum::RankOrder | Sum::Communicator => (plan.wire(), plan.wire()),
        };
        let nodes = match way {
            Way::Whole => (1, 1), // one block
            Way::Nodes => shape.unwrap_or((ranks, 1)),
            _ => (ranks, 1),
        };
        let own = sharded.map(|(cut, _)| Own { cut, rank });

        let mut layouts = Vec::new();
        let mut geometry = Vec::new();
        let mut buckets = Vec::new();
        for (index, bucket) in plan.buckets().iter().enumerate() {
            let (params, largest) = (bucket.params.len(), |own: &Own| own.cut.largest(index));
            let shape = match &own {
                _ if way == Way::Quantized => Int8Geometry::packed(bucket.len, params, ranks),
                Some(own) => Geometry::of_parts(largest(own), params, wire, nodes),
                None if sum == Sum::OrderFree => {
                    let part = bucket.len.div_ceil(nodes.0).next_multiple_of(FIXED_BLOCK);
                    Geometry::of_parts(part, params, wire, nodes)
                }
                None => Geometry::new(bucket.len, params, wire, nodes),
            };
            let send = shape.block_bytes * shape.blocks;
            let (mut send, mut result) = (send, shape.part * mean.bytes());
            if in_place {
                let fixed = sum == Sum::OrderFree;
                let layout = Layout::new(device, plan.params(), bucket, (dtype, fixed), ranks)?;
                (send, result) = (layout.bytes, 0);
                layouts.push(Arc::new(layout));
            } else if way == Way::Whole {
                result = Trailer::bytes(params);
            } else if way == Way::Quantized {
                result = Int8Geometry::new(shape.part, params).result;
            } else if ranks == 1 {
                result = 0; // alone, the bucket is its own result
            }
            let (send, result) = (Arc::new(device.zeros(send)?), Arc::new(device.zeros(result)?));
            let feedback = (way == Way::Quantized)
                .then(|| Feedback::new(device, shape, params))
                .transpose()?;
            geometry.push(shape);
            buckets.push(Filling {
                pending: bucket.params.len(),
                blocks: Some(Blocks { send, result, feedback }),
                filled: Vec::with_capacity(bucket.params.len()),
                added: None,
                non_finite: device.zeros(1)?,
                ready: Duration::ZERO,
            });
        }
        let lengths: Vec<usize> = plan.params().iter().map(|p| p.len).collect();
        let accumulators = plan.buckets().iter().map(|bucket| match config.accumulate {
            true => device.zeros(bucket.len),
            false => device.zeros(0),
        });
        let accumulators = accumulators.collect::<Result<_>>()?;
        let room = |bucket: &Bucket| device.zeros(bucket.len * dtype.bytes());
        let gradients = match (config.views, in_place) {
            (false, _) => Gradients::Callers,
            (true, false) => {
                Gradients::Ours(plan.buckets().iter().map(room).collect::<Result<_>>()?)
            }
            (true, true) => {
                let (one, skipped) = (device.upload(&[1.0])?, device.zeros(lengths.len())?);
                Gradients::InPlace { layouts: layouts.clone(), one, skipped }
            }
        };
        let outbox = if ranks == 1 {
            let done = Vec::with_capacity(buckets.len());
            Outbox::Alone { average: config.average, done }
        } else {
            let gathered = match way {
                Way::Sections => layouts.iter().map(|layout| layout.gathered()).max(),
                _ => None,
            };
            let longest = geometry.iter().map(|shape| shape.shard).max().unwrap_or(0);
            let integers = (sum == Sum::OrderFree && way == Way::Whole)
                .then(|| Integers::new(device, longest, ranks))
                .transpose()?;
            let sums = Sums {
                aborter: comm.aborter(),
                plan: plan.clone(),
                geometry: geometry.clone(),
                layouts,
                way,
                hash,
                sum,
                wire,
                mean,
                average: config.average,
                scale: config.scale,
                stats: config.stats,
                deadline: config.deadline,
                stream: Arc::new(stream),
                parts: device.zeros(ranks)?,
                own: device.zeros(1)?,
                weights: device.zeros(ranks)?,
                skipped: device.zeros(lengths.len())?,
            };
            let gathered = Some(device.zeros(gathered.unwrap_or(0))?);
            Outbox::start(Exchange { comm, gathered, integers, sums })?
        };
        Ok(Self {
            dtype,
            hash,
            rank,
            process: std::process::id(),
            way,
            wire,
            returned: match way {
                Way::Quantized => Wire::Int8,
                _ => Wire::Elements(mean),
            },
            geometry,
            buckets,
            next: 0,
            marked: vec![false; lengths.len()],
            gradients,
            accumulated: vec![false; lengths.len()],
            accumulators,
            weight: 1.0,
            step: 0,
            started: None,
            log: Log::new(Instant::now()),
            begun: None,
            shard_table: device.zeros(ranks)?,
            targets: Targets::new(device, &plan, own.as_ref())?,
            stats: GradStats::new(device, &lengths)?,
            own,
            outbox,
            flight: Flight::new(rank, ranks),
            fault: None,
            config,
            plan,
        })
    }

    /// What gradients are multiplied by when they are packed.
    pub(super) fn scale(&self, weight: f64) -> f32 {
        match (self.way, self.config.sum) {
            (Way::Whole, Sum::Communicator) | (Way::Quantized, _) => {
                (f64::from(self.config.scale) * weight) as f32
            }
            _ => self.config.scale,
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A fork: the thread that would have to end is not here.
            return std::mem::forget(std::mem::replace(
                &mut self.outbox,
                Outbox::Alone { average: true, done: Vec::new() },
            ));
        }
        if self.started.is_some() {
            self.outbox.abort("reducer dropped inside a step");
        }
        self.outbox.close();
    }
}
