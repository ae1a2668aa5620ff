//! How every function is called.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard};

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::model::A100;
use halfstep_vgpu::driver::{Driver, front, schedule, shared};

pub use halfstep_vgpu::driver::front::{put, put_if, put_text, text};
pub use halfstep_vgpu::export_functions as export;

/// The process's driver.
pub fn driver() -> &'static Mutex<Driver> {
    shared(&A100)
}

/// The driver, to oneself.
pub fn lock() -> MutexGuard<'static, Driver> {
    schedule::lock(driver())
}

/// Calls that need no `cuInit`.
const BEFORE_INIT: [&str; 5] =
    ["cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString", "cuGetProcAddress"];

/// Runs the body of a function.
pub fn call(
    name: &'static str,
    arguments: &[(&str, &dyn Debug)],
    body: impl FnOnce() -> Result,
) -> u32 {
    let ready = |d: &mut Driver| {
        let ready = d.initialized || BEFORE_INIT.iter().any(|early| name.starts_with(early));
        if ready { Ok(()) } else { Err(Error::NotInitialized) }
    };
    front::call(driver(), name, arguments, ready, body).map_or_else(Error::code, |()| 0)
}
