//! Ranks as threads.

use halfstep::reduce::{Local, local};

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
