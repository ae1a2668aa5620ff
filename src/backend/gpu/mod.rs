//! What the two GPU backends have in common, which is nearly everything: the drivers have the same
//! functions under other names. `cuda/` and `hip/` say what differs.
//!
//! Order is ours ([`order`]): every stream's work is counted, freed memory outlives its last use
//! ([`pool`]), and an error that earlier work left behind is reported as such, never blamed on the
//! call that met it.

mod call;
mod driver;
mod image;
mod order;
mod pool;

pub(crate) use driver::{Driver, Failure, Handle, Vendor};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use call::error;
use image::{Kernels, Unloadable};
use order::Order;
use pool::{Pool, Staging};

use super::{Address, Backend, Clock, GraphId, StreamId, Ticket};
use crate::kernel::Launch;
use crate::{DeviceInfo, Error, Result};

/// How a vendor makes a device the calling thread's.
pub(crate) trait Context: Send + Sync + std::fmt::Debug {
    /// Makes it current.
    fn enter(&self) -> Result<(), Failure>;
    /// Gives it back, once.
    fn release(&self);
}

/// Launches that an error report names.
const RECENT: usize = 4;
/// Our captures allow other calls meanwhile: we know which of ours do not touch the stream.
const RELAXED: u32 = 2;

/// A device of either vendor.
pub(crate) struct Gpu {
    info: DeviceInfo,
    driver: Arc<Driver>,
    context: Box<dyn Context>,
    kernels: Kernels,
    /// Where fresh memory is zeroed.
    setup: StreamId,
    state: Mutex<State>,
    /// Held by who uploads, and before `state`, which is let go while room is waited for.
    staging: Mutex<Staging>,
    /// The first error that the device cannot recover from: every later call gives it again.
    broken: OnceLock<Error>,
}

struct State {
    order: Order,
    pool: Pool,
    /// Pinned memory that could not be given back when it was time; the device's end tries again.
    unfreed: Vec<Address>,
    /// The last launches, for errors that come later.
    recent: VecDeque<&'static str>,
}

// SAFETY: handles of modules and functions, which the driver allows on any thread.
unsafe impl Send for Gpu {}
// SAFETY: as above; what changes is behind the lock.
unsafe impl Sync for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.info)
    }
}

impl Gpu {
    /// A device whose context is current: loads its kernels.
    pub(crate) fn new(
        driver: Arc<Driver>,
        context: Box<dyn Context>,
        info: DeviceInfo,
    ) -> Result<Self> {
        let no_device = |reason: String| Error::NoDevice {
            backend: driver.vendor.name,
            index: info.index,
            reason,
        };
        let loaded = Kernels::load(&driver, &info.arch).and_then(|mut kernels| {
            let mut order = Order::new(driver.clone());
            match order.open() {
                Ok(setup) => Ok((kernels, order, setup)),
                Err(failure) => {
                    kernels.unload(&driver);
                    Err(failure.into())
                }
            }
        });
        match loaded {
            Ok((kernels, order, setup)) => {
                let pool = Pool::new(driver.clone());
                let staging = Mutex::new(Staging::new(driver.clone()));
                let (unfreed, recent) = (Vec::new(), VecDeque::new());
                let state = State { order, pool, unfreed, recent };
                Ok(Self {
                    info,
                    driver,
                    context,
                    kernels,
                    setup,
                    state: Mutex::new(state),
                    staging,
                    broken: OnceLock::new(),
                })
            }
            Err(unloadable) => {
                context.release();
                Err(match unloadable {
                    Unloadable::NoImage(reason) | Unloadable::Damaged(reason) => no_device(reason),
                    Unloadable::Driver(failure) => {
                        error(&driver, &info.to_string(), &failure, false, Vec::new())
                    }
                })
            }
        }
    }
}

