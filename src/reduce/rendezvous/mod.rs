//! Who a process is among those that were started together, and where they meet.

#![forbid(unsafe_code)]

mod hosts;

pub use hosts::hosts;

use super::plan::Fnv;
use crate::{Error, Result};

const OP: &str = "Rendezvous";
/// Where nobody says another: that of torchrun.
const PORT: u16 = 29_500;

/// This process's place in a job of several: what `TcpComm` (feature `tcp`) connects by, and with it NCCL and
/// RCCL, and what MPI knows by itself.
///
/// Each field is taken from the first that gives it:
///
/// | | rank, size | local rank, local size | host | port |
/// |---|---|---|---|---|
/// | arguments | [`Given`] | [`Given`] | [`Given`] | [`Given`] |
/// | torchrun and its kin | `RANK`, `WORLD_SIZE` | `LOCAL_RANK`, `LOCAL_WORLD_SIZE` | `MASTER_ADDR` | `MASTER_PORT` |
/// | Open MPI | `OMPI_COMM_WORLD_RANK`, `…_SIZE` | `OMPI_COMM_WORLD_LOCAL_RANK`, `…_LOCAL_SIZE` | | from `PMIX_NAMESPACE` |
/// | MPICH and its kin | `PMI_RANK`, `PMI_SIZE` | `MPI_LOCALRANKID`, `MPI_LOCALNRANKS` | | |
/// | SLURM | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` | `SLURM_LOCALID`, `SLURM_STEP_TASKS_PER_NODE` | the first of `SLURM_STEP_NODELIST` or `SLURM_JOB_NODELIST` | from `SLURM_JOB_ID` and `SLURM_STEP_ID` |
/// | nobody | 0 of 1 | where all ranks are on one host: the rank, of all | then: 127.0.0.1 | 29500 |
///
/// torchrun itself listens at `MASTER_PORT`, for PyTorch's store, and says so (`TORCHELASTIC_USE_AGENT_STORE`): ranks then meet
/// at the next port.
///
/// A rank and a size, and a local rank and a local size, are taken from the same line, so that launchers
/// inside each other are not mixed up. SLURM's count inside a step only (`srun` sets
/// `SLURM_STEP_NUM_TASKS`): a batch script is one process, whatever its job has room for.
///
/// ```
/// use halfstep::reduce::{Given, Rendezvous};
/// let slurm = [
///     ("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_LOCALID", "1"),
///     ("SLURM_STEP_TASKS_PER_NODE", "4(x2)"), ("SLURM_NODEID", "1"),
///     ("SLURM_JOB_NODELIST", "nid[001-002]"), ("SLURM_JOB_ID", "77"),
/// ];
/// let variable = |name: &str| slurm.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
/// let found = Rendezvous::find(&Given::default(), &variable)?;
/// assert_eq!((found.rank, found.size, found.local_rank, found.local_size), (5, 8, 1, 4));
/// assert_eq!(found.address(), "nid001:20077");
/// assert_eq!(found.device_index(4)?, 1);
/// # Ok::<(), halfstep::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendezvous {
    /// This process, `0..size`.
    pub rank: usize,
    /// How many processes there are.
    pub size: usize,
    /// This process among those of its host, `0..local_size`.
    pub local_rank: usize,
    /// How many processes its host has.
    pub local_size: usize,
    /// Rank 0's host.
    pub host: String,
    /// The port that rank 0 listens on.
    pub port: u16,
    /// Whether the launcher lets each process see a part of the devices only.
    restricted: bool,
}

/// What a program's own arguments say; the rest is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)] // as in `Rendezvous`
pub struct Given {
    pub rank: Option<usize>,
    pub size: Option<usize>,
    pub local_rank: Option<usize>,
    pub local_size: Option<usize>,
    pub host: Option<String>,
    pub port: Option<u16>,
}

/// Variables that launchers restrict what a process sees with.
const VISIBLE: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"];

