//! Raw functions of the virtual libcuda, for the suites that call them.
#![allow(dead_code)]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use cudarc::driver::{result, sys};
use sys::CUresult::*;

use crate::driver::PTX;

/// Succeeds.
pub fn ok(code: sys::CUresult) {
    assert_eq!(code, CUDA_SUCCESS);
}

/// A context, current, and the module of [`PTX`].
pub fn begin() -> sys::CUmodule {
    result::init().unwrap();
    let device = result::device::get(0).unwrap();
    // SAFETY: the device exists; the context stays until the process ends.
    unsafe {
        let context = result::primary_ctx::retain(device).unwrap();
        result::ctx::set_current(context).unwrap();
        let text = CString::new(PTX).unwrap();
        result::module::load_data(text.as_ptr().cast()).unwrap()
    }
}

pub fn function(module: sys::CUmodule, name: &str) -> sys::CUfunction {
    // SAFETY: the module is loaded.
    unsafe { result::module::get_function(module, CString::new(name).unwrap()) }.unwrap()
}

pub fn stream() -> sys::CUstream {
    result::stream::create(result::stream::StreamKind::NonBlocking).unwrap()
}

pub fn event() -> sys::CUevent {
    result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap()
}

pub fn alloc(bytes: usize) -> u64 {
    // SAFETY: freed by the tests, or not, as they say.
    unsafe { result::malloc_sync(bytes) }.unwrap()
}

/// Launches one block of 64 threads.
pub fn launch(
    f: sys::CUfunction,
    stream: sys::CUstream,
    params: &mut [*mut c_void],
) -> sys::CUresult {
    launch_with(f, stream, 0, params)
}

pub fn launch_with(
    f: sys::CUfunction,
    stream: sys::CUstream,
    shared: u32,
    params: &mut [*mut c_void],
) -> sys::CUresult {
    // SAFETY: the tests give the parameters that the kernels take.
    unsafe {
        sys::cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, shared, stream, params.as_mut_ptr(), null_mut())
    }
}

/// The address of a parameter.
pub fn at<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// y[0..n] = v.
pub fn set(f: sys::CUfunction, stream: sys::CUstream, mut y: u64, mut v: f32, mut n: u32) {
    ok(launch(f, stream, &mut [at(&mut y), at(&mut v), at(&mut n)]));
}

/// y[0..n] (+)= (2·)x[0..n].
pub fn map(f: sys::CUfunction, stream: sys::CUstream, mut y: u64, mut x: u64, mut n: u32) {
    ok(launch(f, stream, &mut [at(&mut y), at(&mut x), at(&mut n)]));
}

pub fn read(address: u64, count: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; count];
    // SAFETY: `out` has room.
    unsafe { result::memcpy_dtoh_sync(&mut out, address) }.unwrap();
    out
}

pub fn sync(stream: sys::CUstream) -> sys::CUresult {
    // SAFETY: the stream exists.
    unsafe { sys::cuStreamSynchronize(stream) }
}
