//! The virtual libcuda through its raw functions: errors, what is written down, what is left over.

mod driver;
#[path = "driver/cuda.rs"]
mod raw;

use std::ffi::CString;
use std::ptr::null_mut;

use cudarc::driver::{result, sys};
use driver::{Door, PTX, child, passes, said};
use raw::*;
use sys::CUresult::*;

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
fn launches_and_calls_are_written_where_they_were_asked_for() {
    let test = "launches_and_calls_are_written_where_they_were_asked_for";
    let place = |kind: &str| {
        let file = format!("vgpu-{kind}-{}", std::process::id());
        std::env::temp_dir().join(file).to_str().expect("a path").to_string()
    };
    let (counters, trace) = (place("counters"), place("trace"));
    passes(test, &[("VGPU_COUNTERS", &counters), ("VGPU_TRACE", &trace)], || {
        let set_one = function(begin(), "set");
        let y = alloc(256);
        let door = Door::cuda();
        assert_eq!(door.trace(true), [""; 0]);
        set(set_one, null_mut(), y, 1.0, 64);
        set(set_one, null_mut(), y, 2.0, 64);
        // SAFETY: a context is current.
        ok(unsafe { sys::cuCtxSynchronize() });
        let lines = door.trace(false);
        let names = lines.iter().map(|line| line.split(['(', ' ']).nth(1).expect("a name"));
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["cuLaunchKernel", "cuLaunchKernel", "cuCtxSynchronize"]
        );
        assert_eq!((door.calls("cuLaunchKernel"), door.calls("cuInit")), (2, 1));
    });
    let counters = std::fs::read_to_string(counters).expect("the counters");
    let launches: Vec<serde_json::Value> =
        counters.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(launches.len(), 2);
    assert_eq!((&launches[1]["kernel"], &launches[1]["sectors"]), (&"set".into(), &8.into()));
    assert_eq!(launches[1]["instructions"]["Global"], 2);
    let trace = std::fs::read_to_string(trace).expect("the trace");
    assert!(trace.contains("cuMemAlloc_v2(address=0x") && trace.contains("bytes=256) = 0"));
}

/// Allocates, launches and reads; everything is ended whatever fails. What fails is returned.
fn whole_run() -> Result<(), sys::CUresult> {
    fn try_it(module: &mut sys::CUmodule, y: &mut u64) -> Result<(), sys::CUresult> {
        let check = |code| if code == CUDA_SUCCESS { Ok(()) } else { Err(code) };
        let text = CString::new(PTX).expect("no zeros");
        let mut f = null_mut();
        let mut out = [0.0_f32; 64];
        // SAFETY: handles live and results are written where they are asked for.
        unsafe {
            check(sys::cuModuleLoadData(module, text.as_ptr().cast()))?;
            check(sys::cuModuleGetFunction(&mut f, *module, c"set".as_ptr()))?;
            check(sys::cuMemAlloc_v2(y, 256))?;
            let (mut address, mut v, mut n) = (*y, 3.0_f32, 64_u32);
            check(launch(f, null_mut(), &mut [at(&mut address), at(&mut v), at(&mut n)]))?;
            check(sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), *y, 256))?;
        }
        assert_eq!(out, [3.0; 64]);
        Ok(())
    }
    let (mut module, mut y) = (null_mut(), 0);
    let result = try_it(&mut module, &mut y);
    let until_done = |end: &dyn Fn() -> sys::CUresult| while end() != CUDA_SUCCESS {};
    // SAFETY: each is ended once; an end that was made to fail did nothing.
    unsafe {
        if y != 0 {
            until_done(&|| sys::cuMemFree_v2(y));
        }
        if !module.is_null() {
            until_done(&|| sys::cuModuleUnload(module));
        }
    }
    result
}

#[test]
fn every_call_can_be_made_to_fail_in_turn() {
    passes("every_call_can_be_made_to_fail_in_turn", &[], || {
        begin();
        let door = Door::cuda();
        let before = door.leaked();
        whole_run().unwrap();
        let mut failed = 0;
        for n in 1.. {
            door.fail(&format!("*:{n}:999"), true);
            let result = whole_run();
            let came_true = door.fail_end() == 0;
            assert_eq!(door.leaked(), before, "call {n}");
            if !came_true {
                break;
            }
            failed += u32::from(result == Err(CUDA_ERROR_UNKNOWN));
        }
        assert_eq!(failed, 5);
        whole_run().unwrap();
    });
}
