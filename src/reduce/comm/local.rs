//! Ranks that are threads of one process. Blocks travel by reference: a rank reads the others'
//! buffers in place, so an exchange moves no bytes.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Abort, Collective, Communicator, Fault, Part, Parts};
use crate::{Buffer, Stream};

/// One rank of a communicator made by [`local`]. It moves to the thread that owns it; it is not
/// shared:
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<halfstep::reduce::Local>();
/// ```
#[derive(Debug)]
pub struct Local {
    ranks: Arc<Ranks>,
    rank: usize,
    /// Sent to the thread that owns it, never shared.
    not_sync: PhantomData<Cell<()>>,
}

/// Communicators for `size` ranks, one for each thread.
///
/// ```
/// use halfstep::{Device, reduce::{Collective, Communicator, local}};
/// use std::{sync::Arc, time::{Duration, Instant}};
/// let ranks = local(2.try_into().unwrap());
/// std::thread::scope(|scope| {
///     for mut rank in ranks {
///         scope.spawn(move || {
///             let device = Device::cpu();
///             let stream = device.stream().unwrap();
///             let mine = Arc::new(device.upload(&[rank.rank() as u8; 3]).unwrap());
///             let deadline = Instant::now() + Duration::from_secs(10);
///             let all = rank.exchange(Collective::AllGather, &mine, &stream, deadline).unwrap();
///             assert_eq!(all.parts[1].buffer.to_vec(&stream).unwrap(), [1, 1, 1]);
///         });
///     }
/// });
/// ```
pub fn local(size: NonZeroUsize) -> Vec<Local> {
    let size = size.get();
    let round = Round {
        posts: (0..size).map(|_| None).collect(),
        taken: vec![false; size],
        sequence: 0,
        gone: vec![false; size],
        fault: None,
    };
    let ranks = Arc::new(Ranks { size, round: Mutex::new(round), changed: Condvar::new() });
    (0..size).map(|rank| Local { ranks: ranks.clone(), rank, not_sync: PhantomData }).collect()
}

#[derive(Debug)]
struct Ranks {
    size: usize,
    round: Mutex<Round>,
    changed: Condvar,
}

/// The collective in progress. A round opens when the last one has been taken by all.
#[derive(Debug)]
struct Round {
    posts: Vec<Option<Post>>,
    /// Which ranks have taken the round's parts.
    taken: Vec<bool>,
    sequence: u64,
    gone: Vec<bool>,
    fault: Option<Fault>,
}

#[derive(Debug, Clone)]
struct Post {
    kind: Kind,
    buffer: Arc<Buffer<u8>>,
}

/// What a buffer is posted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Others read it, or a block of it.
    Blocks(Collective),
    /// Others read and write it: known to this crate only, so that nobody else's buffer is written.
    Lent,
}

impl Post {
    fn describe(&self) -> String {
        match self.kind {
            Kind::Blocks(collective) => format!("{collective:?} of {} bytes", self.buffer.len()),
            Kind::Lent => format!("a bucket of {} bytes, in place", self.buffer.len()),
        }
    }
}

impl Ranks {
    /// The state stays consistent whatever panics: every change below is made in one piece.
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, round: &mut Round, fault: Fault) -> Fault {
        let first = round.fault.get_or_insert(fault).clone();
        // Blocks of a broken round are not read again.
        round.posts.fill(None);
        self.changed.notify_all();
        first
    }
}

impl Round {
    fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.posts.len()).filter(|&rank| self.posts[rank].is_none())
    }

    /// Whether all ranks have posted.
    fn complete(&self) -> bool {
        self.posts.iter().all(Option::is_some)
    }

    /// Whom rank `rank` waits for: those that have not posted, or before it could post itself,
    /// those that have not taken the parts of the last round.
    fn waiting_on(&self, posted: bool) -> Vec<usize> {
        if posted {
            return self.missing().collect();
        }
        (0..self.taken.len()).filter(|&rank| !self.taken[rank]).collect()
    }

    /// The first difference from rank 0's call, once all have posted.
    fn mismatch(&self) -> Option<Fault> {
        let posts: Vec<&Post> = self.posts.iter().flatten().collect();
        let first = posts[0];
        let differs =
            |post: &&Post| post.kind != first.kind || post.buffer.len() != first.buffer.len();
        posts.iter().position(differs).map(|rank| Fault::Mismatch {
            sequence: self.sequence,
            rank,
            expected: first.describe(),
            found: posts[rank].describe(),
        })
    }
}