/// Names of a number and of how many there are, in the order in which they are asked.
const RANKS: [[&str; 2]; 4] = [
    ["RANK", "WORLD_SIZE"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "PMI_SIZE"],
    ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
];
const LOCAL_RANKS: [[&str; 2]; 3] = [
    ["LOCAL_RANK", "LOCAL_WORLD_SIZE"],
    ["OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"],
    ["MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
];

impl Rendezvous {
    /// From the arguments given and the process's environment.
    ///
    /// # Errors
    /// [`Error::Range`] naming the argument or variable that is no such number, or does not fit the
    /// others; [`Error::State`] naming what is missing.
    pub fn new(given: &Given) -> Result<Self> {
        Self::find(given, &|name| std::env::var(name).ok())
    }

    /// As [`new`](Self::new), with variables from elsewhere.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn find(given: &Given, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let from = Variables(variable);
        let rank = pair(["rank", "size"], [given.rank, given.size])?;
        let found = match rank {
            Some(found) => Some(found),
            None => from.first(&RANKS)?,
        };
        let (rank, size) = found.unwrap_or((0, 1));
        let (local_rank, local_size) = from.local(given, rank, size)?;
        let host = match (&given.host, from.text("MASTER_ADDR"), from.nodes()?) {
            (Some(host), ..) => host.clone(),
            (_, Some(host), _) => host,
            (_, _, Some(host)) => host,
            _ if size == local_size => "127.0.0.1".into(),
            _ => return Err(missing("the host of rank 0", "MASTER_ADDR")),
        };
        let port = match given.port {
            Some(0) => return Err(Error::range(OP, "port", "1 to 65535", 0)),
            Some(port) => port,
            None => from.port()?,
        };
        let restricted = VISIBLE.iter().any(|name| from.text(name).is_some());
        Ok(Self { rank, size, local_rank, local_size, host, port, restricted })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        // An address of IPv6 has colons of its own.
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }

    /// Which of the host's `devices` is this process's: that of its local rank; or the only one that
    /// the launcher lets it see.
    ///
    /// # Errors
    /// [`Error::Range`] if there are fewer devices than processes on the host: two would share one.
    pub fn device_index(&self, devices: usize) -> Result<usize> {
        match devices {
            1 if self.restricted => Ok(0),
            _ if self.local_rank < devices => Ok(self.local_rank),
            _ => {
                let expected = format!("a device for each of {} local ranks", self.local_size);
                Err(Error::range(OP, "devices", expected, devices))
            }
        }
    }
}

