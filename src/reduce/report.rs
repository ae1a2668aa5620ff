//! What a finished step says: which parameters have a gradient, where a NaN came from, and where
//! the time went.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use super::plan::Bucket;
use super::trailer::Trailer;

/// The result of one [`Reducer::finish`](super::Reducer::finish). Prints as a table of its times: see
/// [`Attribution`](super::Attribution), which sums up those of many steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// For each parameter, whether any rank had a gradient for it. An optimizer leaves the others
    /// alone.
    pub used: Vec<bool>,
    /// Where non-finite gradients came from, before the sum spread them to every rank.
    pub non_finite: Vec<NonFinite>,
    /// Σ weights over the ranks.
    pub weight: f64,
    /// Where the time went, for each bucket in plan order.
    pub times: Vec<BucketTimes>,
    /// The same, piece by piece: see [`Trace`](super::Trace).
    pub events: Vec<Event>,
    /// When the step began: its first mark.
    pub started: SystemTime,
}

/// A rank that packed NaN or ±Inf into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonFinite {
    /// The rank.
    pub rank: usize,
    /// The bucket.
    pub bucket: usize,
    /// How many elements.
    pub elements: u64,
}

/// What a bucket's time is spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Packing a gradient, on the thread that marks it.
    Pack,
    /// Waiting for slower ranks, on the communication thread: their lateness, not the wire's
    /// slowness.
    Skew,
    /// Moving bytes, on the communication thread.
    Wire,
    /// Summing this rank's part, on the communication thread.
    Sum,
    /// Standing in `finish` until the bucket has come: what the backward pass did not hide.
    Exposed,
    /// Unpacking, in `finish`.
    Unpack,
}

impl Phase {
    /// Every phase, in the order in which a bucket goes through them.
    pub const ALL: [Self; 6] =
        [Self::Pack, Self::Skew, Self::Wire, Self::Sum, Self::Exposed, Self::Unpack];

    /// `pack`, `skew`, `wire`, `sum`, `exposed`, `unpack`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Skew => "skew",
            Self::Wire => "wire",
            Self::Sum => "sum",
            Self::Exposed => "exposed",
            Self::Unpack => "unpack",
        }
    }

    /// Whether it is the communication thread's, beside the backward pass.
    pub const fn beside(self) -> bool {
        matches!(self, Self::Skew | Self::Wire | Self::Sum)
    }
}

/// A stretch of a step that was spent on one thing, on this rank's host clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The bucket.
    pub bucket: usize,
    /// On what.
    pub phase: Phase,
    /// Since the step began.
    pub start: Duration,
    /// How long.
    pub time: Duration,
}

/// Where the time of one bucket went, on this rank's host clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BucketTimes {
    /// Bytes of the bucket, trailers and padding included.
    pub bytes: usize,
    /// From the step's first mark until the bucket was complete.
    pub ready: Duration,
    /// Packing.
    pub pack: Duration,
    /// Waiting for slower ranks: their lateness, not the wire's slowness.
    pub skew: Duration,
    /// Moving bytes.
    pub wire: Duration,
    /// Summing this rank's shard.
    pub sum: Duration,
    /// Unpacking.
    pub unpack: Duration,
    /// How long `finish` stood waiting for the bucket: what the backward pass did not hide.
    pub exposed: Duration,
}

impl BucketTimes {
    /// The time of one phase.
    pub fn phase(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Pack => self.pack,
            Phase::Skew => self.skew,
            Phase::Wire => self.wire,
            Phase::Sum => self.sum,
            Phase::Exposed => self.exposed,
            Phase::Unpack => self.unpack,
        }
    }

    /// Adds the times, and the bytes, of another.
    pub(super) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.ready += other.ready;
        for phase in Phase::ALL {
            *self.phase_mut(phase) += other.phase(phase);
        }
    }

    fn phase_mut(&mut self, phase: Phase) -> &mut Duration {
        match phase {
            Phase::Pack => &mut self.pack,
            Phase::Skew => &mut self.skew,
            Phase::Wire => &mut self.wire,
            Phase::Sum => &mut self.sum,
            Phase::Exposed => &mut self.exposed,
            Phase::Unpack => &mut self.unpack,
        }
    }
}

/// Events of one step as they happen, on one thread.
#[derive(Debug, Clone)]
pub(super) struct Log {
    started: Instant,
    pub events: Vec<Event>,
}

impl Log {
    pub fn new(started: Instant) -> Self {
        Self { started, events: Vec::new() }
    }

    /// `time` was spent, from `start` on.
    pub fn add(&mut self, bucket: usize, phase: Phase, start: Instant, time: Duration) {
        let start = start.saturating_duration_since(self.started);
        self.events.push(Event { bucket, phase, start, time });
    }

    /// A rank waited for `skew` in a call that began at `start`, which counts as time on the wire already.
    pub fn skew(&mut self, bucket: usize, start: Instant, skew: Duration) {
        self.add(bucket, Phase::Skew, start, skew);
        let start = start.saturating_duration_since(self.started);
        let wire = |event: &&mut Event| event.phase == Phase::Wire && event.start >= start;
        if let Some(event) = self.events.iter_mut().find(wire) {
            event.start += skew;
            event.time = event.time.saturating_sub(skew);
        }
    }

    /// A call of a communicator that began at `start` and has returned: it waited, then moved bytes.
    pub fn add_exchange(&mut self, bucket: usize, start: Instant, skew: Duration) {
        let whole = start.elapsed();
        self.add(bucket, Phase::Skew, start, skew);
        self.add(bucket, Phase::Wire, start + skew, whole.saturating_sub(skew));
    }
}

impl Reduced {
    pub(super) fn new(params: usize, started: SystemTime) -> Self {
        Self {
            used: vec![false; params],
            non_finite: Vec::new(),
            weight: 0.0,
            times: Vec::new(),
            events: Vec::new(),
            started,
        }
    }

    pub(super) fn add(&mut self, bucket: &Bucket, index: usize, trailers: &[Trailer]) {
        self.weight = trailers.iter().map(|t| t.weight).sum();
        for (rank, trailer) in trailers.iter().enumerate() {
            for (&param, &used) in bucket.params.iter().zip(&trailer.used) {
                self.used[param] |= used;
            }
            if trailer.non_finite > 0 {
                let elements = trailer.non_finite;
                self.non_finite.push(NonFinite { rank, bucket: index, elements });
            }
        }
    }

    /// All events are there: sums them up.
    pub(super) fn close(&mut self, log: Log) {
        self.events.extend(log.events);
        self.events.sort_by_key(|event| event.start);
        for event in &self.events {
            *self.times[event.bucket].phase_mut(event.phase) += event.time;
        }
    }

    /// How long `finish` stood waiting, over all buckets.
    pub fn exposed(&self) -> Duration {
        self.times.iter().map(|t| t.exposed).sum()
    }
}
