//! Averaging the gradients of Wave2Vec2-base over two ranks of one process. The least that any way
//! moves is each rank's gradients once in and once out; that is what bytes count. Views of the buckets
//! move no more; gradients of the caller's are packed, and unpacked, besides.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;

use halfstep::reduce::{
    BucketPlan, Communicator, Config, Local, Param, Reducer, Sum, Unscale, local,
};
use halfstep::{Device, Dtype, Storage, Stream, Write, bf16};

use super::{Arithmetic, Case, Entry, Failure, Traffic, text};
use crate::workloads;

const RANKS: usize = 2;

pub fn entries(all: &mut Vec<Entry>) {
    for (views, stats) in [(true, false), (true, true), (false, true)] {
        let way = |wire| (wire, Config { views, stats, ..Config::default() });
        add::<bf16>(all, way(Dtype::Bf16));
        add::<f32>(all, way(Dtype::Bf16));
        add::<f32>(all, way(Dtype::F32));
    }
    add::<f32>(all, (Dtype::F32, Config { sum: Sum::Int8, ..Config::default() }));
}

fn add<G: Storage>(all: &mut Vec<Entry>, (wire, config): (Dtype, Config)) {
    let params = workloads::wav2vec2_base_ctc();
    let len: usize = params.iter().map(|param| param.len).sum();
    let lie = if config.views { "views" } else { "packed" };
    let sums = if config.stats { ", Σg²" } else { "" };
    let travels = match config.sum {
        Sum::Int8 => "int8".to_string(),
        _ => wire.to_string(),
    };
    all.push(Entry {
        op: "reduce",
        name: format!("{} {lie}, {travels} wire{sums}", G::DTYPE),
        size: format!("{RANKS}×{} tensors", params.len()),
        flops: (RANKS * len) as f64, // a sum of so many
        bytes: (RANKS * 2 * len * size_of::<G>()) as f64,
        arithmetic: Arithmetic::F32,
        traffic: Traffic::Update,
        ranks: Some(RANKS),
        make: Box::new(move |_| Ok(Box::new(Ranks::new::<G>(&params, wire, &config)?))),
    });
}

/// Threads that reduce when told to.
struct Ranks {
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
    fn new<G: Storage>(params: &[Param], wire: Dtype, config: &Config) -> Result<Self, Failure> {
        let plan = BucketPlan::ddp(params, wire, 1 << 20, 25 << 20).map_err(text)?;
        let ranks = RANKS.try_into().map_err(|_| "no ranks".to_string())?;
        let turn = Arc::new(Turn {
            start: Barrier::new(RANKS + 1),
            end: Barrier::new(RANKS + 1),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let spawn = |comm: Local| {
            let (turn, plan, config) = (turn.clone(), plan.clone(), config.clone());
            std::thread::spawn(move || serve::<G>(comm, plan, config, &turn))
        };
        let threads = local(ranks).into_iter().map(spawn).collect();
        Ok(Self { turn, threads })
    }
}

/// One rank, until it is told to stop. A failure is kept, and the barriers are still met.
fn serve<G: Storage>(comm: Local, plan: BucketPlan, config: Config, turn: &Turn) {
    let mut rank = Rank::<G>::new(comm, plan, config).map_err(text);
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

/// One rank's reducer and gradients.
struct Rank<G: Storage> {
    stream: Stream,
    reducer: Reducer<G>,
    /// Unless they are views.
    gradients: Option<Vec<Vec<G>>>,
}

impl<G: Storage> Rank<G> {
    fn new(comm: Local, plan: BucketPlan, config: Config) -> halfstep::Result<Self> {
        let views = config.views;
        let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
        let stream = device.stream()?;
        let value = G::narrow(1.0 + comm.rank() as f32);
        let lens: Vec<usize> = plan.params().iter().map(|param| param.len).collect();
        let mut reducer = Reducer::new(&device, plan, Box::new(comm), config)?;
        if views {
            for param in 0..lens.len() {
                reducer.gradient_mut(param)?.host().unwrap_or_default().fill(value);
            }
        }
        let gradients = (!views).then(|| lens.iter().map(|&len| vec![value; len]).collect());
        Ok(Self { stream, reducer, gradients })
    }

    fn step(&mut self) -> halfstep::Result<()> {
        let Self { stream, reducer, gradients } = self;
        match gradients {
            Some(gradients) => {
                for (param, gradient) in gradients.iter().enumerate().rev() {
                    reducer.ready(stream, param, gradient)?;
                }
                let mut outputs: Vec<&mut dyn Write<G>> =
                    gradients.iter_mut().map(|g| g as &mut dyn Write<G>).collect();
                reducer.finish(stream, &mut outputs, Unscale::Keep)?;
            }
            None => {
                for param in (0..reducer.plan().params().len()).rev() {
                    reducer.ready_view(stream, param)?;
                }
                reducer.finish_views(stream, Unscale::Keep)?;
            }
        }
        stream.sync()
    }

    /// The average of 1 and 2 is 1.5, that of equal values themselves; as 8-bit integers 127 steps of
    /// an f32.
    fn check(&self) -> Result<(), Failure> {
        let wrong = |value: &&G| (value.widen() - 1.5).abs() > 1e-6;
        for param in 0..self.reducer.plan().params().len() {
            let wrong = match &self.gradients {
                Some(gradients) => gradients[param].iter().find(wrong),
                None => {
                    let view = self.reducer.gradient(param).map_err(text)?;
                    view.host().unwrap_or_default().iter().find(wrong)
                }
            };
            if let Some(wrong) = wrong {
                return Err(format!("parameter {param} has {wrong:?}, not 1.5"));
            }
        }
        Ok(())
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
