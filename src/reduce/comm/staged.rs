//! Memory of a GPU over a communicator of the host's.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pool::{Pool, slot};
use super::{ALIGN, Abort, Collective, Communicator, Fault, Part, Parts, Reduction, sum};
use crate::{Buffer, Device, DeviceKind, Error, Result, Stream};

/// A communicator for memory of GPUs, over one that exchanges memory of the CPU: `MpiComm`, or
/// [`local`](super::local). What is sent is copied to the host, exchanged there, and what came is copied to
/// the device, in the stream's order: a [`Reducer`](crate::reduce::Reducer) on GPUs works wherever MPI does,
/// whether or not that MPI knows of GPUs. The bits are those of any other communicator.
///
/// **Cost.** Beside the exchange itself, each byte sent crosses the link between host and device once, and
/// each byte received once more; the host waits for the first, and holds as much memory as the buckets take.
/// Of `b` bytes of buckets and `n` ranks, a step sends `b·(1 + 1/n)` from the device, its own part with them, and brings
/// back `2·b·(n − 1)/n`: for 189 MB (Wav2Vec2-base in bf16) and 8 ranks 213 and 331 MB, 22 ms at 25 GB/s,
/// which the backward pass hides as it does the exchange. Where GPUs reach each other, use `NcclComm`.
///
/// An MPI that reads GPUs' memory itself would save these copies. It is not used: whether one does is known
/// only at run time, and differs between libraries, transports and their settings.
///
/// Faults, deadlines and aborts are those of the communicator within. An error of the device breaks it, as
/// [`Fault::Transport`]. Memory of the CPU passes through.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let plan = BucketPlan::ddp(&[Param::new("w", 4)], Dtype::Bf16, 1 << 20, 25 << 20)?;
/// let comm = local(1.try_into().unwrap()).remove(0);
/// let device = Device::cpu(); // or a GPU
/// let comm = Box::new(Staged::new(Box::new(comm))?);
/// let reducer = Reducer::<f32>::new(&device, plan, comm, Config::default())?;
/// # Ok(())
/// # }
/// ```
pub struct Staged {
    within: Box<dyn Communicator>,
    host: Device,
    /// The host's own.
    order: Stream,
    /// On the host: what is sent.
    sent: Pool,
    /// On the device: what came.
    received: Pool,
    fault: Option<Fault>,
}

