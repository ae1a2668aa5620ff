//! When work is done: as late as it can be, in an order drawn from the seed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Driver;
use super::error::{Error, Result};
use super::lane::{Mark, Point};
use super::work::{HostCall, Work};

/// How the next operation is chosen. Each wait draws one anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Only what is waited for.
    Needed,
    /// Any that can run, all alike.
    Any,
    /// Some lanes always before others; the number says which.
    Ranked(u64),
}

/// What one step did.
enum Step {
    /// An operation.
    Done,
    /// Nothing can run.
    Stuck,
    /// The host is to be called, and then told of.
    Host(HostCall, usize),
}

/// The driver, to oneself. A panic elsewhere is reported where it was; what it left is used on.
pub fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does work until `mark` is reached: what the host waits for, it knows of.
pub fn wait(driver: &Mutex<Driver>, context: u64, mark: &Mark) -> Result {
    let policy = lock(driver).draw_policy();
    loop {
        let mut guard = lock(driver);
        if guard.learn(mark) {
            return guard.sound(context);
        }
        match guard.step(&mark.points, policy) {
            Step::Done => {}
            Step::Host(call, lane) => {
                drop(guard);
                (call.function)(call.data as *mut _);
                lock(driver).lanes.finish(lane);
            }
            Step::Stuck if guard.lanes.any_running() || guard.lanes.any_meeting() => {
                drop(guard);
                std::thread::yield_now();
            }
            Step::Stuck => {
                guard.journal.complain("work waits for work that never comes".into(), None);
                return Err(Error::Unknown);
            }
        }
    }
}

/// Whether `mark` is reached. Asking lets a little work be done, so that whoever asks again and
/// again sees the end.
pub fn query(driver: &Mutex<Driver>, context: u64, mark: &Mark) -> Result {
    let (policy, steps) = {
        let mut guard = lock(driver);
        (guard.draw_policy(), guard.random.below(4))
    };
    for _ in 0..steps {
        let mut guard = lock(driver);
        if let Step::Host(call, lane) = guard.step(&mark.points, policy) {
            drop(guard);
            (call.function)(call.data as *mut _);
            lock(driver).lanes.finish(lane);
        }
    }
    let mut guard = lock(driver);
    let done = guard.learn(mark);
    guard.sound(context)?;
    if done { Ok(()) } else { Err(Error::NotReady) }
}

impl Driver {
    fn draw_policy(&mut self) -> Policy {
        match self.random.below(4) {
            0 => Policy::Needed,
            1 => Policy::Any,
            _ => Policy::Ranked(self.random.draw()),
        }
    }

    /// If the mark is reached, the host knows what it stands for.
    fn learn(&mut self, mark: &Mark) -> bool {
        if !mark.points.iter().all(|point| self.lanes.reached(*point)) {
            return false;
        }
        self.lanes.host.join(&mark.clock);
        let lanes = &self.lanes;
        self.history.forget(|lane, segment| lanes.all_know(lane, segment));
        true
    }

    fn step(&mut self, goal: &[Point], policy: Policy) -> Step {
        let needed = || goal.iter().find_map(|point| self.lanes.needed(*point));
        let lane = match policy {
            Policy::Needed => needed(),
            Policy::Any => {
                let ready = self.lanes.ready();
                (!ready.is_empty()).then(|| ready[self.random.below(ready.len())])
            }
            Policy::Ranked(key) => {
                let rank =
                    |lane: &usize| super::random::Random::new(key ^ (*lane as u64) << 32).draw();
                self.lanes.ready().into_iter().max_by_key(rank)
            }
        };
        let Some(lane) = lane else { return Step::Stuck };
        let Some(operation) = self.lanes.take(lane) else { return Step::Stuck };
        match operation.work {
            Work::Host(call) => return Step::Host(call, lane),
            Work::Meet { meeting } => {
                self.perform_meeting(meeting, lane, operation);
                return Step::Done;
            }
            _ => {}
        }
        let result = self.perform(lane, &operation);
        self.finish(lane, result);
        Step::Done
    }

    /// An operation is done; an error is its context's from now on.
    pub(super) fn finish(&mut self, lane: usize, result: Result) {
        self.lanes.finish(lane);
        if let Err(error) = result {
            let context = self.lanes.context(lane);
            if let Ok(context) = self.contexts.get_mut(context) {
                context.sticky = Some(error);
            }
            self.lanes.abandon(context);
        }
    }
}
