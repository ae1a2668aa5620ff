//! Streams, and giving them work.

use super::Driver;
use super::capture::Tail;
use super::context::{current, thread};
use super::error::{Error, Result};
use super::lane::Mark;
use super::work::Work;

/// The default stream by its short name, one that all agree on.
pub const LEGACY: u64 = 1;
/// The calling thread's default stream.
pub const PER_THREAD: u64 = 2;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Its context.
    pub context: u64,
    /// Its queue.
    pub lane: usize,
    /// Whether the default stream waits for it and it for that one.
    pub blocking: bool,
    /// Its priority; lower is sooner.
    pub priority: i32,
    /// Whether nobody made it.
    pub default: bool,
    /// The capture that it is part of, and what comes before its next operation there.
    pub capture: Option<Tail>,
}

impl Driver {
    pub(super) fn add_stream(
        &mut self,
        context: u64,
        blocking: bool,
        priority: i32,
        default: bool,
    ) -> u64 {
        let lane = self.lanes.open(context);
        self.streams.add(Stream { context, lane, blocking, priority, default, capture: None })
    }

    /// A new stream of the current context.
    pub fn create_stream(&mut self, blocking: bool, priority: i32) -> Result<u64> {
        let here = self.here()?;
        Ok(self.add_stream(here, blocking, priority, false))
    }

    /// Ends a stream. Its work is done nevertheless.
    pub fn destroy_stream(&mut self, handle: u64) -> Result {
        let stream = self.streams.get(handle)?;
        if stream.default {
            return Err(Error::InvalidHandle);
        }
        self.sound(stream.context)?;
        if let Some(tail) = self.streams.get(handle)?.capture.clone() {
            self.invalidate(tail.capture);
        }
        let stream = self.streams.remove(handle)?;
        self.lanes.close(stream.lane);
        Ok(())
    }

    /// What a caller means by a stream's handle.
    pub fn stream(&mut self, handle: u64) -> Result<u64> {
        match handle {
            0 | LEGACY => {
                let here = self.here()?;
                Ok(self.contexts.get(here)?.default_stream)
            }
            PER_THREAD => {
                let (here, thread) = (self.here()?, thread());
                if let Some(stream) = self.contexts.get(here)?.thread_streams.get(&thread) {
                    return Ok(*stream);
                }
                let stream = self.add_stream(here, true, 0, true);
                self.contexts.get_mut(here)?.thread_streams.insert(thread, stream);
                Ok(stream)
            }
            _ => {
                let context = self.streams.get(handle)?.context;
                self.sound(context)?;
                if current().is_none() {
                    return Err(Error::InvalidContext);
                }
                Ok(handle)
            }
        }
    }

    /// Whether it is its context's default stream.
    pub(super) fn is_legacy(&self, stream: u64) -> Result<bool> {
        let context = self.streams.get(stream)?.context;
        Ok(self.contexts.get(context)?.default_stream == stream)
    }

    /// Gives a stream work: to do later, or to remember if it captures.
    pub fn submit(&mut self, stream: u64, work: Work) -> Result {
        if self.streams.get(stream)?.capture.is_some() {
            return self.capture(stream, work);
        }
        self.order_default(stream)?;
        let lane = self.streams.get(stream)?.lane;
        self.lanes.push(lane, work, stream, thread());
        Ok(())
    }

    /// The default stream and the blocking ones wait for each other.
    pub(super) fn order_default(&mut self, stream: u64) -> Result {
        let Stream { context, lane, blocking, .. } = *self.streams.get(stream)?;
        if self.is_legacy(stream)? {
            self.forbid_implicit(context)?;
            let others = self.streams.iter().filter(|(handle, other)| {
                *handle != stream && other.context == context && other.blocking
            });
            let lanes: Vec<usize> = others.map(|(_, other)| other.lane).collect();
            for other in lanes {
                let mark = self.lanes.mark(other);
                self.lanes.wait(lane, &mark);
            }
        } else if blocking {
            let default = self.contexts.get(context)?.default_stream;
            let mark = self.lanes.mark(self.streams.get(default)?.lane);
            self.lanes.wait(lane, &mark);
        }
        Ok(())
    }

    /// All that a stream has been given so far, with what it would wait for.
    pub(super) fn stream_mark(&mut self, stream: u64) -> Result<Mark> {
        self.order_default(stream)?;
        let lane = self.streams.get(stream)?.lane;
        Ok(self.lanes.mark(lane))
    }

    /// All that a context has been given so far.
    pub fn context_mark(&mut self, context: u64) -> Mark {
        let mut all = Mark::default();
        for lane in self.lanes.of(context) {
            let mark = self.lanes.mark(lane);
            all.points.extend(mark.points);
            all.clock.join(&mark.clock);
        }
        all
    }
}
