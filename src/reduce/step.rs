//! The course of a step on this side of the exchange: pack, send in plan order, unpack.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use super::config::{Unscale, deadline};
use super::core::{Core, Gradients, Started};
use super::exchange::{Done, Exchanged, Job, exclusive};
use super::launch::{self, Span};
use super::reducer::FINISH;
use super::report::{BucketTimes, Log, Phase, Reduced};
use super::sharded::cut::Place;
use super::trailer::Trailer;
use super::way::Way;
use crate::backend::Address;
use crate::environment::Environment;
use crate::{Error, Result, Stream};

impl Core {
    /// The first mark of a step.
    pub(super) fn begin(&mut self, stream: &Stream) -> Result<()> {
        if self.started.is_some() {
            return Ok(());
        }
        for bucket in &mut self.buckets {
            bucket.non_finite.clear(stream)?;
            bucket.ready = Duration::ZERO;
        }
        self.begun = Some(stream.record()?);
        self.started = Some(Started { at: Instant::now(), on: SystemTime::now() });
        self.log = Log::new(self.started_at());
        Ok(())
    }

    /// When the step began.
    fn started_at(&self) -> Instant {
        self.started.map_or_else(Instant::now, |started| started.at)
    }

    /// A gradient is there, and more of it will come.
    pub(super) fn add(
        &mut self,
        op: &'static str,
        stream: &Stream,
        param: usize,
        gradient: Span,
    ) -> Result<()> {
        let _environment = Environment::standard();
        if !self.config.accumulate {
            return Err(Error::state(op, "Config::accumulate", "a reducer without it"));
        }
        let (bucket, position) = self.plan.place(param);
        let offset = self.plan.buckets()[bucket].offsets[position];
        let added = &mut self.buckets[bucket].added;
        if let Some(added) = added {
            stream.wait(added)?; // gradients may come on several streams
        }
        launch::accumulate(stream, self.dtype, gradient, (&mut self.accumulators[bucket], offset))?;
        self.accumulated[param] = true;
        *added = Some(stream.record()?);
        Ok(())
    }

    /// A gradient is there.
    pub(super) fn mark(&mut self, stream: &Stream, param: usize, gradient: Span) -> Result<()> {
        let _environment = Environment::standard();
        self.begin(stream)?;
        self.pack(stream, param, gradient)?;
        self.marked[param] = true;
        self.send_complete(stream)
    }

    /// Ends a step: sends what is left, and unpacks everything to `spans`.
    pub(super) fn end(
        &mut self,
        stream: &Stream,
        spans: &[Span],
        unscale: Unscale,
    ) -> Result<Reduced> {
        let _environment = Environment::standard();
        self.begin(stream)?;
        let outcome = self.send_rest(stream).and_then(|()| self.unpack_all(stream, spans, unscale));
        if let Err(error) = &outcome {
            self.fail(error.clone());
        }
        outcome
    }

    fn pack(&mut self, stream: &Stream, param: usize, gradient: Span) -> Result<()> {
        let start = Instant::now();
        let (index, position) = self.plan.place(param);
        for before in self.begun.iter().chain(&self.buckets[index].added) {
            stream.wait(before)?; // gradients may come on several streams
        }
        let gradient = self.counted(stream, param, gradient)?;
        if gradient.address == Address::NULL {
            self.zero_view(stream, param)?;
        }
        if matches!(self.gradients, Gradients::Callers) {
            let accumulated = std::mem::take(&mut self.accumulated[param]);
            let offset = self.plan.buckets()[index].offsets[position];
            self.launch_pack(stream, (index, offset), gradient, accumulated)?;
        }
        let bucket = &mut self.buckets[index];
        bucket.filled.push(stream.record()?);
        bucket.pending -= 1;
        if bucket.pending == 0 && matches!(self.gradients, Gradients::Ours(_)) {
            self.pack_views(stream, index)?;
        }
        self.log.add(index, Phase::Pack, start, start.elapsed());
        Ok(())
    }

    /// The gradient; or zeros, where this rank weighs nothing: its NaN, times 0, would be everybody's.
    fn counted(&mut self, stream: &Stream, param: usize, gradient: Span) -> Result<Span> {
        if self.weight > 0.0 {
            return Ok(gradient);
        }
        if std::mem::take(&mut self.accumulated[param]) {
            let (bucket, position) = self.plan.place(param);
            let start = self.plan.buckets()[bucket].offsets[position];
            self.accumulators[bucket].clear_range(stream, start..start + gradient.len)?;
        }
        Ok(Span { address: Address::NULL, ..gradient })
    }

