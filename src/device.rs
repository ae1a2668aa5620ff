//! Where work runs: a handle to one backend, and what is known of it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::backend::Backend;
use crate::backend::cpu::{Cpu, gemm::Path};
use crate::{Buffer, Element, Error, Peak, Result, Stream};

/// Whose machine a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// An AMD GPU.
    Hip,
}

/// What is known of a device. Plans are pure functions of this and of the problem.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Whose machine it is.
    pub kind: DeviceKind,
    /// Index among the devices of its kind.
    pub index: usize,
    /// Name as the vendor gives it.
    pub name: String,
    /// Instruction set: `amx-bf16`, `avx512bf16`, `avx512f`, `avx2+fma`, `portable`; on GPUs `sm_80`, `gfx90a`.
    pub arch: String,
    /// Units that run blocks: threads of the CPU backend, multiprocessors, compute units.
    pub units: usize,
    /// Whether the matrix unit reads subnormal bf16 and f16 operands as zero (gfx90a does).
    pub flushes_subnormals: bool,
    /// What it can do at best, computed; of GPUs whose drivers tell their clocks.
    pub peak: Option<Peak>,
}

impl std::fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DeviceKind::Cpu => write!(f, "cpu ({} threads, {})", self.units, self.arch),
            DeviceKind::Cuda => write!(f, "cuda:{} ({}, {})", self.index, self.name, self.arch),
            DeviceKind::Hip => write!(f, "hip:{} ({}, {})", self.index, self.name, self.arch),
        }
    }
}

/// A device: holding one proves that its backend is loaded and that every kernel of the table
/// that it supports can be launched. Cloning is cheap and gives the same device.
///
/// ```
/// let device = halfstep::Device::cpu();
/// println!("{}", device.info());
/// ```
#[derive(Debug, Clone)]
pub struct Device {
    pub(crate) backend: Arc<dyn Backend>,
}

