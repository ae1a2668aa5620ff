//! The two ways for a filled bucket: to the communication thread and back, or straight back.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::comm::{Abort, Part};
use super::exchange::{Done, Exchange, Exchanged, Gather, Geometry, Job, Task};
use super::report::Log;
use super::trailer::Trailer;
use crate::{Buffer, Error, Event, Result};

/// Where filled buckets go.
pub(super) enum Outbox {
    /// One rank: straight back. Its average is what it is, whatever that weighs; its sum is weighted.
    Alone { average: bool, done: Vec<Done> },
    Thread {
        jobs: Option<Sender<Task>>,
        done: Receiver<Done>,
        thread: Option<JoinHandle<()>>,
        abort: Arc<dyn Abort>,
    },
}

impl Outbox {
    pub fn start(exchange: Exchange) -> Result<Self> {
        let abort = exchange.comm.aborter();
        let (jobs, inbox) = channel();
        let (outbox, done) = channel();
        let thread = Builder::new().spawn(move || exchange.run(&inbox, &outbox));
        let thread = thread.map_err(|error| {
            let found = format!("that the system gives none: {error}");
            Error::state("Reducer::new", "a thread that exchanges buckets", found)
        })?;
        Ok(Self::Thread { jobs: Some(jobs), done, thread: Some(thread), abort })
    }

    pub fn send(&mut self, job: Job, trailer: Trailer, geometry: Geometry) -> Result<()> {
        match self {
            Self::Alone { average, done } => {
                let Job { bucket, started, blocks, filled, .. } = job;
                let shards =
                    vec![Part { buffer: blocks.send.clone(), start: 0, len: geometry.shard_bytes }];
                let log = Log::new(started);
                let factor = if *average { 1.0 } else { trailer.weight as f32 };
                let outcome = Ok(Exchanged { shards, trailers: vec![trailer], factor, log });
                done.push(Done { bucket, blocks, filled, outcome });
                Ok(())
            }
            Self::Thread { jobs, .. } => {
                let sent = jobs.as_ref().is_some_and(|jobs| jobs.send(Task::Bucket(job)).is_ok());
                if sent { Ok(()) } else { Err(thread_ended()) }
            }
        }
    }

    /// Asks for every rank's `send`, which the work before `filled` makes; all ranks ask in the same
    /// order. What is returned gives them, in rank order, when they are there.
    pub fn gather(
        &mut self,
        send: &Arc<Buffer<u8>>,
        filled: Event,
    ) -> Result<Receiver<Result<Vec<Part>>>> {
        let (to, parts) = channel();
        let sent = match self {
            Self::Alone { .. } => {
                let own = Part { buffer: send.clone(), start: 0, len: send.len() };
                to.send(Ok(vec![own])).is_ok()
            }
            Self::Thread { jobs, .. } => {
                let gather = Task::Gather(Gather { send: send.clone(), filled, to });
                jobs.as_ref().is_some_and(|jobs| jobs.send(gather).is_ok())
            }
        };
        if sent { Ok(parts) } else { Err(thread_ended()) }
    }

    /// The next bucket, in plan order.
    pub fn receive(&mut self) -> Result<Done> {
        match self {
            Self::Alone { done, .. } if done.is_empty() => Err(thread_ended()),
            Self::Alone { done, .. } => Ok(done.remove(0)),
            Self::Thread { done, .. } => done.recv().map_err(|_| thread_ended()),
        }
    }

    pub fn abort(&self, reason: &str) {
        if let Self::Thread { abort, .. } = self {
            abort.abort(reason);
        }
    }

    pub fn close(&mut self) {
        if let Self::Thread { jobs, thread, .. } = self {
            drop(jobs.take());
            if let Some(thread) = thread.take() {
                // A panic there has been reported as a lost peer; nothing is left to say.
                let _ = thread.join();
            }
        }
    }
}

/// What a gather brings. Waits for it.
pub(super) fn receive(coming: &Receiver<Result<Vec<Part>>>) -> Result<Vec<Part>> {
    coming.recv().map_err(|_| thread_ended())?
}

fn thread_ended() -> Error {
    Error::state("Reducer", "a running communication thread", "that it has ended")
}
