//! The one list of device entry points. A row yields its symbol, the parameter block it takes and
//! the C++ function behind it; no kernel's name is written anywhere else.
//!
//! The CPU backend implements every row but those of `roof`. Budget: 64 rows on a target, which is what a compiler builds and a driver loads;
//! options that are uniform over a launch (bias, activation, storage type of a streamed tensor) are run-time branches,
//! only what sits in an inner loop makes a row.

pub mod gemm;
pub mod optim;
pub mod reduce;
pub mod roof;

/// NVIDIA's target: its folder under `kernels`, and what its images say.
pub const CUDA: &str = "cuda";
/// AMD's.
pub const HIP: &str = "hip";

/// Threads of a block of the rows that walk over elements.
pub const THREADS: u32 = 256;

/// The threads of a row's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Team {
    /// [`THREADS`], of which two teams fit a unit of the device at least.
    Threads,
    /// Four waves, whatever number of threads the vendor's wave has: each computes a quarter of a tile.
    /// The compiler leaves room for so many teams on a unit.
    FourWaves(u32),
    /// [`THREADS`] that have a unit of the device to themselves.
    Alone,
}

impl Team {
    /// How many threads, where a wave has `wave`.
    #[allow(dead_code, reason = "GPUs' backends use it")]
    pub const fn threads(self, wave: u32) -> u32 {
        match self {
            Self::Threads | Self::Alone => THREADS,
            Self::FourWaves(_) => 4 * wave,
        }
    }
}

/// A row, as the build and the loader see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The name in a device image: `hs_<op>_<variant>_<storage>…`.
    pub symbol: &'static str,
    /// The parameter block that it takes by value.
    pub block: &'static str,
    /// Its source. `None`: only the CPU runs it so far.
    pub device: Option<Source>,
}

/// Where a row's device code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The header, under `kernels/common`, or in the target's own folder.
    pub header: &'static str,
    /// The function that takes the block.
    pub function: &'static str,
    /// The threads that run it together.
    pub team: Team,
    /// Bytes of shared memory that a launch asks for, where a kernel cannot declare as much as it needs (CUDA's: more
    /// than 48 KiB).
    pub asked: u32,
    /// The one target that has the row; `None`: all have.
    pub only: Option<&'static str>,
}

impl Source {
    /// Whether a target has the row.
    pub fn is_on(&self, target: &str) -> bool {
        self.only.is_none_or(|only| only == target)
    }
}

/// Every row of every op.
pub fn entries() -> impl Iterator<Item = Entry> {
    let products = gemm::ROWS.iter().map(|row| row.entry());
    let steps = optim::Row::ALL.iter().map(|row| row.entry());
    let reductions = reduce::Row::ALL.iter().map(|row| row.entry());
    let roofs = roof::Row::ALL.iter().map(|row| row.entry());
    products.chain(steps).chain(reductions).chain(roofs)
}

/// The rows that have device code on a target.
pub fn on(target: &str) -> impl Iterator<Item = (Entry, Source)> {
    let source = |entry: Entry| entry.device.map(|source| (entry, source));
    entries().filter_map(source).filter(move |(_, source)| source.is_on(target))
}
