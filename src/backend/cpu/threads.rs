//! The CPU backend's threads. How work is cut into tasks never depends on how many there are, so
//! results have the same bits for any number.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of threads; the caller's own is one of them.
#[derive(Debug)]
pub(crate) struct Threads {
    /// The others. None for one thread, and where the system gives no more: then the caller works
    /// alone.
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    pub(crate) fn new(count: usize) -> Self {
        let pool = (count > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(count - 1).build().ok())
            .flatten();
        Self { pool }
    }

    /// Runs `task(0..tasks)`, in any order, and returns when all have run.
    ///
    /// The caller takes tasks like every other thread, and does not sleep meanwhile: of two threads
    /// that were both asleep, a scheduler may wake the second on the processor of the first, which
    /// halves the speed of short calls.
    pub(crate) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let Some(pool) = self.pool.as_ref().filter(|_| tasks > 1) else {
            return (0..tasks).for_each(task);
        };
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    return;
                }
                task(i);
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 1..tasks.min(pool.current_num_threads() + 1) {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_task_runs_once_for_any_number_of_threads() {
        for count in [1, 2, 3] {
            for tasks in [0, 1, 2, 100] {
                let ran: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                super::Threads::new(count).run(ran.len(), |i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
