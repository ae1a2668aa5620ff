//! The communicator: calls are announced by mail, compared, and served by bulk messages.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mail::{CAPACITY, Call, Kind, Mail};
use super::pieces::{Messages, messages, pieces, reduced};
use super::{Channel, Delivery, Failed, Memory, Transfer};
use crate::reduce::comm::idle::Idle;
use crate::reduce::comm::pool::{Pool, slot};
use crate::reduce::comm::{
    ALIGN, Abort, Collective, Communicator, Fault, Part, Parts, Reduction, Section, Work, sum,
};
use crate::{Buffer, Device, DeviceKind, Stream};

/// How long ranks have to say that they are there.
const GRACE: Duration = Duration::from_millis(500);

/// The memories of an exchange of blocks,
const SENT: usize = 0;
const RECEIVED: usize = 1;
/// and of one in sections.
const BUFFER: usize = 0;
const GATHERED: usize = 1;

/// One rank of a communicator between processes. Exchanges memory of the CPU.
#[derive(Debug)]
pub struct Processes<C: Channel> {
    link: Arc<Link<C>>,
    /// What each rank has announced and this one has not come to.
    announced: Vec<VecDeque<Call>>,
    left: Vec<bool>,
    /// Who has said to be there since this rank asked.
    here: Vec<bool>,
    sequence: u64,
    pool: Pool,
    /// Sent to the thread that owns it, never shared.
    not_sync: PhantomData<Cell<()>>,
}

/// What the communicator and its aborters share.
#[derive(Debug)]
struct Link<C: Channel> {
    channel: Arc<C>,
    rank: usize,
    size: usize,
    fault: Mutex<Option<Fault>>,
}

impl<C: Channel> Link<C> {
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
            self.channel.abandon();
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

    fn failed(&self, Failed { call, reason }: Failed) -> Fault {
        self.fail(Fault::Transport { rank: self.rank, call: call.into(), reason })
    }
}

impl<C: Channel> Processes<C> {
    pub fn new(channel: C, rank: usize, size: usize) -> Self {
        let (channel, fault) = (Arc::new(channel), Mutex::new(None));
        Self {
            link: Arc::new(Link { channel, rank, size, fault }),
            announced: vec![VecDeque::new(); size],
            left: vec![false; size],
            here: vec![false; size],
            sequence: 0,
            pool: Pool::default(),
            not_sync: PhantomData,
        }
    }

