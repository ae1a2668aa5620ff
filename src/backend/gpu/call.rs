//! What each call has around it: the device still works and is this thread's, the state is locked, the stream can be
//! reached, and a failure is made an error.

use std::sync::{MutexGuard, PoisonError};

use super::{Driver, Failure, Gpu, Handle, State, StreamId};
use crate::{Error, Result};

impl Gpu {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change is made in one piece: what a panic leaves is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before every call: the device still works, and is this thread's.
    pub(super) fn enter(&self) -> Result<()> {
        if let Some(error) = self.broken.get() {
            return Err(error.clone());
        }
        self.context.enter().map_err(|failure| self.fail(&failure, &mut self.state()))
    }

    pub(super) fn fail(&self, failure: &Failure, state: &mut State) -> Error {
        let deferred = self.driver.vendor.sticky.contains(&failure.code);
        let recent = if deferred { state.recent.iter().copied().collect() } else { Vec::new() };
        let error = error(&self.driver, &self.info.to_string(), failure, deferred, recent);
        if deferred {
            return self.broken.get_or_init(|| error).clone();
        }
        error
    }

    /// Runs `work` on the locked state, with its failure made an error.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Failure>) -> Result<T> {
        self.enter()?;
        let mut state = self.state();
        work(&mut state).map_err(|failure| self.fail(&failure, &mut state))
    }

    /// The locked state, for `op` on a stream of which this thread can reach what its handle means.
    fn reach(&self, op: &'static str, stream: StreamId) -> Result<MutexGuard<'_, State>> {
        self.enter()?;
        let mut state = self.state();
        match state.order.is_here(stream) {
            true => Ok(state),
            false => Err(Error::state(op, "the thread whose default stream it is", "another")),
        }
    }

    /// `op` may not be part of a graph.
    pub(super) fn not_captured(&self, op: &'static str, stream: StreamId) -> Result<()> {
        let mut state = self.reach(op, stream)?;
        match state.order.capturing(stream).map_err(|failure| self.fail(&failure, &mut state))? {
            true => Err(Error::state(op, "a stream of which no graph is being made", "one")),
            false => Ok(()),
        }
    }

    /// Gives a stream one piece of work.
    pub(super) fn give(
        &self,
        op: &'static str,
        stream: StreamId,
        work: impl FnOnce(&mut State, Handle) -> Result<(), Failure>,
    ) -> Result<()> {
        let mut state = self.reach(op, stream)?;
        let handle = state.order.enqueue(stream);
        let given = work(&mut state, handle).and_then(|()| state.order.enqueued(stream));
        given.map_err(|failure| self.fail(&failure, &mut state))
    }

    /// Ends an event that was made for a clock.
    pub(super) fn forget(&self, event: Handle) {
        let _ = self.with(|_| {
            // SAFETY: an event of ours that nobody uses any more. A failure comes again with the next call.
            unsafe { self.driver.event_destroy(event) }
        });
    }

    pub(super) fn sync_event(&self, event: Handle) -> Result<()> {
        // SAFETY: a recorded event of ours; events are destroyed with the device only.
        unsafe { self.driver.event_sync(event) }
            .map_err(|failure| self.fail(&failure, &mut self.state()))
    }
}

pub(super) fn error(
    driver: &Driver,
    device: &str,
    failure: &Failure,
    deferred: bool,
    recent: Vec<&'static str>,
) -> Error {
    Error::Driver {
        call: failure.call,
        code: failure.code,
        text: driver.describe(failure.code),
        device: device.to_string(),
        deferred,
        recent,
    }
}
