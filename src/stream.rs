//! Streams: work enqueued on one stream runs in the order of the calls.

use std::time::Duration;

#[cfg(feature = "cuda")]
use crate::DeviceKind;
use crate::backend::{GraphId, StreamId, Ticket};
use crate::kernel::Launch;
use crate::{Device, Error, Result};

/// A queue of work on one device.
///
/// Every operation takes the stream it is enqueued on. On the CPU a stream runs each piece of work
/// before the call returns; code that is right on a GPU's stream is right here too, as long as one thread at a time calls: calls
/// that several threads make at once run side by side, also on one stream.
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
    /// The framework's stream that this one is, if it is one.
    #[cfg(feature = "cuda")]
    cudarc: Option<std::sync::Arc<cudarc::driver::CudaStream>>,
}

/// A point in a stream's order, for other streams or the host to wait for.
#[derive(Debug, Clone)]
pub struct Event {
    device: Device,
    ticket: Ticket,
}

impl Stream {
    pub(crate) fn new(device: &Device) -> Result<Self> {
        let id = device.backend.stream()?;
        Ok(Self::with_id(device, id))
    }

    fn with_id(device: &Device, id: StreamId) -> Self {
        Self {
            device: device.clone(),
            id,
            #[cfg(feature = "cuda")]
            cudarc: None,
        }
    }

    /// A stream of a framework's: work of both is in one order. It is kept alive, and never
    /// synchronised or destroyed from here.
    ///
    /// A thread's own default stream (candle's, unless it is made with a stream) is another one on each thread: it is this
    /// thread's, and calls on others are [`Error::State`](crate::Error::State).
    ///
    /// Make one and keep it: what plans keep for each stream ([`gemm`](crate::gemm#memory)), they keep for every one that is made.
    ///
    /// # Errors
    /// [`Error::Device`] if the stream is of another device than `device`.
    #[cfg(feature = "cuda")]
    pub fn from_cudarc(
        device: &Device,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
    ) -> Result<Self> {
        let info = device.info();
        if info.kind != DeviceKind::Cuda || stream.context().ordinal() != info.index {
            return Err(Error::Device {
                op: "from_cudarc",
                arg: "stream".into(),
                expected: info.to_string(),
                found: format!("a stream of cuda:{}", stream.context().ordinal()),
            });
        }
        let id = device.backend.adopt(stream.cu_stream() as u64)?;
        let mut ours = Self::with_id(device, id);
        ours.cudarc = Some(stream.clone());
        Ok(ours)
    }

    /// A stream known by its handle: `CUstream` or `hipStream_t`. Never destroyed from here. Make one and keep it, as said at
    /// `from_cudarc`, and as said there use a thread's own (handle 2) on this thread only. 0 is the default stream that all
    /// threads share.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on the CPU.
    ///
    /// # Safety
    /// `handle` is a stream of this device that lives for as long as the value.
    pub unsafe fn from_raw(device: &Device, handle: u64) -> Result<Self> {
        let id = device.backend.adopt(handle)?;
        Ok(Self::with_id(device, id))
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn cudarc(&self) -> Option<&cudarc::driver::CudaStream> {
        self.cudarc.as_deref()
    }

    /// The stream's device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Refuses to work for an object of another device.
    pub(crate) fn expect_device(&self, op: &'static str, device: &Device) -> Result<()> {
        if self.device.same_as(device) {
            return Ok(());
        }
        let (expected, mut found) = (device.info().to_string(), self.device.info().to_string());
        if expected == found {
            found += ", opened another time; clone the one there is";
        }
        Err(Error::Device { op, arg: "stream".into(), expected, found })
    }

    /// Marks the point after all work enqueued so far; on a framework's stream, after the framework's own, too.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) while a graph is made of the stream;
    /// [`Error::Driver`](crate::Error::Driver) on a GPU.
    pub fn record(&self) -> Result<Event> {
        let ticket = self.device.backend.record(self.id)?;
        Ok(Event { device: self.device.clone(), ticket })
    }

    /// Makes work enqueued from now on wait for `event`, a point of any stream of this device (of a CPU's: of any CPU).
    ///
    /// # Errors
    /// [`Error::Device`] for another device's event; [`Error::State`](crate::Error::State) while a graph is made of this stream;
    /// [`Error::Driver`](crate::Error::Driver) on a GPU.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.check_knows("Stream::wait", "event", &event.device)?;
        self.device.backend.wait(self.id, event.ticket)
    }