impl Device {
    /// The host's processor, with one thread for each of its cores.
    pub fn cpu() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::cpu_with_threads(threads)
    }

    /// The host's processor with a fixed number of threads: 256 at most, and fewer where the system gives no more;
    /// [`DeviceInfo::units`] says how many there are. Results have the same bits for any
    /// number; ranks that share a machine divide its cores between them this way.
    ///
    /// ```
    /// # use halfstep::Device;
    /// let one = Device::cpu_with_threads(1.try_into().unwrap());
    /// assert_eq!(one.info().units, 1);
    /// ```
    pub fn cpu_with_threads(threads: NonZeroUsize) -> Self {
        Self { backend: Arc::new(Cpu::new(threads.get(), Path::detect())) }
    }

    /// The host's processor, with matrix products by a chosen form of the kernel: `avx512bf16`, `avx512f`,
    /// `avx2+fma`, `portable`, or `reference` (the definition, one element at a time). All of these give the
    /// same bits; they are for tests, and for finding out.
    ///
    /// `amx-bf16` multiplies bf16 by AMX (Intel's servers from Sapphire Rapids on, Linux), sixteen times the
    /// multiply-adds of AVX-512. It adds in another order, within the same
    /// [error bound](mod@crate::gemm::bound): bits are the same in every run and for any number of threads, but
    /// not those of other processors. So it is only used where it is asked for. Other types, and products of up to
    /// 8 rows or columns, are computed as by `avx512f`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the name is none of these, or the processor lacks the
    /// instructions.
    ///
    /// ```
    /// # use halfstep::Device;
    /// let device = Device::cpu_with_arch(1.try_into().unwrap(), "portable").unwrap();
    /// assert_eq!(device.info().arch, "portable");
    /// ```
    pub fn cpu_with_arch(threads: NonZeroUsize, arch: &str) -> Result<Self> {
        let path = Path::ALL.into_iter().find(|path| path.name() == arch && path.runs_here());
        let path = path.ok_or_else(|| {
            let here: Vec<_> =
                Path::ALL.into_iter().filter(|p| p.runs_here()).map(Path::name).collect();
            Error::unsupported("cpu", format!("arch {arch}; here: {}", here.join(", ")))
        })?;
        Ok(Self { backend: Arc::new(Cpu::new(threads.get(), path)) })
    }

    /// NVIDIA GPU `index`, on the primary context that every library of the process shares. Calls leave it the thread's current
    /// device: who works with several, and by a library that goes by that (cudarc frees slices on it), sets it again.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where there is no driver, no such device, or no image in this build that
    /// it can run; the reason says which.
    ///
    /// ```
    /// match halfstep::Device::cuda(0) {
    ///     Ok(device) => println!("{}", device.info()),
    ///     Err(error) => println!("{error}"), // no driver, say
    /// }
    /// ```
    #[cfg(feature = "cuda")]
    pub fn cuda(index: usize) -> Result<Self> {
        Ok(Self { backend: Arc::new(crate::backend::cuda::open(index)?) })
    }

    /// How many NVIDIA GPUs there are; 0 where there is no driver.
    #[cfg(feature = "cuda")]
    pub fn cuda_count() -> usize {
        crate::backend::cuda::count()
    }

    /// The GPU of a framework's context: memory and streams of both can be used together. No stream
    /// is created through `context`, so cudarc goes on as it was. See
    /// [`Stream::from_cudarc`](crate::Stream::from_cudarc).
    ///
    /// # Errors
    /// As [`cuda`](Self::cuda).
    #[cfg(feature = "cuda")]
    pub fn from_cudarc(context: &Arc<cudarc::driver::CudaContext>) -> Result<Self> {
        Ok(Self { backend: Arc::new(crate::backend::cuda::share(context.clone())?) })
    }

    /// AMD GPU `index` (on an MI250X, one of its two halves).
    ///
    /// # Errors
    /// [`Error::NoDevice`] where there is no runtime, no such device, or no image in this build for
    /// its architecture; the reason says which.
    ///
    /// ```
    /// match halfstep::Device::hip(0) {
    ///     Ok(device) => println!("{}", device.info()),
    ///     Err(error) => println!("{error}"), // no runtime, say
    /// }
    /// ```
    #[cfg(feature = "hip")]
    pub fn hip(index: usize) -> Result<Self> {
        Ok(Self { backend: Arc::new(crate::backend::hip::open(index)?) })
    }

    /// How many AMD GPUs there are; 0 where there is no runtime.
    #[cfg(feature = "hip")]
    pub fn hip_count() -> usize {
        crate::backend::hip::count()
    }

    /// What is known of the device.
    pub fn info(&self) -> &DeviceInfo {
        self.backend.info()
    }

    /// A new stream of this device.
    ///
    /// # Errors
    /// [`Error::Driver`] on a GPU.
    pub fn stream(&self) -> Result<Stream> {
        Stream::new(self)
    }

    /// Blocks the host until everything enqueued so far, on every stream of this handle's, has run.
    ///
    /// # Errors
    /// [`Error::Driver`] on a GPU, also of what was enqueued before.
    pub fn sync(&self) -> Result<()> {
        self.backend.sync_all()
    }

    /// Gives memory of buffers that were dropped back to the driver, for others who share the GPU: it is kept for the next of
    /// the same size, until one does not fit. Blocks the host as [`sync`](Self::sync) does. A CPU keeps none.
    ///
    /// ```
    /// let device = halfstep::Device::cpu();
    /// drop(device.zeros::<f32>(1 << 20)?);
    /// device.trim()?;
    /// # Ok::<(), halfstep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sync`](Self::sync); [`Error::State`](crate::Error::State) while a graph is made of one of this handle's streams.
    pub fn trim(&self) -> Result<()> {
        self.backend.trim()
    }

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), also where the size in bytes overflows.
    pub fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::zeros(self, len)
    }

    /// A buffer holding a copy of `values`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>> {
        Buffer::from_slice(self, values)
    }

    /// Whether work on this device can use `owner`'s memory. All CPU devices share the host's;
    /// they differ in their threads only.
    pub(crate) fn reaches(&self, owner: &Device) -> bool {
        let cpu = |device: &Device| device.info().kind == DeviceKind::Cpu;
        self.same_as(owner) || (cpu(self) && cpu(owner))
    }

    /// Whether both handles are the same device: clones of one. A second call of a constructor makes another, with threads (of
    /// the CPU) and streams of its own, whose streams run none of the first one's plans.
    pub fn same_as(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }
}
