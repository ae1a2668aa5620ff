//! The ranks of a case: threads that take their turns together.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;

use halfstep::reduce::{BucketPlan, Config, Local, Param, local};
use halfstep::{Device, Dtype, Storage, Stream};

use super::Connect;
use super::rank::Rank;
use crate::suite::{Case, Failure, text};

/// Threads that reduce when told to.
pub struct Ranks {
    turn: Arc<Turn>,
    threads: Vec<JoinHandle<()>>,
}

/// What the ranks and the clock share.
struct Turn {
    start: Barrier,
    end: Barrier,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Turn {
    fn note(&self, outcome: Result<(), Failure>) {
        if let (Err(error), Ok(mut failure)) = (outcome, self.failure.lock()) {
            failure.get_or_insert(error);
        }
    }
}

impl Ranks {
    /// One on each of these devices.
    pub fn new<G: Storage>(
        devices: &[Device],
        connect: Connect,
        params: &[Param],
        wire: Dtype,
        config: &Config,
    ) -> Result<Self, Failure> {
        let plan = BucketPlan::ddp(params, wire, 1 << 20, 25 << 20).map_err(text)?;
        let ranks = devices.len().try_into().map_err(|_| "no ranks".to_string())?;
        let turn = Arc::new(Turn {
            start: Barrier::new(devices.len() + 1),
            end: Barrier::new(devices.len() + 1),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let spawn = |(host, device): (Local, &Device)| {
            let (turn, plan, config) = (turn.clone(), plan.clone(), config.clone());
            let device = device.clone();
            std::thread::spawn(move || {
                let comm = connect(&device, host);
                serve(comm.and_then(|comm| Rank::<G>::new(&device, comm, plan, config)), &turn);
            })
        };
        let threads = local(ranks).into_iter().zip(devices).map(spawn).collect();
        Ok(Self { turn, threads })
    }
}

/// One rank, until it is told to stop. A failure is kept, and the barriers are still met.
fn serve<G: Storage>(rank: halfstep::Result<Rank<G>>, turn: &Turn) {
    let mut rank = rank.map_err(text);
    let mut checked = false;
    loop {
        turn.start.wait();
        if turn.stop.load(Ordering::Relaxed) {
            return;
        }
        turn.note(match &mut rank {
            Ok(rank) => rank.step().map_err(text),
            Err(error) => Err(error.clone()),
        });
        if let (Ok(rank), false) = (&rank, std::mem::replace(&mut checked, true)) {
            turn.note(rank.check());
        }
        turn.end.wait();
    }
}

impl Case for Ranks {
    fn run(&mut self) -> Result<(), Failure> {
        self.turn.start.wait();
        self.turn.end.wait();
        let failure = self.turn.failure.lock().map_err(|_| "a rank panicked".to_string())?;
        failure.clone().map_or(Ok(()), Err)
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        None
    }

    /// Ranks check their first step themselves; that they do so before `end`, `run` knows.
    fn check(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.turn.stop.store(true, Ordering::Relaxed);
        self.turn.start.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