    /// Packs a bucket's gradients that are views, one after the other in memory of ours: in one launch, unless
    /// some of them were accumulated and others were not.
    fn pack_views(&mut self, stream: &Stream, index: usize) -> Result<()> {
        for event in &self.buckets[index].filled {
            stream.wait(event)?; // written on several streams, it may be
        }
        let plan = self.plan.clone();
        let bucket = &plan.buckets()[index];
        let Gradients::Ours(own) = &self.gradients else {
            unreachable!("only gradients that are ours are packed together")
        };
        let memory = Address(own[index].address());
        let take = |&param: &usize| std::mem::take(&mut self.accumulated[param]);
        let accumulated: Vec<bool> = bucket.params.iter().map(take).collect();
        let mut position = 0;
        for run in accumulated.chunk_by(|a, b| a == b) {
            let params = &bucket.params[position..position + run.len()];
            let len = params.iter().map(|&param| plan.params()[param].len).sum();
            let offset = bucket.offsets[position];
            let address = memory.offset(offset * self.dtype.bytes());
            self.launch_pack(stream, (index, offset), Span { address, len }, run[0])?;
            position += run.len();
        }
        self.buckets[index].filled.push(stream.record()?);
        Ok(())
    }

    fn launch_pack(
        &mut self,
        stream: &Stream,
        (index, offset): (usize, usize),
        gradients: Span,
        accumulated: bool,
    ) -> Result<()> {
        let scale = self.scale(self.weight);
        let bucket = &mut self.buckets[index];
        let Some(blocks) = &mut bucket.blocks else {
            unreachable!("a bucket leaves when its last parameter is marked, and marks are unique")
        };
        let memory = exclusive(&mut blocks.send, deadline(self.config.deadline))?;
        let geometry = self.geometry[index];
        let mut done = 0;
        // Parts of ranks are not as long as each other: each takes a launch.
        while done < gradients.len {
            let at = offset + done;
            let (first, within, len) = match &self.own {
                None => (0, at, gradients.len),
                Some(own) => {
                    let Place { rank, within, left } = own.cut.place(index, at);
                    (rank, within, left.min(gradients.len - done))
                }
            };
            let address = match gradients.address {
                Address::NULL => Address::NULL,
                address => address.offset(done * self.dtype.bytes()),
            };
            launch::pack(
                stream,
                self.dtype,
                Span { address, len },
                accumulated.then_some((&mut self.accumulators[index], at)),
                memory,
                &mut bucket.non_finite,
                geometry,
                (first, within, self.wire),
                scale,
            )?;
            done += len;
        }
        Ok(())
    }

    /// Sends every bucket that is complete and whose turn it is. In plan order, whatever the order
    /// of marks: ranks then agree without asking each other.
    fn send_complete(&mut self, stream: &Stream) -> Result<()> {
        while self.next < self.buckets.len() && self.buckets[self.next].pending == 0 {
            if let Err(error) = self.send(stream, self.next) {
                self.fail(error.clone());
                return Err(error);
            }
            self.next += 1;
        }
        Ok(())
    }

    fn send(&mut self, stream: &Stream, index: usize) -> Result<()> {
        let geometry = self.geometry[index];
        let (started, way) = (self.started_at(), self.way);
        let used = self.plan.buckets()[index].params.iter().map(|&p| self.marked[p]).collect();
        let bucket = &mut self.buckets[index];
        bucket.ready = started.elapsed();
        for event in &bucket.filled {
            stream.wait(event)?;
        }
        let mut non_finite = [0];
        bucket.non_finite.read(stream, 0, &mut non_finite)?;
        let trailer = Trailer {
            step: self.step,
            plan: self.hash,
            weight: self.weight,
            non_finite: non_finite[0],
            used,
        };
        let mut blocks = bucket.blocks.take().expect("complete buckets are sent once");
        let to = exclusive(&mut blocks.send, deadline(self.config.deadline))?;
        match &self.gradients {
            _ if way == Way::Whole => exclusive(
                &mut blocks.result,
                deadline(self.config.deadline),
            )?
            .write(stream, 0, &trailer.encode())?,
            Gradients::InPlace { layouts, .. } => {
                let layout = &layouts[index];
                to.write(stream, layout.trailer, &trailer.encode())?;
                to.write(stream, layout.counts, &vec![0; layout.beside()])?;
            }
            _ => {
                for block in 0..geometry.blocks {
                    let start = block * geometry.block_bytes + geometry.shard_bytes;
                    to.write(stream, start, &trailer.encode())?;
                }
            }
        }
        let mut filled = std::mem::take(&mut bucket.filled);
        filled.clear();
        filled.push(stream.record()?); // packed by all streams, and the trailers written
        let (step, weight) = (self.step, self.weight);
        let job = Job { bucket: index, step, weight, started, blocks, filled };
        self.outbox.send(job, trailer, geometry)
    }

