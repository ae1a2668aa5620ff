//! How every function is called: counted, traced, made to fail if that was asked for, and never
//! unwinding into C.

use std::ffi::{CStr, c_char};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};

use halfstep_vgpu::driver::context::thread;
use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::model::A100;
use halfstep_vgpu::driver::{Driver, schedule, shared};

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
    let begun = {
        let mut d = lock();
        let ready = d.initialized || BEFORE_INIT.iter().any(|early| name.starts_with(early));
        d.journal.begin(name, thread()).and(if ready { Ok(()) } else { Err(Error::NotInitialized) })
    };
    let result = begun.and_then(|()| {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
            lock().journal.complain(format!("{name} panicked"), None);
            Err(Error::Unknown)
        })
    });
    let code = result.map_or_else(Error::code, |()| 0);
    let mut d = lock();
    if d.journal.traces() {
        let list: Vec<_> =
            arguments.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        d.journal.trace(format!("[{}] {name}({}) = {code}", thread(), list.join(", ")));
    }
    code
}

/// Exports functions. Each gives a `Result`, and callers its code.
macro_rules! export {
    ($(#[doc = $doc:literal] fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            #[doc = $doc]
            ///
            /// # Safety
            /// What the CUDA driver's manual says of the function; pointers are checked for null only.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> u32 {
                $crate::call::call(
                    stringify!($name),
                    &[$((stringify!($arg), &$arg)),*],
                    || $body,
                )
            }
        )*
    };
}
pub(crate) use export;

/// Writes a result where the caller wants it.
pub fn put<T>(to: *mut T, value: T) -> Result {
    if to.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: not null; that it is writable and aligned is the caller's promise, as for any driver.
    unsafe { to.write(value) };
    Ok(())
}

/// The same, where the caller may not want it.
pub fn put_if<T>(to: *mut T, value: T) {
    let _ = put(to, value);
}

/// Writes a string of at most `len` bytes, its end included.
pub fn put_text(to: *mut c_char, len: usize, text: &str) -> Result {
    if to.is_null() || len == 0 {
        return Err(Error::InvalidValue);
    }
    let bytes = &text.as_bytes()[..text.len().min(len - 1)];
    // SAFETY: the caller promised `len` writable bytes, and this is less.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), bytes.len());
        to.add(bytes.len()).write(0);
    }
    Ok(())
}

/// A caller's string.
pub fn text<'a>(from: *const c_char) -> Result<&'a str> {
    if from.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: not null; the caller promised a string of C's that outlives the call.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map_err(|_| Error::InvalidValue)
}
