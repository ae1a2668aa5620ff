//! The side door: what tests ask of the driver beside the vendor's functions. Both libraries export
//! it, as C functions that [`export_door!`] makes; strings that come back are given to `vgpu_free`.

use std::ffi::{CStr, CString, c_char, c_int};

use serde_json::{Value, json};

use super::context::thread;
use super::random::Random;
use super::schedule::lock;
use super::settings::Rule;
use super::{Driver, started};

/// What the process ends with when something was wrong and nobody took note of it.
pub const EXIT: c_int = 86;

/// Registers what is said at the end of the process.
pub(super) fn at_exit() {
    // SAFETY: `last_words` is a function without arguments that does not unwind.
    unsafe { libc::atexit(last_words) };
}

extern "C" fn last_words() {
    let complaints = match started().map(|driver| driver.try_lock()) {
        Some(Ok(mut driver)) if !driver.settings.report_only => driver.journal.take_complaints(),
        _ => return,
    };
    if complaints.is_empty() {
        return;
    }
    eprintln!("vgpu: {} findings that nobody took note of:", complaints.len());
    for complaint in &complaints {
        eprintln!("vgpu:   {}", complaint.text);
    }
    // SAFETY: what C has buffered is written before the process ends at once.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(EXIT);
    }
}

/// A list as a string of C's; an empty list if the driver was not used.
fn list(ask: impl FnOnce(&mut Driver) -> Vec<Value>) -> *mut c_char {
    let values = started().map(|driver| ask(&mut lock(driver))).unwrap_or_default();
    let text = Value::Array(values).to_string();
    CString::new(text).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// `vgpu_take_findings`.
pub fn take_findings() -> *mut c_char {
    list(|d| d.journal.take_complaints().iter().map(|c| c.json()).collect())
}

/// `vgpu_take_launches`.
pub fn take_launches() -> *mut c_char {
    list(|d| d.journal.take_launches().iter().map(|l| l.json()).collect())
}

/// `vgpu_take_trace`.
pub fn take_trace(keep: c_int) -> *mut c_char {
    list(|d| d.journal.take_trace(keep != 0).into_iter().map(Value::from).collect())
}

/// `vgpu_leaks`.
pub fn leaks() -> *mut c_char {
    let one = |(kind, handle, more): (&str, u64, String)| json!({ "kind": kind, "handle": handle, "more": more });
    list(|d| d.leaks().into_iter().map(one).collect())
}

/// `vgpu_calls`.
pub fn calls(name: Option<&CStr>) -> u64 {
    let Some(driver) = started() else { return 0 };
    let driver = lock(driver);
    let calls = driver.journal.calls();
    match name {
        None => calls.values().sum(),
        Some(name) => calls.get(&*name.to_string_lossy()).copied().unwrap_or(0),
    }
}

/// `vgpu_fail`: -1 for what cannot be read.
pub fn fail(rules: Option<&CStr>, this_thread: c_int) -> c_int {
    let (Some(driver), Some(rules)) = (started(), rules) else { return -1 };
    let Ok(mut rules) = Rule::list(&rules.to_string_lossy()) else { return -1 };
    if this_thread != 0 {
        rules.iter_mut().for_each(|rule| rule.thread = Some(thread()));
    }
    lock(driver).journal.add_rules(rules);
    0
}

/// `vgpu_fail_end`.
pub fn fail_end() -> c_int {
    started().map_or(0, |driver| lock(driver).journal.take_rules() as c_int)
}

/// `vgpu_seed`.
pub fn seed(seed: u64) {
    if let Some(driver) = started() {
        lock(driver).random = Random::new(seed);
    }
}

/// `vgpu_pending`.
pub fn pending() -> u64 {
    started().map_or(0, |driver| lock(driver).lanes.pending() as u64)
}

/// `vgpu_free`.
///
/// # Safety
/// `text` came from one of these functions and was not freed, or is null.
pub unsafe fn free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: made by `CString::into_raw` in `list`.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// Exports the side door. Before the library is initialised, lists are empty and `vgpu_fail` is -1.
#[macro_export]
macro_rules! export_door {
    () => {
        mod door {
            use std::ffi::{CStr, c_char, c_int};

            use halfstep_vgpu::driver::door;

            /// What was found wrong since this was asked last, as a JSON list; the process no longer
            /// fails for it.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_take_findings() -> *mut c_char {
                door::take_findings()
            }

            /// The launches that were executed since this was asked last, as a JSON list: kernel,
            /// shape, counters.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_take_launches() -> *mut c_char {
                door::take_launches()
            }

            /// The lines of the trace since this was asked last, as a JSON list. From now on they are
            /// kept for the next time, or not.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_take_trace(keep: c_int) -> *mut c_char {
                door::take_trace(keep)
            }

            /// What was made and not ended, as a JSON list: kind, handle, more.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_leaks() -> *mut c_char {
                door::leaks()
            }

            /// How often a function was called; all of them together for null.
            ///
            /// # Safety
            /// `name` is null or a string of C's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn vgpu_calls(name: *const c_char) -> u64 {
                // SAFETY: the caller's promise.
                door::calls((!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }))
            }

            /// Fails calls from now on, as `VGPU_FAIL` does (`CALL:N:CODE`, several with commas);
            /// with `this_thread` only those of the calling thread count. -1 if it cannot be read.
            ///
            /// # Safety
            /// `rules` is null or a string of C's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn vgpu_fail(rules: *const c_char, this_thread: c_int) -> c_int {
                // SAFETY: the caller's promise.
                let rules = (!rules.is_null()).then(|| unsafe { CStr::from_ptr(rules) });
                door::fail(rules, this_thread)
            }

            /// Drops the rules that have not come true, and says how many they were.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_fail_end() -> c_int {
                door::fail_end()
            }

            /// Draws orders of execution from another seed.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_seed(seed: u64) {
                door::seed(seed);
            }

            /// Operations that wait to be done.
            #[unsafe(no_mangle)]
            pub extern "C" fn vgpu_pending() -> u64 {
                door::pending()
            }

            /// Gives back a string.
            ///
            /// # Safety
            /// `text` came from one of these functions and was not given back, or is null.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn vgpu_free(text: *mut c_char) {
                // SAFETY: the caller's promise.
                unsafe { door::free(text) };
            }
        }
    };
}
