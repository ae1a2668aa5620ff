//! Threads that take part in one job at a time, and stay awake for a moment after it.
//!
//! A thread that sleeps is woken tens of microseconds later, and elsewhere than where its caller runs (`placement.rs`). So
//! threads watch for the next job before they sleep ([`AWAKE`]; OpenMP's runtimes do, too: `GOMP_SPINCOUNT`,
//! `KMP_BLOCKTIME`), and a caller waits only for those that have begun: one that wakes up late finds the job closed.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::placement::{Placed, Placement};
use crate::environment::Environment;

/// How long a thread watches for the next job: longer than a framework takes from one operation to the next.
const AWAKE: Duration = Duration::from_millis(1);
/// Looks at the state before others get the processor.
const LOOKS: usize = 64;

/// A job: called by each thread that takes part, with the thread's number.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// `number << 32 | CLOSED | threads that take part`. Numbers count jobs.
    state: AtomicU64,
    /// The open job. Written where no job is open and nobody takes part; read by who takes part.
    job: UnsafeCell<Option<&'static Job<'static>>>,
    /// Held by the caller whose job it is.
    caller: Mutex<()>,
    /// Threads that sleep, or are about to.
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    placement: Placement,
    /// What the first thread that panicked in a job panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whose threads these are: a fork of the process has none.
    process: u32,
}

// SAFETY: `job` is accessed as it says; everything else is `Sync`.
unsafe impl Sync for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

const CLOSED: u64 = 1 << 31;
const TAKING_PART: u64 = CLOSED - 1;
/// The number of a job after which there is none.
const END: u64 = u32::MAX as u64;

impl Pool {
    /// So many threads, with numbers from 1 on; fewer where the system gives no more.
    pub(super) fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(CLOSED),
            job: UnsafeCell::new(None),
            caller: Mutex::new(()),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            placement: Placement::new(count),
            panic: Mutex::new(None),
            process: std::process::id(),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("halfstep-{number}"));
            builder.spawn(move || shared.take_part(number)).ok()
        };
        let threads = (1..=count).map_while(start).collect();
        Self { shared, threads }
    }

    /// How many threads there are.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Calls `job(0)` here, and `job(number)` on each thread that finds the time before that has returned; returns when
    /// all of them have. So a job is one that any of its calls can end alone. While another caller's job is open, this
    /// one is for this thread alone.
    pub(super) fn run(&self, job: &Job<'_>) {
        let open = match self.shared.caller.try_lock() {
            Ok(caller) => Open::new(&self.shared, job, caller),
            Err(TryLockError::Poisoned(caller)) => {
                Open::new(&self.shared, job, caller.into_inner())
            }
            Err(TryLockError::WouldBlock) => return job(0),
        };
        job(0);
        open.close();
        let panic = lock(&self.shared.panic).take();
        drop(open);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.shared.forked() {
            return self.threads.drain(..).for_each(std::mem::forget);
        }
        self.shared.post(END);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it has caught all panics
        }
    }
}

/// An open job. Closed when dropped, also by a panic: nothing that the job borrows is used after that.
struct Open<'a> {
    shared: &'a Shared,
    _caller: MutexGuard<'a, ()>,
}

impl<'a> Open<'a> {
    fn new(shared: &'a Shared, job: &Job<'_>, caller: MutexGuard<'a, ()>) -> Self {
        // SAFETY: of lifetimes only. Threads use it between taking part and having taken part, which `drop` waits for.
        let job = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        *lock(&shared.panic) = None; // of a job whose caller panicked too
        // SAFETY: no job is open, or another caller would hold the lock, and nobody takes part in a closed one.
        unsafe { *shared.job.get() = Some(job) };
        let number = (shared.state.load(Ordering::Relaxed) >> 32) + 1;
        shared.post(if number == END { 1 } else { number });
        Self { shared, _caller: caller }
    }
}

