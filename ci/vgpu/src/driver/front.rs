//! What the fronts share: how every function is called (counted, traced, made to fail if that was
//! asked for, and never unwinding into C), and how callers' pointers are read and written.
//!
//! The latter are for the fronts alone, whose every function is unsafe for this very reason; to say
//! it again at each use would say nothing.
#![allow(clippy::not_unsafe_ptr_arg_deref)]

use std::ffi::{CStr, c_char, c_void};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::Driver;
use super::context::thread;
use super::error::{Error, Result};
use super::module::Facts;
use super::schedule::lock;

/// Runs the body of a function, if `ready` allows it.
pub fn call(
    driver: &Mutex<Driver>,
    name: &'static str,
    arguments: &[(&str, &dyn Debug)],
    ready: impl FnOnce(&mut Driver) -> Result,
    body: impl FnOnce() -> Result,
) -> Result {
    let begun = {
        let mut d = lock(driver);
        d.journal.begin(name, thread()).and_then(|()| ready(&mut d))
    };
    let result = begun.and_then(|()| {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
            lock(driver).journal.complain(format!("{name} panicked"), None);
            Err(Error::Unknown)
        })
    });
    if let Err(error) = result {
        super::nccl::spoil(name, error);
    }
    let mut d = lock(driver);
    if d.journal.traces() {
        let code = result.map_or_else(Error::code, |()| 0);
        let list: Vec<_> =
            arguments.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        d.journal.trace(format!("[{}] {name}({}) = {code}", thread(), list.join(", ")));
    }
    result
}

/// Exports functions. Each body gives a `Result`; callers get what the front's own `call::call`
/// makes of it.
#[macro_export]
#[allow(clippy::crate_in_macro_def)] // the front's own
macro_rules! export_functions {
    ($(#[doc = $doc:literal] fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            #[doc = $doc]
            ///
            /// # Safety
            /// What the vendor's manual says of the function; pointers are checked for null only.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> u32 {
                crate::call::call(
                    stringify!($name),
                    &[$((stringify!($arg), &$arg)),*],
                    || $body,
                )
            }
        )*
    };
}

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

/// The bytes of a launch's parameters: one pointer for each, or, in `extra`, all of them side by
/// side: pairs of a key and a value, 1 with the buffer and 2 with its size, and `end`.
pub fn parameters(
    facts: &Facts,
    each: *mut *mut c_void,
    extra: *mut *mut c_void,
    end: usize,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; facts.parameter_bytes];
    if !each.is_null() {
        if !extra.is_null() {
            return Err(Error::InvalidValue);
        }
        for (i, (offset, size)) in facts.parameters.iter().enumerate() {
            // SAFETY: the caller promised as many pointers as the kernel has parameters, each to as
            // many bytes as that parameter has.
            unsafe {
                let from = each.add(i).read().cast::<u8>();
                if from.is_null() {
                    return Err(Error::InvalidValue);
                }
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr().add(*offset), *size);
            }
        }
        return Ok(bytes);
    }
    if extra.is_null() {
        return if bytes.is_empty() { Ok(bytes) } else { Err(Error::InvalidValue) };
    }
    let (mut buffer, mut len, mut at) = (std::ptr::null(), 0, 0);
    loop {
        // SAFETY: the caller promised pairs up to an end.
        let key = unsafe { extra.add(at).read() } as usize;
        if key == end {
            break;
        }
        // SAFETY: as above; a pair has a second half.
        let value = unsafe { extra.add(at + 1).read() };
        match key {
            1 => buffer = value.cast_const().cast::<u8>(),
            // SAFETY: the second half points to the size.
            2 => len = unsafe { value.cast::<usize>().read() },
            _ => return Err(Error::InvalidValue),
        }
        at += 2;
    }
    // What the compiler appends for itself need not be given.
    let given = facts.parameters.iter().map(|(offset, size)| offset + size).max().unwrap_or(0);
    if (buffer.is_null() && given > 0) || len < given {
        return Err(Error::InvalidValue);
    }
    if !buffer.is_null() {
        // SAFETY: the caller promised `len` bytes at `buffer`.
        let from = unsafe { std::slice::from_raw_parts(buffer, len.min(bytes.len())) };
        bytes[..from.len()].copy_from_slice(from);
    }
    Ok(bytes)
}

/// The most threads of a block whose blocks fill a unit best, and blocks to fill the device.
pub fn best_block(driver: &Driver, function: u64, shared: u64, limit: i32) -> Result<(u32, u32)> {
    let wave = driver.model.wave;
    let most = driver.functions.get(function)?.facts.max_threads;
    let most = if limit > 0 { most.min(limit as u32) } else { most };
    let mut best = (0, 0);
    for threads in (1..=most / wave).rev().map(|waves| wave * waves) {
        let blocks = driver.occupancy(function, threads, shared)?;
        if blocks * threads > best.0 * best.1 {
            best = (blocks, threads);
        }
    }
    Ok((best.0 * driver.model.units, best.1))
}

/// A graph's nodes as handles, or how many they are. A handle is the graph's number and the node's,
/// which fit side by side.
pub fn graph_nodes(driver: &Driver, graph: u64, nodes: *mut u64, count: *mut usize) -> Result {
    let found = driver.graphs.get(graph)?.nodes.len();
    if nodes.is_null() {
        return put(count, found);
    }
    if count.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: not null; the caller promised room for `count` handles at `nodes`.
    let room = unsafe { count.read() };
    for index in 0..room {
        let handle = (graph & 0xffff_ffff) << 32 | 1 << 31 | index as u64;
        // SAFETY: inside the room.
        unsafe { nodes.add(index).write(if index < found { handle } else { 0 }) };
    }
    put(count, room.min(found))
}
