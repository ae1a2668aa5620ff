//! The virtual libcuda through its raw functions: memory, streams, events, errors, leaks.

mod driver;

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use cudarc::driver::{result, sys};
use driver::{Door, PTX, child, passes, said};
use sys::CUresult::*;

/// Succeeds.
fn ok(code: sys::CUresult) {
    assert_eq!(code, CUDA_SUCCESS);
}

/// A context, current, and the module of [`PTX`].
fn begin() -> sys::CUmodule {
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

fn function(module: sys::CUmodule, name: &str) -> sys::CUfunction {
    // SAFETY: the module is loaded.
    unsafe { result::module::get_function(module, CString::new(name).unwrap()) }.unwrap()
}

fn stream() -> sys::CUstream {
    result::stream::create(result::stream::StreamKind::NonBlocking).unwrap()
}

fn event() -> sys::CUevent {
    result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap()
}

fn alloc(bytes: usize) -> u64 {
    // SAFETY: freed by the tests, or not, as they say.
    unsafe { result::malloc_sync(bytes) }.unwrap()
}

/// Launches one block of 64 threads.
fn launch(f: sys::CUfunction, stream: sys::CUstream, params: &mut [*mut c_void]) -> sys::CUresult {
    launch_with(f, stream, 0, params)
}

fn launch_with(
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
fn at<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// y[0..n] = v.
fn set(f: sys::CUfunction, stream: sys::CUstream, mut y: u64, mut v: f32, mut n: u32) {
    ok(launch(f, stream, &mut [at(&mut y), at(&mut v), at(&mut n)]));
}

/// y[0..n] (+)= (2·)x[0..n].
fn map(f: sys::CUfunction, stream: sys::CUstream, mut y: u64, mut x: u64, mut n: u32) {
    ok(launch(f, stream, &mut [at(&mut y), at(&mut x), at(&mut n)]));
}

fn read(address: u64, count: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; count];
    // SAFETY: `out` has room.
    unsafe { result::memcpy_dtoh_sync(&mut out, address) }.unwrap();
    out
}

fn sync(stream: sys::CUstream) -> sys::CUresult {
    // SAFETY: the stream exists.
    unsafe { sys::cuStreamSynchronize(stream) }
}

#[test]
fn work_waits_until_the_host_does() {
    passes("work_waits_until_the_host_does", &[], || {
        let set_one = function(begin(), "set");
        let (s, y, door) = (stream(), alloc(256), Door::cuda());
        set(set_one, s, y, 1.0, 64);
        set(set_one, s, y, 2.0, 32);
        assert_eq!((door.pending(), door.launches().len()), (2, 0));
        ok(sync(s));
        assert_eq!((door.pending(), door.launches().len()), (0, 2));
        let y = read(y, 64);
        assert_eq!((y[0], y[31], y[32], y[63]), (2.0, 2.0, 1.0, 1.0));
    });
}

#[test]
fn a_call_fails_when_it_was_asked_to_and_works_the_next_time() {
    let test = "a_call_fails_when_it_was_asked_to_and_works_the_next_time";
    passes(test, &[("VGPU_FAIL", "cuMemAlloc:2:2,cuStreamCreate:1:999")], || {
        begin();
        // SAFETY: as `alloc` and `stream`.
        let try_alloc = || unsafe { result::malloc_sync(256) };
        let try_stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
        let first = try_alloc().unwrap();
        assert_eq!(try_alloc().unwrap_err().0, CUDA_ERROR_OUT_OF_MEMORY);
        let second = try_alloc().unwrap();
        assert_eq!(try_stream().unwrap_err().0, CUDA_ERROR_UNKNOWN);
        try_stream().unwrap();
        // From within, for one thread only.
        let door = Door::cuda();
        door.fail("cuMemFree_v2:1:719", true);
        std::thread::spawn(move || {
            // SAFETY: the context lives; the memory is freed once.
            unsafe {
                let context = result::primary_ctx::retain(0).unwrap();
                result::ctx::set_current(context).unwrap();
                result::free_sync(first).unwrap();
            }
        })
        .join()
        .unwrap();
        // SAFETY: freed once; the first try did nothing.
        unsafe {
            assert_eq!(sys::cuMemFree_v2(second), CUDA_ERROR_LAUNCH_FAILED);
            ok(sys::cuMemFree_v2(second));
        }
        assert_eq!(door.fail_end(), 0);
    });
}

#[test]
fn memory_costs_what_is_touched() {
    passes("memory_costs_what_is_touched", &[], || {
        let far = function(begin(), "far");
        let y = alloc(20 << 30);
        for mut index in [0_u64, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, (5 << 30) - 1] {
            let (mut y, mut v) = (y, index as f32);
            ok(launch(far, null_mut(), &mut [at(&mut y), at(&mut v), at(&mut index)]));
            assert_eq!(read(y + 4 * index, 1), [v]);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        println!("{kib} KiB");
        assert!(kib < 200 << 10);
        let (free, total) = result::mem_get_info().unwrap();
        assert!(total - free >= 20 << 30);
        // SAFETY: more than is left; nothing comes of it.
        let more = unsafe { result::malloc_sync(20 << 30) };
        assert_eq!(more.unwrap_err().0, CUDA_ERROR_OUT_OF_MEMORY);
    });
}

#[test]
fn use_after_free_is_found_in_the_order_of_streams() {
    passes("use_after_free_is_found_in_the_order_of_streams", &[], || {
        let set_one = function(begin(), "set");
        let (s, door) = (stream(), Door::cuda());
        // SAFETY: freed once.
        let y = unsafe { result::malloc_async(s, 256) }.unwrap();
        set(set_one, s, y, 1.0, 64);
        // SAFETY: as above.
        unsafe { result::free_async(y, s) }.unwrap();
        ok(sync(s));
        assert_eq!(door.kinds(), [""; 0]);
        set(set_one, s, y, 1.0, 64);
        assert_eq!(sync(s), CUDA_ERROR_ILLEGAL_ADDRESS);
        let found = door.findings();
        assert_eq!((found.len(), &found[0]["kind"]), (1, &"UseAfterFree".into()));
        assert_eq!((&found[0]["kernel"], &found[0]["count"]), (&"set".into(), &64.into()));
        assert!(found[0]["instruction"].as_str().unwrap().starts_with("st.global.f32"));
        // The error stays, whatever is called.
        // SAFETY: refused.
        assert_eq!(unsafe { result::malloc_sync(4) }.unwrap_err().0, CUDA_ERROR_ILLEGAL_ADDRESS);
    });
}

#[test]
fn a_process_that_ignores_findings_fails() {
    let test = "a_process_that_ignores_findings_fails";
    let body = || {
        let set_one = function(begin(), "set");
        let y = alloc(128);
        set(set_one, null_mut(), y, 1.0, 64);
        let _ = sync(null_mut());
    };
    let done = child(test, &[], body);
    assert_eq!(done.status.code(), Some(86), "{}", said(&done));
    assert!(said(&done).contains("WriteOutOfBounds: set block 0,0,0 thread 32"), "{}", said(&done));
    let done = child(test, &[("VGPU_FINDINGS", "report")], body);
    assert!(done.status.success(), "{}", said(&done));
}

#[test]
fn pinned_memory_is_read_when_the_copy_is_done_and_pageable_when_it_is_asked_for() {
    let test = "pinned_memory_is_read_when_the_copy_is_done_and_pageable_when_it_is_asked_for";
    passes(test, &[], || {
        begin();
        let (s, y) = (stream(), alloc(16));
        // SAFETY: `pinned` and `pageable` have four floats and live until the end.
        unsafe {
            let pinned: *mut f32 = result::malloc_host(16, 0).unwrap().cast();
            for i in 0..4 {
                pinned.add(i).write(1.0);
            }
            ok(sys::cuMemcpyHtoDAsync_v2(y, pinned.cast(), 16, s));
            pinned.write(5.0);
            ok(sync(s));
            assert_eq!(read(y, 4), [5.0, 1.0, 1.0, 1.0]);
            let mut pageable = [2.0_f32; 4];
            ok(sys::cuMemcpyHtoDAsync_v2(y, pageable.as_ptr().cast(), 16, s));
            pageable[0] = 7.0;
            ok(sync(s));
            assert_eq!((read(y, 4), pageable[0]), (vec![2.0; 4], 7.0));
            // And back: pinned memory is written late.
            ok(sys::cuMemcpyDtoHAsync_v2(pinned.cast(), y, 16, s));
            assert_eq!(pinned.read(), 5.0);
            ok(sync(s));
            assert_eq!(pinned.read(), 2.0);
        }
    });
}

#[test]
fn pinned_memory_that_ends_before_its_copy_is_found() {
    passes("pinned_memory_that_ends_before_its_copy_is_found", &[], || {
        begin();
        let (s, y, door) = (stream(), alloc(16), Door::cuda());
        // SAFETY: the copy finds the memory gone, and does not touch it.
        unsafe {
            let pinned = result::malloc_host(16, 0).unwrap();
            ok(sys::cuMemcpyHtoDAsync_v2(y, pinned, 16, s));
            result::free_host(pinned).unwrap();
        }
        assert_eq!(sync(s), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(door.kinds(), ["UseAfterFree"]);
    });
}

#[test]
fn kernels_write_pinned_memory_at_its_own_address() {
    passes("kernels_write_pinned_memory_at_its_own_address", &[], || {
        let set_one = function(begin(), "set");
        // SAFETY: 64 floats, read when the kernel is done.
        unsafe {
            let pinned: *mut f32 = result::malloc_host(256, 2).unwrap().cast();
            let mut address = 0;
            ok(sys::cuMemHostGetDevicePointer_v2(&mut address, pinned.cast(), 0));
            assert_eq!(address, pinned as u64);
            set(set_one, null_mut(), address, 3.0, 64);
            assert_eq!(pinned.read(), 0.0);
            ok(sys::cuCtxSynchronize());
            assert_eq!((pinned.read(), pinned.add(63).read()), (3.0, 3.0));
        }
        let mut own = vec![0.0_f32; 64];
        // SAFETY: registered while the kernel runs, and used again after.
        unsafe {
            ok(sys::cuMemHostRegister_v2(own.as_mut_ptr().cast(), 256, 0));
            set(set_one, null_mut(), own.as_ptr() as u64, 4.0, 64);
            ok(sys::cuCtxSynchronize());
            ok(sys::cuMemHostUnregister(own.as_mut_ptr().cast()));
        }
        assert_eq!(own, [4.0; 64]);
    });
}

#[test]
fn events_stand_for_what_came_before_them() {
    passes("events_stand_for_what_came_before_them", &[], || {
        let set_one = function(begin(), "set");
        let (s, y, door) = (stream(), alloc(256), Door::cuda());
        let (never, first, last) = (event(), event(), event());
        // SAFETY: streams and events exist.
        unsafe {
            // Never recorded: done.
            ok(sys::cuEventQuery(never));
            ok(sys::cuStreamWaitEvent(s, never, 0));
            ok(sys::cuEventRecord(first, s));
            set(set_one, s, y, 1.0, 64);
            ok(sys::cuEventRecord(last, s));
            set(set_one, s, y, 2.0, 64);
            ok(sys::cuEventSynchronize(last));
            let mut milliseconds = 0.0;
            ok(sys::cuEventElapsedTime(&mut milliseconds, first, last));
            assert!(milliseconds > 0.0);
            assert_eq!(
                sys::cuEventElapsedTime(&mut milliseconds, first, never),
                CUDA_ERROR_INVALID_HANDLE
            );
            // Asking again and again sees the end.
            ok(sys::cuEventRecord(first, s));
            let mut not_ready = 0;
            while sys::cuEventQuery(first) == CUDA_ERROR_NOT_READY {
                not_ready += 1;
                assert!(not_ready < 1000);
            }
            ok(sys::cuEventQuery(first));
            assert_eq!(door.pending(), 0);
            // A wait is for the recording that there was.
            let (a, b) = (stream(), stream());
            ok(sys::cuEventRecord(last, a));
            ok(sys::cuStreamWaitEvent(b, last, 0));
            ok(sys::cuEventDestroy_v2(last));
            ok(sync(b));
            assert_eq!(sys::cuEventRecord(last, a), CUDA_ERROR_INVALID_HANDLE);
        }
    });
}

#[test]
fn the_default_stream_waits_for_blocking_streams_and_they_for_it() {
    let test = "the_default_stream_waits_for_blocking_streams_and_they_for_it";
    passes(test, &[("VGPU_FINDINGS", "report")], || {
        let module = begin();
        let (set_one, add) = (function(module, "set"), function(module, "add"));
        let door = Door::cuda();
        let blocking = result::stream::create(result::stream::StreamKind::Default).unwrap();
        let (x, y) = (alloc(256), alloc(256));
        for seed in 0..32 {
            door.seed(seed);
            set(set_one, blocking, y, 1.0, 64);
            set(set_one, null_mut(), x, 2.0, 64);
            map(add, null_mut(), y, x, 64);
            map(add, blocking, y, x, 64);
            ok(sync(blocking));
            assert_eq!(read(y, 1), [5.0]);
        }
        assert_eq!(door.kinds(), [""; 0]);
        let apart = stream();
        set(set_one, null_mut(), y, 1.0, 64);
        map(add, apart, y, x, 64);
        // SAFETY: a context is current.
        unsafe { ok(sys::cuCtxSynchronize()) };
        assert_eq!(door.kinds(), ["StreamRace"]);
    });
}

#[test]
fn a_writer_that_waits_for_one_of_two_readers_is_found() {
    passes("a_writer_that_waits_for_one_of_two_readers_is_found", &[], || {
        let module = begin();
        let (set_one, scale) = (function(module, "set"), function(module, "scale"));
        let (a, b, c, door) = (stream(), stream(), stream(), Door::cuda());
        let (x, y, z) = (alloc(256), alloc(256), alloc(256));
        set(set_one, a, x, 1.0, 64);
        ok(sync(a));
        for (waits, found) in [([true, true], &[][..]), ([false, true], &["StreamRace"][..])] {
            map(scale, a, y, x, 64);
            map(scale, b, z, x, 64);
            for (reader, waits) in [a, b].into_iter().zip(waits) {
                let e = event();
                // SAFETY: streams and events exist.
                unsafe {
                    ok(sys::cuEventRecord(e, reader));
                    if waits {
                        ok(sys::cuStreamWaitEvent(c, e, 0));
                    }
                }
            }
            set(set_one, c, x, 1.0, 64);
            let result = [a, b, c].map(sync);
            assert_eq!(result.contains(&CUDA_ERROR_LAUNCH_FAILED), !found.is_empty());
            assert_eq!(door.kinds(), found);
        }
    });
}

#[test]
fn what_was_made_and_not_ended_is_listed() {
    passes("what_was_made_and_not_ended_is_listed", &[], || {
        let module = begin();
        let door = Door::cuda();
        assert_eq!(door.leaked(), ["module", "primary context"]);
        let (s, e, y) = (stream(), event(), alloc(256));
        assert_eq!(door.leaked(), ["allocation", "stream", "event", "module", "primary context"]);
        // SAFETY: each is ended once.
        unsafe {
            let pinned = result::malloc_host(256, 0).unwrap();
            assert!(door.leaked().contains(&"host memory".into()));
            result::free_host(pinned).unwrap();
            result::stream::destroy(s).unwrap();
            result::event::destroy(e).unwrap();
            result::free_sync(y).unwrap();
            result::module::unload(module).unwrap();
            result::primary_ctx::release(0).unwrap();
        }
        assert_eq!(door.leaked(), [""; 0]);
    });
}

#[test]
fn what_is_not_provided_says_so() {
    let test = "what_is_not_provided_says_so";
    let done = child(test, &[("VGPU_TRACE", "stderr")], || {
        begin();
        let mut address = 0;
        // SAFETY: refused.
        unsafe {
            let mut array = null_mut();
            assert_eq!(sys::cuArrayCreate_v2(&mut array, null_mut()), CUDA_ERROR_NOT_SUPPORTED);
            assert_eq!(sys::cuMemAllocManaged(&mut address, 4, 1), CUDA_ERROR_NOT_SUPPORTED);
            let mut module = null_mut();
            let cubin = b"\x7fELF\x02\x01\x01\x33";
            let load = sys::cuModuleLoadData(&mut module, cubin.as_ptr().cast());
            assert_eq!(load, CUDA_ERROR_NO_BINARY_FOR_GPU);
        }
    });
    let said = said(&done);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("vgpu: cuArrayCreate_v2 is not provided"), "{said}");
    assert!(said.contains("cuMemAllocManaged(address=0x"), "{said}");
    assert!(said.contains("SASS is not executed"), "{said}");
}

#[test]
fn shared_memory_over_48_kib_must_be_asked_for() {
    passes("shared_memory_over_48_kib_must_be_asked_for", &[], || {
        let f = function(begin(), "shared");
        let mut y = alloc(4);
        ok(launch_with(f, null_mut(), 48 << 10, &mut [at(&mut y)]));
        let too_much = launch_with(f, null_mut(), (48 << 10) + 1, &mut [at(&mut y)]);
        assert_eq!(too_much, CUDA_ERROR_INVALID_VALUE);
        let wish = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function exists.
        unsafe {
            ok(sys::cuFuncSetAttribute(f, wish, 163 << 10));
            let more = sys::cuFuncSetAttribute(f, wish, (163 << 10) + 1);
            assert_eq!(more, CUDA_ERROR_INVALID_VALUE);
        }
        ok(launch_with(f, null_mut(), 163 << 10, &mut [at(&mut y)]));
        let mut blocks = 0;
        // SAFETY: the function exists.
        unsafe {
            ok(sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, f, 64, 80 << 10));
        }
        assert_eq!(blocks, 2);
    });
}

#[test]
fn one_device_reaches_anothers_memory_when_it_may() {
    let test = "one_device_reaches_anothers_memory_when_it_may";
    passes(test, &[("VGPU_DEVICES", "2")], || {
        let set_one = function(begin(), "set");
        // SAFETY: contexts live until the end.
        unsafe {
            let mut here = null_mut();
            ok(sys::cuCtxGetCurrent(&mut here));
            let other = result::primary_ctx::retain(1).unwrap();
            result::ctx::set_current(other).unwrap();
            let theirs = alloc(256);
            result::ctx::set_current(here).unwrap();
            let mine = alloc(256);
            set(set_one, null_mut(), mine, 2.0, 64);
            ok(sys::cuMemcpyPeer(theirs, other, mine, here, 256));
            assert_eq!(read(theirs, 64), [2.0; 64]);
            ok(sys::cuCtxEnablePeerAccess(other, 0));
            set(set_one, null_mut(), theirs, 3.0, 64);
            assert_eq!(read(theirs, 64), [3.0; 64]);
            ok(sys::cuCtxDisablePeerAccess(other));
            set(set_one, null_mut(), theirs, 4.0, 64);
            assert_eq!(sys::cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        assert_eq!(Door::cuda().kinds(), ["WriteOutOfBounds"]);
    });
}

#[test]
fn the_host_is_called_in_order_and_may_wait_for_others() {
    extern "C" fn add_one(data: *mut c_void) {
        // SAFETY: the test gives an i32 that lives until its stream is done.
        unsafe { *data.cast::<i32>() += 1 };
    }
    passes("the_host_is_called_in_order_and_may_wait_for_others", &[], || {
        begin();
        let (s, mut count) = (stream(), 0_i32);
        let data = std::ptr::from_mut(&mut count).cast();
        // SAFETY: `count` lives until the stream is done.
        unsafe {
            ok(sys::cuLaunchHostFunc(
                s,
                Some(std::mem::transmute::<
                    extern "C" fn(*mut c_void),
                    unsafe extern "C" fn(*mut c_void),
                >(add_one)),
                data,
            ));
            ok(sync(s));
        }
        assert_eq!(count, 1);
    });
}
