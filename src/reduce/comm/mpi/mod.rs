//! Ranks that are processes of MPI.
//!
//! Each rank sends every other its part, and adds what comes in rank order. MPI's own reductions, whose
//! order of sums is the library's choice, are for who asks for them (`Communicator::all_reduce`).
//! Messages and reductions are started without waiting and tested until they have ended, on the thread
//! that makes the call. That thread is what gives MPI time to move data; and a call that only ever tests
//! can keep a deadline, which MPI's blocking calls cannot.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod shim;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Fault;
use super::processes::{Failed, Processes, by_processes};
use crate::{Error, Result};

/// This process's part in a job of MPI: `mpirun -n 4 program`. One in a process.
///
/// ```no_run
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let mpi = Mpi::init()?;
/// println!("rank {} of {} under {}", mpi.rank(), mpi.size(), mpi.library());
/// let plan = BucketPlan::ddp(&[Param::new("w", 4)], Dtype::Bf16, 1 << 20, 25 << 20)?;
/// let comm = Box::new(mpi.comm()?);
/// let reducer = Reducer::<f32>::new(&Device::cpu(), plan, comm, Config::default())?;
/// # drop(reducer);
/// # Ok(())
/// # }
/// ```
///
/// **Threads.** Stays on the thread that called [`init`](Self::init), which MPI wants to be the one
/// that ends it; its communicators may go to others. MPI is asked for `MPI_THREAD_SERIALIZED`.
///
/// **End.** When dropped, ends MPI, in which it waits for all other processes to do the same; unless
/// someone else had started MPI, a communicator is still alive, or one has met a
/// [`Fault::Deadline`] or [`Fault::Transport`]. MPI cannot be ended in order then (a process that
/// hangs would be waited for), and the launcher ends the job when processes exit. Where someone else ends it first, later
/// calls are [`Fault::Transport`].
///
/// **Limits.** `init` has no deadline. What a launcher does when a process dies is its choice: most
/// kill the whole job at once, so that survivors report nothing. Open MPI's, given
/// `--enable-recovery`, leaves survivors to their deadline; MPICH's (4.0) does not survive it.
/// A library that notices a death before the deadline does not say whose (plain MPI has no call for it):
/// [`Fault::Transport`] then names the ranks that do not answer.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    /// Whether we started MPI.
    ours: bool,
    /// The next communicator's number,
    next: Cell<u32>,
    /// and the next one of all processes.
    whole: Cell<u32>,
    /// Held by every communicator.
    alive: Arc<()>,
    /// Stays on its thread.
    not_send: PhantomData<*const ()>,
}

impl Mpi {
    /// Starts MPI, or joins it where someone has started it. All processes of the job take part.
    ///
    /// # Errors
    /// [`Error::State`] the second time in a process, after MPI has ended, or if MPI serves threads
    /// at a lower level than needed: `MPI_THREAD_SERIALIZED`, or `MPI_THREAD_MULTIPLE` where someone
    /// else makes calls of their own. [`Error::Comm`] with [`Fault::Transport`].
    pub fn init() -> Result<Self> {
        const OP: &str = "Mpi::init";
        static ONCE: AtomicBool = AtomicBool::new(false);
        if ONCE.swap(true, Ordering::Relaxed) {
            return Err(Error::state(OP, "one Mpi in a process", "another, now or before"));
        }
        let opened = shim::open().map_err(|failed| Error::Comm(transport(0, failed)))?;
        if opened.ended {
            return Err(ended(OP));
        }
        const LEVELS: [&str; 4] = ["SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE"];
        let (need, level) = (if opened.ours { 2 } else { 3 }, opened.level as usize);
        if level < need {
            let name = |level: usize| format!("MPI_THREAD_{}", LEVELS[level]);
            return Err(Error::state(OP, name(need), name(level)));
        }
        Ok(Self {
            rank: opened.rank,
            size: opened.size,
            ours: opened.ours,
            next: Cell::new(0),
            whole: Cell::new(0),
            alive: Arc::new(()),
            not_send: PhantomData,
        })
    }

    /// This process, `0..size`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The library's own name and version.
    pub fn library(&self) -> String {
        shim::library()
    }

