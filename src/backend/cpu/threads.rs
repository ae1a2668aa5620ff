//! The CPU backend's threads. How work is cut into tasks never depends on how many there are, so
//! results have the same bits for any number.

use rayon::prelude::*;

/// A fixed number of threads; one means the caller's own.
#[derive(Debug)]
pub(crate) struct Threads {
    /// None for one thread, and where the system gives no more: then the caller works alone.
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    pub(crate) fn new(count: usize) -> Self {
        let pool = (count > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(count).build().ok())
            .flatten();
        Self { pool }
    }

    /// Runs `task(0..tasks)`, in any order, and returns when all have run.
    pub(crate) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => {
                pool.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(&task));
            }
            _ => (0..tasks).for_each(task),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_task_runs_once_for_any_number_of_threads() {
        for count in [1, 2, 3] {
            let ran: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            super::Threads::new(count).run(ran.len(), |i| {
                ran[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }
}
