//! What the ranks are: threads of this process, or the processes of a job, over MPI or TCP.

use std::error::Error;

use halfstep::Result;
use halfstep::reduce::{Given, Rendezvous};

use crate::data::Digits;
use crate::mode::Mode;
#[cfg(any(feature = "mpi", feature = "tcp"))]
use crate::run::Connect;
use crate::run::{self, Outcome, Settings};

/// Where ranks run.
pub enum Job {
    /// In this process, a thread each.
    Threads,
    /// This process is one of them.
    #[cfg(any(feature = "mpi", feature = "tcp"))]
    Processes { rank: usize, size: usize, connect: Box<Connect<'static>> },
}

/// What launchers of MPI tell a process: Open MPI's; those of MPICH and its kin; SLURM's `srun --mpi=pmix`.
#[cfg(feature = "mpi")]
const OF_MPI: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// Whether ranks meet over MPI: where it has started them, or there is nothing else.
#[cfg(feature = "mpi")]
fn over_mpi() -> bool {
    cfg!(not(feature = "tcp")) || OF_MPI.iter().any(|name| std::env::var_os(name).is_some())
}

impl Job {
    /// Processes, if a launcher has started more than this one.
    pub fn find() -> std::result::Result<Self, Box<dyn Error>> {
        let meet = Rendezvous::new(&Given::default())?;
        if meet.size == 1 {
            return Ok(Self::Threads);
        }
        #[cfg(feature = "mpi")]
        if over_mpi() {
            let mpi = halfstep::reduce::Mpi::init()?;
            let (rank, size) = (mpi.rank(), mpi.size());
            // A launcher that MPI does not know starts as many jobs of one process each.
            if size != meet.size {
                return Err(format!(
                    "{} processes were started, but MPI knows of {size}: start them by mpirun, or by srun with \
                     --mpi=pmix (`srun --mpi=list` has what else there is), or build with the feature `tcp`",
                    meet.size
                )
                .into());
            }
            let connect = move || Ok(Box::new(mpi.comm()?) as _);
            return Ok(Self::Processes { rank, size, connect: Box::new(connect) });
        }
        #[cfg(feature = "tcp")]
        {
            let (rank, size) = (meet.rank, meet.size);
            let connect = move || {
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
                Ok(Box::new(halfstep::reduce::TcpComm::connect(&meet, deadline)?) as _)
            };
            Ok(Self::Processes { rank, size, connect: Box::new(connect) })
        }
        #[cfg(not(feature = "tcp"))]
        Err("started as several processes, but built without the feature `mpi`, or `tcp`".into())
    }

    /// How many ranks there are, if so many were asked for.
    pub fn ranks(&self, asked: Option<u8>) -> std::result::Result<usize, String> {
        match self {
            Self::Threads => Ok(asked.unwrap_or(2).into()),
            #[cfg(any(feature = "mpi", feature = "tcp"))]
            Self::Processes { size, .. } => match asked.map(usize::from) {
                Some(ranks) if ranks != *size => {
                    Err(format!("--ranks {ranks}, but there are {size} processes"))
                }
                _ if *size > 64 => Err(format!("{size} processes, 64 at most")),
                _ => Ok(*size),
            },
        }
    }

    /// Whether this process is the one that prints.
    pub fn prints(&self) -> bool {
        match self {
            Self::Threads => true,
            #[cfg(any(feature = "mpi", feature = "tcp"))]
            Self::Processes { rank, .. } => *rank == 0,
        }
    }

    /// Trains in one mode.
    pub fn run(
        &self,
        mode: Mode,
        settings: &Settings,
        digits: &Digits,
        progress: &(dyn Fn(f32) + Sync),
    ) -> Result<Outcome> {
        match self {
            Self::Threads => run::run(mode, settings, digits, progress),
            #[cfg(any(feature = "mpi", feature = "tcp"))]
            Self::Processes { connect, .. } => {
                run::run_process(mode, settings, digits, connect, progress)
            }
        }
    }
}
