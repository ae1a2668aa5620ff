//! Ranks that are processes, over TCP: no library, no launcher, a port.
//!
//! Every rank has two connections to every other, one for mail and one for bulk data, so that a fault gets
//! through where data is stuck. Sockets do not block: the thread that makes a call asks them all by turns,
//! and keeps its deadline.

#![forbid(unsafe_code)]

mod callers;
mod channel;
mod meet;
mod talk;
mod transfer;

use std::time::Instant;

use super::Fault;
use super::processes::{Processes, by_processes};
use crate::Result;
use crate::reduce::Rendezvous;

/// One rank of a communicator of processes over TCP: of those that a [`Rendezvous`] names. Exchanges memory of the
/// CPU; [`Staged`](super::Staged) takes memory of a GPU over it, and `NcclComm` meets on it, where there is no MPI.
///
/// A process that ends, or is killed, is known at once on all others: its connections close. (A host that is
/// cut off is known by the deadline.)
///
/// It moves to the thread that owns it; it is not shared. It has two connections to every other rank: a usual limit
/// of 1,024 open files is enough for 500 ranks. For a network that is trusted: nothing is
/// encrypted, and who can reach the port can be a rank.
///
/// ```
/// use std::time::{Duration, Instant};
/// use halfstep::{Device, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// # let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
/// let rank = |rank| -> halfstep::Result<Vec<u8>> {
///     // A process has its rank from its launcher: Rendezvous::new(&Given::default()).
///     let given = Given { rank: Some(rank), size: Some(2), port: Some(port), ..Given::default() };
///     let meet = Rendezvous::find(&given, &|_| None)?;
///     let deadline = Instant::now() + Duration::from_secs(60);
///     let mut comm = TcpComm::connect(&meet, deadline)?;
///     let device = Device::cpu();
///     let (stream, mine) = (device.stream()?, device.upload(&[rank as u8; 3])?.into());
///     let all = comm.exchange(Collective::AllGather, &mine, &stream, deadline)?;
///     let other = &all.parts[1 - rank];
///     let mut bytes = vec![0; other.len];
///     other.buffer.read(&stream, other.start, &mut bytes)?;
///     Ok(bytes)
/// };
/// std::thread::scope(|scope| {
///     let other = scope.spawn(|| rank(1));
///     assert_eq!(rank(0)?, [1; 3]);
///     assert_eq!(other.join().unwrap()?, [0; 3]);
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct TcpComm(Processes<channel::Channel>);

by_processes!(TcpComm);

impl TcpComm {
    /// Meets the other ranks at rank 0's host and port, where rank 0 listens for as long as that takes, and
    /// connects all to all. Ranks may come in any order. Another communicator can be made at the same port
    /// afterwards, by all ranks in the same order.
    ///
    /// # Errors
    /// [`Error::Comm`](crate::Error::Comm): [`Fault::Deadline`] names the ranks that have not come, on those that have, if rank 0
    /// has; [`Fault::Mismatch`] where processes disagree about the number of ranks, or two are the same;
    /// [`Fault::Transport`] if rank 0 cannot listen, or its host has no address.
    pub fn connect(meet: &Rendezvous, deadline: Instant) -> Result<Self> {
        let (rank, size) = (meet.rank, meet.size);
        let channel = meet::connect(meet, deadline)?;
        Ok(Self(Processes::new(channel, rank, size)))
    }
}

/// What a call of the system's gave.
fn transport(rank: usize, call: &str, error: &std::io::Error) -> Fault {
    Fault::Transport { rank, call: call.into(), reason: error.to_string() }
}