impl Staged {
    /// Wraps a communicator of the host's. Every rank wraps its own, or exchanges memory of the CPU with those
    /// that do: ranks on GPUs of both vendors and on CPUs may meet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(within: Box<dyn Communicator>) -> Result<Self> {
        let host = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
        let order = host.stream()?;
        let (sent, received) = (Pool::default(), Pool::default());
        Ok(Self { within, host, order, sent, received, fault: None })
    }

    /// A copy of a device's buffer on the host, once the stream has come to it.
    fn download(&mut self, from: &Buffer<u8>, stream: &Stream) -> Result<Arc<Buffer<u8>>> {
        let mut host = self.sent.take_exactly(&self.host, from.len())?;
        let mut whole = host.view_mut(0..from.len())?;
        from.read(stream, 0, whole.host().expect("memory of the CPU"))?;
        Ok(self.sent.keep(host))
    }

    /// What came, on the stream's device; this rank's own part is where it was.
    fn upload(
        &mut self,
        parts: &[Part],
        (collective, send): (Collective, &Arc<Buffer<u8>>),
        stream: &Stream,
    ) -> Result<Vec<Part>> {
        let (rank, ranks) = (self.within.rank(), parts.len());
        let len = match collective {
            Collective::AllToAll => send.len() / ranks.max(1),
            Collective::AllGather => send.len(),
        };
        if ranks != self.within.size() || parts.iter().any(|part| part.len != len) {
            let expected = format!("{len} bytes of each rank");
            return Err(Error::shape("Communicator::exchange", "parts", expected, "others"));
        }
        let bytes = len.next_multiple_of(ALIGN) * ranks.saturating_sub(1);
        let mut to = self.received.take(stream.device(), bytes)?;
        for (peer, part) in parts.iter().enumerate().filter(|(peer, _)| *peer != rank) {
            let came = part.buffer.view(part.start..part.start + len)?;
            let Some(came) = came.host() else {
                let found = part.buffer.device().info();
                return Err(Error::state(
                    "Staged",
                    "parts in memory of the CPU",
                    found.to_string(),
                ));
            };
            to.write(stream, slot(peer, rank, len), came)?;
        }
        // Parts are read on any stream, as those of other communicators are.
        stream.sync()?;
        let to = self.received.keep(to);
        let own = match collective {
            Collective::AllToAll => rank * len,
            Collective::AllGather => 0,
        };
        let place = |peer: usize| match peer == rank {
            true => Part { buffer: send.clone(), start: own, len },
            false => Part { buffer: to.clone(), start: slot(peer, rank, len), len },
        };
        Ok((0..ranks).map(place).collect())
    }

    /// Breaks the communicator: this rank's device failed.
    fn broken(&self, call: &str, error: Error) -> Fault {
        let (rank, call, reason) = (self.within.rank(), call.into(), error.to_string());
        let fault = Fault::Transport { rank, call, reason };
        self.within.aborter().abort(&fault.to_string());
        fault
    }

    fn exchange_staged(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let down = self.download(send, stream);
        let host = down.map_err(|error| self.broken("copy to the host", error))?;
        let came = self.within.exchange(collective, &host, &self.order, deadline)?;
        let parts = self.upload(&came.parts, (collective, send), stream);
        let parts = parts.map_err(|error| self.broken("copy to the device", error))?;
        Ok(Parts { parts, skew: came.skew })
    }

    fn reduce_staged(
        &mut self,
        mut buffer: Buffer<u8>,
        len: usize,
        reduction: Reduction,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<(Buffer<u8>, Duration)> {
        let mut host = self.sent.take_exactly(&self.host, len)?;
        let mut whole = host.view_mut(0..len)?;
        buffer.read(stream, 0, whole.host().expect("memory of the CPU"))?;
        let (host, skew) = self.within.all_reduce(host, len, reduction, &self.order, deadline)?;
        let sums = host.view(0..len)?;
        buffer.write(stream, 0, sums.host().expect("memory of the CPU"))?;
        stream.sync()?;
        self.sent.keep(host);
        Ok((buffer, skew))
    }
}

impl Communicator for Staged {
    fn rank(&self) -> usize {
        self.within.rank()
    }

    fn size(&self) -> usize {
        self.within.size()
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let on_host = |device: &Device| device.info().kind == DeviceKind::Cpu;
        if on_host(stream.device()) && on_host(send.device()) {
            return self.within.exchange(collective, send, stream, deadline);
        }
        let parts = self.exchange_staged(collective, send, stream, deadline);
        self.fault = parts.as_ref().err().cloned();
        parts
    }

    fn all_reduce(
        &mut self,
        buffer: Buffer<u8>,
        len: usize,
        reduction: Reduction,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<(Buffer<u8>, Duration)> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into());
        }
        sum::check(&buffer, len, reduction)?;
        let on_host = |device: &Device| device.info().kind == DeviceKind::Cpu;
        if on_host(stream.device()) && on_host(buffer.device()) {
            return self.within.all_reduce(buffer, len, reduction, stream, deadline);
        }
        let reduced = self.reduce_staged(buffer, len, reduction, stream, deadline);
        reduced.map_err(|error| {
            let fault = match error {
                Error::Comm(fault) => fault,
                error => self.broken("copy", error),
            };
            self.fault = Some(fault.clone());
            fault.into()
        })
    }

    fn check(&mut self) -> Result<(), Fault> {
        match &self.fault {
            Some(fault) => Err(fault.clone()),
            None => self.within.check(),
        }
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        self.within.aborter()
    }
}
