//! Ranks that are processes of MPI: this crate's reducer beside the same library's own all-reduce, by
//! turns. The bench starts itself under a launcher (`MPIRUN`, or `mpirun`), which must be of the MPI that
//! it was built with.

mod baseline;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Mpi, MpiComm, Param, Reducer, Sum, Unscale,
};
use halfstep::{Device, Storage, Stream, bf16};

use crate::overlap;
use crate::suite::median;
use baseline::AllReduce;

const RANK: &str = "HALFSTEP_BENCH_RANK";
const RANKS: &str = "2";
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// Whether this process is one of them.
pub fn is_rank() -> bool {
    std::env::var_os(RANK).is_some()
}

/// Starts two, and prints what they say; or the reason why not.
pub fn launch() {
    let launcher = std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(&launcher);
    command.args(["-n", RANKS]).arg(program).args(std::env::args().skip(1)).env(RANK, "1");
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => println!("{launcher}: {status}"),
        Err(error) => println!("skipped: {launcher}: {error}"),
    }
}

/// One process's part.
pub fn rank(params: &[Param], rounds: usize) -> Result<(), String> {
    let mpi = Mpi::init().map_err(text)?;
    let one = Ranks { comm: mpi.comm().map_err(text)?, stream: stream()? };
    if mpi.size() != 2 {
        return Err("MPIRUN is not the launcher of the MPI that this was built with".into());
    }
    let print = |line: String| {
        if mpi.rank() == 0 {
            println!("{line}");
        }
    };
    print(format!("\n{} processes of {}", mpi.size(), mpi.library().lines().next().unwrap_or("")));
    print(format!(
        "{:6} {:18} {:>9} {:>7} {:>14}",
        "type", "all-reduce", "ms", "GB/s", "of MPI's best"
    ));
    let mut one = one;
    match AllReduce::load(&one.rank_zero_compiles(&mpi)?) {
        Ok(peer) => {
            compare::<f32>(&mpi, &mut one, &peer, params, rounds, &print)?;
            compare::<bf16>(&mpi, &mut one, &peer, params, rounds, &print)?;
        }
        Err(reason) => print(format!("skipped: {reason}")),
    }
    let comms: [Box<dyn Communicator>; 2] =
        [Box::new(mpi.comm().map_err(text)?), Box::new(mpi.comm().map_err(text)?)];
    let mut agreed = |mine: f64| one.agree(mine).unwrap_or(mine);
    let overlap = overlap::measure::<bf16>(comms, params, rounds, &mut agreed).map_err(text)?;
    print(overlap.lines("processes, bf16 views"));
    Ok(())
}

/// One way of reducing everything.
struct Way<'a> {
    name: &'static str,
    /// By this crate, not by calls of the library's.
    ours: bool,
    run: Box<dyn FnMut() -> Result<(), String> + 'a>,
    seconds: Vec<f64>,
}

