//! Streams and events of the virtual libcuda: when work is done, and after what.

mod driver;
#[path = "driver/cuda.rs"]
mod raw;

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::{result, sys};
use driver::{Door, passes};
use raw::*;
use sys::CUresult::*;

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
            // The function has other names in other versions of CUDA.
            assert!(result::event::elapsed(first, last).unwrap() > 0.0);
            let none = result::event::elapsed(first, never);
            assert_eq!(none.unwrap_err().0, CUDA_ERROR_INVALID_HANDLE);
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