    /// Blocks the host until everything enqueued so far has run.
    ///
    /// # Errors
    /// As [`record`](Self::record), also of what was enqueued before.
    pub fn sync(&self) -> Result<()> {
        self.device.backend.sync(self.device.backend.record(self.id)?)
    }

    /// How long the work that `work` enqueues on this stream takes: from when the stream comes to it until it has been
    /// done, by the device's clock (events of the driver, about half a microsecond fine; the host's clock on the
    /// CPU). Blocks the host until then.
    ///
    /// ```
    /// # fn main() -> halfstep::Result<()> {
    /// let device = halfstep::Device::cpu();
    /// let (stream, mut buffer) = (device.stream()?, device.zeros::<f32>(1 << 20)?);
    /// let taken = stream.time(|| buffer.clear(&stream))?;
    /// println!("{} GB/s", 4e-9 * buffer.len() as f64 / taken.as_secs_f64());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `work` returns; [`Error::State`](crate::Error::State) while a graph is made of the stream;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let backend = &self.device.backend;
        let clock = backend.start_clock(self.id)?;
        let done = work();
        // The clock is stopped in any case; the first error is the cause.
        let taken = backend.stop_clock(self.id, clock);
        done.and(taken)
    }

    /// Records the work that `work` enqueues on this stream, instead of running it: one launch of the
    /// graph enqueues it all. Reading results, uploads and waits cannot be recorded and are
    /// [`Error::State`](crate::Error::State) inside; so run a step once before recording one, which
    /// uploads its tables. What the stream was given before is waited for.
    ///
    /// # Errors
    /// What `work` returns, and what the driver says. [`Error::State`](crate::Error::State) while a graph is made of the stream
    /// already; [`Error::Unsupported`](crate::Error::Unsupported) on the CPU.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.device.backend.begin_capture(self.id)?;
        let recording = Recording(self);
        work()?;
        Ok(Graph { device: self.device.clone(), id: recording.end()? })
    }

    /// Whether everything up to a point of this stream has run.
    #[cfg(any(feature = "nccl", feature = "rccl"))]
    pub(crate) fn reached(&self, event: &Event) -> Result<bool> {
        self.device.backend.reached(event.ticket)
    }

    /// The driver's handle, for one piece of work that a library enqueues itself, on this thread.
    #[cfg(any(feature = "nccl", feature = "rccl"))]
    pub(crate) fn lend(&self) -> Result<u64> {
        self.device.backend.lend(self.id)
    }

    /// Whether numbers that `owner` gave mean something here. (CPUs give none that matter.)
    fn check_knows(&self, op: &'static str, arg: &'static str, owner: &Device) -> Result<()> {
        if self.device.reaches(owner) {
            return Ok(());
        }
        Err(Error::Device {
            op,
            arg: arg.into(),
            expected: self.device.info().to_string(),
            found: owner.info().to_string(),
        })
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

impl Drop for Stream {
    fn drop(&mut self) {
        self.device.backend.close(self.id);
    }
}

/// A stream whose work is recorded. Dropped, by an error or a panic, it runs its work again, and what was recorded is
/// forgotten.
struct Recording<'a>(&'a Stream);

impl Recording<'_> {
    fn end(self) -> Result<GraphId> {
        let stream = std::mem::ManuallyDrop::new(self).0;
        stream.device.backend.end_capture(stream.id)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let backend = &self.0.device.backend;
        // The first error is the cause.
        if let Ok(id) = backend.end_capture(self.0.id) {
            backend.drop_graph(id);
        }
    }
}

/// Work recorded by [`Stream::capture`].
#[derive(Debug)]
pub struct Graph {
    device: Device,
    id: GraphId,
}

impl Graph {
    /// Enqueues the recorded work.
    ///
    /// # Errors
    /// [`Error::Device`] for another device's stream; [`Error::Driver`](crate::Error::Driver).
    ///
    /// # Safety
    /// All memory that was used while recording (operands, optimizers, buffers) is alive until the
    /// work has run, and is used by others only in an order that streams guarantee: addresses are
    /// part of the graph. So are those of what plans keep for the stream that was recorded
    /// ([`gemm`](crate::gemm#memory)): work of such plans on that stream is work of others, too.
    pub unsafe fn run(&self, stream: &Stream) -> Result<()> {
        stream.check_knows("Graph::run", "graph", &self.device)?;
        // SAFETY: the caller's promise.
        unsafe { self.device.backend.replay(self.id, stream.id) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.device.backend.drop_graph(self.id);
    }
}