impl Open<'_> {
    /// From here on nobody takes part who has not begun, and all who have are done.
    fn close(&self) {
        let mut state = self.shared.state.fetch_or(CLOSED, Ordering::AcqRel);
        let mut looks = 0;
        while state & TAKING_PART != 0 {
            pause(&mut looks);
            state = self.shared.state.load(Ordering::Acquire);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Between two looks.
fn pause(looks: &mut usize) {
    *looks += 1;
    if looks.is_multiple_of(LOOKS) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Opens a job, or says that there will be none, and wakes who sleeps.
    fn post(&self, number: u64) {
        // Either this sees who is about to sleep, or who is about to sleep sees this: both orders are one.
        self.state.store(number << 32, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 && !self.forked() {
            drop(lock(&self.sleep)); // who looked before that waits by now
            self.placement.elsewhere();
            self.wake.notify_all();
        }
    }

    /// Whether this is a fork of the threads' process.
    fn forked(&self) -> bool {
        std::process::id() != self.process
    }

    /// A thread: job after job.
    fn take_part(&self, number: usize) {
        let _environment = Environment::standard();
        let placed = self.placement.begin(number);
        let mut last = 0;
        loop {
            let state = self.next(last, &placed);
            last = state >> 32;
            if last == END {
                return;
            }
            if !self.enter(state) {
                continue;
            }
            // SAFETY: the job is open, or closed while this thread takes part: then its caller waits.
            let job = unsafe { *self.job.get() }.expect("an open job is there");
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(number))) {
                lock(&self.panic).get_or_insert(panic);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job after the `last` that is still open, or for the end.
    fn next(&self, last: u64, placed: &Placed<'_>) -> u64 {
        let new = |state: u64| state >> 32 != last && state & CLOSED == 0;
        let start = Instant::now();
        let mut looks = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if new(state) {
                return state;
            }
            pause(&mut looks);
            if !looks.is_multiple_of(LOOKS) || start.elapsed() < AWAKE {
                continue;
            }
            placed.asleep(); // before anybody hears of it
            let mut sleep = lock(&self.sleep);
            self.asleep.fetch_add(1, Ordering::SeqCst);
            let mut state = self.state.load(Ordering::SeqCst);
            while !new(state) {
                sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
                state = self.state.load(Ordering::SeqCst);
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
            placed.awake();
            return state;
        }
    }

    /// Takes part in the job that `state` is of, unless it has been closed.
    fn enter(&self, mut state: u64) -> bool {
        let number = state >> 32;
        while state >> 32 == number && state & CLOSED == 0 {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(found) => state = found,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::{AWAKE, Open, Pool, lock};

    /// Longer than a thread takes to be woken, unless it never is.
    const LONG: Duration = Duration::from_secs(5);

    /// For ever: where threads are not woken, a test is to fail, not to wait for them to end.
    fn pool(count: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new(count)))
    }

    fn wait_until(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < LONG, "{what}");
            std::thread::sleep(Duration::from_micros(10));
        }
    }

    fn wait_until_asleep(pool: &Pool) {
        wait_until("threads fall asleep", || {
            pool.shared.asleep.load(Ordering::SeqCst) == pool.len()
        });
    }

    /// Takes the numbers below `len`, whoever comes first.
    fn counted(pool: &Pool, len: usize) -> Vec<usize> {
        let (next, ran) = (AtomicUsize::new(0), (0..len).map(|_| AtomicUsize::new(0)));
        let ran: Vec<AtomicUsize> = ran.collect();
        pool.run(&|_| {
            while let Some(ran) = ran.get(next.fetch_add(1, Ordering::Relaxed)) {
                ran.fetch_add(1, Ordering::Relaxed);
            }
        });
        ran.into_iter().map(AtomicUsize::into_inner).collect()
    }

    /// Jobs one behind the other, and after pauses in which threads go to sleep, or are about to.
    #[test]
    fn every_part_of_every_job_runs_once() {
        for count in [0, 1, 3] {
            let pool = pool(count);
            for round in 0..2000 {
                assert_eq!(counted(pool, 7), [1; 7]);
                if round % 100 == 0 {
                    std::thread::sleep(AWAKE * (round / 100 % 4) / 2);
                }
            }
        }
    }

    /// A caller that finds the threads busy works alone.
    #[test]
    fn callers_do_not_meet() {
        let pool = pool(2);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..500).for_each(|_| assert_eq!(counted(pool, 9), [1; 9])));
            }
        });
    }

    /// Threads do take part, also those that sleep: each call waits for the others.
    #[test]
    fn all_threads_take_part() {
        let pool = pool(2);
        for round in 0..50 {
            match round % 2 {
                0 => wait_until_asleep(pool),
                _ => std::thread::sleep(AWAKE * (round % 5) / 2),
            }
            let arrived = AtomicUsize::new(0);
            pool.run(&|number| {
                arrived.fetch_add(1 << (8 * number), Ordering::Relaxed);
                wait_until("all arrive", || arrived.load(Ordering::Relaxed) == 0x1_0101);
            });
        }
    }

    /// A caller that is done first waits for a thread that has begun.
    #[test]
    fn a_job_ends_when_all_who_take_part_are_done() {
        // Not the job's own: if the caller does not wait, they are still there.
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static DONE: AtomicUsize = AtomicUsize::new(0);
        pool(1).run(&|number| {
            BEGUN.fetch_add(1, Ordering::Relaxed);
            wait_until("both begin", || BEGUN.load(Ordering::Relaxed) == 2);
            if number == 1 {
                std::thread::sleep(Duration::from_millis(20));
                DONE.store(1, Ordering::Relaxed);
            }
        });
        assert_eq!(DONE.load(Ordering::Relaxed), 1);
    }

    /// A thread that has seen a job open and comes when it is closed, or another is open, has no part in it.
    #[test]
    fn a_closed_job_is_not_entered() {
        let shared = &pool(0).shared;
        let state = || shared.state.load(Ordering::Relaxed);
        let open = || Open::new(shared, &|_| {}, lock(&shared.caller));
        let enters = |seen| {
            let entered = shared.enter(seen);
            if entered {
                shared.state.fetch_sub(1, Ordering::Release); // and has taken part
            }
            entered
        };
        let first = open();
        let seen = state();
        drop(first);
        assert!(!enters(seen) && !enters(state()), "closed");
        let second = open();
        assert!(!enters(seen), "another");
        assert!(enters(state()), "open");
        drop(second);
    }

    /// The end wakes who sleeps.
    #[test]
    fn threads_end_with_their_pool() {
        let pool = Pool::new(2);
        wait_until_asleep(&pool);
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            drop(pool);
            ended.send(()).unwrap();
        });
        end.recv_timeout(LONG).expect("threads end");
    }

    /// A fork works alone, where it might before, and leaves the threads to its parent.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_fork_has_no_threads() {
        unsafe extern "C" {
            fn fork() -> i32;
            fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
            fn _exit(status: i32) -> !;
        }
        let processors = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap().to_string()
        };
        let pool = Pool::new(2);
        wait_until_asleep(&pool);
        let before = processors();
        // SAFETY: the child waits for nobody else's locks, and ends.
        let child = unsafe { fork() };
        if child == 0 {
            let worked = counted(&pool, 7) == [1; 7] && processors() == before;
            let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(pool)));
            // SAFETY: ends the process, and runs nothing of the parent's.
            unsafe { _exit(10 + i32::from(worked) + 2 * i32::from(left.is_ok())) };
        }
        let mut status = 0;
        // SAFETY: one int to write to.
        assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
        assert_eq!(status >> 8, 13);
        assert_eq!(counted(&pool, 7), [1; 7]);
    }

    /// A panic of a thread is the caller's, once all have stopped; the threads are there for the next job.
    #[test]
    fn panics_reach_the_caller() {
        let pool = pool(2);
        for from in 0..3 {
            let arrived = AtomicUsize::new(0);
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(&|number| {
                    arrived.fetch_add(1, Ordering::Relaxed);
                    wait_until("all arrive", || arrived.load(Ordering::Relaxed) == 3);
                    assert!(number != from, "thread {from}");
                });
            }));
            let message = caught.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("thread {from}")), "{message}");
            assert_eq!(counted(pool, 5), [1; 5]);
        }
    }
}
