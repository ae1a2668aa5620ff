//! How much of an exchange a backward pass hides: the same gradients, ready at once, and made ready one
//! by one by a pass that takes as long as that exchange. The pass sleeps, as a host does while a device
//! computes. By turns, medians.

use std::time::{Duration, Instant};

use halfstep::reduce::{
    Attribution, BucketPlan, Communicator, Config, Link, Param, Reduced, Reducer, Unscale,
    calibrate, ready_by_elements,
};
use halfstep::{Device, Result, Storage, Stream};

use crate::suite::median;

/// What was measured.
pub struct Overlap {
    pub link: Link,
    pub buckets: usize,
    /// Of a step whose gradients are all there at once.
    pub exchange: f64,
    /// What a step takes longer than its backward pass.
    pub exposed: f64,
    /// Exposed over exchange, the median over rounds.
    pub share: f64,
    /// Where the time of the overlapped steps went.
    pub attribution: Attribution,
}

impl Overlap {
    pub fn lines(&self, name: &str) -> String {
        format!(
            "{name}: {} buckets for {:.0} µs + {:.2} ns/byte; exchange {:.1} ms, exposed {:.1} ms of it ({:.1}%)\n{}",
            self.buckets,
            1e6 * self.link.alpha,
            1e9 * self.link.beta,
            1e3 * self.exchange,
            1e3 * self.exposed,
            100.0 * self.share,
            self.attribution,
        )
    }
}

/// One rank's part. `agreed` gives every rank the number of rank 0.
pub fn measure<G: Storage>(
    comms: [Box<dyn Communicator>; 2],
    params: &[Param],
    rounds: usize,
    agreed: &mut dyn FnMut(f64) -> f64,
) -> Result<Overlap> {
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let stream = device.stream()?;
    let config = Config { views: true, ..Config::default() };
    let [first, second] = comms;
    let link = calibrate::<G>(&device, first, G::DTYPE, &config)?;
    let even = ready_by_elements(params, 1.0);
    // A backward pass as long as the exchange: what the line says of one bucket of everything.
    let bytes: usize = params.iter().map(|param| param.len * size_of::<G>()).sum();
    let ready: Vec<f64> = even.iter().map(|at| at * link.seconds(bytes)).collect();
    let plan = BucketPlan::optimal(params, G::DTYPE, &ready, link)?;
    let buckets = plan.buckets().len();
    let mut reducer = Reducer::<G>::new(&device, plan, second, config)?;
    let mut attribution = Attribution::default();
    let (mut exchanges, mut exposed, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (exchange, _) = step(&mut reducer, &stream, &even, 0.0)?;
        // All ranks have the same backward pass.
        let backward = agreed(exchange);
        let (whole, reduced) = step(&mut reducer, &stream, &even, backward)?;
        if round > 0 {
            attribution.add(&reduced);
            exchanges.push(exchange);
            exposed.push((whole - backward).max(0.0));
            shares.push((whole - backward).max(0.0) / backward);
        }
    }
    Ok(Overlap {
        link,
        buckets,
        exchange: median(exchanges),
        exposed: median(exposed),
        share: median(shares),
        attribution,
    })
}

/// One step whose gradients are ready at `ready[i] · backward`: its seconds.
fn step<G: Storage>(
    reducer: &mut Reducer<G>,
    stream: &Stream,
    ready: &[f64],
    backward: f64,
) -> Result<(f64, Reduced)> {
    let start = Instant::now();
    for param in (0..ready.len()).rev() {
        let at = Duration::from_secs_f64(ready[param] * backward);
        if let Some(left) = at.checked_sub(start.elapsed()) {
            std::thread::sleep(left);
        }
        reducer.ready_view(stream, param)?;
    }
    let reduced = reducer.finish_views(stream, Unscale::Keep)?;
    stream.sync()?;
    Ok((start.elapsed().as_secs_f64(), reduced))
}

/// The same between two threads.
pub fn threads(params: &[Param], rounds: usize) -> std::result::Result<String, String> {
    use std::sync::{Barrier, Mutex};
    let ranks = || halfstep::reduce::local(std::num::NonZeroUsize::MIN.saturating_add(1));
    let (barrier, number) = (Barrier::new(2), Mutex::new(0.0));
    let outcomes: Vec<Result<Overlap>> = std::thread::scope(|scope| {
        let spawn = |(first, second): (halfstep::reduce::Local, halfstep::reduce::Local)| {
            let (barrier, number) = (&barrier, &number);
            scope.spawn(move || {
                let rank = first.rank();
                let mut agreed = |mine| {
                    if rank == 0 {
                        *number.lock().expect("no rank panics holding it") = mine;
                    }
                    barrier.wait();
                    let agreed = *number.lock().expect("as above");
                    barrier.wait();
                    agreed
                };
                let comms: [Box<dyn Communicator>; 2] = [Box::new(first), Box::new(second)];
                measure::<halfstep::bf16>(comms, params, rounds, &mut agreed)
            })
        };
        let threads: Vec<_> = ranks().into_iter().zip(ranks()).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().expect("ranks return errors")).collect()
    });
    let mut lines = Vec::new();
    for outcome in outcomes {
        lines.push(outcome.map_err(|error| error.to_string())?.lines("threads, bf16 views"));
    }
    Ok(lines.swap_remove(0))
}
