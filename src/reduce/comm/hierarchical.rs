//! A communicator of two: between the ranks of a node, and between nodes.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pool::Pool;
use super::{ALIGN, Abort, Collective, Communicator, Fault, Part, Parts, check_parts};
use crate::reduce::config::deadline;
use crate::{Buffer, Device, Error, Result, Stream};

/// A communicator for many nodes, made of two: `inside`, of the ranks of this rank's node, and `across`, of the
/// ranks that have this one's place in every node. Rank `l` of node `m`, of `L` ranks each, is rank `m·L + l`.
///
/// A [`Reducer`](crate::reduce::Reducer) over it sums inside nodes first, so that only sums go across:
///
/// ```text
/// all-to-all inside ─ Σ of the node, f32 ─ all-to-all across ─ Σ of nodes, round ─ all-gather across ─ inside
/// ```
///
/// `g ← wire( (1/Σ w) · Σ_m Σ_l w_ml · wire(scale · g_ml) )`: the sum of a node in f32, `l` ascending; the sum of
/// nodes in f32, `m` ascending; one rounding at the end, the same bits on every rank.
///
/// **Numerics.** As [`Reducer`](crate::reduce::Reducer)'s, with `L + M + 1` of `M` nodes in the place of `W + 2`: a sum of two
/// levels rounds less often. Where all partial sums are exact, as with integers, the bits are those of one level;
/// else they may differ from those in the last bit of the sum.
///
/// **Bytes.** Of `b` bytes of 16-bit buckets each rank sends `3·b/L·(M − 1)/M` across, where the exchange between all ranks
/// sends `2·b·(M − 1)/M`: partial sums travel in f32, twice as wide, but once for each node and not for each rank. With
/// 4 ranks a node that is 2.7 times less; and a bucket takes `L + M` messages a collective, not `L·M`.
///
/// Collectives of its own ([`exchange`](Communicator::exchange)) take two steps as well, and move what those of one level
/// do, in the order of ranks.
///
/// **Faults** name ranks of the whole, and collectives by the number of the communicator that has them. What one communicator
/// reports ends both; ranks that are not of it hear [`Fault::Aborted`] with that fault as the reason. A rank that waits in
/// one has not come to the other, and is named there at the deadline as those are that are missing: the cause is who is named, and
/// waits for nobody itself.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let plan = BucketPlan::ddp(&[Param::new("w", 4)], Dtype::Bf16, 1 << 20, 25 << 20)?;
/// let run = |inside: Local, across: Local| -> halfstep::Result<()> {
///     let device = Device::cpu_with_threads(1.try_into().unwrap());
///     let stream = device.stream()?;
///     let limit = std::time::Duration::from_secs(60);
///     let comm = Hierarchical::new(&device, Box::new(inside), Box::new(across), limit)?;
///     let mut w = [comm.rank() as f32; 4];
///     let mut reducer = Reducer::new(&device, plan.clone(), Box::new(comm), Config::default())?;
///     reducer.ready(&stream, 0, &w)?;
///     reducer.finish(&stream, &mut [&mut w], Unscale::Keep)?;
///     assert_eq!(w, [1.5; 4]);
///     Ok(())
/// };
/// // Two nodes of two ranks, as threads.
/// let two = || local(2.try_into().unwrap());
/// let (inside, across) = ([two(), two()], [two(), two()]);
/// let [mut first, mut second] = across.map(|ranks| ranks.into_iter());
/// std::thread::scope(|scope| {
///     let mut ranks = Vec::new();
///     for node in inside {
///         for (inside, across) in node.into_iter().zip([first.next().unwrap(), second.next().unwrap()]) {
///             ranks.push(scope.spawn(move || run(inside, across)));
///         }
///     }
///     ranks.into_iter().try_for_each(|rank| rank.join().unwrap())
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct Hierarchical {
    inside: Box<dyn Communicator>,
    across: Box<dyn Communicator>,
    /// What is sent on, put in order.
    pool: Pool,
    state: Arc<State>,
}

/// What the communicator and its aborters share.
struct State {
    inside: Arc<dyn Abort>,
    across: Arc<dyn Abort>,
    fault: Mutex<Option<Fault>>,
}

/// One of the two communicators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reduce) enum Level {
    Inside,
    Across,
}

