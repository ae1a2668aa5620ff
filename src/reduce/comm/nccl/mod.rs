//! Ranks that have a GPU each, over NCCL or RCCL.
//!
//! ```text
//! wait for the stream ─ meet on the host ─ group of sends and receives, in the stream ─ wait, asking
//! ```
//!
//! NCCL knows neither which rank is late nor which one called something else: it waits, for ever. So
//! every collective begins with a meeting on the host, over a communicator of the host's memory, in
//! which ranks compare their calls; that one names what differs and who is missing, and how long the
//! others waited for it. It also carries the identifier that NCCL's own communicator is made with.

#[allow(unsafe_code)]
mod library;
#[allow(unsafe_code)]
mod transfer;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use library::{Comm, Failed, ID_BYTES, Library};
use transfer::gathers_whole;

use super::idle::Idle;
use super::pool::{Pool, slot};
use super::sum::{self, Reduction};
use super::{Abort, Collective, Communicator, Fault, Part, Parts, check_parts};
use crate::reduce::config;
use crate::{Buffer, Device, Dtype, Error, Result, Stream};

const OP: &str = "NcclComm::new";
/// How long ranks wait for each other once a deadline has passed, to find out who is missing.
const GRACE: Duration = Duration::from_millis(500);
/// How long the library may take to end a communicator.
const END: Duration = Duration::from_secs(5);

/// One rank of a communicator of NCCL's (feature `nccl`, CUDA) or RCCL's (feature `rccl`, HIP): exchanges
/// memory of its device, without the host.
///
/// Ranks meet over `host`, a communicator of the host's memory with the same ranks: [`local`](super::local) where they
/// are threads, `Mpi` where they are processes. The library is opened at run time (`libnccl.so.2`,
/// `librccl.so.1`), 2.14 or newer; blocks are moved by `ncclSend` and `ncclRecv` in one group, gathered by
/// `ncclAllGather`. Sums are this crate's, unless [`Config::sum`](crate::reduce::Config::sum) asks for `ncclAllReduce`.
///
/// **Faults.** A rank that does not come, and one that gives up, are found by `host` and named as there, with the number of
/// its collective: there is one for each of this communicator's, and one before them. A call that differs, and one that
/// does not end, have this communicator's number. What is in a stream is waited for by asking: for its end, for
/// an error of the library's, for a fault of `host`, for the deadline: the first that a rank has is that of all. When it passes there, it makes all
/// ranks meet once more, for half a second, and names those that do not come, or that have gone on.
/// After a fault the library's communicator is aborted; dropped without one, it is destroyed, so that others get what is
/// still on its way to them. One that cannot be is left alone, with the memory
/// that it may still touch.
///
/// Only one rank can have a device. Different communicators of one device must be used by one thread: the library
/// does not allow more.
///
/// ```
/// use halfstep::{Device, reduce::{NcclComm, local}};
/// use std::time::Duration;
/// for host in local(1.try_into().unwrap()) {
///     match NcclComm::new(&Device::cpu(), Box::new(host), Duration::from_secs(60)) {
///         Ok(_) => unreachable!(),
///         Err(error) => println!("{error}"), // ranks of a CPU are threads or processes
///     }
/// }
/// ```
pub struct NcclComm {
    host: Box<dyn Communicator>,
    /// What is met on.
    host_device: Device,
    host_stream: Stream,
    device: Device,
    /// A stream of ours, to enter the device by.
    own: Arc<Stream>,
    /// `None` once it was ended.
    comm: Option<Comm>,
    /// It could not be ended: the library may still touch what it was given last, or put it in a stream.
    left: bool,
    sequence: u64,
    fault: Option<Fault>,
    pool: Pool,
    /// Sent to the thread that owns it, never shared.
    not_sync: PhantomData<Cell<()>>,
}

