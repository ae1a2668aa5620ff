//! The communicator: calls are announced by mail, compared, and served by bulk messages.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mail::{CAPACITY, Call, Kind, Mail};
use super::shim::{self, Channel, Piece, Transfer};
use super::transport;
use crate::reduce::comm::{ALIGN, Abort, Collective, Communicator, Fault, Part, Parts};
use crate::{Buffer, Device, DeviceKind, Stream};

/// Messages are cut to this many bytes: MPI counts in `int`.
const PIECE: usize = 64 << 20;

/// One rank of a communicator made by [`Mpi::comm`](super::Mpi::comm). Exchanges memory of the CPU:
/// a stream of a GPU is a [`Fault::Aborted`] that says so.
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
pub struct MpiComm {
    link: Arc<Link>,
    /// What each rank has announced and this one has not come to.
    announced: Vec<VecDeque<Call>>,
    left: Vec<bool>,
    sequence: u64,
    /// Receive buffers, used again when nobody holds their parts.
    pool: Vec<Arc<Buffer<u8>>>,
    /// Sent to the thread that owns it, never shared.
    not_sync: PhantomData<Cell<()>>,
}

/// What the communicator and its aborters share.
#[derive(Debug)]
struct Link {
    channel: Channel,
    rank: usize,
    size: usize,
    fault: Mutex<Option<Fault>>,
    /// As long as this is held, MPI is not ended.
    _alive: Arc<()>,
}

impl Link {
    fn peers(&self) -> impl Iterator<Item = usize> {
        // Each rank begins with its neighbour, so that not all send to the same.
        (1..self.size).map(|step| (self.rank + step) % self.size)
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the fault unless there is one; returns the one kept, and whether it is this one.
    fn keep(&self, fault: Fault) -> (Fault, bool) {
        let mut kept = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.is_none();
        if first && matches!(fault, Fault::Deadline { .. } | Fault::Transport { .. }) {
            shim::abandon(); // a process may never come to MPI's end
        }
        (kept.get_or_insert(fault).clone(), first)
    }

    /// Breaks the communicator, on every rank.
    fn fail(&self, fault: Fault) -> Fault {
        let (fault, first) = self.keep(fault);
        if first {
            let mail = Mail::Fault(fault.clone()).encode();
            for peer in self.peers() {
                // Who cannot be told finds out by the deadline.
                let _ = self.channel.send(peer, &mail);
            }
        }
        fault
    }

    fn failed(&self, failed: shim::Failed) -> Fault {
        self.fail(transport(self.rank, failed))
    }
}

impl MpiComm {
    pub(super) fn new(channel: Channel, rank: usize, size: usize, alive: Arc<()>) -> Self {
        let fault = Mutex::new(None);
        Self {
            link: Arc::new(Link { channel, rank, size, fault, _alive: alive }),
            announced: vec![VecDeque::new(); size],
            left: vec![false; size],
            sequence: 0,
            pool: Vec::new(),
            not_sync: PhantomData,
        }
    }

