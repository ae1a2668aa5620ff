//! Unmodified hip-sys on the virtual driver: from the first call to a kernel's result, in 32 orders
//! of execution, and with a dependency left out.

#[path = "../../tests/driver/mod.rs"]
mod driver;

use std::ffi::CStr;
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;

use driver::{Door, child, passes, said};
use hip_sys::hiprt::*;

const N: u32 = 1000;
const BYTES: usize = 4 * N as usize;

/// Succeeds.
fn ok(code: hipError_t) {
    assert_eq!(code, hipError_t::hipSuccess);
}

fn door() -> Door {
    Door::open("libamdhip64.so.5")
}

fn alloc() -> *mut f32 {
    let mut start = null_mut();
    // SAFETY: freed by the tests, or not, as they say.
    ok(unsafe { hipMalloc(&mut start, BYTES) });
    start.cast()
}

/// A stream that does not wait for the default one.
fn stream() -> hipStream_t {
    let mut stream = null_mut();
    // SAFETY: it lives until the process ends.
    ok(unsafe { hipStreamCreateWithFlags(&mut stream, 1) });
    stream
}

/// The code object of `kernels.hip`; none where there is no compiler.
fn code_object() -> Option<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels.hip");
    let out = std::env::temp_dir().join(format!("vgpu-kernels-{}.co", std::process::id()));
    let compiler = std::env::var("HIPCC").unwrap_or("hipcc".into());
    let done = Command::new(&compiler)
        .args(["--offload-arch=gfx90a", "--genco", "-O3", "-o"])
        .args([&out, &source])
        .output();
    let Ok(done) = done else {
        println!("skipped: no {compiler}, so no kernel is launched");
        return None;
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let image = std::fs::read(&out).expect("the code object");
    let _ = std::fs::remove_file(out);
    Some(image)
}

struct Kernels {
    scale: hipFunction_t,
    add: hipFunction_t,
}

/// The kernels; none where they cannot be compiled or are not executed yet.
fn kernels() -> Option<Kernels> {
    let image = code_object()?;
    let mut module = null_mut();
    // SAFETY: a whole image; functions are asked for by names with their end.
    unsafe {
        let code = hipModuleLoadData(&mut module, image.as_ptr().cast());
        if code == hipError_t::hipErrorNoBinaryForGpu {
            println!("skipped: gfx90a code is not executed yet");
            return None;
        }
        ok(code);
        let get = |name: &CStr| {
            let mut function = null_mut();
            ok(hipModuleGetFunction(&mut function, module, name.as_ptr()));
            function
        };
        Some(Kernels { scale: get(c"scale"), add: get(c"add") })
    }
}

/// Launches with the parameters side by side, as `extra` takes them.
fn launch(f: hipFunction_t, stream: hipStream_t, y: *mut f32, x: *const f32) {
    #[repr(C)]
    struct Parameters(*mut f32, *const f32, u32);
    let mut parameters = Parameters(y, x, N);
    let mut bytes = size_of::<Parameters>();
    let mut extra = [
        std::ptr::without_provenance_mut(1),
        std::ptr::from_mut(&mut parameters).cast(),
        std::ptr::without_provenance_mut(2),
        std::ptr::from_mut(&mut bytes).cast(),
        std::ptr::without_provenance_mut(3),
    ];
    // SAFETY: the kernels take these parameters and stay inside N elements.
    ok(unsafe {
        hipModuleLaunchKernel(
            f,
            N.div_ceil(256),
            1,
            1,
            256,
            1,
            1,
            0,
            stream,
            null_mut(),
            extra.as_mut_ptr(),
        )
    });
}

/// y = 2·x + x, with the two halves of the work on two streams.
fn three_times(k: &Kernels, s: [hipStream_t; 2], ordered: bool) -> Vec<f32> {
    let (x, y) = (alloc(), alloc());
    let from: Vec<f32> = (0..N).map(|i| i as f32).collect();
    let mut out = vec![0.0_f32; N as usize];
    // SAFETY: pointers and handles live; copies stay inside.
    unsafe {
        ok(hipMemcpyAsync(
            x.cast(),
            from.as_ptr().cast(),
            BYTES,
            hipMemcpyKind::hipMemcpyHostToDevice,
            s[0],
        ));
        ok(hipMemsetAsync(y.cast(), 0, BYTES, s[0]));
        ok(hipDeviceSynchronize());
        launch(k.scale, s[0], y, x);
        let mut event = null_mut();
        ok(hipEventCreateWithFlags(&mut event, hipEventDisableTiming));
        ok(hipEventRecord(event, s[0]));
        if ordered {
            ok(hipStreamWaitEvent(s[1], event, 0));
        }
        launch(k.add, s[1], y, x);
        ok(hipDeviceSynchronize());
        let down = hipMemcpyKind::hipMemcpyDeviceToHost;
        ok(hipMemcpy(out.as_mut_ptr().cast(), y.cast(), BYTES, down));
        ok(hipEventDestroy(event));
        ok(hipFree(x.cast()));
        ok(hipFree(y.cast()));
    }
    out
}

