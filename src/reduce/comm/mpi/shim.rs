//! `shim.c`, in Rust. Every call is made under one lock, so that MPI needs to serve one thread at a
//! time only; all of them are short, since none waits for another process (but `open` and `close`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Buffer;

unsafe extern "C" {
    fn halfstep_mpi_open(
        level: &mut c_int,
        ours: &mut c_int,
        ended: &mut c_int,
        rank: &mut c_int,
        size: &mut c_int,
    ) -> c_int;
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
    fn halfstep_mpi_batch_pending(batch: *const c_void, slot: c_int) -> c_int;
    fn halfstep_mpi_batch_test(batch: *mut c_void, ended: &mut c_int) -> c_int;
    fn halfstep_mpi_batch_cancel(batch: *mut c_void, slot: c_int) -> c_int;
}

/// One call at a time.
static CALLS: Mutex<()> = Mutex::new(());
/// Messages are in MPI's hands for ever, or a process may be gone: MPI cannot be ended in order.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Nothing is kept under the lock, so that a panic leaves nothing half done.
fn lock() -> MutexGuard<'static, ()> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, MPI is left as it is when the process ends.
pub(super) fn abandon() {
    ABANDONED.store(true, Ordering::Relaxed);
}

/// A call that failed: which, and what MPI says of its code.
#[derive(Debug)]
pub(super) struct Failed {
    pub call: &'static str,
    pub reason: String,
}

/// The caller holds the lock.
fn check(call: &'static str, code: c_int) -> Result<(), Failed> {
    if code == 0 {
        return Ok(()); // MPI_SUCCESS, by the standard
    }
    let mut text = [0 as c_char; 512];
    // SAFETY: 512 bytes are there, and the shim ends the text with a zero.
    let reason = unsafe {
        halfstep_mpi_error_text(code, text.as_mut_ptr(), 512);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    Err(Failed { call, reason: format!("{reason} (code {code})") })
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
    // SAFETY: five places to write an int to.
    let code =
        unsafe { halfstep_mpi_open(&mut level, &mut ours, &mut ended, &mut rank, &mut size) };
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

/// One communicator's tags, and the mail it has sent.
#[derive(Debug)]
pub(super) struct Channel(NonNull<c_void>);

// SAFETY: every use of the pointer is made under the lock.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// `None`: no memory, or no tags left.
    pub fn new(id: u32) -> Option<Self> {
        let id = c_int::try_from(id).ok()?;
        let _one = lock();
        // SAFETY: MPI is open: only `Mpi` makes channels.
        NonNull::new(unsafe { halfstep_mpi_comm_new(id) }).map(Self)
    }

    pub fn send(&self, to: usize, mail: &[u8]) -> Result<(), Failed> {
        let _one = lock();
        let (to, len) = (to as c_int, mail.len() as c_int);
        // SAFETY: the channel is alive, and the shim copies the `len` bytes.
        let code = unsafe { halfstep_mpi_mail_send(self.0.as_ptr(), to, mail.as_ptr(), len) };
        check("MPI_Isend", code)
    }

    /// The next mail that has come, and from whom.
    pub fn receive<'a>(&self, into: &'a mut [u8]) -> Result<Option<(usize, &'a [u8])>, Failed> {
        let _one = lock();
        let (mut len, mut from) = (0, 0);
        let capacity = into.len() as c_int;
        // SAFETY: the channel is alive, and `capacity` bytes may be written.
        let code = unsafe {
            let to = into.as_mut_ptr();
            halfstep_mpi_mail_receive(self.0.as_ptr(), to, capacity, &mut len, &mut from)
        };
        check("MPI_Recv", code)?;
        Ok(usize::try_from(from).ok().map(|from| (from, &into[..len as usize])))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Small messages leave at once; one that does not has nobody to go to.
        for _ in 0..1000 {
            let mut left = 0;
            let one = lock();
            // SAFETY: the channel is alive until the call below.
            if unsafe { halfstep_mpi_mail_reap(self.0.as_ptr(), &mut left) } != 0 {
                break;
            }
            if left == 0 {
                // SAFETY: nothing is on its way, and this is the last use.
                return unsafe { halfstep_mpi_comm_free(self.0.as_ptr()) };
            }
            drop(one);
            std::thread::yield_now();
        }
        abandon();
    }
}

/// A piece of a buffer, and the rank that it goes to or comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub peer: usize,
    pub start: usize,
    pub len: usize,
}

/// What is sent, unless it is in the other: what is received into.
type Memory = (Option<Arc<Buffer<u8>>>, Buffer<u8>);

/// Bulk data on its way, and the memory that MPI reads and writes meanwhile.
#[derive(Debug)]
pub(super) struct Transfer {
    batch: NonNull<c_void>,
    /// The peer of each message, in the order they were started.
    peers: Vec<usize>,
    receives: usize,
    memory: Option<Memory>,
}

impl Transfer {
    /// Starts all receives, then all sends.
    ///
    /// `send` and `receive` are memory of the CPU, and no work that writes `send` is under way.
    pub fn start(
        channel: &Channel,
        send: Arc<Buffer<u8>>,
        receive: Buffer<u8>,
        out: &[Piece],
        into: &[Piece],
    ) -> Result<Self, Failed> {
        Self::begin(channel, Some(send), receive, out, into)
    }