impl Hierarchical {
    /// Composes two communicators, after a first exchange of each, of memory of `device`'s, in which ranks compare
    /// their places; it takes `limit` at most.
    ///
    /// # Errors
    /// [`Error::State`] unless every node has as many ranks, `across` joins those of one place, and the ranks
    /// of a node agree which one it is; [`Error::Comm`] if ranks are missing.
    pub fn new(
        device: &Device,
        inside: Box<dyn Communicator>,
        across: Box<dyn Communicator>,
        limit: Duration,
    ) -> Result<Self> {
        let aborters = (inside.aborter(), across.aborter());
        let state = State { inside: aborters.0, across: aborters.1, fault: Mutex::default() };
        let state = Arc::new(state);
        let mut made = Self { inside, across, pool: Pool::default(), state };
        let place = [made.inside.rank(), made.inside.size()];
        let node = [made.across.rank(), made.across.size()];
        let stream = device.stream()?;
        let until = deadline(limit);
        for (level, mine, name) in
            [(Level::Across, place, "across"), (Level::Inside, node, "inside")]
        {
            let bytes: Vec<u8> = mine.iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
            let send = Arc::new(device.upload(&bytes)?);
            let parts = made.of(level, Collective::AllGather, &send, &stream, until)?;
            for (rank, part) in parts.parts.iter().enumerate() {
                let mut theirs = vec![0; bytes.len()];
                part.buffer.read(&stream, part.start, &mut theirs)?;
                if theirs != bytes {
                    let what =
                        format!("another place, or another number, than rank {rank} of `{name}`");
                    made.state.abort(&what);
                    let expected = "as many ranks in every node, each with one place";
                    return Err(Error::state("Hierarchical::new", expected, what));
                }
            }
        }
        Ok(made)
    }

    /// Ranks of a node, and nodes.
    pub(in crate::reduce) fn shape(&self) -> (usize, usize) {
        (self.inside.size(), self.across.size())
    }

    /// This rank's place in its node, and its node.
    pub(in crate::reduce) fn place(&self) -> (usize, usize) {
        (self.inside.rank(), self.across.rank())
    }

    /// A collective of one of the two.
    pub(in crate::reduce) fn of(
        &mut self,
        level: Level,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        self.state.check()?;
        let comm = match level {
            Level::Inside => &mut self.inside,
            Level::Across => &mut self.across,
        };
        let ranks = comm.size();
        let outcome = comm.exchange(collective, send, stream, deadline);
        let parts = outcome.map_err(|fault| self.fail(level, fault))?;
        let len = match collective {
            Collective::AllToAll => send.len() / ranks.max(1),
            Collective::AllGather => send.len(),
        };
        check_parts(&parts.parts, stream, ranks, len).map_err(|error| self.broken(&error))?;
        Ok(parts)
    }

    /// Some of what came, one piece after the other in a buffer of ours, each at a multiple of 16 bytes.
    pub(in crate::reduce) fn join(
        &mut self,
        pieces: &[Part],
        stream: &Stream,
    ) -> Result<Arc<Buffer<u8>>> {
        let padded = |piece: &Part| piece.len.next_multiple_of(ALIGN);
        let bytes = pieces.iter().map(padded).sum();
        let mut to = self.pool.take_exactly(stream.device(), bytes)?;
        let mut start = 0;
        for piece in pieces {
            let from = piece.buffer.view(piece.start..piece.start + piece.len)?;
            to.view_mut(start..start + piece.len)?.copy_from_view(stream, &from)?;
            start += padded(piece);
        }
        stream.sync()?; // whoever sent them may write there again once they are dropped
        Ok(self.pool.keep(to))
    }

    /// A buffer for something to send.
    pub(in crate::reduce) fn room(&mut self, bytes: usize, stream: &Stream) -> Result<Buffer<u8>> {
        self.pool.take_exactly(stream.device(), bytes)
    }

    /// Such a buffer, filled: free again when nobody holds what was sent of it.
    pub(in crate::reduce) fn keep(&mut self, buffer: Buffer<u8>) -> Arc<Buffer<u8>> {
        self.pool.keep(buffer)
    }

    /// A device's error, which ends the communicator.
    pub(in crate::reduce) fn broken(&self, error: &Error) -> Fault {
        let (rank, call) = (self.rank(), "Hierarchical".into());
        let fault = Fault::Transport { rank, call, reason: error.to_string() };
        self.state.keep(fault)
    }

    /// A fault of one of the two, as one of the whole, which ends the other.
    fn fail(&self, level: Level, fault: Fault) -> Fault {
        let ((place, node), (ranks, _)) = (self.place(), self.shape());
        let whole = |rank: usize| match level {
            Level::Inside => node * ranks + rank,
            Level::Across => rank * ranks + place,
        };
        let mut fault = fault;
        match &mut fault {
            Fault::PeerLost { rank, .. }
            | Fault::Mismatch { rank, .. }
            | Fault::Length { rank, .. }
            | Fault::Aborted { rank, .. }
            | Fault::Transport { rank, .. }
            | Fault::PlanMismatch { rank, .. }
            | Fault::StepSkew { rank, .. } => *rank = whole(*rank),
            Fault::Deadline { waiting_on, .. } => {
                waiting_on.iter_mut().for_each(|rank| *rank = whole(*rank));
            }
        }
        self.state.keep(fault)
    }