fn right() -> Vec<f32> {
    (0..N).map(|i| 3.0 * i as f32).collect()
}

#[test]
fn from_the_first_call_to_a_kernels_result_in_32_orders() {
    let test = "from_the_first_call_to_a_kernels_result_in_32_orders";
    let done = child(test, &[("VGPU_DEVICES", "2")], || {
        // SAFETY: results are written where they are asked for.
        unsafe {
            ok(hipInit(0));
            let mut count = 0;
            ok(hipGetDeviceCount(&mut count));
            assert_eq!(count, 2);
            let mut properties = hipDeviceProp_t::default();
            ok(hipGetDeviceProperties(&mut properties, 1));
            let architecture = CStr::from_ptr(properties.gcnArchName.as_ptr());
            assert_eq!(architecture, c"gfx90a:sramecc+:xnack-");
            assert_eq!((properties.multiProcessorCount, properties.warpSize), (110, 64));
            assert_eq!((properties.totalGlobalMem, properties.asicRevision), (64 << 30, 0));
            ok(hipSetDevice(1));
        }
        let s = [stream(), stream()];
        let Some(k) = kernels() else { return };
        let door = door();
        for seed in 0..32 {
            door.seed(seed);
            assert!(three_times(&k, s, true) == right(), "seed {seed}");
        }
        assert_eq!(door.kinds(), [""; 0]);
        let launches = door.launches();
        assert_eq!(launches.len(), 64);
        assert_eq!((&launches[0]["kernel"], &launches[0]["device"]), (&"scale".into(), &1.into()));
        assert_eq!(launches[1]["bytes_read"], 8000);
        assert_eq!(door.leaked(), ["stream", "stream", "module"]);
    });
    println!("{}", said(&done));
    assert!(done.status.success());
}

#[test]
fn a_dependency_left_out_gives_wrong_answers_and_findings() {
    let test = "a_dependency_left_out_gives_wrong_answers_and_findings";
    let done = child(test, &[("VGPU_FINDINGS", "report")], || {
        let s = [stream(), stream()];
        let Some(k) = kernels() else { return };
        let door = door();
        let (mut wrong, mut found) = (0, 0);
        for seed in 0..32 {
            door.seed(seed);
            wrong += u32::from(three_times(&k, s, false) != right());
            found += u32::from(door.kinds() == ["StreamRace"]);
        }
        println!("32 orders: {wrong} wrong answers, {found} with the finding");
        assert!((8..=24).contains(&wrong), "{wrong}");
        assert_eq!(found, 32);
    });
    println!("{}", said(&done));
    assert!(done.status.success());
}

