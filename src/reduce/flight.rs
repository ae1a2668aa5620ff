//! What a rank did last, for when something goes wrong.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use super::core::Core;
use super::reducer::Reducer;
use super::report::Event;
use crate::{Error, Storage};

/// Events that are kept: some steps of a few dozen buckets.
const KEPT: usize = 1024;
/// Names of parameters that are printed for a bucket.
const NAMES: usize = 4;

/// What a reducer did last on its rank, and where each bucket of the step in progress is. Kept in memory
/// always; printed, or written to a file at the first fault ([`Config::flight_record`](super::Config::flight_record)),
/// it shows, beside those of the other ranks, who was where.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// # let plan = BucketPlan::ddp(&[Param::new("w", 4), Param::new("b", 2)], Dtype::F32, 1, 1)?;
/// # let comm = Box::new(local(1.try_into().unwrap()).remove(0));
/// # let device = Device::cpu();
/// # let mut reducer = Reducer::<f32>::new(&device, plan, comm, Config::default())?;
/// # let stream = device.stream()?;
/// reducer.ready(&stream, 1, &[1.0, 2.0])?;
/// let record = reducer.flight_record();
/// assert_eq!(record.buckets[0], BucketState::Sent);
/// assert_eq!(record.buckets[1], BucketState::Waiting(vec!["w".into()]));
/// println!("{record}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FlightRecord {
    /// This rank.
    pub rank: usize,
    /// How many ranks there are.
    pub ranks: usize,
    /// Steps that were finished.
    pub step: u64,
    /// What ended the reducer.
    pub fault: Option<Error>,
    /// Each bucket of the plan, in its order.
    pub buckets: Vec<BucketState>,
    /// The last events, the oldest first, each with the number of its step. Of the step in progress those
    /// of the thread that marks gradients.
    pub events: Vec<(u64, Event)>,
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketState {
    /// Parameters, by name, have not been marked ready.
    Waiting(Vec<String>),
    /// Complete, and behind an earlier one that is not.
    Complete,
    /// On its way: with the communication thread, or back and not unpacked.
    Sent,
    /// Unpacked.
    Done,
}

impl fmt::Display for BucketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(names) => {
                let more = names.len().saturating_sub(NAMES);
                write!(f, "waits for {}", names[..names.len() - more].join(", "))?;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::Complete => f.write_str("complete, behind an earlier one"),
            Self::Sent => f.write_str("sent, not back"),
            Self::Done => f.write_str("unpacked"),
        }
    }
}

impl fmt::Display for FlightRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "halfstep: rank {} of {}, step {}", self.rank, self.ranks, self.step)?;
        match &self.fault {
            Some(fault) => writeln!(f, "fault: {fault}")?,
            None => writeln!(f, "no fault")?,
        }
        for (index, bucket) in self.buckets.iter().enumerate() {
            writeln!(f, "bucket {index}: {bucket}")?;
        }
        for (step, Event { bucket, phase, start, time }) in &self.events {
            let (start, time) = (1e3 * start.as_secs_f64(), 1e3 * time.as_secs_f64());
            let name = phase.name();
            writeln!(f, "step {step} bucket {bucket} {name} at {start:.3} ms for {time:.3} ms")?;
        }
        Ok(())
    }
}

/// What is kept for it.
#[derive(Debug)]
pub(super) struct Flight {
    pub rank: usize,
    pub ranks: usize,
    events: VecDeque<(u64, Event)>,
}

impl Flight {
    pub fn new(rank: usize, ranks: usize) -> Self {
        Self { rank, ranks, events: VecDeque::with_capacity(KEPT) }
    }

    /// Keeps the events of a finished step.
    pub fn keep(&mut self, step: u64, events: &[Event]) {
        let last = &events[events.len().saturating_sub(KEPT)..];
        let over = (self.events.len() + last.len()).saturating_sub(KEPT);
        self.events.drain(..over);
        self.events.extend(last.iter().map(|event| (step, *event)));
    }
}

impl<G: Storage> Reducer<G> {
    /// What this rank did last.
    pub fn flight_record(&self) -> FlightRecord {
        self.core.flight_record()
    }
}

impl Core {
    pub(super) fn flight_record(&self) -> FlightRecord {
        let now = self.log.events.iter().map(|event| (self.step, *event));
        FlightRecord {
            rank: self.flight.rank,
            ranks: self.flight.ranks,
            step: self.step,
            fault: self.fault.clone(),
            buckets: (0..self.buckets.len()).map(|index| self.state(index)).collect(),
            events: self.flight.events.iter().copied().chain(now).collect(),
        }
    }

    fn state(&self, index: usize) -> BucketState {
        let bucket = &self.buckets[index];
        match &bucket.blocks {
            None => BucketState::Sent,
            Some(_) if index < self.next => BucketState::Done,
            Some(_) if bucket.pending == 0 => BucketState::Complete,
            Some(_) => {
                let params = self.plan.buckets()[index].params.iter();
                let left = params.filter(|&&param| !self.marked[param]);
                let name = |&param: &usize| self.plan.params()[param].name.clone();
                BucketState::Waiting(left.map(name).collect())
            }
        }
    }

    /// Writes the record to the folder that was asked for. What fails here has a graver cause, which is
    /// reported.
    pub(super) fn dump(&self) {
        let Some(folder) = &self.config.flight_record else { return };
        let path = Path::new(folder).join(format!("halfstep-rank-{}.txt", self.flight.rank));
        let _ = std::fs::write(path, self.flight_record().to_string());
    }
}
