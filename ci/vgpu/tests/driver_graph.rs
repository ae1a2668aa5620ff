//! Captures and graphs of the virtual libcuda.

mod driver;

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;
use driver::{Door, PTX, passes};
use sys::CUresult::*;
use sys::CUstreamCaptureMode::*;

const N: u32 = 64;
const NOW: sys::CUgraphInstantiate_flags =
    sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;

struct Setup {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    add: CudaFunction,
    scale: CudaFunction,
    door: Door,
}

fn setup() -> Setup {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: what follows orders its work itself.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let module = context.load_module(Ptx::from_src(PTX)).unwrap();
    let (add, scale) =
        (module.load_function("add").unwrap(), module.load_function("scale").unwrap());
    Setup { context, stream, add, scale, door: Door::cuda() }
}

fn run(f: &CudaFunction, s: &Arc<CudaStream>, y: &mut CudaSlice<f32>, x: &CudaSlice<f32>) {
    let mut launch = s.launch_builder(f);
    launch.arg(y).arg(x).arg(&N);
    // SAFETY: the kernels take these parameters and stay inside N elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(N)) }.unwrap();
}

#[test]
fn a_graph_is_done_again_and_again() {
    passes("a_graph_is_done_again_and_again", &[], || {
        let Setup { stream, add, door, .. } = setup();
        let x = stream.clone_htod(&[1.0_f32; N as usize]).unwrap();
        let mut y = stream.alloc_zeros::<f32>(N as usize).unwrap();
        stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        run(&add, &stream, &mut y, &x);
        run(&add, &stream, &mut y, &x);
        let graph = stream.end_capture(NOW).unwrap().unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [0.0; 64]);
        for _ in 0..5 {
            graph.launch().unwrap();
        }
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [10.0; 64]);
        assert_eq!(door.launches().len(), 10);
        let mut nodes = 0;
        // SAFETY: the graph lives; only the count is asked for.
        let code =
            unsafe { sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut nodes) };
        assert_eq!((code, nodes), (CUDA_SUCCESS, 2));
        drop((graph, x, y, add, stream));
        assert!(!door.leaked().iter().any(|kind| kind.contains("graph") || kind == "allocation"));
    });
}

/// x → (y = 2x on another stream, z = 2x here) → y += z; joined or not, and ordered or not.
fn forked(s: &Setup, other: &Arc<CudaStream>, ordered: bool) -> Vec<f32> {
    let x = s.stream.clone_htod(&[1.0_f32; N as usize]).unwrap();
    let mut y = s.stream.alloc_zeros::<f32>(N as usize).unwrap();
    let mut z = s.stream.alloc_zeros::<f32>(N as usize).unwrap();
    s.context.synchronize().unwrap();
    s.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    other.wait(&s.stream.record_event(None).unwrap()).unwrap();
    run(&s.scale, other, &mut y, &x);
    run(&s.scale, &s.stream, &mut z, &x);
    if !ordered {
        run(&s.add, &s.stream, &mut y, &z);
    }
    s.stream.wait(&other.record_event(None).unwrap()).unwrap();
    if ordered {
        run(&s.add, &s.stream, &mut y, &z);
    }
    let graph = s.stream.end_capture(NOW).unwrap().unwrap();
    graph.launch().unwrap();
    let y = s.stream.clone_dtoh(&y);
    y.unwrap_or_default()
}

#[test]
fn branches_of_a_graph_run_in_any_order_that_its_edges_allow() {
    let test = "branches_of_a_graph_run_in_any_order_that_its_edges_allow";
    passes(test, &[("VGPU_FINDINGS", "report")], || {
        let s = setup();
        let other = s.context.new_stream().unwrap();
        let mut wrong = 0;
        for seed in 0..32 {
            s.door.seed(seed);
            assert_eq!(forked(&s, &other, true), [4.0; 64], "seed {seed}");
            s.context.synchronize().unwrap();
            assert_eq!(s.door.kinds(), [""; 0]);
            wrong += u32::from(forked(&s, &other, false) != [4.0; 64]);
            s.context.synchronize().unwrap();
            assert_eq!(s.door.kinds(), ["StreamRace"]);
        }
        assert!(wrong >= 4, "{wrong}");
    });
}

#[test]
fn what_may_not_be_done_while_capturing_is_refused() {
    passes("what_may_not_be_done_while_capturing_is_refused", &[], || {
        let Setup { context, stream, add, .. } = setup();
        let x = stream.clone_htod(&[1.0_f32; N as usize]).unwrap();
        let mut y = stream.alloc_zeros::<f32>(N as usize).unwrap();
        let outside = stream.record_event(None).unwrap();
        let other = context.new_stream().unwrap();
        let code = |result: Result<(), cudarc::driver::DriverError>| result.unwrap_err().0;
        let end = |stream: &Arc<CudaStream>| stream.end_capture(NOW).map(|_| ());

        // To wait for a stream that captures spoils the capture.
        stream.begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        assert_eq!(code(stream.synchronize()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(code(end(&stream)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        // So does an event of work that is not captured.
        stream.begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        assert_eq!(code(stream.wait(&outside)), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        assert_eq!(code(end(&stream)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        // A branch must come back.
        stream.begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        run(&add, &stream, &mut y, &x);
        other.wait(&stream.record_event(None).unwrap()).unwrap();
        run(&add, &other, &mut y, &x);
        assert_eq!(code(end(&stream)), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        // Another thread may allocate while a thread captures for itself, and not while it does so
        // for all.
        for (mode, allowed) in [
            (CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, true),
            (CU_STREAM_CAPTURE_MODE_GLOBAL, false),
            (CU_STREAM_CAPTURE_MODE_RELAXED, true),
        ] {
            stream.begin_capture(mode).unwrap();
            let their = context.clone();
            let result = std::thread::spawn(move || {
                their.bind_to_thread().unwrap();
                // SAFETY: it stays until the process ends.
                unsafe { cudarc::driver::result::malloc_sync(64) }.map(|_| ())
            });
            let result = result.join().unwrap();
            assert_eq!(result.is_ok(), allowed, "{mode:?} {result:?}");
            assert_eq!(end(&stream).is_ok(), allowed, "{mode:?}");
        }
        // Captured work is none: nothing was added.
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [0.0; 64]);
    });
}
