//! Averaging the gradients of Wave2Vec2-base over two ranks of one process. The least that any way
//! moves is each rank's gradients once in and once out; that is what bytes count, though packing and
//! exchanging move more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;

use halfstep::reduce::{BucketPlan, Communicator, Config, Local, Param, Reducer, Unscale, local};
use halfstep::{Device, Dtype, Storage, Write, bf16};

use super::{Case, Entry, Failure, Traffic, text};
use crate::workloads;

const RANKS: usize = 2;

pub fn entries(all: &mut Vec<Entry>) {
    add::<bf16>(all, Dtype::Bf16);
    add::<f32>(all, Dtype::Bf16);
    add::<f32>(all, Dtype::F32);
}

fn add<G: Storage>(all: &mut Vec<Entry>, wire: Dtype) {
    let params = workloads::wav2vec2_base_ctc();
    let len: usize = params.iter().map(|param| param.len).sum();
    all.push(Entry {
        op: "reduce",
        name: format!("{} gradients, {wire} wire, {RANKS} ranks", G::DTYPE),
        size: format!("{} tensors", params.len()),
        flops: (RANKS * len) as f64, // a sum of so many
        bytes: (RANKS * 2 * len * size_of::<G>()) as f64,
        traffic: Traffic::Update,
        ranks: Some(RANKS),
        make: Box::new(move |_| Ok(Box::new(Ranks::<G>::new(params.clone(), wire)?))),
    });
}

/// Threads that reduce when told to.
struct Ranks<G> {
    gradients: Vec<Arc<Mutex<Vec<Vec<G>>>>>,
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

impl<G: Storage> Ranks<G> {
    fn new(params: Vec<Param>, wire: Dtype) -> Result<Self, Failure> {
        let plan = BucketPlan::ddp(&params, wire, 1 << 20, 25 << 20).map_err(text)?;
        let ranks = RANKS.try_into().map_err(|_| "no ranks".to_string())?;
        let turn = Arc::new(Turn {
            start: Barrier::new(RANKS + 1),
            end: Barrier::new(RANKS + 1),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let (mut gradients, mut threads) = (Vec::new(), Vec::new());
        for comm in local(ranks) {
            let value = G::narrow(1.0 + comm.rank() as f32);
            let own: Vec<Vec<G>> = params.iter().map(|param| vec![value; param.len]).collect();
            let own = Arc::new(Mutex::new(own));
            gradients.push(own.clone());
            let (turn, plan) = (turn.clone(), plan.clone());
            threads.push(std::thread::spawn(move || rank(comm, plan, &own, &turn)));
        }
        Ok(Self { gradients, turn, threads })
    }
}

/// One rank, until it is told to stop. A failure is kept, and the barriers are still met.
fn rank<G: Storage>(comm: Local, plan: BucketPlan, gradients: &Mutex<Vec<Vec<G>>>, turn: &Turn) {
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let mut ready = device.stream().and_then(|stream| {
        Ok((Reducer::<G>::new(&device, plan, Box::new(comm), Config::default())?, stream))
    });
    let note = |error: &halfstep::Error| {
        if let Ok(mut failure) = turn.failure.lock() {
            failure.get_or_insert(error.to_string());
        }
    };
    loop {
        turn.start.wait();
        if turn.stop.load(Ordering::Relaxed) {
            return;
        }
        match (&mut ready, gradients.lock()) {
            (Ok((reducer, stream)), Ok(mut gradients)) => {
                let step = || -> halfstep::Result<()> {
                    for (param, gradient) in gradients.iter().enumerate().rev() {
                        reducer.ready(stream, param, gradient)?;
                    }
                    let mut outputs: Vec<&mut dyn Write<G>> =
                        gradients.iter_mut().map(|g| g as &mut dyn Write<G>).collect();
                    reducer.finish(stream, &mut outputs, Unscale::Keep)?;
                    stream.sync()
                };
                let mut step = step;
                if let Err(error) = step() {
                    note(&error);
                }
            }
            (Err(error), _) => note(error),
            (_, Err(_)) => {}
        }
        turn.end.wait();
    }
}

impl<G: Storage> Case for Ranks<G> {
    fn run(&mut self) -> Result<(), Failure> {
        self.turn.start.wait();
        self.turn.end.wait();
        let failure = self.turn.failure.lock().map_err(|_| "a rank panicked".to_string())?;
        failure.clone().map_or(Ok(()), Err)
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The average of 1 and 2 is 1.5, that of equal values themselves.
    fn check(&mut self) -> Result<(), Failure> {
        for (rank, gradients) in self.gradients.iter().enumerate() {
            let gradients = gradients.lock().map_err(|_| "a rank panicked".to_string())?;
            if let Some(wrong) = gradients.iter().flatten().find(|value| value.widen() != 1.5) {
                return Err(format!("rank {rank} has {wrong:?}, not 1.5"));
            }
        }
        Ok(())
    }
}

impl<G> Drop for Ranks<G> {
    fn drop(&mut self) {
        self.turn.stop.store(true, Ordering::Relaxed);
        self.turn.start.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