impl Backend for Gpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<Address> {
        if bytes == 0 {
            return Ok(Address::NULL);
        }
        let found = self.with(|state| state.pool.take(bytes, &mut state.order))?;
        let out_of_memory = || Error::OutOfMemory { bytes, device: self.info.to_string() };
        let address = Address(found.ok_or_else(out_of_memory)?);
        let zeroed = || {
            // SAFETY: just allocated, nobody else has it.
            unsafe { self.fill(self.setup, address, 0, bytes) }?;
            self.sync(self.record(self.setup)?)
        };
        if let Err(error) = zeroed() {
            // SAFETY: allocated above, given to nobody.
            unsafe { self.free(address, bytes) };
            return Err(error);
        }
        Ok(address)
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        if address != Address::NULL {
            let State { order, pool, .. } = &mut *self.state();
            pool.put(address.0, bytes, order);
        }
    }

    fn alloc_host(&self, bytes: usize) -> Result<Address> {
        let mut pointer: Handle = std::ptr::null_mut();
        self.with(|_| {
            // SAFETY: one pointer is written.
            unsafe { self.driver.host_alloc(&mut pointer, bytes, 0) }
        })?;
        // SAFETY: just allocated, that many bytes.
        unsafe { std::ptr::write_bytes(pointer.cast::<u8>(), 0, bytes) };
        Ok(Address(pointer as u64))
    }

    unsafe fn free_host(&self, address: Address, _: usize) {
        // Pinned memory is mapped into the device: it goes only when no kernel can write it. A
        // device that is lost writes nothing.
        let freed = self.with(|state| {
            state.order.drain()?;
            // SAFETY: the caller's promise: from `alloc_host`, freed once.
            unsafe { self.driver.host_free(address.0 as Handle) }
        });
        if freed.is_err() {
            self.state().unfreed.push(address);
        }
    }

    unsafe fn upload(&self, stream: StreamId, to: Address, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        self.not_captured("upload", stream)?;
        for piece in Staging::pieces(from.len()) {
            // Until the piece is noted, its place is nobody else's.
            let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
            let (at, waits) = self.with(|_| staging.room(piece.len()))?;
            waits.into_iter().try_for_each(|ticket| self.sync(ticket))?;
            self.with(|state| {
                let source = staging.fill(at, &from[piece.clone()]);
                let handle = state.order.enqueue(stream);
                let to = to.offset(piece.start).0;
                // SAFETY: the caller's promise for `to`; the source is pinned memory of ours, which
                // is used again only after the ticket noted below.
                unsafe { self.driver.upload(to, source.cast(), piece.len(), handle) }?;
                let ticket = state.order.record(stream)?;
                staging.note(at, piece.len(), ticket);
                Ok(())
            })?;
        }
        Ok(())
    }

    unsafe fn download(&self, stream: StreamId, from: Address, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        self.not_captured("download", stream)?;
        let mut handle = std::ptr::null_mut();
        self.give("download", stream, |_, theirs| {
            handle = theirs;
            // SAFETY: the caller's promise; the host waits below before `to` is used.
            unsafe { self.driver.download(to.as_mut_ptr().cast(), from.0, to.len(), handle) }
        })?;
        // SAFETY: a living stream.
        unsafe { self.driver.stream_sync(handle) }
            .map_err(|failure| self.fail(&failure, &mut self.state()))
    }

    unsafe fn fill(&self, stream: StreamId, to: Address, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.give("fill", stream, |_, handle| {
            // SAFETY: the caller's promise.
            unsafe { self.driver.fill(to.0, value, bytes, handle) }
        })
    }

    unsafe fn copy(
        &self,
        stream: StreamId,
        to: Address,
        from: Address,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.give("copy", stream, |_, handle| {
            // SAFETY: the caller's promise.
            unsafe { self.driver.copy(to.0, from.0, bytes, handle) }
        })
    }

    fn stream(&self) -> Result<StreamId> {
        self.with(|state| state.order.open())
    }

    fn adopt(&self, handle: u64) -> Result<StreamId> {
        self.with(|state| Ok(state.order.adopt(handle as Handle)))
    }

    fn close(&self, stream: StreamId) {
        // Nobody is left to tell: an error here comes again with the next call.
        let _ = self.with(|state| state.order.close(stream));
    }

    fn record(&self, stream: StreamId) -> Result<Ticket> {
        self.not_captured("record", stream)?;
        self.with(|state| state.order.record(stream))
    }

    fn wait(&self, stream: StreamId, ticket: Ticket) -> Result<()> {
        self.not_captured("wait", stream)?;
        self.with(|state| state.order.wait(stream, ticket))
    }

    fn sync(&self, ticket: Ticket) -> Result<()> {
        let Some(event) = self.with(|state| Ok(state.order.await_event(ticket)))? else {
            return Ok(());
        };
        let waited = self.sync_event(event);
        waited.and(self.with(|state| state.order.awaited(ticket, event)))
    }

    #[cfg(any(feature = "nccl", feature = "rccl"))]
    fn reached(&self, ticket: Ticket) -> Result<bool> {
        self.with(|state| state.order.reached(ticket))
    }

    #[cfg(any(feature = "nccl", feature = "rccl"))]
    fn lend(&self, stream: StreamId) -> Result<u64> {
        self.not_captured("lend", stream)?;
        self.with(|state| Ok(state.order.enqueue(stream) as u64))
    }

    fn start_clock(&self, stream: StreamId) -> Result<Clock> {
        self.not_captured("time", stream)?;
        let start = self.with(|state| state.order.mark_time(stream))?;
        Ok(Clock(start as u64))
    }

    fn stop_clock(&self, stream: StreamId, clock: Clock) -> Result<Duration> {
        let start = clock.0 as Handle;
        let taken = || {
            let end = self.with(|state| state.order.mark_time(stream))?;
            let mut milliseconds = 0.0f32;
            let read = self.sync_event(end).and_then(|()| {
                self.with(|_| {
                    // SAFETY: two recorded events of ours, both reached; one float is written.
                    unsafe { self.driver.event_elapsed(&mut milliseconds, start, end) }
                })
            });
            self.forget(end);
            read.map(|()| Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) * 1e-3))
        };
        let taken = taken();
        self.forget(start);
        taken
    }

    fn sync_all(&self) -> Result<()> {
        self.with(|state| state.order.drain())
    }

    fn trim(&self) -> Result<()> {
        if self.with(|state| state.order.captures())? {
            return Err(Error::state("trim", "no stream of which a graph is being made", "one"));
        }
        self.with(|state| {
            state.order.drain()?;
            state.pool.trim(&mut state.order)
        })
    }

    unsafe fn launch(&self, stream: StreamId, launch: &Launch) -> Result<()> {
        let entry = launch.entry();
        let Some(function) = self.kernels.get(entry.symbol) else {
            let reason = format!("{} has no device code yet", entry.symbol);
            return Err(Error::unsupported("launch", reason));
        };
        let most = self.info.units as u64 * u64::from(function.blocks_per_unit);
        let blocks = launch.blocks().min(most) as u32;
        if blocks == 0 {
            return Ok(());
        }
        let mut params = [launch.bytes().as_ptr().cast_mut().cast()];
        self.give("launch", stream, |state, handle| {
            if state.recent.len() == RECENT {
                state.recent.pop_front();
            }
            state.recent.push_back(entry.symbol);
            // SAFETY: the table gives the block's type for the symbol, and the build asserts its
            // layout on the other side; the driver copies it before it returns. The addresses in it
            // are the caller's promise.
            unsafe {
                self.driver.launch(
                    function.handle,
                    blocks,
                    1,
                    1,
                    function.threads,
                    1,
                    1,
                    function.shared,
                    handle,
                    params.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            }
        })
    }

    fn begin_capture(&self, stream: StreamId) -> Result<()> {
        self.not_captured("capture", stream)?;
        // ROCm takes a question about an event of a stream that is being captured, also of one from before, for a
        // mistake that spoils the capture. So there are none: all has run.
        self.sync(self.record(stream)?)?;
        self.with(|state| {
            let handle = state.order.handle(stream);
            // SAFETY: a living stream.
            unsafe { self.driver.capture_begin(handle, RELAXED) }
        })
    }

    fn end_capture(&self, stream: StreamId) -> Result<GraphId> {
        let (mut graph, mut program) = (std::ptr::null_mut(), std::ptr::null_mut());
        self.with(|state| {
            let handle = state.order.handle(stream);
            // SAFETY: a living stream; one handle is written.
            unsafe { self.driver.capture_end(handle, &mut graph) }?;
            // SAFETY: the graph that was just made; one handle is written.
            let made = unsafe { self.driver.graph_instantiate(&mut program, graph, 0) };
            // SAFETY: the graph is ours, and not needed any more.
            made.and(unsafe { self.driver.graph_destroy(graph) })
        })?;
        Ok(GraphId(program as u64))
    }

    unsafe fn replay(&self, graph: GraphId, stream: StreamId) -> Result<()> {
        self.give("replay", stream, |_, handle| {
            // SAFETY: a program made by `end_capture`; what it touches is the caller's promise.
            unsafe { self.driver.graph_launch(graph.0 as Handle, handle) }
        })
    }

    fn drop_graph(&self, graph: GraphId) {
        // SAFETY: made by `end_capture`, dropped once.
        let _ = self.with(|_| unsafe { self.driver.graph_program_destroy(graph.0 as Handle) });
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // A device that is lost has nothing left to give back; otherwise all work runs first.
        if self.context.enter().is_ok() {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = state.order.drain();
            state.pool.clear();
            for address in state.unfreed.drain(..) {
                // SAFETY: from `alloc_host`, not freed yet; all work has run.
                let _ = unsafe { self.driver.host_free(address.0 as Handle) };
            }
            self.kernels.unload(&self.driver);
            // Events, streams and the ring need the context too.
            *state = State {
                order: Order::new(self.driver.clone()),
                pool: Pool::new(self.driver.clone()),
                unfreed: Vec::new(),
                recent: VecDeque::new(),
            };
            let staging = self.staging.get_mut().unwrap_or_else(PoisonError::into_inner);
            *staging = Staging::new(self.driver.clone());
        }
        self.context.release();
    }
}

#[cfg(test)]
mod tests;
