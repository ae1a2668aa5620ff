//! Averaging the gradients of Wave2Vec2-base over two ranks of one process, which share a GPU or have a thread of the
//! CPU each. The least that any way
//! moves is each rank's gradients once in and once out; that is what bytes count. Views of the buckets
//! move no more; gradients of the caller's are packed, and unpacked, besides.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;

use halfstep::reduce::{
    BucketPlan, Communicator, Config, Local, Param, Reducer, Sum, Unscale, local,
};
use halfstep::{Buffer, Device, DeviceKind, Dtype, Storage, Stream, Write, bf16};

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
        workload: "wav2vec2-base",
        flops: (RANKS * len) as f64, // a sum of so many
        bytes: (RANKS * 2 * len * size_of::<G>()) as f64,
        arithmetic: Arithmetic::F32,
        traffic: Traffic::Update,
        ranks: Some(RANKS),
        make: Box::new(move |device| {
            Ok(Box::new(Ranks::new::<G>(device, &params, wire, &config)?))
        }),
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
    fn new<G: Storage>(
        device: &Device,
        params: &[Param],
        wire: Dtype,
        config: &Config,
    ) -> Result<Self, Failure> {
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
            let device = device.clone();
            std::thread::spawn(move || serve::<G>(&device, comm, plan, config, &turn))
        };
        let threads = local(ranks).into_iter().map(spawn).collect();
        Ok(Self { turn, threads })
    }
}

/// One rank, until it is told to stop. A failure is kept, and the barriers are still met.
fn serve<G: Storage>(device: &Device, comm: Local, plan: BucketPlan, config: Config, turn: &Turn) {
    let mut rank = Rank::<G>::new(device, comm, plan, config).map_err(text);
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
    gradients: Option<Vec<Buffer<G>>>,
    /// How far an average of two values below 1 may be from that in f64, divided by the greater of them.
    tolerance: f32,
}

/// Element `i` of a rank's gradient of a parameter, in [-1, 1).
fn value(rank: usize, param: usize, i: usize) -> f32 {
    let index = i + 7919 * param + 104_729 * rank;
    (index.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0
}

impl<G: Storage> Rank<G> {
    fn new(
        device: &Device,
        comm: Local,
        plan: BucketPlan,
        config: Config,
    ) -> halfstep::Result<Self> {
        let (views, rank) = (config.views, comm.rank());
        let device = match device.info().kind {
            DeviceKind::Cpu => &Device::cpu_with_threads(std::num::NonZeroUsize::MIN),
            _ => device,
        };
        let stream = device.stream()?;
        let tolerance = match config.sum {
            Sum::Int8 => 2.0 / 127.0,
            _ => 4.0 * plan.wire().unit_roundoff().max(G::DTYPE.unit_roundoff()) as f32,
        };
        let lens: Vec<usize> = plan.params().iter().map(|param| param.len).collect();
        let values = |param: usize| -> Vec<G> {
            (0..lens[param]).map(|i| G::narrow(value(rank, param, i))).collect()
        };
        let mut reducer = Reducer::new(device, plan, Box::new(comm), config)?;
        let mut gradients = Vec::new();
        for param in 0..lens.len() {
            if views {
                reducer.gradient_mut(param)?.copy_from(&stream, &values(param))?;
            } else {
                gradients.push(device.upload(&values(param))?);
            }
        }
        stream.sync()?;
        let gradients = (!views).then_some(gradients);
        Ok(Self { stream, reducer, gradients, tolerance })
    }

    fn step(&mut self) -> halfstep::Result<()> {
        let Self { stream, reducer, gradients, .. } = self;
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

    /// Some elements of every parameter, against the average of both ranks' in f64.
    fn check(&self) -> Result<(), Failure> {
        let lens: Vec<usize> = self.reducer.plan().params().iter().map(|param| param.len).collect();
        for (param, &len) in lens.iter().enumerate() {
            let mut found = vec![G::zeroed(); len];
            match &self.gradients {
                Some(gradients) => gradients[param].read(&self.stream, 0, &mut found),
                None => self
                    .reducer
                    .gradient(param)
                    .and_then(|view| view.copy_to(&self.stream, &mut found)),
            }
            .map_err(text)?;
            for i in (0..len).step_by(len / 64 + 1).chain([len - 1]) {
                let of = |rank| G::narrow(value(rank, param, i)).widen();
                let (exact, most) = (0.5 * (of(0) + of(1)), of(0).abs().max(of(1).abs()));
                // The steps of 8-bit integers are of the largest of 256 elements, which are below 1.
                let most = if self.tolerance > 0.01 { 1.0 } else { most };
                // Written so that a NaN fails.
                let good = (found[i].widen() - exact).abs() <= self.tolerance * most;
                if !good {
                    let found = found[i];
                    return Err(format!(
                        "parameter {param}, element {i} is {found:?}, not {exact}"
                    ));
                }
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