    /// Zeros, or an error, for what was never marked; then everything is sent.
    fn send_rest(&mut self, stream: &Stream) -> Result<()> {
        let unmarked: Vec<usize> = (0..self.marked.len()).filter(|&p| !self.marked[p]).collect();
        // What was accumulated in earlier micro-batches is a gradient.
        let missing = unmarked.iter().filter(|&&p| !self.accumulated[p]);
        let missing: Vec<&str> = missing.map(|&p| self.plan.params()[p].name.as_str()).collect();
        if !missing.is_empty() && !self.config.allow_unused {
            let found = format!("never marked: {}", missing.join(", "));
            let error = Error::state(FINISH, "every parameter marked ready", &found);
            self.outbox.abort(&found);
            self.fail(error.clone());
            return Err(error);
        }
        for param in unmarked {
            self.marked[param] = self.accumulated[param];
            let len = self.plan.params()[param].len;
            self.pack(stream, param, Span { address: Address::NULL, len })?;
        }
        self.send_complete(stream)
    }

    fn unpack_all(&mut self, stream: &Stream, spans: &[Span], unscale: Unscale) -> Result<Reduced> {
        let factor = match unscale {
            Unscale::Keep => 1.0,
            Unscale::Factor(factor) => factor,
        };
        let on = self.started.map_or(SystemTime::UNIX_EPOCH, |started| started.on);
        let mut reduced = Reduced::new(self.marked.len(), on);
        self.stats.partials.clear(stream)?;
        self.targets.set(spans);
        for index in 0..self.buckets.len() {
            let start = Instant::now();
            let done = self.outbox.receive()?;
            self.log.add(index, Phase::Exposed, start, start.elapsed());
            let start = Instant::now();
            let exchanged = match self.gradients {
                Gradients::InPlace { .. } => self.take_bucket(stream, done, factor)?,
                _ => self.unpack_bucket(stream, done, factor)?,
            };
            self.log.add(index, Phase::Unpack, start, start.elapsed());
            let bytes = self.bucket_bytes(index);
            let bucket = &mut self.buckets[index];
            bucket.pending = self.plan.buckets()[index].params.len();
            reduced.add(&self.plan.buckets()[index], index, &exchanged.trailers);
            let ready = bucket.ready;
            reduced.times.push(BucketTimes { bytes, ready, ..BucketTimes::default() });
            reduced.events.extend(exchanged.log.events);
        }
        self.keep_feedback(stream, &reduced)?;
        reduced.close(std::mem::replace(&mut self.log, Log::new(Instant::now())));
        self.flight.keep(self.step, &reduced.events);
        self.marked.fill(false);
        self.next = 0;
        self.step += 1;
        self.started = None;
        Ok(reduced)
    }

    fn unpack_bucket(&mut self, stream: &Stream, done: Done, factor: f32) -> Result<Exchanged> {
        let Done { bucket: index, blocks, filled, outcome } = done;
        self.buckets[index].filled = filled;
        let exchanged = outcome?;
        let addresses: Vec<u64> = exchanged
            .shards
            .iter()
            .map(|shard| shard.buffer.address() + (shard.start) as u64)
            .collect();
        self.shard_table.write(stream, 0, &addresses)?;
        let factor = factor * exchanged.factor;
        let bucket = &self.plan.buckets()[index];
        // Nobody has a gradient for some: they stay as they are.
        let used = |at: usize| exchanged.trailers.iter().any(|trailer| trailer.used[at]);
        let used: Vec<bool> = (0..bucket.params.len()).map(used).collect();
        self.targets.upload(stream, bucket, &used)?;
        launch::unpack(
            stream,
            self.dtype,
            &self.shard_table,
            (&self.targets, index),
            &mut self.stats.partials,
            self.geometry[index],
            self.returned,
            factor,
        )?;
        stream.sync()?; // shards of other ranks are read no more
        self.buckets[index].blocks = Some(blocks);
        Ok(Exchanged { shards: Vec::new(), ..exchanged })
    }

    pub(super) fn fail(&mut self, error: Error) {
        if self.fault.is_none() {
            if !matches!(error, Error::Comm(_)) {
                self.outbox.abort(&error.to_string()); // other ranks do not know of it
            }
            self.fault = Some(error);
            self.dump();
        }
    }
}