impl Communicator for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.ranks.size
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        self.post(Kind::Blocks(collective), send, stream, deadline)
    }

    fn threads(&mut self) -> Option<&mut Local> {
        Some(self)
    }

    fn check(&mut self) -> Result<(), Fault> {
        self.ranks.lock().fault.clone().map_or(Ok(()), Err)
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        Arc::new(LocalAbort { ranks: self.ranks.clone(), rank: self.rank })
    }
}

impl Local {
    /// Meets all other ranks, and lends them a bucket: every rank's, whole, to read and to write in
    /// parts that they have agreed on, until all meet again.
    pub(crate) fn lend(
        &mut self,
        bucket: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        self.post(Kind::Lent, bucket, stream, deadline)
    }

    fn post(
        &mut self,
        kind: Kind,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let ranks = &self.ranks;
        // Others read the block in place, on streams of their own: it must be there when it is
        // posted. (On a CPU it is; this waits on the communication thread, nobody else.)
        if let Err(error) = stream.sync() {
            let fault = Fault::Aborted { rank: self.rank, reason: error.to_string() };
            return Err(ranks.fail(&mut ranks.lock(), fault));
        }
        let came = Instant::now();
        let mut round = ranks.lock();
        let bytes = send.len();
        if kind == Kind::Blocks(Collective::AllToAll) && !bytes.is_multiple_of(ranks.size) {
            let (sequence, rank) = (round.sequence, self.rank);
            let fault = Fault::Length { sequence, rank, bytes, blocks: ranks.size };
            return Err(ranks.fail(&mut round, fault));
        }
        // Another rank may not have taken the last round's parts yet.
        let mut posted = false;
        loop {
            if let Some(fault) = &round.fault {
                return Err(fault.clone());
            }
            if !posted && round.posts[self.rank].is_none() {
                round.posts[self.rank] = Some(Post { kind, buffer: send.clone() });
                posted = true;
                if round.complete() {
                    if let Some(fault) = round.mismatch() {
                        return Err(ranks.fail(&mut round, fault));
                    }
                    ranks.changed.notify_all();
                }
            }
            if posted && round.complete() {
                break;
            }
            let sequence = round.sequence;
            let lost = round.missing().find(|&rank| round.gone[rank]);
            if let Some(rank) = lost {
                return Err(ranks.fail(&mut round, Fault::PeerLost { sequence, rank }));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let fault = Fault::Deadline { sequence, waiting_on: round.waiting_on(posted) };
                return Err(ranks.fail(&mut round, fault));
            }
            round =
                ranks.changed.wait_timeout(round, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let parts = round.posts.iter().flatten().map(|post| self.part(post)).collect();
        round.taken[self.rank] = true;
        if round.taken.iter().all(|&taken| taken) {
            round.posts.fill(None);
            round.taken.fill(false);
            round.sequence += 1;
            ranks.changed.notify_all();
        }
        Ok(Parts { parts, skew: came.elapsed() })
    }

    fn part(&self, post: &Post) -> Part {
        let buffer = post.buffer.clone();
        match post.kind {
            Kind::Blocks(Collective::AllToAll) => {
                let len = buffer.len() / self.ranks.size;
                Part { buffer, start: self.rank * len, len }
            }
            _ => Part { len: buffer.len(), buffer, start: 0 },
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.ranks.lock().gone[self.rank] = true;
        self.ranks.changed.notify_all();
    }
}

struct LocalAbort {
    ranks: Arc<Ranks>,
    rank: usize,
}

impl Abort for LocalAbort {
    fn abort(&self, reason: &str) {
        let fault = Fault::Aborted { rank: self.rank, reason: reason.to_string() };
        self.ranks.fail(&mut self.ranks.lock(), fault);
    }
}
