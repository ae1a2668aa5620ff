//! The CPU backend's threads. How work is cut into tasks, which may depend on how many there are, changes no element: results
//! have the same bits for any number.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::pool::Pool;

/// Threads, at most. As many have a part of the work each.
const MOST: usize = 256;

/// A fixed number of threads; the caller's own is one of them.
#[derive(Debug)]
pub(crate) struct Threads {
    /// The others. None for one thread, and where the system gives no more: then the caller works
    /// alone.
    pool: Option<Pool>,
}

impl Threads {
    /// So many, up to [`MOST`]; fewer where the system gives no more.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.min(MOST);
        let pool = (count > 1).then(|| Pool::new(count - 1)).filter(|pool| pool.len() > 0);
        Self { pool }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.len() + 1)
    }

    /// Runs `task(0..tasks)`, in any order, and returns when all have run. The caller takes tasks like every other
    /// thread.
    pub(crate) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let Some(pool) = self.pool.as_ref().filter(|_| tasks > 1) else {
            return (0..tasks).for_each(task);
        };
        // Each thread has a range of its own, which it walks in order: memory is read in long runs.
        // Who is done takes from the ranges of the others.
        let threads = tasks.min(pool.len() + 1).min(MOST);
        let start = |range: usize| range * tasks / threads;
        let next: [AtomicUsize; MOST] = std::array::from_fn(|_| AtomicUsize::new(0));
        pool.run(&|number| {
            let first = number % threads;
            for range in (first..threads).chain(0..first) {
                loop {
                    let i = start(range) + next[range].fetch_add(1, Ordering::Relaxed);
                    if i >= start(range + 1) {
                        break;
                    }
                    task(i);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_task_runs_once_for_any_number_of_threads() {
        for count in [1, 2, 3, 5] {
            for tasks in [0, 1, 2, 4, 100] {
                let ran: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                super::Threads::new(count).run(ran.len(), |i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