fn compare<G: Storage>(
    mpi: &Mpi,
    ranks: &mut Ranks,
    peer: &AllReduce,
    params: &[Param],
    rounds: usize,
    print: &dyn Fn(String),
) -> Result<(), String> {
    let len: usize = params.iter().map(|param| param.len).sum();
    let flat = std::cell::RefCell::new(vec![G::narrow(1.0); len]);
    let flat = &flat;
    let chunks = |bytes: usize| {
        move || flat.borrow_mut().chunks_mut(bytes / size_of::<G>()).try_for_each(|c| peer.sum(c))
    };
    let each = || {
        let mut flat = flat.borrow_mut();
        let mut rest = &mut flat[..];
        for param in params {
            let (tensor, after) = rest.split_at_mut(param.len);
            peer.sum(tensor)?;
            rest = after;
        }
        Ok(())
    };
    let plan = BucketPlan::ddp(params, G::DTYPE, 1 << 20, 25 << 20).map_err(text)?;
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let stream = stream()?;
    let reducer = |sum: Sum| {
        // As MPI's: sums, and nothing of their squares.
        let config = Config { views: true, stats: false, sum, ..Config::default() };
        let comm = Box::new(mpi.comm().map_err(text)?);
        let mut reducer = Reducer::<G>::new(&device, plan.clone(), comm, config).map_err(text)?;
        for param in 0..params.len() {
            let value = G::narrow(1.0 + mpi.rank() as f32);
            reducer.gradient_mut(param).map_err(text)?.host().unwrap_or_default().fill(value);
        }
        let stream = &stream;
        Ok::<_, String>(move || {
            for param in (0..params.len()).rev() {
                reducer.ready_view(stream, param).map_err(text)?;
            }
            reducer.finish_views(stream, Unscale::Keep).map_err(text)?;
            let view = reducer.gradient(params.len() / 2).map_err(text)?;
            let found = view.host().and_then(|values| values.first().copied());
            let right = found == Some(G::narrow(1.5));
            if right { Ok(()) } else { Err(format!("the average is {found:?}, not 1.5")) }
        })
    };
    let way = |name, ours, run| Way { name, ours, run, seconds: Vec::new() };
    let mut ways = [
        way("per tensor", false, Box::new(each) as Box<dyn FnMut() -> Result<(), String>>),
        way("1 MiB chunks", false, Box::new(chunks(1 << 20))),
        way("5 MiB chunks", false, Box::new(chunks(5 << 20))),
        way("25 MiB chunks", false, Box::new(chunks(25 << 20))),
        way("flat", false, Box::new(chunks(usize::MAX >> 1))),
        way("this crate", true, Box::new(reducer(Sum::RankOrder)?)),
        way("Sum::Communicator", true, Box::new(reducer(Sum::Communicator)?)),
    ];
    for round in 0..=rounds {
        for way in &mut ways {
            flat.borrow_mut().fill(G::narrow(1.0)); // sums grow
            ranks.meet()?;
            let start = Instant::now();
            (way.run)()?;
            let seconds = start.elapsed().as_secs_f64();
            // The slower rank's is the time of both. The first round touches memory for the first time.
            let slower = ranks.largest(seconds)?;
            way.seconds.extend((round > 0).then_some(slower));
        }
    }
    let of = |way: &Way| median(way.seconds.clone());
    let best = ways.iter().filter(|way| !way.ours).map(of).fold(f64::INFINITY, f64::min);
    for way in &ways {
        let seconds = of(way);
        let ratio = if way.ours { format!("{:.2}×", best / seconds) } else { String::new() };
        print(format!(
            "{:6} {:18} {:>9.1} {:>7.2} {ratio:>14}",
            G::DTYPE.name(),
            way.name,
            1e3 * seconds,
            1e-9 * (len * size_of::<G>()) as f64 / seconds,
        ));
    }
    Ok(())
}

/// A communicator for what the bench itself says.
struct Ranks {
    comm: MpiComm,
    stream: Stream,
}

impl Ranks {
    /// Everybody's number.
    fn all(&mut self, mine: f64) -> Result<Vec<f64>, String> {
        let send = Arc::new(self.stream.device().upload(&mine.to_le_bytes()).map_err(text)?);
        let deadline = Instant::now() + LONG;
        let all = self.comm.exchange(Collective::AllGather, &send, &self.stream, deadline);
        let number = |part: &halfstep::reduce::Part| {
            let mut bytes = [0; 8];
            part.buffer.read(&self.stream, part.start, &mut bytes).map_err(text)?;
            Ok(f64::from_le_bytes(bytes))
        };
        all.map_err(|fault| fault.to_string())?.parts.iter().map(number).collect()
    }

    fn meet(&mut self) -> Result<(), String> {
        self.all(0.0).map(drop)
    }

    fn largest(&mut self, mine: f64) -> Result<f64, String> {
        Ok(self.all(mine)?.into_iter().fold(0.0, f64::max))
    }

    /// Rank 0's.
    fn agree(&mut self, mine: f64) -> Result<f64, String> {
        Ok(self.all(mine)?[0])
    }

    /// Rank 0 compiles, all load.
    fn rank_zero_compiles(
        &mut self,
        mpi: &Mpi,
    ) -> Result<Result<std::path::PathBuf, String>, String> {
        let outcome = if mpi.rank() == 0 { baseline::compile() } else { Ok(baseline::path()) };
        self.meet()?;
        Ok(outcome)
    }
}

fn stream() -> Result<Stream, String> {
    Device::cpu_with_threads(std::num::NonZeroUsize::MIN).stream().map_err(text)
}

fn text(error: halfstep::Error) -> String {
    error.to_string()
}
