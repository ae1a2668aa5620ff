//! Events.

use super::Driver;
use super::capture::Tail;
use super::error::{Error, Result};
use super::lane::Mark;
use super::work::Work;

/// An event.
#[derive(Debug)]
pub struct Event {
    /// Its context.
    pub context: u64,
    /// Whether it remembers when it was reached.
    pub timed: bool,
    /// How often it was recorded.
    nth: u64,
    /// The stream that it was last recorded on.
    stream: Option<u64>,
    /// What its last recording stands for; nothing if it was never recorded.
    mark: Mark,
    /// When that was reached, in nanoseconds of the device.
    reached: Option<u64>,
    /// The operations of a capture that it stands for.
    captured: Option<Tail>,
}

impl Event {
    /// It was reached, if it was not recorded again since.
    pub(super) fn reach(&mut self, nth: u64, clock: u64) {
        if nth == self.nth {
            self.reached = Some(clock);
        }
    }
}

impl Driver {
    /// A new event of the current context.
    pub fn create_event(&mut self, timed: bool) -> Result<u64> {
        let context = self.here()?;
        Ok(self.events.add(Event {
            context,
            timed,
            nth: 0,
            stream: None,
            mark: Mark::default(),
            reached: None,
            captured: None,
        }))
    }

    /// Ends an event; what waits for it goes on to wait.
    pub fn destroy_event(&mut self, event: u64) -> Result {
        let context = self.events.get(event)?.context;
        self.sound(context)?;
        self.events.remove(event).map(|_| ())
    }

    /// The event stands for all that the stream has been given so far.
    pub fn record(&mut self, event: u64, stream: u64) -> Result {
        let nth = self.events.get(event)?.nth + 1;
        if self.events.get(event)?.context != self.streams.get(stream)?.context {
            return Err(Error::InvalidHandle);
        }
        self.events.get_mut(event)?.stream = Some(stream);
        if let Some(tail) = self.streams.get(stream)?.capture.clone() {
            self.valid_capture(tail.capture)?;
            let one = self.events.get_mut(event)?;
            (one.captured, one.nth) = (Some(tail), nth);
            return Ok(());
        }
        self.submit(stream, Work::Reach { event, nth })?;
        let lane = self.streams.get(stream)?.lane;
        let mark = self.lanes.mark(lane);
        let one = self.events.get_mut(event)?;
        (one.mark, one.nth, one.reached, one.captured) = (mark, nth, None, None);
        Ok(())
    }

    /// What the stream is given from now on waits for what the event stands for now.
    pub fn wait_event(&mut self, stream: u64, event: u64) -> Result {
        let (mark, captured) = {
            let one = self.events.get(event)?;
            (one.mark.clone(), one.captured.clone())
        };
        match (self.streams.get(stream)?.capture.is_some(), captured) {
            (_, Some(tail)) => self.join_capture(stream, tail),
            // An event that was never recorded is waited for by nobody.
            (true, None) if mark.points.is_empty() => Ok(()),
            (true, None) => {
                self.spoil(stream)?;
                Err(Error::CaptureIsolation)
            }
            (false, None) => {
                let lane = self.streams.get(stream)?.lane;
                self.lanes.wait(lane, &mark);
                Ok(())
            }
        }
    }

    /// What the event stands for, for the host to wait for.
    pub fn event_mark(&mut self, event: u64) -> Result<Mark> {
        let one = self.events.get(event)?;
        let (context, mark) = (one.context, one.mark.clone());
        if let Some(tail) = &one.captured {
            let capture = tail.capture;
            self.invalidate(capture);
            return Err(Error::CapturedEvent);
        }
        self.sound(context)?;
        Ok(mark)
    }

    /// What ROCm's runtime does before it looks at an event: it asks the stream that it was last recorded on, whose capture
    /// comes to nothing by it. One that is gone, it reads nevertheless.
    pub fn ask_stream_of(&mut self, event: u64) -> Result {
        let Some(stream) = self.living_stream_of(event)? else { return Ok(()) };
        if self.streams.get(stream)?.capture.is_some() {
            self.spoil(stream)?;
            return Err(Error::CapturedEvent);
        }
        Ok(())
    }

    /// The stream that the event was last recorded on, if it was, as ROCm's runtime looks it up.
    pub fn living_stream_of(&mut self, event: u64) -> Result<Option<u64>> {
        let stream = self.events.get(event)?.stream;
        if let Some(gone) = stream.filter(|stream| self.streams.get(*stream).is_err()) {
            let what = format!("event {event:#x} is used after its stream {gone:#x} was destroyed");
            self.journal.complain(what, None);
            return Err(Error::InvalidHandle);
        }
        Ok(stream)
    }

    /// Milliseconds of the device between two events.
    pub fn elapsed(&self, start: u64, end: u64) -> Result<f32> {
        let (start, end) = (self.events.get(start)?, self.events.get(end)?);
        self.sound(start.context)?;
        if !start.timed || !end.timed || start.nth == 0 || end.nth == 0 {
            return Err(Error::InvalidHandle);
        }
        match (start.reached, end.reached) {
            (Some(start), Some(end)) => Ok((end as f64 - start as f64) as f32 / 1e6),
            _ => Err(Error::NotReady),
        }
    }
}