    /// Reads all mail that has come. An error if the communicator is broken, at the collective in
    /// progress or before: who broke it later had this rank's call for this one, and all its data.
    fn read_mail(&mut self) -> Result<(), Fault> {
        let mut bytes = [0; CAPACITY];
        let link = &self.link;
        loop {
            let delivery = link.channel.receive(&mut bytes);
            let (from, mail) = match delivery.map_err(|failed| link.failed(failed))? {
                Delivery::Nothing => break,
                Delivery::Mail(from, mail) => (from, mail),
                #[cfg(feature = "tcp")]
                Delivery::Gone(from) => {
                    self.left[from] = true;
                    continue;
                }
            };
            match Mail::decode(mail) {
                Some(Mail::Call(call)) => {
                    self.announced[from].push_back(call);
                    self.here[from] = true;
                }
                Some(Mail::Left) => self.left[from] = true,
                Some(Mail::Fault(fault)) => drop(link.keep(fault)),
                Some(Mail::Ask) => {
                    link.channel
                        .send(from, &Mail::Here.encode())
                        .map_err(|failed| link.failed(failed))?;
                }
                Some(Mail::Here) => self.here[from] = true,
                None => {
                    let reason = format!("{} bytes from rank {from} that are no mail", mail.len());
                    return Err(link.failed(Failed { call: "receive", reason }));
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
        let link = self.link.clone();
        for peer in link.peers() {
            link.channel.send(peer, &mail).map_err(|failed| self.unanswered(failed))?;
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
                // Some may be in an earlier collective, and wait for somebody else themselves.
                let silent = self.silent(&missing)?;
                let waiting_on = if silent.is_empty() { missing } else { silent };
                return Err(self.link.fail(Fault::Deadline { sequence, waiting_on }));
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
        let bytes = part.next_multiple_of(ALIGN) * (link.size - 1);
        let receive = self.pool.take(stream.device(), bytes);
        let receive = receive.map_err(|error| self.abort(error.to_string()))?;
        let (mut out, mut into) = (Vec::new(), Vec::new());
        for peer in link.peers() {
            let from = match collective {
                Collective::AllToAll => peer * part,
                Collective::AllGather => 0,
            };
            out.extend(pieces(peer, SENT, from, part));
        }
        // The neighbour behind sends first.
        for peer in link.peers().collect::<Vec<_>>().into_iter().rev() {
            into.extend(pieces(peer, RECEIVED, slot(peer, link.rank, part), part));
        }
        let memory = vec![Memory::Shared(send.clone()), Memory::Own(receive)];
        let transfer = C::Transfer::new(&link.channel, memory, out.len() + into.len());
        let mut transfer = transfer.map_err(|failed| link.failed(failed))?;
        transfer.start(&out, &into).map_err(|failed| link.failed(failed))?;
        let [receive] = self.finish(transfer, deadline)?;
        Ok(self.pool.keep(receive))
    }

    /// Waits until some messages of a transfer have ended.
    fn wait(
        &mut self,
        transfer: &mut C::Transfer,
        messages: Range<usize>,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let link = self.link.clone();
        let mut idle = Idle::default();
        while !transfer.ended(messages.clone()) {
            if transfer.advance().map_err(|failed| self.unanswered(failed))? {
                idle = Idle::default();
                continue;
            }
            self.read_mail()?;
            // Once all that it had to say was read: it may have had a reason.
            if let Some(rank) = transfer.lost().filter(|&rank| self.left[rank]) {
                return Err(link.fail(Fault::PeerLost { sequence: self.sequence, rank }));
            }
            if Instant::now() >= deadline {
                // Some may be there, and wait for somebody else themselves. A reduction's messages are of nobody.
                let pending = transfer.waiting_on(messages);
                let peers = || link.peers().collect::<Vec<_>>();
                let silent =
                    self.silent(&if pending.is_empty() { peers() } else { pending.clone() })?;
                let waiting_on = if silent.is_empty() { pending } else { silent };
                return Err(link.fail(Fault::Deadline { sequence: self.sequence, waiting_on }));
            }
            idle.wait();
        }
        Ok(())
    }

    /// Those of some ranks that do not answer within a moment: they are gone, or busy with something else.
    fn silent(&mut self, of: &[usize]) -> Result<Vec<usize>, Fault> {
        let link = self.link.clone();
        self.here.fill(false);
        for &peer in of {
            // Who cannot be asked does not answer.
            let _ = link.channel.send(peer, &Mail::Ask.encode());
        }
        let (end, mut idle) = (Instant::now() + GRACE, Idle::default());
        loop {
            self.read_mail()?;
            let silent = of.iter().filter(|&&rank| !self.here[rank]);
            let silent: Vec<usize> = silent.copied().collect();
            if silent.is_empty() || Instant::now() >= end {
                return Ok(silent);
            }
            idle.wait();
        }
    }

    /// A call that failed while ranks depend on each other, with those that do not answer after it: a library that
    /// notices a death before the deadline does not say whose.
    fn unanswered(&mut self, Failed { call, mut reason }: Failed) -> Fault {
        let peers: Vec<usize> = self.link.peers().collect();
        match self.silent(&peers) {
            Ok(mut silent) => {
                if !silent.is_empty() {
                    silent.sort_unstable();
                    // First: mail shortens reasons.
                    reason.insert_str(0, &format!("ranks {silent:?} do not answer; "));
                }
                self.link.failed(Failed { call, reason })
            }
            Err(fault) => fault, // of somebody who knew more
        }
    }

    /// Waits until all messages have ended; returns the memory that is ours alone.
    fn finish<const N: usize>(
        &mut self,
        mut transfer: C::Transfer,
        deadline: Instant,
    ) -> Result<[Buffer<u8>; N], Fault> {
        let all = transfer.all();
        self.wait(&mut transfer, all, deadline)?;
        let own = transfer.own().expect("no message is on its way");
        Ok(own.try_into().expect("as many as there were"))
    }

    /// What both kinds of calls begin with; returns when this rank came, and how long it waited.
    fn begin(
        &mut self,
        call: Call,
        stream: &Stream,
        owners: &[&Device],
        deadline: Instant,
    ) -> Result<Duration, Fault> {
        self.read_mail()?;
        for device in owners.iter().copied().chain([stream.device()]) {
            if device.info().kind != DeviceKind::Cpu {
                let what = device.info();
                let reason = format!(
                    "{} exchanges memory of the CPU, not of {what}; Staged takes it there",
                    C::NAME
                );
                return Err(self.abort(reason));
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

impl<C: Channel> Communicator for Processes<C> {
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
        let skew = self.begin(call, stream, &[send.device()], deadline)?;
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

    fn has_sections(&self) -> bool {
        true
    }

    fn exchange_sections(
        &mut self,
        (buffer, gathered): (Buffer<u8>, Buffer<u8>),
        sections: &[Section],
        work: &mut Work<'_>,
        stream: &Stream,
        deadline: Instant,
    ) -> crate::Result<(Buffer<u8>, Buffer<u8>, Duration)> {
        let link = self.link.clone();
        let call = Call { kind: Kind::Sections(sections.len()), bytes: buffer.len() };
        let skew = self.begin(call, stream, &[buffer.device(), gathered.device()], deadline)?;
        let ahead: Vec<usize> = link.peers().collect();
        let moves: Vec<_> = sections
            .iter()
            .map(|s| {
                (
                    messages(&ahead, &s.gather, (BUFFER, GATHERED)),
                    messages(&ahead, &s.scatter, (BUFFER, BUFFER)),
                )
            })
            .collect();
        let count = |(out, into): &Messages| out.len() + into.len();
        let capacity = moves.iter().map(|(g, s)| count(g) + count(s)).sum();
        let failed = |failed| link.failed(failed);
        let memory = vec![Memory::Own(buffer), Memory::Own(gathered)];
        let mut transfer = C::Transfer::new(&link.channel, memory, capacity).map_err(failed)?;
        let start = |transfer: &mut C::Transfer, (out, into): &Messages| {
            transfer.start(out, into).map_err(failed)
        };
        let mut next = moves.first().map(|(g, _)| start(&mut transfer, g)).transpose()?;
        for (section, (_, scatter)) in moves.iter().enumerate() {
            let Some(gather) = next.take() else { break };
            // What comes for the next section need not wait until this one is worked on.
            next = moves.get(section + 1).map(|(g, _)| start(&mut transfer, g)).transpose()?;
            self.wait(&mut transfer, gather.receives, deadline)?;
            if let Err(error) = work(section, transfer.buffer(BUFFER), transfer.buffer(GATHERED)) {
                self.abort(error.to_string());
                return Err(error);
            }
            // Results are received where the operands were.
            self.wait(&mut transfer, gather.sends, deadline)?;
            start(&mut transfer, scatter)?;
        }
        let [buffer, gathered] = self.finish(transfer, deadline)?;
        self.sequence += 1;
        Ok((buffer, gathered, skew))
    }

    fn all_reduce(
        &mut self,
        buffer: Buffer<u8>,
        len: usize,
        reduction: Reduction,
        stream: &Stream,
        deadline: Instant,
    ) -> crate::Result<(Buffer<u8>, Duration)> {
        let link = self.link.clone();
        if !link.channel.reduces() {
            return sum::in_rank_order(self, buffer, len, reduction, stream, deadline);
        }
        sum::check(&buffer, len, reduction)?;
        let call = Call { kind: Kind::Reduction(reduction), bytes: len };
        let skew = self.begin(call, stream, &[buffer.device()], deadline)?;
        let failed = |failed| link.failed(failed);
        let pieces = reduced(link.rank, BUFFER, len);
        let transfer = C::Transfer::new(&link.channel, vec![Memory::Own(buffer)], pieces.len());
        let mut transfer = transfer.map_err(failed)?;
        transfer.reduce(&pieces, reduction).map_err(failed)?;
        let [buffer] = self.finish(transfer, deadline)?;
        self.sequence += 1;
        Ok((buffer, skew))
    }

    fn check(&mut self) -> Result<(), Fault> {
        self.read_mail()
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        Arc::new(Aborter(self.link.clone()))
    }
}

impl<C: Channel> Drop for Processes<C> {
    fn drop(&mut self) {
        let mail = Mail::Left.encode();
        for peer in self.link.peers() {
            // Nothing depends on it but how soon the others know.
            let _ = self.link.channel.send(peer, &mail);
        }
    }
}

struct Aborter<C: Channel>(Arc<Link<C>>);

impl<C: Channel> Abort for Aborter<C> {
    fn abort(&self, reason: &str) {
        self.0.fail(Fault::Aborted { rank: self.0.rank, reason: reason.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A collective that all ranks have called is finished, whatever breaks the next.
    #[test]
    fn faults_of_later_collectives_wait() {
        let lost = Fault::PeerLost { sequence: 4, rank: 0 };
        assert!(begins_later(&lost, 3) && !begins_later(&lost, 4) && !begins_later(&lost, 5));
        let aborted = Fault::Aborted { rank: 0, reason: String::new() };
        assert!(!begins_later(&aborted, 0));
    }
}
