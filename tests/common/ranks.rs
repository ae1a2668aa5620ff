//! Ranks as threads.

use std::sync::Arc;
use std::time::Instant;

use halfstep::reduce::{Abort, Collective, Communicator, Fault, Local, Parts, local};
use halfstep::{Buffer, Stream};

/// Runs `rank` once for each of `size` ranks, each on a thread of its own, and returns what they
/// returned, in rank order. Panics of a rank are passed on.
pub fn run<R: Send>(size: usize, rank: impl Fn(Local) -> R + Sync) -> Vec<R> {
    let comms = local(size.try_into().expect("at least one rank"));
    std::thread::scope(|scope| {
        let rank = &rank;
        let threads: Vec<_> =
            comms.into_iter().map(|comm| scope.spawn(move || rank(comm))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Runs every rank of so many nodes, of so many ranks each, on a thread; what they return, in rank order.
pub fn of_nodes<R: Send>(
    (ranks, nodes): (usize, usize),
    rank: impl Fn(Local, Local) -> R + Sync,
) -> Vec<R> {
    let level = |size: usize, count: usize| -> Vec<std::vec::IntoIter<Local>> {
        (0..count).map(|_| local(size.try_into().unwrap()).into_iter()).collect()
    };
    let (mut inside, mut across) = (level(ranks, nodes), level(nodes, ranks));
    let rank = &rank;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for inside in &mut inside {
            for (inside, across) in inside.zip(&mut across) {
                let across = across.next().unwrap();
                threads.push(scope.spawn(move || rank(inside, across)));
            }
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, R>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

/// A communicator between threads that does not say that it is one.
pub struct Plain(pub Local);

impl Communicator for Plain {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn size(&self) -> usize {
        self.0.size()
    }
    fn exchange(
        &mut self,
        how: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        self.0.exchange(how, send, stream, deadline)
    }
    fn aborter(&self) -> Arc<dyn Abort> {
        self.0.aborter()
    }
}
