//! Threads that work at the same time.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What work on each of these parts gives, a thread for each, and how long all take: from when all threads are there. To
/// make a hundred of them takes milliseconds, in which the first would have the machine to themselves.
pub fn together<P: Send, R: Send>(
    parts: impl ExactSizeIterator<Item = P>,
    work: &(dyn Fn(P) -> R + Sync),
) -> (Vec<R>, Duration) {
    let there = &Barrier::new(parts.len());
    let spans: Vec<(Instant, R, Instant)> = std::thread::scope(|scope| {
        let one = |part| {
            scope.spawn(move || {
                there.wait();
                let start = Instant::now();
                let result = work(part);
                (start, result, Instant::now())
            })
        };
        let all: Vec<_> = parts.map(one).collect();
        all.into_iter().map(|one| one.join().expect("it does not panic")).collect()
    });
    let first = spans.iter().map(|span| span.0).min();
    let last = spans.iter().map(|span| span.2).max();
    let taken = last.zip(first).map_or(Duration::ZERO, |(last, first)| last - first);
    (spans.into_iter().map(|span| span.1).collect(), taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at once: each waits for the others.
    #[test]
    fn parts_are_worked_on_at_the_same_time() {
        let all = Barrier::new(8);
        let (results, taken) = together(0..8, &|part| (all.wait(), 2 * part).1);
        assert_eq!(results, [0, 2, 4, 6, 8, 10, 12, 14]);
        assert!(taken > Duration::ZERO);
        assert_eq!(together(0..0, &|part| part), (Vec::new(), Duration::ZERO));
    }
}
