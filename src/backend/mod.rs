//! The waist. A backend knows memory, order and launching; it knows no operation. Everything
//! above it has been checked by a plan, so a backend reports only what nobody could foresee:
//! memory that cannot be had, a driver that fails.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(any(feature = "cuda", feature = "hip"))]
mod gpu;
#[cfg(feature = "hip")]
pub(crate) mod hip;

use std::time::Duration;

use crate::kernel::Launch;
use crate::{DeviceInfo, Result};

/// A device address in bytes; 0 is no memory. On the CPU it is a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address(pub u64);

impl Address {
    /// No memory: an operand that is not there.
    pub const NULL: Self = Self(0);

    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// A stream of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId(pub u64);

/// Recorded work, ready to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphId(pub u64);

/// A clock that was started on a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Clock(pub u64);

/// A point in a stream's order: everything enqueued before it has a smaller number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The stream.
    pub stream: StreamId,
    /// How many pieces of work it had been given.
    pub sequence: u64,
}

/// Memory, order and launching on one device. Object-safe; public types are not generic over it.
pub(crate) trait Backend: Send + Sync + std::fmt::Debug {
    /// What is known of the device.
    fn info(&self) -> &DeviceInfo;

    /// `bytes` zeroed bytes aligned to 256; [`Address::NULL`] for none.
    fn alloc(&self, bytes: usize) -> Result<Address>;

    /// Releases an allocation once all work enqueued so far has run.
    ///
    /// # Safety
    /// `address` came from `alloc(bytes)` of this backend and is released once.
    unsafe fn free(&self, address: Address, bytes: usize);

    /// `bytes` zeroed bytes of the host's memory that kernels can write and the host can read at any
    /// time.
    fn alloc_host(&self, bytes: usize) -> Result<Address>;

    /// Releases it; waits until no kernel can write it any more.
    ///
    /// # Safety
    /// `address` came from `alloc_host(bytes)` of this backend and is released once.
    unsafe fn free_host(&self, address: Address, bytes: usize);

    /// Copies host bytes to the device; the source may be reused when the call returns.
    ///
    /// # Safety
    /// `to` is valid for writes of `from.len()` bytes until the copy has run.
    unsafe fn upload(&self, stream: StreamId, to: Address, from: &[u8]) -> Result<()>;

    /// Copies device bytes to the host and waits for them.
    ///
    /// # Safety
    /// `from` is valid and initialised for reads of `to.len()` bytes.
    unsafe fn download(&self, stream: StreamId, from: Address, to: &mut [u8]) -> Result<()>;

    /// Sets `bytes` bytes.
    ///
    /// # Safety
    /// `to` is valid for writes of `bytes` bytes until the work has run.
    unsafe fn fill(&self, stream: StreamId, to: Address, value: u8, bytes: usize) -> Result<()>;

    /// Copies device bytes to other bytes of the device.
    ///
    /// # Safety
    /// `from` is valid and initialised for reads of `bytes` bytes, and `to` for writes, until the work has run; they do not
    /// overlap.
    unsafe fn copy(&self, stream: StreamId, to: Address, from: Address, bytes: usize)
    -> Result<()>;

    /// A new stream.
    fn stream(&self) -> Result<StreamId>;

    /// A stream of somebody else's, by its handle.
    fn adopt(&self, handle: u64) -> Result<StreamId>;

    /// No more work will be enqueued on the stream; what was enqueued keeps its order.
    fn close(&self, stream: StreamId);

    /// The point after everything enqueued on the stream so far.
    fn record(&self, stream: StreamId) -> Result<Ticket>;

    /// Work enqueued on `stream` from now on runs after `ticket`.
    fn wait(&self, stream: StreamId, ticket: Ticket) -> Result<()>;

    /// Blocks the host until `ticket` has been reached.
    fn sync(&self, ticket: Ticket) -> Result<()>;

    /// Whether `ticket` has been reached; waits for nothing.
    #[cfg(any(feature = "nccl", feature = "rccl"))]
    fn reached(&self, ticket: Ticket) -> Result<bool>;

    /// The driver's handle of a stream, for a library that enqueues a piece of work itself, on this
    /// thread, of which the device is current from now on.
    #[cfg(any(feature = "nccl", feature = "rccl"))]
    fn lend(&self, stream: StreamId) -> Result<u64>;

    /// Blocks the host until everything enqueued so far has been run.
    fn sync_all(&self) -> Result<()>;

    /// Gives memory that was freed, and is kept to be used again, back to the driver; waits for the work that may touch it.
    fn trim(&self) -> Result<()>;

    /// Starts a clock when the stream reaches this point.
    fn start_clock(&self, stream: StreamId) -> Result<Clock>;

    /// Stops it when the stream reaches this point, waits until then, and reads it. In any case the clock is gone.
    fn stop_clock(&self, stream: StreamId, clock: Clock) -> Result<Duration>;

    /// Enqueues one kernel.
    ///
    /// # Safety
    /// The addresses in the parameter block are valid for what the kernel does with them until it
    /// has run.
    unsafe fn launch(&self, stream: StreamId, launch: &Launch) -> Result<()>;

    /// From now on work enqueued on the stream is recorded instead of run.
    fn begin_capture(&self, stream: StreamId) -> Result<()>;

    /// Ends the recording.
    fn end_capture(&self, stream: StreamId) -> Result<GraphId>;

    /// Enqueues recorded work.
    ///
    /// # Safety
    /// What was promised when it was recorded still holds, until it has run.
    unsafe fn replay(&self, graph: GraphId, stream: StreamId) -> Result<()>;

    /// Forgets recorded work.
    fn drop_graph(&self, graph: GraphId);
}
