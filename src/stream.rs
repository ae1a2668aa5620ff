//! Streams: work enqueued on one stream runs in the order of the calls.

use crate::backend::{StreamId, Ticket};
use crate::kernel::Launch;
use crate::{Device, Result};

/// A queue of work on one device.
///
/// Every operation takes the stream it is enqueued on. On the CPU a stream runs each piece of work
/// before the call returns; code that is right on a GPU's stream is right here too.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// let stream = halfstep::Device::cpu().stream()?;
/// stream.sync()?; // everything enqueued so far has run
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stream {
    device: Device,
    id: StreamId,
}

/// A point in a stream's order, for other streams or the host to wait for.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    ticket: Ticket,
}

impl Stream {
    pub(crate) fn new(device: &Device) -> Result<Self> {
        let id = device.backend.stream()?;
        Ok(Self { device: device.clone(), id })
    }

    /// The stream's device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Marks the point after all work enqueued so far.
    pub fn record(&self) -> Result<Event> {
        Ok(Event { ticket: self.device.backend.record(self.id)? })
    }

    /// Makes work enqueued from now on wait for `event`, a point of any stream of this device.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.device.backend.wait(self.id, event.ticket)
    }

    /// Blocks the host until everything enqueued so far has run.
    pub fn sync(&self) -> Result<()> {
        self.device.backend.sync(self.device.backend.record(self.id)?)
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// Enqueues one kernel.
    ///
    /// # Safety
    /// Every address in the launch's parameter block must be valid, for the lengths the block
    /// gives, until the kernel has run; outputs must not be touched by anything else meanwhile.
    pub(crate) unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        // SAFETY: the caller's promise, passed on unchanged.
        unsafe { self.device.backend.launch(self.id, launch) }
    }
}
