//! Memory of the virtual libcuda: sparse, pinned, freed, of other devices.

mod driver;
#[path = "driver/cuda.rs"]
mod raw;

use std::ptr::null_mut;

use cudarc::driver::{result, sys};
use driver::{Door, passes};
use raw::*;
use sys::CUresult::*;

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
