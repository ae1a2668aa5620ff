//! `shim.c`, in Rust. Every call is made under one lock, so that MPI needs to serve one thread at a
//! time only; all of them are short, since none waits for another process (but `open` and `close`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Reduction;
use super::super::processes::{
    self, Delivery, Failed, Memory, Piece, Started, Transfer as _, check_pieces,
};
use crate::backend::cpu::reduce::add;
use crate::environment::Environment;
use crate::{Buffer, Dtype, Element, Storage, bf16, f16};

/// Joins so many elements of the first to those of the second.
type Join = unsafe extern "C" fn(*const c_void, *mut c_void, c_int);

unsafe extern "C" {
    fn halfstep_mpi_open(
        level: &mut c_int,
        ours: &mut c_int,
        ended: &mut c_int,
        rank: &mut c_int,
        size: &mut c_int,
        joins: &[Join; 3],
    ) -> c_int;
    fn halfstep_mpi_ended() -> c_int;
    fn halfstep_mpi_close() -> c_int;
    fn halfstep_mpi_error_text(code: c_int, text: *mut c_char, capacity: c_int) -> c_int;
    fn halfstep_mpi_library(text: *mut c_char, capacity: c_int) -> c_int;
    fn halfstep_mpi_comm_new(id: c_int) -> *mut c_void;
    fn halfstep_mpi_comm_free(comm: *mut c_void);
    fn halfstep_mpi_mail_reap(comm: *mut c_void, left: &mut c_int) -> c_int;
    fn halfstep_mpi_mail_send(comm: *mut c_void, to: c_int, bytes: *const u8, len: c_int) -> c_int;
    fn halfstep_mpi_mail_receive(
        comm: *mut c_void,
        bytes: *mut u8,
        capacity: c_int,
        length: &mut c_int,
        from: &mut c_int,
    ) -> c_int;
    fn halfstep_mpi_batch_new(capacity: c_int) -> *mut c_void;
    fn halfstep_mpi_batch_free(batch: *mut c_void);
    fn halfstep_mpi_batch_start(
        batch: *mut c_void,
        comm: *mut c_void,
        receive: c_int,
        bytes: *mut u8,
        length: c_int,
        peer: c_int,
    ) -> c_int;
    fn halfstep_mpi_reducing() -> c_int;
    fn halfstep_mpi_batch_reduce(
        batch: *mut c_void,
        which: c_int,
        values: *mut u8,
        length: c_int,
        reduction: c_int,
    ) -> c_int;
    fn halfstep_mpi_batch_pending(batch: *const c_void, slot: c_int) -> c_int;
    fn halfstep_mpi_batch_test(batch: *mut c_void, ended: &mut c_int) -> c_int;
    fn halfstep_mpi_batch_cancel(batch: *mut c_void, slot: c_int) -> c_int;
}

/// What the shim returns where MPI has ended.
const ENDED: c_int = -1;

/// One call at a time.
static CALLS: Mutex<()> = Mutex::new(());
/// Messages are in MPI's hands for ever, or a process may be gone: MPI cannot be ended in order.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Nothing is kept under the lock, so that a panic leaves nothing half done.
fn lock() -> MutexGuard<'static, ()> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, MPI is left as it is when the process ends.
fn abandon() {
    ABANDONED.store(true, Ordering::Relaxed);
}

/// The caller holds the lock.
fn check(call: &'static str, code: c_int) -> Result<(), Failed> {
    if code == 0 {
        return Ok(()); // MPI_SUCCESS, by the standard
    }
    if code == ENDED {
        return Err(Failed { call, reason: "MPI was ended before, by MPI_Finalize".into() });
    }
    let mut text = [0 as c_char; 512];
    // SAFETY: 512 bytes are there, and the shim ends the text with a zero.
    let reason = unsafe {
        halfstep_mpi_error_text(code, text.as_mut_ptr(), 512);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    Err(Failed { call, reason: format!("{reason} (code {code})") })
}

/// What MPI calls, on whatever thread it likes, for reductions that it has not.
///
/// # Safety
/// `len` elements are at each address, aligned, and those of `to` nobody else's.
unsafe fn join<T: Element>(
    from: *const c_void,
    to: *mut c_void,
    len: c_int,
    join: impl Fn(&[T], &mut [T]),
) {
    let _environment = Environment::standard();
    let len = len as usize;
    // SAFETY: as above.
    let (from, to) = unsafe {
        (slice::from_raw_parts(from.cast(), len), slice::from_raw_parts_mut(to.cast(), len))
    };
    join(from, to);
}
unsafe extern "C" fn sum<T: Storage>(from: *const c_void, to: *mut c_void, len: c_int) {
    // SAFETY: MPI says so.
    unsafe { join::<T>(from, to, len, add) }
}
unsafe extern "C" fn largest(from: *const c_void, to: *mut c_void, len: c_int) {
    let largest = |from: &[u8], to: &mut [u8]| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = (*from).max(*to));
    };
    // SAFETY: MPI says so.
    unsafe { join(from, to, len, largest) }
}

