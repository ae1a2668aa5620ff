//! What HIP's runtime has of its own: a current device in place of contexts, and how a device is
//! described.
//!
//! Architectures: kernels are built for gfx90a (MI200).

use std::ffi::c_void;
use std::sync::Arc;

use super::gpu::{Context, Driver, Failure, Gpu, Vendor};
use crate::{DeviceInfo, DeviceKind, Error, Result};

/// HIP's numbers and names (hip_runtime_api.h of ROCm 5 to 7).
static HIP: Vendor = Vendor {
    name: "hip",
    libraries: &["libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"],
    cure: "install ROCm, or use `Device::cpu()`",
    column: 1,
    error_name: "hipGetErrorName",
    out_of_memory: 2,
    not_ready: 600,
    events_outlive_streams: false, // the runtime looks at the stream first (hipEventQuery)
    // Invalid image, none for this device, invalid kernel file; a code object that cannot be initialised.
    bad_image: &[200, 209, 218, 303],
    // Illegal address, launch timeout, assertion, launch failure; uncorrectable ECC; context gone.
    sticky: &[700, 702, 710, 719, 214, 709],
    units_attribute: 63,          // hipDeviceAttributeMultiprocessorCount
    peak_attributes: [5, 60, 59], // ClockRate, MemoryClockRate, MemoryBusWidth
    asked_shared: None,
    wave: 64,
};

type SetDevice = unsafe extern "C" fn(i32) -> u32;
type Properties = unsafe extern "C" fn(*mut c_void, i32) -> u32;

/// More than any version's `hipDeviceProp_t`.
const PROPERTIES_BYTES: usize = 8192;

#[derive(Debug)]
struct Current {
    device: i32,
    set: SetDevice,
    /// Keeps the library open.
    _driver: Arc<Driver>,
}

impl Context for Current {
    fn enter(&self) -> Result<(), Failure> {
        // SAFETY: a device that exists.
        match unsafe { (self.set)(self.device) } {
            0 => Ok(()),
            code => Err(Failure { call: "hipSetDevice", code }),
        }
    }

    fn release(&self) {}
}

fn no_device(index: usize, reason: impl Into<String>) -> Error {
    Error::NoDevice { backend: HIP.name, index, reason: reason.into() }
}

/// How many devices there are; none where there is no runtime.
pub(crate) fn count() -> usize {
    Driver::open(&HIP).ok().and_then(|driver| driver.count().ok()).unwrap_or(0)
}

/// Device `index`.
pub(crate) fn open(index: usize) -> Result<Gpu> {
    let driver = Driver::open(&HIP).map_err(|reason| no_device(index, reason))?;
    let fail = |failure: Failure| {
        no_device(index, format!("{} gave {}", failure.call, driver.describe(failure.code)))
    };
    let count = driver.count().map_err(fail)?;
    let device = i32::try_from(index).ok().filter(|_| index < count);
    let device = device.ok_or_else(|| no_device(index, format!("there are {count} devices")))?;
    // SAFETY: the function's type in hip_runtime_api.h.
    let set = unsafe { driver.own::<SetDevice>("hipSetDevice") };
    let set = set.ok_or_else(|| no_device(index, "the runtime has no hipSetDevice"))?;
    let current = Current { device, set, _driver: driver.clone() };
    current.enter().map_err(fail)?;
    let arch = arch(&driver, device).map_err(fail)?;
    let arch =
        arch.ok_or_else(|| no_device(index, "the runtime does not name its architecture"))?;
    let units = driver.attribute(HIP.units_attribute, device).map_err(fail)?;
    let units = usize::try_from(units).unwrap_or(1);
    let info = DeviceInfo {
        kind: DeviceKind::Hip,
        index,
        name: driver.name(device).map_err(fail)?,
        flushes_subnormals: arch == "gfx90a",
        peak: driver.peak(&arch, units, device),
        arch,
        units,
    };
    Gpu::new(driver.clone(), Box::new(current), info)
}

/// `gfx90a` of `gfx90a:sramecc+:xnack-`. The structure that has it has changed its layout with ROCm
/// 6, and its size since: the name is looked for in its bytes.
fn arch(driver: &Driver, device: i32) -> Result<Option<String>, Failure> {
    for call in ["hipGetDevicePropertiesR0600", "hipGetDeviceProperties"] {
        // SAFETY: the functions' types in hip_runtime_api.h.
        let Some(properties) = (unsafe { driver.own::<Properties>(call) }) else { continue };
        let mut bytes = vec![0u8; PROPERTIES_BYTES];
        // SAFETY: the structure is smaller than the buffer in every version.
        match unsafe { properties(bytes.as_mut_ptr().cast(), device) } {
            0 => {}
            code => return Err(Failure { call, code }),
        }
        let start = bytes.windows(3).position(|window| window == b"gfx");
        let name = start.map(|start| {
            let name = bytes[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
            name.map(|&byte| char::from(byte)).collect()
        });
        if name.is_some() {
            return Ok(name);
        }
    }
    Ok(None)
}