impl std::fmt::Debug for NcclComm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NcclComm({} of {}, {})", self.rank(), self.size(), self.device.info())
    }
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blocks(Collective),
    Reduce(Reduction),
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Blocks(Collective::AllToAll),
        Self::Blocks(Collective::AllGather),
        Self::Reduce(Reduction::MaxU8),
        Self::Reduce(Reduction::SumI32),
        Self::Reduce(Reduction::Sum(Dtype::Bf16)),
        Self::Reduce(Reduction::Sum(Dtype::F16)),
        Self::Reduce(Reduction::Sum(Dtype::F32)),
    ];
}

/// What ranks tell each other when they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Call(Kind, u64),
    /// The collective of this number has not ended by its deadline.
    Stuck(u64),
}

impl Said {
    fn encode(self) -> [u64; 2] {
        let place = |kind| Kind::ALL.iter().position(|other| *other == kind);
        let (tag, number) = match self {
            Self::Call(kind, bytes) => (place(kind).expect("one of all") as u64, bytes),
            Self::Stuck(sequence) => (u64::MAX, sequence),
        };
        [tag, number]
    }

    fn decode([tag, number]: [u64; 2]) -> Self {
        match Kind::ALL.get(usize::try_from(tag).unwrap_or(usize::MAX)) {
            Some(kind) => Self::Call(*kind, number),
            None => Self::Stuck(number),
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Call(Kind::Blocks(collective), bytes) => {
                format!("{collective:?} of {bytes} bytes")
            }
            Self::Call(Kind::Reduce(reduction), bytes) => {
                format!("all-reduce ({reduction:?}) of {bytes} bytes")
            }
            Self::Stuck(sequence) => format!("no end of collective {sequence}"),
        }
    }
}

impl NcclComm {
    /// This rank, on `device`. All ranks of `host` call it, each with a device of its own; `deadline` is for all of
    /// it, the library's own search for links included.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming what is missing (on the other ranks: [`Fault::Aborted`]);
    /// [`Error::Comm`] if ranks are missing, have libraries of other versions, or the library fails:
    /// because two ranks have one device, say.
    pub fn new(device: &Device, host: Box<dyn Communicator>, deadline: Duration) -> Result<Self> {
        let library = Library::open(device.info().kind).map_err(|reason| {
            host.aborter().abort(&reason);
            Error::unsupported(OP, reason)
        })?;
        let host_device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
        let mut comm = Self {
            host,
            host_stream: host_device.stream()?,
            host_device,
            own: Arc::new(device.stream()?),
            device: device.clone(),
            comm: None,
            left: false,
            sequence: 0,
            fault: None,
            pool: Pool::default(),
            not_sync: PhantomData,
        };
        comm.connect(library, config::deadline(deadline)).map_err(|fault| comm.fail(fault))?;
        Ok(comm)
    }

    fn connect(&mut self, library: &'static Library, deadline: Instant) -> Result<(), Fault> {
        let (rank, size) = (self.rank(), self.size());
        let mut mine = [0; 8 + ID_BYTES];
        let version = library.version().map_err(|failed| self.failed(failed))?;
        mine[..4].copy_from_slice(&version.to_le_bytes());
        if rank == 0 {
            let id = library.unique_id().map_err(|failed| self.failed(failed))?;
            mine[8..].copy_from_slice(&id);
        }
        let (all, _) = self.tell(&mine, deadline)?;
        let version = |bytes: &Vec<u8>| i32::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        if let Some(other) = all.iter().position(|bytes| version(bytes) != version(&all[0])) {
            let versions = (version(&all[other]), version(&all[0]));
            let reason = format!("version {}, rank 0 has version {}", versions.0, versions.1);
            return Err(Fault::Transport { rank: other, call: "ncclGetVersion".into(), reason });
        }
        let id = std::array::from_fn(|i| all[0][8 + i]);
        // The library takes the thread's current device.
        self.own.lend().map_err(|error| self.gave_up(&error))?;
        let comm = Comm::begin(library, id, rank, size).map_err(|failed| self.failed(failed))?;
        self.comm = Some(comm);
        self.wait(deadline, |this| this.progress())
    }

    fn failed(&self, Failed { call, reason }: Failed) -> Fault {
        Fault::Transport { rank: self.rank(), call: call.into(), reason }
    }

