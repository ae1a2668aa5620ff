//! What the ranks are: threads of this process, or the processes of a job of MPI.

use std::error::Error;

use halfstep::Result;

use crate::data::Digits;
use crate::mode::Mode;
use crate::run::{self, Outcome, Settings};

/// Where ranks run.
pub enum Job {
    /// In this process, a thread each.
    Threads,
    /// This process is one of them.
    #[cfg(feature = "mpi")]
    Processes(halfstep::reduce::Mpi),
}

/// What launchers tell a process about how many there are: Open MPI's; those of MPICH and its kin.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

impl Job {
    /// Processes, if a launcher has started more than this one.
    pub fn find() -> std::result::Result<Self, Box<dyn Error>> {
        let size = |name: &&str| std::env::var(name).ok()?.parse::<usize>().ok();
        if SIZES.iter().find_map(size).unwrap_or(1) == 1 {
            return Ok(Self::Threads);
        }
        #[cfg(feature = "mpi")]
        return Ok(Self::Processes(halfstep::reduce::Mpi::init()?));
        #[cfg(not(feature = "mpi"))]
        Err("started as several processes, but built without the feature `mpi`".into())
    }

    /// How many ranks there are, if so many were asked for.
    pub fn ranks(&self, asked: Option<u8>) -> std::result::Result<usize, String> {
        match self {
            Self::Threads => Ok(asked.unwrap_or(2).into()),
            #[cfg(feature = "mpi")]
            Self::Processes(mpi) => match asked.map(usize::from) {
                Some(ranks) if ranks != mpi.size() => {
                    Err(format!("--ranks {ranks}, but there are {} processes", mpi.size()))
                }
                _ if mpi.size() > 64 => Err(format!("{} processes, 64 at most", mpi.size())),
                _ => Ok(mpi.size()),
            },
        }
    }

    /// Whether this process is the one that prints.
    pub fn prints(&self) -> bool {
        match self {
            Self::Threads => true,
            #[cfg(feature = "mpi")]
            Self::Processes(mpi) => mpi.rank() == 0,
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
            #[cfg(feature = "mpi")]
            Self::Processes(mpi) => run::run_process(mode, settings, digits, mpi, progress),
        }
    }
}