    /// Reads all mail that has come. An error if the communicator is broken, at the collective in
    /// progress or before: who broke it later had this rank's call for this one, and all its data.
    fn read_mail(&mut self) -> Result<(), Fault> {
        let mut bytes = [0; CAPACITY];
        let link = &self.link;
        while let Some((from, mail)) =
            link.channel.receive(&mut bytes).map_err(|failed| link.failed(failed))?
        {
            match Mail::decode(mail) {
                Some(Mail::Call(call)) => self.announced[from].push_back(call),
                Some(Mail::Left) => self.left[from] = true,
                Some(Mail::Fault(fault)) => drop(link.keep(fault)),
                None => {
                    let reason = format!("{} bytes from rank {from} that are no mail", mail.len());
                    return Err(link.failed(shim::Failed { call: "MPI_Recv", reason }));
                }
            }
        }
        match link.fault() {
            Some(fault) if !begins_later(&fault, self.sequence) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Announces this rank's call and waits for everyone's.
    fn meet(&mut self, mine: Call, deadline: Instant) -> Result<(), Fault> {
        let mail = Mail::Call(mine).encode();
        for peer in self.link.peers() {
            self.link.channel.send(peer, &mail).map_err(|failed| self.link.failed(failed))?;
        }
        self.announced[self.link.rank].push_back(mine);
        let mut idle = Idle::default();
        let sequence = self.sequence;
        loop {
            self.read_mail()?;
            let silent = |rank: &usize| self.announced[*rank].is_empty();
            let missing: Vec<usize> = (0..self.link.size).filter(silent).collect();
            if missing.is_empty() {
                break;
            }
            if let Some(&rank) = missing.iter().find(|&&rank| self.left[rank]) {
                return Err(self.link.fail(Fault::PeerLost { sequence, rank }));
            }
            if Instant::now() >= deadline {
                return Err(self.link.fail(Fault::Deadline { sequence, waiting_on: missing }));
            }
            idle.wait();
        }
        let calls: Vec<Call> = self.announced.iter_mut().filter_map(VecDeque::pop_front).collect();
        let Some(rank) = calls.iter().position(|call| *call != calls[0]) else {
            return Ok(());
        };
        let (expected, found) = (calls[0].describe(), calls[rank].describe());
        Err(self.link.fail(Fault::Mismatch { sequence, rank, expected, found }))
    }

    /// Moves the bytes: what rank `q` sent lies at `slot(q)` of the buffer returned.
    fn transfer(
        &mut self,
        (collective, part): (Collective, usize),
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Arc<Buffer<u8>>, Fault> {
        let link = self.link.clone();
        let receive =
            self.receive_buffer(stream, part.next_multiple_of(ALIGN) * (link.size - 1))?;
        let (mut out, mut into) = (Vec::new(), Vec::new());
        for peer in link.peers() {
            let from = match collective {
                Collective::AllToAll => peer * part,
                Collective::AllGather => 0,
            };
            out.extend(pieces(peer, from, part));
        }
        // The neighbour behind sends first.
        for peer in link.peers().collect::<Vec<_>>().into_iter().rev() {
            into.extend(pieces(peer, slot(peer, link.rank, part), part));
        }
        let transfer = Transfer::start(&link.channel, send.clone(), receive, &out, &into)
            .map_err(|failed| link.failed(failed))?;
        let receive = Arc::new(self.finish(transfer, deadline)?);
        self.pool.push(receive.clone());
        Ok(receive)
    }

    /// Waits until all messages have ended; returns the memory that they were received in.
    fn finish(&mut self, mut transfer: Transfer, deadline: Instant) -> Result<Buffer<u8>, Fault> {
        let link = self.link.clone();
        let mut idle = Idle::default();
        loop {
            if transfer.advance().map_err(|failed| link.failed(failed))? {
                idle = Idle::default();
                continue;
            }
            let waiting_on = transfer.waiting_on();
            if waiting_on.is_empty() {
                break;
            }
            self.read_mail()?;
            if Instant::now() >= deadline {
                return Err(link.fail(Fault::Deadline { sequence: self.sequence, waiting_on }));
            }
            idle.wait();
        }
        Ok(transfer.received().expect("no message is on its way"))
    }

    /// What both kinds of calls begin with; returns when this rank came, and how long it waited.
    fn begin(
        &mut self,
        call: Call,
        stream: &Stream,
        owner: &Device,
        deadline: Instant,
    ) -> Result<Duration, Fault> {
        self.read_mail()?;
        for device in [stream.device(), owner] {
            if device.info().kind != DeviceKind::Cpu {
                let what = device.info();
                return Err(self.abort(format!("MPI exchanges memory of the CPU, not of {what}")));
            }
        }
        stream.sync().map_err(|error| self.abort(error.to_string()))?;
        let (rank, bytes, size) = (self.link.rank, call.bytes, self.link.size);
        if call.kind == Kind::Blocks(Collective::AllToAll) && !bytes.is_multiple_of(size) {
            let sequence = self.sequence;
            return Err(self.link.fail(Fault::Length { sequence, rank, bytes, blocks: size }));
        }
        let came = Instant::now();
        self.meet(call, deadline)?;
        Ok(came.elapsed())
    }

    /// The smallest free buffer that has the room, or a new one.
    fn receive_buffer(&mut self, stream: &Stream, bytes: usize) -> Result<Buffer<u8>, Fault> {
        let free = |at: &usize| Arc::strong_count(&self.pool[*at]) == 1;
        let fits = |at: &usize| (bytes..=2 * bytes).contains(&self.pool[*at].len());
        let found = (0..self.pool.len()).filter(free).filter(fits);
        if let Some(at) = found.min_by_key(|&at| self.pool[at].len())
            && let Ok(buffer) = Arc::try_unwrap(self.pool.swap_remove(at))
        {
            return Ok(buffer);
        }
        stream.device().zeros(bytes).map_err(|error| self.abort(error.to_string()))
    }

    fn abort(&self, reason: String) -> Fault {
        self.link.fail(Fault::Aborted { rank: self.link.rank, reason })
    }
}

/// Whether a fault is of a later collective than `now`.
fn begins_later(fault: &Fault, now: u64) -> bool {
    match fault {
        Fault::PeerLost { sequence, .. }
        | Fault::Deadline { sequence, .. }
        | Fault::Mismatch { sequence, .. }
        | Fault::Length { sequence, .. } => *sequence > now,
        _ => false,
    }
}

/// Where what `peer` sends lies in `rank`'s receive buffer, which has no room for its own part.
fn slot(peer: usize, rank: usize, part: usize) -> usize {
    (peer - usize::from(peer > rank)) * part.next_multiple_of(ALIGN)
}

fn pieces(peer: usize, start: usize, len: usize) -> impl Iterator<Item = Piece> {
    (0..len).step_by(PIECE).map(move |at| Piece {
        peer,
        start: start + at,
        len: PIECE.min(len - at),
    })
}

/// Waiting that leaves the processor to others: at first for a moment, then for longer. A rank may
/// wait for as long as another computes, on the same cores.
#[derive(Default)]
struct Idle(u32);

impl Idle {
    fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            ..1000 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

impl Communicator for MpiComm {
    fn rank(&self) -> usize {
        self.link.rank
    }

    fn size(&self) -> usize {
        self.link.size
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let (rank, size, bytes) = (self.link.rank, self.link.size, send.len());
        let call = Call { kind: Kind::Blocks(collective), bytes };
        let skew = self.begin(call, stream, send.device(), deadline)?;
        let len = match collective {
            Collective::AllToAll => bytes / size,
            Collective::AllGather => bytes,
        };
        let received = self.transfer((collective, len), send, stream, deadline)?;
        self.sequence += 1;
        let part = |peer: usize| match (peer == rank, collective) {
            (false, _) => Part { buffer: received.clone(), start: slot(peer, rank, len), len },
            // A rank's own part stays where it is.
            (true, Collective::AllToAll) => Part { buffer: send.clone(), start: rank * len, len },
            (true, Collective::AllGather) => Part { buffer: send.clone(), start: 0, len },
        };
        Ok(Parts { parts: (0..size).map(part).collect(), skew })
    }

    fn has_ranges(&self) -> bool {
        true
    }

    fn exchange_ranges(
        &mut self,
        buffer: Buffer<u8>,
        send: &[Vec<Range<usize>>],
        receive: &[Vec<Range<usize>>],
        stream: &Stream,
        deadline: Instant,
    ) -> Result<(Buffer<u8>, Duration), Fault> {
        let link = self.link.clone();
        let call = Call { kind: Kind::Ranges, bytes: buffer.len() };
        let skew = self.begin(call, stream, buffer.device(), deadline)?;
        let all = |ranges: &[Vec<Range<usize>>], peer: usize| {
            let ranges = ranges.get(peer).cloned().unwrap_or_default();
            ranges.into_iter().flat_map(move |range| pieces(peer, range.start, range.len()))
        };
        let out: Vec<Piece> = link.peers().flat_map(|peer| all(send, peer)).collect();
        let behind: Vec<usize> = link.peers().collect();
        let into: Vec<Piece> =
            behind.into_iter().rev().flat_map(|peer| all(receive, peer)).collect();
        let transfer = Transfer::within(&link.channel, buffer, &out, &into)
            .map_err(|failed| link.failed(failed))?;
        let buffer = self.finish(transfer, deadline)?;
        self.sequence += 1;
        Ok((buffer, skew))
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        Arc::new(MpiAbort(self.link.clone()))
    }
}

impl Drop for MpiComm {
    fn drop(&mut self) {
        let mail = Mail::Left.encode();
        for peer in self.link.peers() {
            // Nothing depends on it but how soon the others know.
            let _ = self.link.channel.send(peer, &mail);
        }
    }
}

struct MpiAbort(Arc<Link>);

impl Abort for MpiAbort {
    fn abort(&self, reason: &str) {
        self.0.fail(Fault::Aborted { rank: self.0.rank, reason: reason.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of one sender are neither torn nor lost where they are longer than one message.
    #[test]
    fn pieces_cover_a_part_once() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let mut at = 5;
            for piece in pieces(2, 5, len) {
                assert_eq!((piece.peer, piece.start), (2, at));
                assert!((1..=PIECE).contains(&piece.len));
                at += piece.len;
            }
            assert_eq!(at, 5 + len);
        }
    }

    /// The slots of a receive buffer are one after the other, aligned, and none is a rank's own.
    #[test]
    fn slots_are_aligned_and_apart() {
        for (rank, slots) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
            assert_eq!(slots.map(|peer| slot(peer, rank, 17)), [0, 32]);
        }
    }

    /// A collective that all ranks have called is finished, whatever breaks the next.
    #[test]
    fn faults_of_later_collectives_wait() {
        let lost = Fault::PeerLost { sequence: 4, rank: 0 };
        assert!(begins_later(&lost, 3) && !begins_later(&lost, 4) && !begins_later(&lost, 5));
        let aborted = Fault::Aborted { rank: 0, reason: String::new() };
        assert!(!begins_later(&aborted, 0));
    }
}
