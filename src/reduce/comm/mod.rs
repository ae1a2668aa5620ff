//! Communicators: ranks that exchange blocks of bytes. One trait, and an implementation for
//! threads of one process ([`local`]); with the features `mpi` and `tcp`, others for processes (`Mpi`,
//! `TcpComm`); with `nccl` and `rccl`, one for GPUs (`NcclComm`). [`Staged`] takes GPUs' memory over any of the host's.

#![deny(unsafe_code)]

mod fold;
mod hierarchical;
#[cfg(any(feature = "mpi", feature = "tcp", feature = "nccl", feature = "rccl"))]
mod idle;
mod local;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(any(feature = "nccl", feature = "rccl"))]
mod nccl;
mod pool;
#[cfg(any(feature = "mpi", feature = "tcp"))]
mod processes;
mod staged;
mod sum;
#[cfg(feature = "tcp")]
mod tcp;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use hierarchical::Hierarchical;
pub(super) use hierarchical::Level;
pub use local::{Local, local};
#[cfg(feature = "mpi")]
pub use mpi::{Mpi, MpiComm};
#[cfg(any(feature = "nccl", feature = "rccl"))]
pub use nccl::NcclComm;
pub use staged::Staged;
pub use sum::Reduction;
#[cfg(feature = "tcp")]
pub use tcp::TcpComm;

use crate::{Buffer, Error, Stream};

/// Parts start at multiples of this many bytes, so that a bucket can be read 16 bytes at a time.
const ALIGN: usize = 16;

/// Which ranks get which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(feature = "mpi", feature = "tcp"), derive(serde::Serialize, serde::Deserialize))]
pub enum Collective {
    /// Rank `r`'s buffer is cut in as many equal blocks as there are ranks; rank `q` gets the
    /// `q`-th block of every rank.
    AllToAll,
    /// Every rank gets every rank's whole buffer.
    AllGather,
}

/// Bytes that one rank sent to this one, in the order of its stream.
#[derive(Debug, Clone)]
pub struct Part {
    /// Memory that holds them: a receive buffer, or the sender's own where it can be reached.
    pub buffer: Arc<Buffer<u8>>,
    /// Where they start in it, a multiple of 16.
    pub start: usize,
    /// How many they are.
    pub len: usize,
}

/// What one collective brought.
#[derive(Debug)]
pub struct Parts {
    /// One part of each rank, in rank order.
    pub parts: Vec<Part>,
    /// How long this rank waited for the last one to come.
    pub skew: Duration,
}

/// What a rank sends, and receives, of each rank: what `send[q]` names goes to rank `q`, one after the other
/// into what that rank has as `receive[r]`, `r` being this rank. Lengths agree in pairs; a rank's own
/// entries are not used.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    /// Ranges of bytes that each rank gets.
    pub send: Vec<Vec<Range<usize>>>,
    /// Where what each rank sends is put.
    pub receive: Vec<Vec<Range<usize>>>,
}

/// One step of [`Communicator::exchange_sections`].
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// What is moved before the section is worked on.
    pub gather: Moves,
    /// What is moved afterwards.
    pub scatter: Moves,
}

/// What is done to a section that was gathered: its index, and the buffers of
/// [`Communicator::exchange_sections`].
pub type Work<'a> = dyn FnMut(usize, &Buffer<u8>, &Buffer<u8>) -> crate::Result<()> + 'a;