/// How MPI was found or started.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// 0 single, 1 funneled, 2 serialized, 3 multiple.
    pub level: c_int,
    /// Whether we started it.
    pub ours: bool,
    /// It was ended before.
    pub ended: bool,
    pub rank: usize,
    pub size: usize,
}

/// Starts MPI. Once in a process.
pub(super) fn open() -> Result<Opened, Failed> {
    let _one = lock();
    let (mut level, mut ours, mut ended, mut rank, mut size) = (0, 0, 0, 0, 0);
    let joins: [Join; 3] = [sum::<bf16>, sum::<f16>, largest];
    // SAFETY: five places to write an int to; MPI calls the functions with what they ask for.
    let code = unsafe {
        halfstep_mpi_open(&mut level, &mut ours, &mut ended, &mut rank, &mut size, &joins)
    };
    check("MPI_Init_thread", code)?;
    let (rank, size) = (rank as usize, size as usize);
    Ok(Opened { level, ours: ours != 0, ended: ended != 0, rank, size })
}

/// Ends MPI, unless messages or processes were given up.
pub(super) fn close() {
    if !ABANDONED.load(Ordering::Relaxed) {
        let _one = lock();
        // SAFETY: `open` has started MPI, and no communicator is left to use it.
        unsafe { halfstep_mpi_close() };
    }
}

/// Whether MPI has ended, whoever ended it.
pub(super) fn ended() -> bool {
    let _one = lock();
    // SAFETY: no precondition.
    unsafe { halfstep_mpi_ended() != 0 }
}

/// The library's own name and version.
pub(super) fn library() -> String {
    let _one = lock();
    let mut text = [0 as c_char; 512];
    // SAFETY: 512 bytes are there, and the shim ends the text with a zero.
    unsafe {
        halfstep_mpi_library(text.as_mut_ptr(), 512);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

/// For how many communicators there are reductions.
pub(super) fn reducing() -> u32 {
    // SAFETY: no precondition.
    unsafe { halfstep_mpi_reducing() as u32 }
}

/// One communicator's tags, the mail it has sent, and its ranks.
#[derive(Debug)]
pub(super) struct Channel {
    comm: NonNull<c_void>,
    /// Of each rank of the communicator, the process.
    members: Vec<usize>,
    /// Which of the communicators that reduce it is.
    reduces: Option<u32>,
    /// As long as this is held, MPI is not ended.
    _alive: Arc<()>,
}

// SAFETY: every use of the pointer is made under the lock.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// `reduces`: which of those below [`reducing`] it is, if it is of all processes. `None`: no memory, or no tags left.
    pub fn new(id: u32, members: Vec<usize>, reduces: Option<u32>, alive: Arc<()>) -> Option<Self> {
        let id = c_int::try_from(id).ok()?;
        let _one = lock();
        // SAFETY: MPI is open: only `Mpi` makes channels.
        let comm = NonNull::new(unsafe { halfstep_mpi_comm_new(id) })?;
        Some(Self { comm, members, reduces, _alive: alive })
    }
}

impl processes::Channel for Channel {
    type Transfer = Transfer;
    const NAME: &'static str = "MPI";

    fn send(&self, to: usize, mail: &[u8]) -> Result<(), Failed> {
        let _one = lock();
        let (to, len) = (self.members[to] as c_int, mail.len() as c_int);
        // SAFETY: the channel is alive, and the shim copies the `len` bytes.
        let code = unsafe { halfstep_mpi_mail_send(self.comm.as_ptr(), to, mail.as_ptr(), len) };
        check("MPI_Isend", code)
    }

    fn receive<'a>(&self, into: &'a mut [u8]) -> Result<Delivery<'a>, Failed> {
        let _one = lock();
        let (mut len, mut from) = (0, 0);
        let capacity = into.len() as c_int;
        // SAFETY: the channel is alive, and `capacity` bytes may be written.
        let code = unsafe {
            let to = into.as_mut_ptr();
            halfstep_mpi_mail_receive(self.comm.as_ptr(), to, capacity, &mut len, &mut from)
        };
        check("MPI_Recv", code)?;
        let Ok(process) = usize::try_from(from) else { return Ok(Delivery::Nothing) };
        match self.members.iter().position(|&member| member == process) {
            Some(from) => Ok(Delivery::Mail(from, &into[..len as usize])),
            None => {
                let reason =
                    format!("mail from process {process}, which is of another communicator");
                Err(Failed { call: "MPI_Recv", reason })
            }
        }
    }

    fn reduces(&self) -> bool {
        self.reduces.is_some()
    }

    /// MPI's end waits for all processes.
    fn abandon(&self) {
        abandon();
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Small messages leave at once; one that does not has nobody to go to.
        for _ in 0..1000 {
            let mut left = 0;
            let one = lock();
            // SAFETY: the channel is alive until the call below.
            if unsafe { halfstep_mpi_mail_reap(self.comm.as_ptr(), &mut left) } != 0 {
                break;
            }
            if left == 0 {
                // SAFETY: nothing is on its way, and this is the last use.
                return unsafe { halfstep_mpi_comm_free(self.comm.as_ptr()) };
            }
            drop(one);
            std::thread::yield_now();
        }
        abandon();
    }
}