    /// A communicator of all processes. Sends nothing; but the n-th of one process talks to the
    /// n-th of the others.
    ///
    /// [`all_reduce`](crate::reduce::Communicator::all_reduce) of the first eight is MPI's own, `MPI_Iallreduce`: 16-bit
    /// values are added in f32 and rounded at every hop, by an operator of ours. Of others, as of
    /// [groups](Self::group), it is made of exchanges and sums of ours.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if MPI has no tags for one more (there are 16,384 at least); [`Error::State`] after its end.
    pub fn comm(&self) -> Result<MpiComm> {
        let which = self.whole.get();
        let reduces = (which < shim::reducing()).then_some(which);
        let comm = self.make((0..self.size).collect(), self.rank, reduces)?;
        self.whole.set(which + 1);
        Ok(comm)
    }

    /// A communicator of some processes, of which this is one: `members[r]` is rank `r`. Sends nothing; every
    /// process makes its communicators in the same order, and those that are not of one make another at its
    /// place; all members name the same, in the same order. For many nodes: one of the node's processes, one of those with the same place, and
    /// [`Hierarchical`](crate::reduce::Hierarchical) of the two.
    ///
    /// ```no_run
    /// use halfstep::{Device, reduce::{Hierarchical, Mpi}};
    /// # fn main() -> halfstep::Result<()> {
    /// let (mpi, ranks) = (Mpi::init()?, 4); // processes of a node, one node after the other
    /// let (node, place) = (mpi.rank() / ranks, mpi.rank() % ranks);
    /// let inside: Vec<usize> = (node * ranks..(node + 1) * ranks).collect();
    /// let across: Vec<usize> = (place..mpi.size()).step_by(ranks).collect();
    /// let (inside, across) = (Box::new(mpi.group(&inside)?), Box::new(mpi.group(&across)?));
    /// let limit = std::time::Duration::from_secs(60);
    /// let comm = Hierarchical::new(&Device::cpu(), inside, across, limit)?;
    /// # drop(comm);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Range`] unless the members are processes of this job, each once, and this is one;
    /// [`Error::Unsupported`] as [`comm`](Self::comm).
    pub fn group(&self, members: &[usize]) -> Result<MpiComm> {
        let once = |(at, member): (usize, &usize)| {
            *member < self.size && members[..at].iter().all(|before| before != member)
        };
        let rank = members.iter().position(|&member| member == self.rank);
        let (true, Some(rank)) = (members.iter().enumerate().all(once), rank) else {
            let expected =
                format!("processes below {}, each once, {} among them", self.size, self.rank);
            return Err(Error::range("Mpi::group", "members", expected, format!("{members:?}")));
        };
        self.make(members.to_vec(), rank, None)
    }

    fn make(&self, members: Vec<usize>, rank: usize, reduces: Option<u32>) -> Result<MpiComm> {
        if shim::ended() {
            return Err(ended("Mpi::comm"));
        }
        let (id, size) = (self.next.get(), members.len());
        let channel = shim::Channel::new(id, members, reduces, self.alive.clone());
        let channel = channel.ok_or_else(|| Error::Unsupported {
            op: "Mpi::group",
            reason: format!("MPI has no tags, or no memory, for communicator {id}"),
        })?;
        self.next.set(id + 1);
        Ok(MpiComm(Processes::new(channel, rank, size)))
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if self.ours && Arc::strong_count(&self.alive) == 1 {
            shim::close();
        }
    }
}

fn ended(op: &'static str) -> Error {
    Error::state(op, "MPI not ended yet", "that MPI_Finalize was called")
}

fn transport(rank: usize, failed: Failed) -> Fault {
    Fault::Transport { rank, call: failed.call.into(), reason: failed.reason }
}

/// One rank of a communicator made by [`Mpi::comm`]. Exchanges memory of the CPU:
/// a stream of a GPU is a [`Fault::Aborted`] that says so. [`Staged`](crate::reduce::Staged) takes memory of a GPU over
/// it.
///
/// Two ranks that meet different faults at the same time may each report their own; every other
/// rank reports the one it hears of first.
///
/// It moves to the thread that owns it; it is not shared:
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<halfstep::reduce::MpiComm>();
/// ```
#[derive(Debug)]
pub struct MpiComm(Processes<shim::Channel>);

by_processes!(MpiComm);