/// What every use of parts relies on, whoever wrote the communicator: one part of each rank, of the
/// expected length, inside its buffer, and aligned as buckets are.
pub(super) fn check_parts(
    parts: &[Part],
    stream: &Stream,
    ranks: usize,
    bytes: usize,
) -> crate::Result<()> {
    const OP: &str = "Communicator::exchange";
    if parts.len() != ranks {
        let expected = format!("{ranks}, one of each rank");
        return Err(Error::shape(OP, "parts", expected, parts.len()));
    }
    for (rank, part) in parts.iter().enumerate() {
        let arg = || format!("parts[{rank}]");
        if !stream.device().reaches(part.buffer.device()) {
            return Err(Error::Device {
                op: OP,
                arg: arg().into(),
                expected: stream.device().info().to_string(),
                found: part.buffer.device().info().to_string(),
            });
        }
        let inside = part.start.checked_add(part.len).is_some_and(|end| end <= part.buffer.len());
        if part.len != bytes || !inside {
            let expected = format!("{bytes} bytes inside their buffer");
            let found = format!("{} at {} of {}", part.len, part.start, part.buffer.len());
            return Err(Error::shape(OP, arg(), expected, found));
        }
        let address = part.buffer.address() + (part.start) as u64;
        if bytes > 0 && !address.is_multiple_of(ALIGN as u64) {
            return Err(Error::Align { op: OP, arg: arg().into(), need: ALIGN, address });
        }
    }
    Ok(())
}

/// Ranks that exchange blocks.
///
/// A communicator is `Send` and not `Sync`: the order of its collectives is a protocol, so one
/// thread owns it. Every rank must make the same calls in the same order; a call that differs is a
/// [`Fault::Mismatch`] on every rank. After a fault every call answers with the first one, at once.
pub trait Communicator: Send {
    /// This rank, `0..size`.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Takes part in one collective, in the stream's order.
    ///
    /// The buffer may be written again once every rank has dropped the parts it got from it:
    /// `Arc::get_mut` tells.
    ///
    /// # Errors
    /// A [`Fault`]; by `deadline` (an absolute time, so that timeouts do not add up along a chain
    /// of ranks) at the latest.
    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault>;

    /// Whether this communicator has [`exchange_sections`](Self::exchange_sections): a
    /// [`Reducer`](super::Reducer) whose gradients are views in the wire's type then sends them from
    /// where they lie, and receives averages there.
    fn has_sections(&self) -> bool {
        false
    }

    /// Takes part in a collective that moves ranges of bytes, in the stream's order, and calls `work`
    /// between: of each section in turn it moves what is gathered, from `buffer` to `gathered`; calls
    /// `work(section, buffer, gathered)`; and moves what is scattered, from `buffer` to `buffer`. One
    /// section is worked on while the next one is gathered, and those before are scattered: within what is
    /// on its way together no byte is received twice, or both sent and received, and `work` touches none
    /// of it, but that it may read what is sent. Every rank names as many sections.
    ///
    /// Returns buffer and gathered, and how long this rank waited for the last one to come.
    ///
    /// # Errors
    /// As [`exchange`](Self::exchange), and what `work` says, which ends the communicator; the buffers are
    /// lost.
    fn exchange_sections(
        &mut self,
        (buffer, gathered): (Buffer<u8>, Buffer<u8>),
        sections: &[Section],
        work: &mut Work<'_>,
        stream: &Stream,
        deadline: Instant,
    ) -> crate::Result<(Buffer<u8>, Buffer<u8>, Duration)> {
        let _ = (buffer, gathered, sections, work, stream, deadline);
        let reason = "not a call of this communicator".into();
        let call = "exchange_sections".into();
        Err(Fault::Transport { rank: self.rank(), call, reason }.into())
    }

    /// Takes part in a reduction of the first `len` bytes of every rank's buffer, which are replaced by the
    /// result: the same on every rank, in an order of the communicator's own. (Of f32 that are NaN, a library may
    /// leave one rank another NaN than the other.) Returns the buffer, and how long this rank waited for the
    /// last one to come.
    ///
    /// Unless a communicator has something faster, it is an all-to-all, sums of this rank's block on the
    /// host (f32, in rank order, rounded once) and an all-gather, in memory that stays with the thread for its next ones.
    ///
    /// # Errors
    /// As [`exchange`](Self::exchange); [`Error::Shape`] if `len` bytes are not values inside the buffer. The
    /// buffer is lost.
    fn all_reduce(
        &mut self,
        buffer: Buffer<u8>,
        len: usize,
        reduction: Reduction,
        stream: &Stream,
        deadline: Instant,
    ) -> crate::Result<(Buffer<u8>, Duration)> {
        sum::in_rank_order(self, buffer, len, reduction, stream, deadline)
    }