#[test]
fn memory_streams_and_errors_without_a_kernel() {
    passes("memory_streams_and_errors_without_a_kernel", &[("VGPU_FAIL", "hipMalloc:2:2")], || {
        let (y, s) = (alloc(), stream());
        let mut out = vec![0.0_f32; N as usize];
        // SAFETY: pointers and handles live, or are refused.
        unsafe {
            let mut more = null_mut();
            assert_eq!(hipMalloc(&mut more, 4), hipError_t::hipErrorOutOfMemory);
            assert_eq!(hipPeekAtLastError(), hipError_t::hipErrorOutOfMemory);
            assert_eq!(hipGetLastError(), hipError_t::hipErrorOutOfMemory);
            assert_eq!(hipGetLastError(), hipError_t::hipSuccess);
            let name = CStr::from_ptr(hipGetErrorName(hipError_t::hipErrorOutOfMemory));
            assert_eq!(name, c"hipErrorOutOfMemory");

            ok(hipMemsetD32Async(y.cast(), 1.5_f32.to_bits() as i32, N as usize, s));
            // Work waits until the host does.
            assert_eq!(door().pending(), 1);
            let mut event = null_mut();
            ok(hipEventCreate(&mut event));
            ok(hipEventRecord(event, s));
            while hipEventQuery(event) == hipError_t::hipErrorNotReady {}
            let down = hipMemcpyKind::hipMemcpyDeviceToHost;
            ok(hipMemcpyAsync(out.as_mut_ptr().cast(), y.cast(), BYTES, down, s));
            ok(hipStreamSynchronize(s));
            assert_eq!(out, [1.5; N as usize]);

            // A graph of a fill, twice.
            ok(hipStreamBeginCapture(s, hipStreamCaptureMode::hipStreamCaptureModeThreadLocal));
            ok(hipMemsetAsync(y.cast(), 0, BYTES, s));
            let (mut graph, mut exec) = (null_mut(), null_mut());
            ok(hipStreamEndCapture(s, &mut graph));
            ok(hipGraphInstantiate(&mut exec, graph, null_mut(), null_mut(), 0));
            ok(hipMemcpy(out.as_mut_ptr().cast(), y.cast(), BYTES, down));
            assert_eq!(out[0], 1.5);
            ok(hipGraphLaunch(exec, s));
            ok(hipStreamSynchronize(s));
            ok(hipMemcpy(out.as_mut_ptr().cast(), y.cast(), BYTES, down));
            assert_eq!(out, [0.0; N as usize]);
            ok(hipGraphExecDestroy(exec));
            ok(hipGraphDestroy(graph));

            // Over the end: refused, and found.
            let over = hipMemcpy(out.as_mut_ptr().cast(), y.cast(), BYTES + 4, down);
            assert_eq!(over, hipError_t::hipErrorInvalidValue);
            assert_eq!(door().kinds(), ["ReadOutOfBounds"]);
            let mut array = null_mut();
            let refused = hipMallocArray(&mut array, std::ptr::null(), 1, 1, 0);
            assert_eq!(refused, hipError_t::hipErrorNotSupported);
            ok(hipEventDestroy(event));
            ok(hipStreamDestroy(s));
            ok(hipFree(y.cast()));
        }
        assert_eq!(door().leaked(), [""; 0]);
    });
}

/// As ROCm: who asks about an event asks the stream that it was recorded on.
#[test]
fn events_are_asked_about_while_their_stream_is_there_and_captures_nothing() {
    passes("events_are_asked_about_while_their_stream_is_there_and_captures_nothing", &[], || {
        let s = stream();
        let (mut event, mut graph) = (null_mut(), null_mut());
        // SAFETY: handles live, or are refused.
        unsafe {
            ok(hipEventCreate(&mut event));
            assert_eq!(hipEventQuery(event), hipError_t::hipSuccess, "recorded nowhere");
            for ask in [hipEventQuery, hipEventSynchronize] {
                ok(hipEventRecord(event, s));
                ok(hipStreamSynchronize(s));
                ok(hipStreamBeginCapture(s, hipStreamCaptureMode::hipStreamCaptureModeRelaxed));
                assert_eq!(ask(event), hipError_t::hipErrorCapturedEvent);
                let ended = hipStreamEndCapture(s, &mut graph);
                assert_eq!(ended, hipError_t::hipErrorStreamCaptureInvalidated);
                ok(ask(event));
            }
            ok(hipStreamDestroy(s));
            assert_eq!(door().kinds(), [""; 0]);
            assert_ne!(hipEventQuery(event), hipError_t::hipSuccess);
            assert_ne!(hipStreamWaitEvent(stream(), event, 0), hipError_t::hipSuccess);
            assert_eq!(door().kinds(), ["Error", "Error"]);
        }
    });
}

/// As ROCm: an image is read as long as the module is there.
#[test]
fn images_stay_as_long_as_their_modules() {
    passes("images_stay_as_long_as_their_modules", &[], || {
        let Some(mut image) = code_object() else { return };
        for found in [&[""; 0][..], &["Error"]] {
            let mut module = null_mut();
            // SAFETY: a whole image, and a handle of a module.
            unsafe {
                ok(hipModuleLoadData(&mut module, image.as_ptr().cast()));
                if !found.is_empty() {
                    image[100] ^= 1;
                }
                ok(hipModuleUnload(module));
            }
            assert_eq!(door().kinds(), found);
        }
    });
}
