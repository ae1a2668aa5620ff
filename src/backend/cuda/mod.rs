//! What CUDA's driver has of its own: contexts, and how a device is described.
//!
//! Architectures: kernels are built for sm_80; newer devices compile the PTX beside it.

use std::sync::Arc;

use super::gpu::{Context, Driver, Failure, Gpu, Handle, Vendor};
use crate::{DeviceInfo, DeviceKind, Error, Result};

/// CUDA's numbers and names (cuda.h of CUDA 12 and 13; they have not changed since CUDA 4).
static CUDA: Vendor = Vendor {
    name: "cuda",
    libraries: &["libcuda.so.1", "libcuda.so"],
    cure: "install the NVIDIA driver, or use `Device::cpu()`",
    column: 0,
    error_name: "cuGetErrorName",
    out_of_memory: 2,
    not_ready: 600,
    events_outlive_streams: true,
    // Invalid image, none for this device, invalid PTX; no compiler of PTX, PTX newer than it, PTX not to be compiled.
    bad_image: &[200, 209, 218, 221, 222, 223],
    // Illegal address, launch timeout, assertion, hardware stack, illegal instruction, misaligned
    // address, invalid address space, invalid program counter, launch failed; uncorrectable ECC and
    // NVLink; a contained error of the device; context destroyed.
    sticky: &[700, 702, 710, 714, 715, 716, 717, 718, 719, 214, 220, 226, 709],
    units_attribute: 16,                           // MULTIPROCESSOR_COUNT
    peak_attributes: [13, 36, 37], // CLOCK_RATE, MEMORY_CLOCK_RATE, GLOBAL_MEMORY_BUS_WIDTH
    asked_shared: Some(("cuFuncSetAttribute", 8)), // MAX_DYNAMIC_SHARED_SIZE_BYTES
    wave: 32,
};
const COMPUTE_CAPABILITY_MAJOR: u32 = 75;
const COMPUTE_CAPABILITY_MINOR: u32 = 76;

type SetCurrent = unsafe extern "C" fn(Handle) -> u32;
type Retain = unsafe extern "C" fn(*mut Handle, i32) -> u32;
type Release = unsafe extern "C" fn(i32) -> u32;

/// A context, retained or lent.
struct Current {
    context: Handle,
    set: SetCurrent,
    release: Option<(Release, i32)>,
    /// Keeps the library open, and a framework's context alive.
    _driver: Arc<Driver>,
    _owner: Option<Arc<cudarc::driver::CudaContext>>,
}

// SAFETY: a context may be made current on any thread.
unsafe impl Send for Current {}
// SAFETY: as above; nothing here changes.
unsafe impl Sync for Current {}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Current({:?})", self.context)
    }
}

impl Context for Current {
    fn enter(&self) -> Result<(), Failure> {
        // SAFETY: a context that is retained, or kept alive by its owner.
        match unsafe { (self.set)(self.context) } {
            0 => Ok(()),
            code => Err(Failure { call: "cuCtxSetCurrent", code }),
        }
    }

    fn release(&self) {
        if let Some((release, device)) = self.release {
            // SAFETY: retained once by us, released once.
            let _ = unsafe { release(device) };
        }
    }
}

fn no_device(index: usize, reason: impl Into<String>) -> Error {
    Error::NoDevice { backend: CUDA.name, index, reason: reason.into() }
}

/// How many devices there are; none where there is no driver.
pub(crate) fn count() -> usize {
    Driver::open(&CUDA).ok().and_then(|driver| driver.count().ok()).unwrap_or(0)
}

/// Device `index` on its primary context, which frameworks use too.
pub(crate) fn open(index: usize) -> Result<Gpu> {
    let (driver, device) = find(index)?;
    let failed = |failure: Failure| fail(&driver, index, &failure);
    let missing = |name| no_device(index, format!("the driver has no {name}: it is too old"));
    // SAFETY: the functions' types in cuda.h.
    let (retain, release) = unsafe {
        (
            driver
                .own::<Retain>("cuDevicePrimaryCtxRetain")
                .ok_or_else(|| missing("cuDevicePrimaryCtxRetain"))?,
            driver
                .own::<Release>("cuDevicePrimaryCtxRelease_v2")
                .ok_or_else(|| missing("cuDevicePrimaryCtxRelease_v2"))?,
        )
    };
    let mut context = std::ptr::null_mut();
    // SAFETY: a device that exists; one handle is written.
    match unsafe { retain(&mut context, device) } {
        0 => {}
        code => return Err(failed(Failure { call: "cuDevicePrimaryCtxRetain", code })),
    }
    build(driver, index, device, context, Some((release, device)), None)
}

/// The device of a framework's context.
pub(crate) fn share(owner: Arc<cudarc::driver::CudaContext>) -> Result<Gpu> {
    let index = owner.ordinal();
    let (driver, device) = find(index)?;
    let context = owner.cu_ctx().cast();
    build(driver, index, device, context, None, Some(owner))
}

fn find(index: usize) -> Result<(Arc<Driver>, i32)> {
    let driver = Driver::open(&CUDA).map_err(|reason| no_device(index, reason))?;
    let count = driver.count().map_err(|failure| fail(&driver, index, &failure))?;
    let device = i32::try_from(index).ok().filter(|_| index < count);
    let device = device.ok_or_else(|| no_device(index, format!("there are {count} devices")))?;
    Ok((driver, device))
}

fn build(
    driver: Arc<Driver>,
    index: usize,
    device: i32,
    context: Handle,
    release: Option<(Release, i32)>,
    owner: Option<Arc<cudarc::driver::CudaContext>>,
) -> Result<Gpu> {
    // SAFETY: the function's type in cuda.h.
    let set = unsafe { driver.own::<SetCurrent>("cuCtxSetCurrent") };
    let set = set.ok_or_else(|| no_device(index, "the driver has no cuCtxSetCurrent"))?;
    let current = Current { context, set, release, _driver: driver.clone(), _owner: owner };
    let described = current.enter().and_then(|()| describe(&driver, index, device));
    match described {
        Ok(info) => Gpu::new(driver, Box::new(current), info),
        Err(failure) => {
            current.release();
            Err(fail(&driver, index, &failure))
        }
    }
}

fn describe(driver: &Driver, index: usize, device: i32) -> Result<DeviceInfo, Failure> {
    let major = driver.attribute(COMPUTE_CAPABILITY_MAJOR, device)?;
    let minor = driver.attribute(COMPUTE_CAPABILITY_MINOR, device)?;
    let arch = format!("sm_{major}{minor}");
    let units = usize::try_from(driver.attribute(CUDA.units_attribute, device)?).unwrap_or(1);
    Ok(DeviceInfo {
        kind: DeviceKind::Cuda,
        index,
        name: driver.name(device)?,
        flushes_subnormals: false,
        peak: driver.peak(&arch, units, device),
        arch,
        units,
    })
}

fn fail(driver: &Driver, index: usize, failure: &Failure) -> Error {
    no_device(index, format!("{} gave {}", failure.call, driver.describe(failure.code)))
}
