//! The CPU backend: host memory, order by running each launch before the call returns, threads.

mod fold;
pub(crate) mod gemm;
mod memory;
#[cfg(target_arch = "x86_64")]
mod nearest;
mod optim;
mod past;
mod placement;
mod pool;
pub(crate) mod reduce;
pub(crate) mod threads;
mod wide;
#[cfg(target_arch = "x86_64")]
mod widen;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::threads::Threads;
use super::{Address, Backend, Clock, GraphId, StreamId, Ticket};
use crate::environment::Environment;
use crate::kernel::Launch;
use crate::{DeviceInfo, DeviceKind, Error, Result};

/// What clocks count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Debug)]
pub(crate) struct Cpu {
    info: DeviceInfo,
    /// Which form of the matrix kernel runs.
    path: gemm::Path,
    threads: Threads,
    streams: AtomicU64,
    /// How many blocks of memory there have been.
    blocks: AtomicU64,
}

impl Cpu {
    pub(crate) fn new(threads: usize, path: gemm::Path) -> Self {
        let threads = Threads::new(threads);
        let info = DeviceInfo {
            kind: DeviceKind::Cpu,
            index: 0,
            name: std::env::consts::ARCH.to_string(),
            arch: path.name().to_string(),
            units: threads.count(),
            flushes_subnormals: false,
            peak: None,
        };
        let (streams, blocks) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { info, path, threads, streams, blocks }
    }
}

/// Whether the 8-wide loops may run: AVX2, FMA and the f16 conversions of F16C.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Whether 16-wide loops and tiles may run.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && has_avx2()
}

impl Backend for Cpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<Address> {
        if bytes == 0 {
            return Ok(Address::NULL);
        }
        let pointer = memory::zeros(bytes, self.blocks.fetch_add(1, Ordering::Relaxed));
        if pointer.is_null() {
            return Err(Error::OutOfMemory { bytes, device: self.info.to_string() });
        }
        Ok(Address(pointer as u64))
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        if address != Address::NULL {
            // SAFETY: the caller's promise: allocated above with this size, freed once. All work
            // has run, since each launch runs before its call returns.
            unsafe { memory::free(address.0 as *mut u8, bytes) }
        }
    }

    fn alloc_host(&self, bytes: usize) -> Result<Address> {
        self.alloc(bytes)
    }

    unsafe fn free_host(&self, address: Address, bytes: usize) {
        // SAFETY: the caller's promise; `alloc_host` is `alloc`.
        unsafe { self.free(address, bytes) }
    }

    unsafe fn upload(&self, _: StreamId, to: Address, from: &[u8]) -> Result<()> {
        if !from.is_empty() {
            // SAFETY: the caller's promise; a host slice cannot overlap an allocation it does not
            // own.
            unsafe { std::ptr::copy(from.as_ptr(), to.0 as *mut u8, from.len()) }
        }
        Ok(())
    }

    unsafe fn download(&self, _: StreamId, from: Address, to: &mut [u8]) -> Result<()> {
        if !to.is_empty() {
            // SAFETY: as in `upload`.
            unsafe { std::ptr::copy(from.0 as *const u8, to.as_mut_ptr(), to.len()) }
        }
        Ok(())
    }

    unsafe fn fill(&self, _: StreamId, to: Address, value: u8, bytes: usize) -> Result<()> {
        if bytes > 0 {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::write_bytes(to.0 as *mut u8, value, bytes) }
        }
        Ok(())
    }

    unsafe fn copy(&self, _: StreamId, to: Address, from: Address, bytes: usize) -> Result<()> {
        if bytes > 0 {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) }
        }
        Ok(())
    }

    fn stream(&self) -> Result<StreamId> {
        Ok(StreamId(self.streams.fetch_add(1, Ordering::Relaxed)))
    }

    fn adopt(&self, _: u64) -> Result<StreamId> {
        Err(Error::unsupported("from_raw", "the CPU has no streams of others"))
    }

    fn close(&self, _: StreamId) {}

    fn record(&self, stream: StreamId) -> Result<Ticket> {
        Ok(Ticket { stream, sequence: 0 })
    }

    // Work has run when its call returns: there is nothing left to wait for.
    fn wait(&self, _: StreamId, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn sync(&self, _: Ticket) -> Result<()> {
        Ok(())
    }

    #[cfg(any(feature = "nccl", feature = "rccl"))]
    fn reached(&self, _: Ticket) -> Result<bool> {
        Ok(true)
    }

    #[cfg(any(feature = "nccl", feature = "rccl"))]
    fn lend(&self, _: StreamId) -> Result<u64> {
        Err(Error::unsupported("lend", "the CPU has no streams of a driver's"))
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn trim(&self) -> Result<()> {
        Ok(())
    }

    fn start_clock(&self, _: StreamId) -> Result<Clock> {
        Ok(Clock(START.elapsed().as_nanos() as u64))
    }

    fn stop_clock(&self, _: StreamId, clock: Clock) -> Result<Duration> {
        Ok(START.elapsed().saturating_sub(Duration::from_nanos(clock.0)))
    }

    unsafe fn launch(&self, _: StreamId, launch: &Launch) -> Result<()> {
        let _environment = Environment::standard();
        match *launch {
            // SAFETY: the caller's promise, passed on unchanged.
            Launch::Gemm(block) => unsafe { gemm::run(&self.threads, self.path, &block) },
            // SAFETY: as above.
            Launch::Optim(block) => unsafe { optim::run(&self.threads, &block) },
            // SAFETY: as above.
            Launch::Reduce(block) => unsafe { reduce::run(&self.threads, &block) },
            Launch::Roof(_) => {
                return Err(Error::unsupported(
                    "launch",
                    "roofs are of devices with units of their own",
                ));
            }
        }
        Ok(())
    }

    fn begin_capture(&self, _: StreamId) -> Result<()> {
        Err(Error::unsupported("capture", "the CPU runs work at once; graphs are for GPUs"))
    }

    fn end_capture(&self, _: StreamId) -> Result<GraphId> {
        self.begin_capture(StreamId(0)).map(|()| GraphId(0))
    }

    unsafe fn replay(&self, _: GraphId, _: StreamId) -> Result<()> {
        self.begin_capture(StreamId(0))
    }

    fn drop_graph(&self, _: GraphId) {}
}
