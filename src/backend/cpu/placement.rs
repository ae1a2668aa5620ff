//! Where threads that sleep wake up: not on the processor of who wakes them.
//!
//! Linux lets a thread wake up where it ran last, unless another processor is idle that shares a cache with that one.
//! Where it knows of none, as in many virtual machines, that is the caller's own processor half of the time: the thread
//! sits behind its caller until load is balanced, 4 ms later, which is all of a short call. So the caller's processor is
//! taken from those that sleepers may run on, and each takes it back once it is awake. Threads that are awake stay where they
//! are; and where anybody else says in between where a thread may run, that holds.

use std::sync::{Mutex, PoisonError};

/// Larger machines have idle processors that share a cache, and more threads than a call has time to tell.
const FEW: u32 = 8;

/// A number of threads, from 1 on.
#[derive(Debug)]
pub(super) struct Placement {
    sleepers: Vec<Mutex<Sleeper>>,
}

/// One of them.
#[derive(Debug, Default)]
struct Sleeper {
    /// While it runs.
    thread: Option<system::Thread>,
    /// Or about to be.
    asleep: bool,
    narrowed: Option<Narrowed>,
}

/// Where a thread may run once it is awake, and the part of that where it wakes up.
#[derive(Debug, Clone, Copy)]
struct Narrowed {
    all: system::Processors,
    part: system::Processors,
}

/// A thread that can be placed until this is dropped.
#[must_use]
pub(super) struct Placed<'a>(&'a Mutex<Sleeper>);

impl Placement {
    pub(super) fn new(count: usize) -> Self {
        Self { sleepers: (0..count).map(|_| Mutex::default()).collect() }
    }

    /// This thread is the one with that number.
    pub(super) fn begin(&self, number: usize) -> Placed<'_> {
        let sleeper = &self.sleepers[number - 1];
        lock(sleeper).thread = system::this_thread();
        Placed(sleeper)
    }

    /// Threads that sleep wake up elsewhere than on this processor.
    pub(super) fn elsewhere(&self) {
        let Some(here) = system::this_processor() else { return };
        for sleeper in &self.sleepers {
            let Sleeper { thread: Some(thread), asleep: true, narrowed } = &mut *lock(sleeper)
            else {
                continue;
            };
            let Some(now) = system::allowed(*thread) else { continue };
            // By an earlier call; unless somebody else has said something since.
            *narrowed = narrowed.filter(|narrowed| narrowed.part == now);
            let all = narrowed.map_or(now, |narrowed| narrowed.all);
            let part = system::without(all, here);
            let count = |set: &system::Processors| set.iter().map(|word| word.count_ones()).sum();
            let (before, after): (u32, u32) = (count(&all), count(&part));
            if before <= FEW && (1..before).contains(&after) && system::allow(*thread, &part) {
                *narrowed = Some(Narrowed { all, part });
            }
        }
    }
}

impl Placed<'_> {
    /// This thread is about to sleep.
    pub(super) fn asleep(&self) {
        lock(self.0).asleep = true;
    }

    /// This thread is awake, and may run wherever it might before.
    pub(super) fn awake(&self) {
        let Sleeper { thread, asleep, narrowed } = &mut *lock(self.0);
        *asleep = false;
        if let (Some(thread), Some(Narrowed { all, part })) = (thread, narrowed.take())
            && system::allowed(*thread) == Some(part)
        {
            system::allow(*thread, &all);
        }
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        lock(self.0).thread = None;
    }
}

fn lock(sleeper: &Mutex<Sleeper>) -> std::sync::MutexGuard<'_, Sleeper> {
    sleeper.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::{c_int, c_ulong};

    const BITS: usize = c_ulong::BITS as usize;

    /// `pthread_t`, a number or an address. Only those that run are asked about.
    pub(super) type Thread = c_ulong;
    /// `cpu_set_t`: a bit for each processor.
    pub(super) type Processors = [c_ulong; 1024 / BITS];

    // Of `pthread.h` and `sched.h`.
    unsafe extern "C" {
        fn pthread_self() -> Thread;
        fn pthread_getaffinity_np(thread: Thread, bytes: usize, set: *mut Processors) -> c_int;
        fn pthread_setaffinity_np(thread: Thread, bytes: usize, set: *const Processors) -> c_int;
        fn sched_getcpu() -> c_int;
    }

    pub(super) fn this_thread() -> Option<Thread> {
        // SAFETY: has no conditions.
        Some(unsafe { pthread_self() })
    }

    pub(super) fn this_processor() -> Option<usize> {
        // SAFETY: has no conditions; less than 0 where the system does not say.
        usize::try_from(unsafe { sched_getcpu() }).ok()
    }

    /// Where a thread may run; `None` where that is more than fits.
    pub(super) fn allowed(thread: Thread) -> Option<Processors> {
        let mut set = [0; 1024 / BITS];
        // SAFETY: the thread runs (`Placed`), and as many bytes are there.
        let failed = unsafe { pthread_getaffinity_np(thread, size_of_val(&set), &mut set) };
        (failed == 0).then_some(set)
    }

    pub(super) fn allow(thread: Thread, set: &Processors) -> bool {
        // SAFETY: as above.
        unsafe { pthread_setaffinity_np(thread, size_of_val(set), set) == 0 }
    }

    pub(super) fn without(mut set: Processors, processor: usize) -> Processors {
        if let Some(word) = set.get_mut(processor / BITS) {
            *word &= !(1 << (processor % BITS));
        }
        set
    }
}