/// Bulk data on its way, and the memory that MPI reads and writes meanwhile.
#[derive(Debug)]
pub(super) struct Transfer {
    batch: NonNull<c_void>,
    /// What was started.
    messages: Vec<(Piece, Kind)>,
    memory: Vec<Memory>,
    channel: Arc<Channel>,
}

/// What becomes of a piece.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Sent,
    Received,
    /// By all processes: there is no peer.
    Reduced(Reduction),
}

impl Transfer {
    /// The caller holds the lock.
    fn pending(&self, slot: usize) -> bool {
        // SAFETY: the batch is alive, and has a slot for each message.
        unsafe { halfstep_mpi_batch_pending(self.batch.as_ptr(), slot as c_int) != 0 }
    }

    /// Whether pieces that are to be sent or written may be started. The caller holds the lock.
    fn check(&self, out: &[Piece], into: &[Piece]) -> Result<(), Failed> {
        let pending = (0..self.messages.len()).filter(|&slot| self.pending(slot));
        let pending = pending.map(|slot| self.messages[slot]);
        let pending = pending.map(|(piece, kind)| (piece, kind != Kind::Sent));
        check_pieces(&self.memory, pending, out, into)
    }

    /// The caller holds the lock, and has checked the piece.
    fn start_one(&mut self, piece: Piece, kind: Kind) -> Result<(), Failed> {
        let address = self.memory[piece.memory].buffer().address() + piece.start as u64;
        let (batch, to, len) = (self.batch.as_ptr(), address as *mut u8, piece.len as c_int);
        let message = |receives: bool| {
            let (comm, peer) = (self.channel.comm.as_ptr(), self.channel.members[piece.peer]);
            // SAFETY: the bytes are inside their buffer, which this value keeps until the message has
            // ended, or for ever (`drop`), and no other message uses them (`check`), nor does the caller.
            // MPI only reads what is sent.
            unsafe {
                halfstep_mpi_batch_start(batch, comm, receives.into(), to, len, peer as c_int)
            }
        };
        match kind {
            Kind::Sent => check("MPI_Isend", message(false))?,
            Kind::Received => check("MPI_Irecv", message(true))?,
            Kind::Reduced(reduction) => {
                let which = self.channel.reduces.and_then(|which| c_int::try_from(which).ok());
                let reason = || "this communicator has no reductions".into();
                let which =
                    which.ok_or_else(|| Failed { call: "MPI_Iallreduce", reason: reason() })?;
                let (len, number) = (len / reduction.bytes() as c_int, number(reduction));
                // SAFETY: as above; values are aligned, as buffers and pieces are.
                let code = unsafe { halfstep_mpi_batch_reduce(batch, which, to, len, number) };
                check("MPI_Iallreduce", code)?;
            }
        }
        self.messages.push((piece, kind));
        Ok(())
    }
}