    fn gave_up(&self, error: &Error) -> Fault {
        Fault::Aborted { rank: self.rank(), reason: error.to_string() }
    }

    /// Gives every rank a few bytes over the host; returns everyone's, and how long that took.
    fn tell(&mut self, bytes: &[u8], deadline: Instant) -> Result<(Vec<Vec<u8>>, Duration), Fault> {
        let send = self.host_device.upload(bytes).map_err(|error| self.gave_up(&error))?;
        let gather = Collective::AllGather;
        let all = self.host.exchange(gather, &Arc::new(send), &self.host_stream, deadline)?;
        let read = || {
            check_parts(&all.parts, &self.host_stream, self.size(), bytes.len())?;
            let one = |part: &Part| {
                let mut bytes = vec![0; part.len];
                part.buffer.read(&self.host_stream, part.start, &mut bytes)?;
                Ok(bytes)
            };
            all.parts.iter().map(one).collect::<Result<Vec<_>>>()
        };
        let read = read().map_err(|error| self.gave_up(&error))?;
        Ok((read, all.skew))
    }

    /// Meets all ranks; what they say must be the same. Returns how long this one waited, and when the
    /// deadline of the first of them passes: who came early has an earlier one than who came late, and all
    /// must give up together to find out who is missing.
    fn meet(&mut self, mine: Said, deadline: Instant) -> Result<(Duration, Instant), Fault> {
        let left = deadline.saturating_duration_since(Instant::now()).as_micros();
        let [tag, number] = mine.encode();
        let mine = [tag, number, u64::try_from(left).unwrap_or(u64::MAX)];
        let (all, skew) = self.tell(bytemuck::cast_slice(&mine), deadline)?;
        let word = |bytes: &[u8]| u64::from_ne_bytes(std::array::from_fn(|i| bytes[i]));
        let words = |bytes: &Vec<u8>| [0, 8, 16].map(|at| word(&bytes[at..]));
        let all: Vec<[u64; 3]> = all.iter().map(words).collect();
        let left = all.iter().map(|words| words[2]).min().unwrap_or(0);
        let common = config::deadline(Duration::from_micros(left));
        let all: Vec<Said> =
            all.iter().map(|[tag, number, _]| Said::decode([*tag, *number])).collect();
        let stuck = all.iter().find_map(|said| match said {
            Said::Stuck(sequence) => Some(*sequence),
            Said::Call(..) => None,
        });
        if let Some(sequence) = stuck {
            let gone_on = |rank: &usize| !matches!(all[*rank], Said::Stuck(_));
            let waiting_on = (0..all.len()).filter(gone_on).collect();
            return Err(Fault::Deadline { sequence, waiting_on });
        }
        match all.iter().position(|said| *said != all[0]) {
            None => Ok((skew, common)),
            Some(rank) => Err(Fault::Mismatch {
                sequence: self.sequence,
                rank,
                expected: all[0].describe(),
                found: all[rank].describe(),
            }),
        }
    }

    /// Whether the library's last call has ended.
    fn progress(&self) -> Result<bool, Fault> {
        match &self.comm {
            Some(comm) => comm.progress().map_err(|failed| self.failed(failed)),
            None => Ok(true),
        }
    }

    /// Waits until `done`, a fault, or the deadline; then for who is missing.
    fn wait(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut idle = Idle::default();
        loop {
            // Errors are seen here, too, while a stream is waited for.
            self.progress()?;
            if done(self)? {
                return Ok(());
            }
            self.host.check()?;
            if Instant::now() >= deadline {
                let stuck = Said::Stuck(self.sequence);
                return self.meet(stuck, Instant::now() + GRACE).map(|_| ());
            }
            idle.wait();
        }
    }