/// Nothing is known here, and nothing done.
#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) type Thread = std::convert::Infallible;
    pub(super) type Processors = [u32; 0];

    pub(super) fn this_thread() -> Option<Thread> {
        None
    }

    pub(super) fn this_processor() -> Option<usize> {
        None
    }

    pub(super) fn allowed(thread: Thread) -> Option<Processors> {
        match thread {}
    }

    pub(super) fn allow(thread: Thread, _: &Processors) -> bool {
        match thread {}
    }

    pub(super) fn without(set: Processors, _: usize) -> Processors {
        set
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc::channel;

    use super::system::{Processors, allow, allowed, this_thread, without};
    use super::{FEW, Placed, Placement};

    fn mine() -> Processors {
        allowed(this_thread().unwrap()).unwrap()
    }

    /// What a thread that starts with these may run on as it wakes up, and once it is awake.
    fn woken_from(processor: usize, start: Processors) -> [Processors; 2] {
        let placement = Placement::new(1);
        let all = mine();
        let found = std::thread::scope(|scope| {
            let ((begin, begun), (wake, woken)) = (channel(), channel());
            let placement = &placement;
            let sleeper = move || {
                allow(this_thread().unwrap(), &start);
                let placed: Placed<'_> = placement.begin(1);
                placed.asleep();
                begin.send(()).unwrap();
                woken.recv().unwrap();
                let asleep = mine();
                placed.awake();
                [asleep, mine()]
            };
            let sleeper = scope.spawn(sleeper);
            begun.recv().unwrap();
            let others = without(all, processor);
            let only = std::array::from_fn(|i| all[i] & !others[i]);
            assert!(allow(this_thread().unwrap(), &only));
            placement.elsewhere();
            placement.elsewhere(); // another call, before it is awake
            assert!(allow(this_thread().unwrap(), &all));
            wake.send(()).unwrap();
            sleeper.join().unwrap()
        });
        placement.elsewhere(); // the thread is gone
        found
    }

    /// Another thread's call, from wherever it is.
    fn call(placement: &Placement) {
        std::thread::scope(|scope| scope.spawn(|| placement.elsewhere()).join().unwrap());
    }

    #[test]
    fn threads_that_are_awake_stay_where_they_are() {
        let (placement, all) = (Placement::new(1), mine());
        let placed = placement.begin(1);
        call(&placement);
        assert_eq!(mine(), all);
        placed.asleep();
        placed.awake();
        call(&placement);
        assert_eq!(mine(), all);
    }

    /// Somebody else says where the thread may run, while it sleeps and is to wake up elsewhere.
    #[test]
    fn what_others_say_holds() {
        let (placement, all) = (Placement::new(1), mine());
        let placed = placement.begin(1);
        for processor in (0..1024).filter(|i| without(all, *i) != all) {
            for calls in 0..2 {
                placed.asleep();
                call(&placement);
                let others = without(all, processor);
                let only = std::array::from_fn(|i| all[i] & !others[i]);
                if only == mine() {
                    continue; // it may run there alone already
                }
                assert!(allow(this_thread().unwrap(), &only));
                (0..calls).for_each(|_| call(&placement));
                placed.awake();
                assert_eq!(mine(), only, "{processor}, {calls}");
                assert!(allow(this_thread().unwrap(), &all));
            }
        }
    }

    #[test]
    fn threads_wake_up_elsewhere_and_run_anywhere() {
        let all = mine();
        let bits = |set: &Processors| set.iter().map(|word| word.count_ones()).sum::<u32>();
        let processors = (0..1024).filter(|i| without(all, *i) != all);
        for processor in processors {
            let without_it = without(all, processor);
            let expected = if (2..=FEW).contains(&bits(&all)) { without_it } else { all };
            assert_eq!(woken_from(processor, all), [expected, all], "{processor}");
            // Who may run on one processor only stays there.
            let only = std::array::from_fn(|i| all[i] & !without_it[i]);
            assert_eq!(woken_from(processor, only), [only, only], "{processor}");
        }
    }
}