/// The environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// What is empty is not there; nor is what SLURM says outside a step.
    fn text(&self, name: &str) -> Option<String> {
        let said = |name: &str| (self.0)(name).filter(|text| !text.is_empty());
        let step = "SLURM_STEP_NUM_TASKS";
        said(name).filter(|_| !name.starts_with("SLURM_") || said(step).is_some())
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.trim().parse();
        number.map(Some).map_err(|_| Error::range(OP, name, "a number", format!("{text:?}")))
    }

    /// The first line whose number is there; then the other must be too, unless a later line has both.
    fn first(&self, lines: &[[&'static str; 2]]) -> Result<Option<(usize, usize)>> {
        let mut incomplete = Ok(None);
        for names in lines {
            let numbers = [self.number(names[0])?, self.number(names[1])?];
            match pair(*names, numbers) {
                // A size alone is no launcher's word on a process.
                Err(error) if numbers[0].is_some() && incomplete.is_ok() => {
                    incomplete = Err(error);
                }
                Ok(Some(found)) => return Ok(Some(found)),
                Err(error @ Error::Range { .. }) => return Err(error),
                _ => {}
            }
        }
        incomplete
    }

    fn local(&self, given: &Given, rank: usize, size: usize) -> Result<(usize, usize)> {
        let names = ["local_rank", "local_size"];
        if let Some(found) = pair(names, [given.local_rank, given.local_size])? {
            return within(found, size);
        }
        if let Some(found) = self.first(&LOCAL_RANKS)? {
            return within(found, size);
        }
        // SLURM tells how many each host has, in one line for all of them.
        if let Some(local_rank) = self.number("SLURM_LOCALID")? {
            let name = "SLURM_STEP_TASKS_PER_NODE";
            let tasks = self.text(name).ok_or_else(|| missing("tasks of each node", name))?;
            let node = self.number("SLURM_NODEID")?.unwrap_or(0);
            let bad = || Error::range(OP, name, format!("as in 4(x2),3, for node {node}"), &tasks);
            let found = (local_rank, tasks_of(&tasks, node).ok_or_else(bad)?);
            pair(["SLURM_LOCALID", name], [Some(found.0), Some(found.1)])?;
            return within(found, size);
        }
        match self.text("MASTER_ADDR").or(given.host.clone()) {
            // Several hosts, maybe: guessing would give two processes one device.
            Some(_) if size > 1 => {
                Err(missing("the local rank and size", "LOCAL_RANK, LOCAL_WORLD_SIZE"))
            }
            _ => Ok((rank, size)),
        }
    }

    /// The first host of the step, or of the job.
    fn nodes(&self) -> Result<Option<String>> {
        let names = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"];
        let Some(list) = names.iter().find_map(|name| self.text(name)) else { return Ok(None) };
        Ok(hosts(&list)?.into_iter().next())
    }

    /// One that jobs and steps on the same host do not share, below those that systems hand out.
    fn port(&self) -> Result<u16> {
        if let Some(port) = self.number("MASTER_PORT")? {
            let port = u16::try_from(port).ok().filter(|&port| port > 0);
            let found = || self.text("MASTER_PORT").unwrap_or_default();
            let port =
                port.ok_or_else(|| Error::range(OP, "MASTER_PORT", "1 to 65535", found()))?;
            let taken =
                self.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text == "True");
            return Ok(if taken { port.checked_add(1).unwrap_or(port - 1) } else { port });
        }
        let port = |number: u64| (20_000 + number % 10_000) as u16;
        if let Some(job) = self.number("SLURM_JOB_ID")? {
            let step = self.number("SLURM_STEP_ID")?.unwrap_or(0);
            return Ok(port((job % 10_000 + 101 * (step % 100)) as u64));
        }
        let job = self.text(RANKS[1][0]).and_then(|_| self.text("PMIX_NAMESPACE"));
        Ok(job.map_or(PORT, |name| {
            let mut hash = Fnv::new();
            hash.write(name.as_bytes());
            port(hash.0)
        }))
    }
}

/// A number and how many there are: both, or neither.
fn pair(names: [&'static str; 2], values: [Option<usize>; 2]) -> Result<Option<(usize, usize)>> {
    match values {
        [None, None] => Ok(None),
        [Some(number), Some(count)] if number < count => Ok(Some((number, count))),
        [Some(number), Some(count)] => {
            Err(Error::range(OP, names[0], format!("below {} = {count}", names[1]), number))
        }
        [None, _] => Err(missing(names[0], names[0])),
        [_, None] => Err(missing(names[1], names[1])),
    }
}

/// A host has no more processes than there are.
fn within(found: (usize, usize), size: usize) -> Result<(usize, usize)> {
    if found.1 <= size {
        return Ok(found);
    }
    Err(Error::range(OP, "local size", format!("at most the size, {size}"), found.1))
}

fn missing(what: &str, name: &str) -> Error {
    let expected = if what == name { what.into() } else { format!("{what} ({name})") };
    Error::state(OP, expected, "neither an argument nor a variable that says so")
}

/// `4(x2),3`: four tasks on the first two nodes, three on the next.
fn tasks_of(list: &str, node: usize) -> Option<usize> {
    let mut nodes = 0usize;
    for item in list.split(',') {
        let (tasks, times) = match item.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')')?.parse().ok()?),
            None => (item, 1usize),
        };
        nodes = nodes.checked_add(times)?;
        if node < nodes {
            return tasks.trim().parse().ok();
        }
    }
    None
}