    /// Blocks `[piece][from][to]` of what a level's parts hold, each of `len` bytes.
    fn collect(
        &mut self,
        order: impl Iterator<Item = Part>,
        stream: &Stream,
    ) -> Result<Arc<Buffer<u8>>, Fault> {
        let pieces: Vec<Part> = order.collect();
        self.join(&pieces, stream).map_err(|error| self.broken(&error))
    }

    /// Every rank's whole buffer: across, then all that came inside.
    fn all_gather(
        &mut self,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let len = send.len();
        let across = self.of(Level::Across, Collective::AllGather, send, stream, deadline)?;
        let joined = self.collect(across.parts.into_iter(), stream)?;
        let inside = self.of(Level::Inside, Collective::AllGather, &joined, stream, deadline)?;
        let (ranks, nodes) = self.shape();
        let place = |rank: usize| {
            let (node, from) = (rank / ranks, &inside.parts[rank % ranks]);
            let start = from.start + node * len.next_multiple_of(ALIGN);
            Part { buffer: from.buffer.clone(), start, len }
        };
        let parts = (0..ranks * nodes).map(place).collect();
        Ok(Parts { parts, skew: across.skew + inside.skew })
    }

    /// Every rank's block for this one: to the rank of each node's place inside, then across.
    fn all_to_all(
        &mut self,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let (ranks, nodes) = self.shape();
        let (bytes, blocks) = (send.len(), ranks * nodes);
        if !bytes.is_multiple_of(blocks) {
            let fault = Fault::Length { sequence: 0, rank: self.rank(), bytes, blocks };
            return Err(self.state.keep(fault));
        }
        let (len, slot) = (bytes / blocks, (bytes / blocks).next_multiple_of(ALIGN));
        // By place, then node: what is for one rank of this node lies together.
        let ordered = (0..blocks).map(|i| {
            let to = i % nodes * ranks + i / nodes;
            Part { buffer: send.clone(), start: to * len, len }
        });
        let ordered = self.collect(ordered, stream)?;
        let inside = self.of(Level::Inside, Collective::AllToAll, &ordered, stream, deadline)?;
        // By node, then who it is from.
        let sorted = (0..blocks).map(|i| {
            let (node, from) = (i / ranks, &inside.parts[i % ranks]);
            Part { buffer: from.buffer.clone(), start: from.start + node * slot, len }
        });
        let sorted = self.collect(sorted, stream)?;
        let across = self.of(Level::Across, Collective::AllToAll, &sorted, stream, deadline)?;
        let place = |rank: usize| {
            let from = &across.parts[rank / ranks];
            let start = from.start + rank % ranks * slot;
            Part { buffer: from.buffer.clone(), start, len }
        };
        let parts = (0..blocks).map(place).collect();
        Ok(Parts { parts, skew: inside.skew + across.skew })
    }
}

impl State {
    fn check(&self) -> Result<(), Fault> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fault.map_or(Ok(()), Err)
    }

    /// Keeps the first fault, and ends both communicators with it.
    fn keep(&self, fault: Fault) -> Fault {
        let mut kept = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.get_or_insert(fault).clone();
        drop(kept);
        self.inside.abort(&first.to_string());
        self.across.abort(&first.to_string());
        first
    }
}

impl Abort for State {
    fn abort(&self, reason: &str) {
        self.inside.abort(reason);
        self.across.abort(reason);
    }
}

impl Communicator for Hierarchical {
    fn rank(&self) -> usize {
        self.across.rank() * self.inside.size() + self.inside.rank()
    }

    fn size(&self) -> usize {
        self.inside.size() * self.across.size()
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        match collective {
            Collective::AllGather => self.all_gather(send, stream, deadline),
            Collective::AllToAll => self.all_to_all(send, stream, deadline),
        }
    }

    fn nodes(&mut self) -> Option<&mut Hierarchical> {
        Some(self)
    }

    fn check(&mut self) -> Result<(), Fault> {
        self.state.check()?;
        let inside = self.inside.check();
        inside.map_err(|fault| self.fail(Level::Inside, fault))?;
        let across = self.across.check();
        across.map_err(|fault| self.fail(Level::Across, fault))
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        self.state.clone()
    }
}