    /// What every call begins with; returns how long this rank waited for the others, and the deadline that
    /// all have.
    fn begin(
        &mut self,
        (kind, bytes): (Kind, usize),
        devices: [&Device; 2],
        stream: &Stream,
        deadline: Instant,
    ) -> Result<(Duration, Instant), Fault> {
        for device in devices {
            if !device.same_as(&self.device) {
                let (ours, found) = (self.device.info(), device.info());
                let reason = format!("the communicator exchanges memory of {ours}, not of {found}");
                return Err(Fault::Aborted { rank: self.rank(), reason });
            }
        }
        // What is waited for from here on is other ranks.
        stream.sync().map_err(|error| self.gave_up(&error))?;
        self.meet(Said::Call(kind, bytes as u64), deadline)
    }

    fn run(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let (rank, size, bytes) = (self.rank(), self.size(), send.len());
        if collective == Collective::AllToAll && !bytes.is_multiple_of(size) {
            let sequence = self.sequence;
            return Err(Fault::Length { sequence, rank, bytes, blocks: size });
        }
        let kind = Kind::Blocks(collective);
        let devices = [send.device(), stream.device()];
        let (skew, deadline) = self.begin((kind, bytes), devices, stream, deadline)?;
        let len = match collective {
            Collective::AllToAll => bytes / size,
            Collective::AllGather => bytes,
        };
        let own = match collective {
            Collective::AllToAll => rank * len,
            Collective::AllGather => 0,
        };
        // A rank's own part stays where it is.
        let own = Part { buffer: send.clone(), start: own, len };
        if size == 1 || len == 0 {
            return Ok(Parts { parts: vec![own; size], skew });
        }
        let received = self.transfer((collective, len), send, stream, deadline)?;
        let part = |peer: usize| {
            let start = match gathers_whole(collective, len) {
                true => peer * len,
                false => slot(peer, rank, len),
            };
            Part { buffer: received.clone(), start, len }
        };
        let parts = (0..size).map(|peer| if peer == rank { own.clone() } else { part(peer) });
        Ok(Parts { parts: parts.collect(), skew })
    }

    /// Breaks the communicator: other ranks hear of it by the host, the library's work is ended.
    fn fail(&mut self, fault: Fault) -> Fault {
        if self.fault.is_none() {
            // What a meeting shows, it shows to every rank.
            if !matches!(fault, Fault::Mismatch { .. } | Fault::Deadline { .. }) {
                self.host.aborter().abort(&fault.to_string());
            }
            self.end(false);
        }
        self.fault.get_or_insert(fault).clone()
    }

    /// Ends the library's communicator, in order where it is whole, on a thread that may be left behind.
    fn end(&mut self, whole: bool) {
        let Some(comm) = self.comm.take() else { return };
        let (own, (done, ended)) = (self.own.clone(), channel());
        // Where there is no thread it is left as it is.
        let _ = std::thread::Builder::new().spawn(move || {
            // A device that is lost has no more work; the library frees its own all the same.
            let _ = own.lend();
            let _ = done.send(comm.end(whole));
        });
        self.left = ended.recv_timeout(END) != Ok(true);
    }
}

impl Communicator for NcclComm {
    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn size(&self) -> usize {
        self.host.size()
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
        let parts = self.run(collective, send, stream, deadline);
        let parts = parts.map_err(|fault| self.fail(fault))?;
        self.sequence += 1;
        Ok(parts)
    }

    /// The library's own: `ncclAllReduce`, in place.
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
        let kind = Kind::Reduce(reduction);
        let begun = self.begin((kind, len), [buffer.device(), stream.device()], stream, deadline);
        let (skew, deadline) = begun.map_err(|fault| self.fail(fault))?;
        let count = len / reduction.bytes();
        let buffer = match self.size() == 1 || count == 0 {
            true => buffer,
            false => self.reduce((buffer, count), reduction, stream, deadline)?,
        };
        self.sequence += 1;
        Ok((buffer, skew))
    }

    fn check(&mut self) -> Result<(), Fault> {
        match &self.fault {
            Some(fault) => Err(fault.clone()),
            None => self.host.check(),
        }
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        self.host.aborter()
    }
}

impl Drop for NcclComm {
    fn drop(&mut self) {
        let whole = self.check().is_ok();
        self.end(whole);
    }
}
