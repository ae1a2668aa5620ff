//! Ranks that are processes: what there is to say between them, over whatever carries it.
//!
//! A [`Channel`] carries mail, small messages that may come at any time and from anyone; a [`Transfer`] carries
//! bulk data that both sides expect. [`Processes`] announces calls by mail, compares them, serves them by
//! transfers, and tells everyone of faults.

#![forbid(unsafe_code)]

mod comm;
mod mail;
mod pieces;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

pub(super) use comm::Processes;
pub(super) use pieces::{Piece, check_pieces};

use super::Reduction;
use crate::Buffer;

/// A call that failed: which, and what the library or the system says of it.
#[derive(Debug)]
pub(super) struct Failed {
    pub call: &'static str,
    pub reason: String,
}

/// What a channel has for its owner.
pub(super) enum Delivery<'a> {
    Nothing,
    /// From a rank.
    Mail(usize, &'a [u8]),
    /// All mail of a rank that is gone has been delivered. MPI does not tell.
    #[cfg(feature = "tcp")]
    Gone(usize),
}

/// Ranks' mail.
pub(super) trait Channel: Debug + Send + Sync + 'static {
    type Transfer: Transfer<Channel = Self>;
    /// What carries it.
    const NAME: &'static str;

    /// Sends mail, which does not wait. To a rank that is gone it goes nowhere.
    fn send(&self, to: usize, mail: &[u8]) -> Result<(), Failed>;

    /// What has come next.
    fn receive<'a>(&self, into: &'a mut [u8]) -> Result<Delivery<'a>, Failed>;

    /// Whether its transfers [`reduce`](Transfer::reduce): all ranks' do, or none's.
    fn reduces(&self) -> bool {
        false
    }

    /// A process may never answer any more.
    fn abandon(&self);
}

/// Bulk data on its way, and the memory that is read and written meanwhile.
pub(super) trait Transfer: Sized {
    type Channel;

    /// Of at most `capacity` messages. The memory is the CPU's, and no work that writes it is under way.
    fn new(
        channel: &Arc<Self::Channel>,
        memory: Vec<Memory>,
        capacity: usize,
    ) -> Result<Self, Failed>;

    /// Starts receives, then sends. A failure if a message would be outside its memory, or would meet one
    /// that is on its way in the same bytes, unless both are sent.
    ///
    /// Until they have ended, nobody else writes what is sent, and nobody touches what is received.
    fn start(&mut self, out: &[Piece], into: &[Piece]) -> Result<Started, Failed>;

    /// Starts an all-reduce of pieces of memory that is ours alone, of whole values each: every rank names the same, and
    /// nothing else is on its way. Only where the channel says so.
    fn reduce(&mut self, pieces: &[Piece], reduction: Reduction) -> Result<(), Failed> {
        let reason =
            format!("{} pieces: {reduction:?} is not a call of this transport", pieces.len());
        Err(Failed { call: "reduce", reason })
    }

    /// One of the memories: to be touched where no message is on its way.
    fn buffer(&self, memory: usize) -> &Buffer<u8>;

    /// Lets messages move on; whether any has.
    fn advance(&mut self) -> Result<bool, Failed>;

    /// A rank that is gone amid a message, as far as this transfer has found out.
    fn lost(&self) -> Option<usize>;

    /// Whether some messages, by their numbers, have ended.
    fn ended(&self, messages: Range<usize>) -> bool;

    /// The ranks whose messages, of some, have not ended, in order. Of a reduction, which has no messages, none.
    fn waiting_on(&self, messages: Range<usize>) -> Vec<usize>;

    /// All messages, by their numbers.
    fn all(&self) -> Range<usize>;

    /// The memory that is ours alone, in its order. `None` while a message is on its way.
    fn own(self) -> Option<Vec<Buffer<u8>>>;
}

/// Memory that messages are sent from, and received into if it is ours alone.
#[derive(Debug)]
pub(super) enum Memory {
    Shared(Arc<Buffer<u8>>),
    Own(Buffer<u8>),
}

impl Memory {
    pub fn buffer(&self) -> &Buffer<u8> {
        match self {
            Self::Shared(buffer) => buffer,
            Self::Own(buffer) => buffer,
        }
    }
}

/// Messages that were started together, by their numbers.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub receives: Range<usize>,
    pub sends: Range<usize>,
}

/// [`Communicator`](super::Communicator) for a struct of one [`Processes`].
macro_rules! by_processes {
    ($comm:ty) => {
        impl $crate::reduce::comm::Communicator for $comm {
            fn rank(&self) -> usize {
                self.0.rank()
            }
            fn size(&self) -> usize {
                self.0.size()
            }
            fn exchange(
                &mut self,
                collective: $crate::reduce::comm::Collective,
                send: &std::sync::Arc<$crate::Buffer<u8>>,
                stream: &$crate::Stream,
                deadline: std::time::Instant,
            ) -> Result<$crate::reduce::comm::Parts, $crate::reduce::comm::Fault> {
                self.0.exchange(collective, send, stream, deadline)
            }
            fn has_sections(&self) -> bool {
                true
            }
            fn exchange_sections(
                &mut self,
                buffers: ($crate::Buffer<u8>, $crate::Buffer<u8>),
                sections: &[$crate::reduce::comm::Section],
                work: &mut $crate::reduce::comm::Work<'_>,
                stream: &$crate::Stream,
                deadline: std::time::Instant,
            ) -> $crate::Result<($crate::Buffer<u8>, $crate::Buffer<u8>, std::time::Duration)> {
                self.0.exchange_sections(buffers, sections, work, stream, deadline)
            }
            fn all_reduce(
                &mut self,
                buffer: $crate::Buffer<u8>,
                len: usize,
                reduction: $crate::reduce::comm::Reduction,
                stream: &$crate::Stream,
                deadline: std::time::Instant,
            ) -> $crate::Result<($crate::Buffer<u8>, std::time::Duration)> {
                self.0.all_reduce(buffer, len, reduction, stream, deadline)
            }
            fn check(&mut self) -> Result<(), $crate::reduce::comm::Fault> {
                self.0.check()
            }
            fn aborter(&self) -> std::sync::Arc<dyn $crate::reduce::comm::Abort> {
                self.0.aborter()
            }
        }
    };
}
pub(super) use by_processes;