    /// The communicator itself, if its ranks are threads of this process: a
    /// [`Reducer`](super::Reducer) whose gradients are views then averages them where they lie, in
    /// every rank's memory at once, and [`Sum::Communicator`](super::Sum::Communicator) is in rank order. One that wraps
    /// another may pass that one's on.
    fn threads(&mut self) -> Option<&mut Local> {
        None
    }

    /// The communicator itself, if it is one of many nodes: a [`Reducer`](super::Reducer) then sums inside nodes
    /// before it sums across. One that wraps another may pass that one's on.
    fn nodes(&mut self) -> Option<&mut Hierarchical> {
        None
    }

    /// Whether the communicator is whole, as far as is known without waiting: what a rank asks that waits
    /// for something else than a collective of this communicator's.
    ///
    /// # Errors
    /// The fault that broke it.
    fn check(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// A handle that other threads can stop the communicator with.
    fn aborter(&self) -> Arc<dyn Abort>;
}

/// Stops a communicator from another thread.
pub trait Abort: Send + Sync {
    /// Makes collectives in progress, and all later ones, fail with [`Fault::Aborted`] on every
    /// rank. The first fault stays.
    fn abort(&self, reason: &str);
}

/// Why a collective failed. The first fault of a communicator is the root cause; all ranks report
/// that one.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(any(feature = "mpi", feature = "tcp"), derive(serde::Serialize, serde::Deserialize))]
pub enum Fault {
    /// A rank ended, or its thread panicked, while others waited for it.
    #[error("collective {sequence}: rank {rank} is lost")]
    PeerLost {
        /// Which collective of the communicator, counted from 0.
        sequence: u64,
        /// The rank.
        rank: usize,
    },
    /// Ranks had not come by the deadline.
    #[error("collective {sequence}: deadline passed waiting for ranks {waiting_on:?}")]
    Deadline {
        /// Which collective.
        sequence: u64,
        /// The ranks that had not come: between processes those that do not answer within half a second, unless all do.
        /// None where all had come, and the links did not deliver.
        waiting_on: Vec<usize>,
    },
    /// Ranks made different calls.
    #[error("collective {sequence}: rank {rank} called {found}, rank 0 called {expected}")]
    Mismatch {
        /// Which collective.
        sequence: u64,
        /// The first rank that differs from rank 0.
        rank: usize,
        /// Rank 0's call.
        expected: String,
        /// The differing call.
        found: String,
    },
    /// A buffer cannot be cut into one block for each rank.
    #[error("collective {sequence}: rank {rank}: {bytes} bytes are not {blocks} equal blocks")]
    Length {
        /// Which collective.
        sequence: u64,
        /// The rank that was asked to send it.
        rank: usize,
        /// Bytes of the buffer.
        bytes: usize,
        /// Blocks needed: the number of ranks.
        blocks: usize,
    },
    /// A rank gave up, and said why.
    #[error("aborted by rank {rank}: {reason}")]
    Aborted {
        /// The rank.
        rank: usize,
        /// Its reason.
        reason: String,
    },
    /// The library that moves the blocks failed.
    #[error("rank {rank}: {call}: {reason}")]
    Transport {
        /// The rank.
        rank: usize,
        /// The library's function.
        call: String,
        /// What it says of it. Between processes, which ranks did not answer within half a second after it comes
        /// first, if any did not: they are gone, or busy with something else.
        reason: String,
    },
    /// Ranks disagree about the parameters or their buckets.
    #[error("rank {rank} has another plan than rank 0: first difference at parameter {param}")]
    PlanMismatch {
        /// The first rank that differs from rank 0.
        rank: usize,
        /// The first parameter that differs: its index, and this rank's name for it.
        param: String,
    },
    /// A bucket's trailer is not the one expected: ranks are in different steps.
    #[error("bucket {bucket}: rank {rank} is in step {found}, this rank in step {expected}")]
    StepSkew {
        /// The bucket.
        bucket: usize,
        /// The rank whose trailer differs.
        rank: usize,
        /// This rank's step.
        expected: u64,
        /// That rank's step.
        found: u64,
    },
}
