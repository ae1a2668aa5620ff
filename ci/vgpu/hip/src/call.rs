//! How every function is called: on the thread's device, whose context is made when it is needed,
//! and with the error remembered for `hipGetLastError`.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard};

use halfstep_vgpu::driver::context::{current, set_current};
use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::model::MI250X;
use halfstep_vgpu::driver::{Driver, front, schedule, shared};

pub use halfstep_vgpu::driver::front::{put, put_if, put_text, text};
pub use halfstep_vgpu::export_functions as export;

thread_local! {
    /// The thread's device.
    static DEVICE: Cell<u32> = const { Cell::new(0) };
    /// The last error of the thread.
    static LAST: Cell<u32> = const { Cell::new(0) };
}

/// The process's driver.
pub fn driver() -> &'static Mutex<Driver> {
    shared(&MI250X)
}

/// The driver, to oneself.
pub fn lock() -> MutexGuard<'static, Driver> {
    schedule::lock(driver())
}

/// The thread's device.
pub fn device() -> u32 {
    DEVICE.get()
}

/// Another device for the thread.
pub fn set_device(device: u32) {
    DEVICE.set(device);
}

/// The last error of the thread.
pub fn last_error() -> u32 {
    LAST.get()
}

/// No error.
pub fn forget_error() {
    LAST.set(0);
}

/// Calls that answer without a device.
const WITHOUT_DEVICE: [&str; 5] = [
    "hipGetDeviceCount",
    "hipDriverGetVersion",
    "hipRuntimeGetVersion",
    "hipDrvGetError",
    "hipSetDevice",
];

/// Runs the body of a function.
pub fn call(
    name: &'static str,
    arguments: &[(&str, &dyn Debug)],
    body: impl FnOnce() -> Result,
) -> u32 {
    let ready = |d: &mut Driver| {
        if WITHOUT_DEVICE.iter().any(|early| name.starts_with(early)) {
            return Ok(());
        }
        if d.settings.devices == 0 {
            return Err(Error::NoDevice);
        }
        let context = d.primary(device());
        if current() != Some(context) {
            set_current(Some(context));
        }
        Ok(())
    };
    let code = match front::call(driver(), name, arguments, ready, body) {
        Ok(()) => return 0,
        // HIP has no word for it.
        Err(Error::Misaligned) => Error::IllegalAddress.code(),
        Err(error) => error.code(),
    };
    if code != Error::NotReady.code() {
        LAST.set(code);
    }
    code
}