    /// The same, where both are parts of one buffer. A failure if they overlap.
    pub fn within(
        channel: &Channel,
        buffer: Buffer<u8>,
        out: &[Piece],
        into: &[Piece],
    ) -> Result<Self, Failed> {
        // Reading twice is fine; what is written must be apart from everything else.
        let mut parts: Vec<(usize, usize, bool)> = Vec::new();
        parts.extend(out.iter().map(|piece| (piece.start, piece.start + piece.len, false)));
        parts.extend(into.iter().map(|piece| (piece.start, piece.start + piece.len, true)));
        parts.sort_unstable();
        let (mut read, mut written) = (0, 0);
        for &(start, end, writes) in parts.iter().filter(|(start, end, _)| start < end) {
            if start < written || (writes && start < read) {
                let reason = format!("bytes from {start} on are received, and used otherwise");
                return Err(Failed { call: "exchange_ranges", reason });
            }
            match writes {
                true => written = end,
                false => read = read.max(end),
            }
        }
        Self::begin(channel, None, buffer, out, into)
    }

    fn begin(
        channel: &Channel,
        send: Option<Arc<Buffer<u8>>>,
        receive: Buffer<u8>,
        out: &[Piece],
        into: &[Piece],
    ) -> Result<Self, Failed> {
        let inside = |pieces: &[Piece], bytes: usize| {
            pieces.iter().all(|p| p.start.checked_add(p.len).is_some_and(|end| end <= bytes))
        };
        let sent = send
            .as_ref()
            .map_or((receive.address(), receive.len()), |send| (send.address(), send.len()));
        if !inside(out, sent.1) || !inside(into, receive.len()) {
            let reason = "ranges outside their buffer".into();
            return Err(Failed { call: "exchange_ranges", reason });
        }
        let one = lock();
        let count = (out.len() + into.len()) as c_int;
        // SAFETY: no precondition.
        let batch = NonNull::new(unsafe { halfstep_mpi_batch_new(count) });
        let no_memory = || Failed { call: "malloc", reason: format!("{count} requests") };
        let batch = batch.ok_or_else(no_memory)?;
        let mut failed = Ok(());
        let mut peers = Vec::with_capacity(out.len() + into.len());
        for (receives, pieces, address, bytes) in
            [(true, into, receive.address(), receive.len()), (false, out, sent.0, sent.1)]
        {
            for &Piece { peer, start, len } in pieces {
                assert!(start + len <= bytes, "pieces are cut from their buffers");
                if failed.is_ok() {
                    let to = (address + start as u64) as *mut u8;
                    // SAFETY: the bytes are inside their buffer (asserted), which this value keeps
                    // until the message has ended, or for ever (`drop`). Nobody else reads what is
                    // received: the buffer is ours alone, and ranges of it that are sent are others
                    // (`within`). MPI only reads what is sent.
                    let code = unsafe {
                        let (len, peer) = (len as c_int, peer as c_int);
                        let (batch, comm) = (batch.as_ptr(), channel.0.as_ptr());
                        halfstep_mpi_batch_start(batch, comm, receives.into(), to, len, peer)
                    };
                    failed = check(if receives { "MPI_Irecv" } else { "MPI_Isend" }, code);
                }
                if failed.is_ok() {
                    peers.push(peer);
                }
            }
        }
        drop(one);
        let receives = into.len().min(peers.len());
        let started = Self { batch, peers, receives, memory: Some((send, receive)) };
        failed.map(|()| started) // on failure, dropped: what was started is taken back
    }

    /// Lets messages move on; whether any has ended.
    pub fn advance(&mut self) -> Result<bool, Failed> {
        let _one = lock();
        let mut ended = 0;
        // SAFETY: the batch is alive, and so is the memory of its messages.
        let code = unsafe { halfstep_mpi_batch_test(self.batch.as_ptr(), &mut ended) };
        check("MPI_Testsome", code).map(|()| ended > 0)
    }

    /// The ranks whose messages have not ended, in order.
    pub fn waiting_on(&self) -> Vec<usize> {
        let _one = lock();
        let pending = |slot: &usize| {
            // SAFETY: the batch is alive, and has as many slots as there are peers.
            unsafe { halfstep_mpi_batch_pending(self.batch.as_ptr(), *slot as c_int) != 0 }
        };
        let slots = (0..self.peers.len()).filter(pending);
        let mut peers: Vec<usize> = slots.map(|slot| self.peers[slot]).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// What was received. `None` while a message is on its way.
    pub fn received(mut self) -> Option<Buffer<u8>> {
        if !self.waiting_on().is_empty() {
            return None;
        }
        self.memory.take().map(|(_, receive)| receive)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        for slot in 0..self.receives {
            let _one = lock();
            // SAFETY: the batch is alive and has the slot. A receive that is being served goes on.
            unsafe { halfstep_mpi_batch_cancel(self.batch.as_ptr(), slot as c_int) };
        }
        for _ in 0..1000 {
            if self.waiting_on().is_empty() {
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
        std::mem::forget(self.memory.take());
        abandon();
    }
}