/// As the shim numbers them.
fn number(reduction: Reduction) -> c_int {
    match reduction {
        Reduction::Sum(Dtype::Bf16) => 0,
        Reduction::Sum(Dtype::F16) => 1,
        Reduction::MaxU8 => 2,
        Reduction::Sum(Dtype::F32) => 3,
        Reduction::SumI32 => 4,
    }
}

impl processes::Transfer for Transfer {
    type Channel = Channel;

    fn new(channel: &Arc<Channel>, memory: Vec<Memory>, capacity: usize) -> Result<Self, Failed> {
        let no_memory = || Failed { call: "malloc", reason: format!("{capacity} requests") };
        let count = c_int::try_from(capacity).map_err(|_| no_memory())?;
        // SAFETY: no precondition.
        let batch = NonNull::new(unsafe { halfstep_mpi_batch_new(count) }).ok_or_else(no_memory)?;
        Ok(Self { batch, messages: Vec::with_capacity(capacity), memory, channel: channel.clone() })
    }

    fn start(&mut self, out: &[Piece], into: &[Piece]) -> Result<Started, Failed> {
        let _one = lock();
        let first = self.messages.len();
        self.check(out, into)?;
        for (kind, pieces) in [(Kind::Received, into), (Kind::Sent, out)] {
            pieces.iter().try_for_each(|&piece| self.start_one(piece, kind))?;
        }
        let middle = first + into.len();
        Ok(Started { receives: first..middle, sends: middle..self.messages.len() })
    }

    fn reduce(&mut self, pieces: &[Piece], reduction: Reduction) -> Result<(), Failed> {
        let _one = lock();
        self.check(&[], pieces)?;
        pieces.iter().try_for_each(|&piece| self.start_one(piece, Kind::Reduced(reduction)))
    }

    fn buffer(&self, memory: usize) -> &Buffer<u8> {
        self.memory[memory].buffer()
    }

    fn advance(&mut self) -> Result<bool, Failed> {
        let _one = lock();
        let mut ended = 0;
        // SAFETY: the batch is alive, and so is the memory of its messages.
        let code = unsafe { halfstep_mpi_batch_test(self.batch.as_ptr(), &mut ended) };
        check("MPI_Testsome", code).map(|()| ended > 0)
    }

    /// MPI does not tell.
    fn lost(&self) -> Option<usize> {
        None
    }

    fn ended(&self, mut messages: Range<usize>) -> bool {
        let _one = lock();
        messages.all(|slot| !self.pending(slot))
    }

    fn waiting_on(&self, messages: Range<usize>) -> Vec<usize> {
        let _one = lock();
        let pending = messages.filter(|&slot| self.pending(slot));
        let messages = pending.map(|slot| self.messages[slot]);
        let messages = messages.filter(|(_, kind)| !matches!(kind, Kind::Reduced(_)));
        let mut peers: Vec<usize> = messages.map(|(piece, _)| piece.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn all(&self) -> Range<usize> {
        0..self.messages.len()
    }

    fn own(mut self) -> Option<Vec<Buffer<u8>>> {
        let own = |memory| match memory {
            Memory::Own(buffer) => Some(buffer),
            Memory::Shared(_) => None,
        };
        self.ended(self.all())
            .then(|| std::mem::take(&mut self.memory).into_iter().filter_map(own).collect())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        for slot in self.all().filter(|&slot| self.messages[slot].1 == Kind::Received) {
            let _one = lock();
            // SAFETY: the batch is alive and has the slot. A receive that is being served goes on.
            unsafe { halfstep_mpi_batch_cancel(self.batch.as_ptr(), slot as c_int) };
        }
        for _ in 0..1000 {
            if self.ended(self.all()) {
                let _one = lock();
                // SAFETY: nothing is pending, and this is the last use.
                return unsafe { halfstep_mpi_batch_free(self.batch.as_ptr()) };
            }
            if self.advance().is_err() {
                break;
            }
            std::thread::yield_now();
        }
        // MPI may still read or write it: it is never freed.
        std::mem::forget(std::mem::take(&mut self.memory));
        abandon();
    }
}
