//! Unmodified cudarc on the virtual driver: from the first call to a kernel's result, in 32 orders
//! of execution, and with a dependency left out.

mod driver;

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;
use driver::{Door, PTX, passes};

const N: u32 = 1000;

struct Kernels {
    scale: CudaFunction,
    add: CudaFunction,
}

fn kernels(context: &Arc<CudaContext>) -> Kernels {
    let module = context.load_module(Ptx::from_src(PTX)).expect("a module");
    let get = |name| module.load_function(name).expect("a kernel");
    Kernels { scale: get("scale"), add: get("add") }
}

/// y = 2·x + x, with the two halves of the work on two streams.
fn three_times(k: &Kernels, s0: &Arc<CudaStream>, s1: &Arc<CudaStream>) -> Vec<f32> {
    let x: Vec<f32> = (0..N).map(|i| i as f32).collect();
    let x = s0.clone_htod(&x).expect("x");
    let mut y = s1.alloc_zeros::<f32>(N as usize).expect("y");
    let config = LaunchConfig::for_num_elems(N);
    let mut launch = s0.launch_builder(&k.scale);
    launch.arg(&mut y).arg(&x).arg(&N);
    // SAFETY: the kernel takes these parameters and stays inside N elements.
    unsafe { launch.launch(config) }.expect("scale");
    let mut launch = s1.launch_builder(&k.add);
    launch.arg(&mut y).arg(&x).arg(&N);
    // SAFETY: as above.
    unsafe { launch.launch(config) }.expect("add");
    s1.clone_dtoh(&y).expect("the result")
}

fn right() -> Vec<f32> {
    (0..N).map(|i| 3.0 * i as f32).collect()
}

#[test]
fn from_the_first_call_to_a_kernels_result_in_32_orders() {
    passes(
        "from_the_first_call_to_a_kernels_result_in_32_orders",
        &[("VGPU_DEVICES", "2")],
        || {
            // SAFETY: nothing of the library is in use.
            assert!(unsafe { sys::is_culib_present() });
            assert_eq!(CudaContext::device_count().unwrap(), 2);
            let context = CudaContext::new(1).unwrap();
            assert_eq!(context.ordinal(), 1);
            assert!(context.name().unwrap().contains("A100"));
            assert_eq!(context.compute_capability().unwrap(), (8, 0));
            let units = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
            assert_eq!(context.attribute(units).unwrap(), 108);
            assert_eq!(context.total_mem().unwrap() >> 30, 39);
            let (s0, s1) = (context.new_stream().unwrap(), context.new_stream().unwrap());
            let k = kernels(&context);
            let door = Door::cuda();
            for seed in 0..32 {
                door.seed(seed);
                assert!(three_times(&k, &s0, &s1) == right(), "seed {seed}");
            }
            context.synchronize().unwrap();
            let launches = door.launches();
            assert_eq!(launches.len(), 64);
            assert_eq!(
                (&launches[0]["kernel"], &launches[0]["device"]),
                (&"scale".into(), &1.into())
            );
            assert_eq!(
                (&launches[1]["bytes_read"], &launches[1]["bytes_written"]),
                (&8000.into(), &4000.into())
            );
            assert_eq!(door.kinds(), [""; 0]);
            drop((k, s0, s1, context));
            assert_eq!(door.leaked(), [""; 0]);
        },
    );
}

/// The same without cudarc's own order: the caller orders the two launches, or forgets it.
fn by_hand(k: &Kernels, s0: &Arc<CudaStream>, s1: &Arc<CudaStream>, ordered: bool) -> Vec<f32> {
    let x: Vec<f32> = (0..N).map(|i| i as f32).collect();
    let x = s0.clone_htod(&x).expect("x");
    let mut y = s0.alloc_zeros::<f32>(N as usize).expect("y");
    s0.context().synchronize().expect("all is there");
    let config = LaunchConfig::for_num_elems(N);
    let mut launch = s0.launch_builder(&k.scale);
    launch.arg(&mut y).arg(&x).arg(&N);
    // SAFETY: the kernel takes these parameters and stays inside N elements.
    unsafe { launch.launch(config) }.expect("scale");
    if ordered {
        s1.wait(&s0.record_event(None).expect("an event")).expect("a wait");
    }
    let mut launch = s1.launch_builder(&k.add);
    launch.arg(&mut y).arg(&x).arg(&N);
    // SAFETY: as above.
    unsafe { launch.launch(config) }.expect("add");
    s0.context().synchronize().expect("all is done");
    s0.clone_dtoh(&y).expect("the result")
}

#[test]
fn a_dependency_left_out_gives_wrong_answers_and_findings() {
    let test = "a_dependency_left_out_gives_wrong_answers_and_findings";
    passes(test, &[("VGPU_FINDINGS", "report")], || {
        let context = CudaContext::new(0).unwrap();
        let (s0, s1) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let k = kernels(&context);
        let door = Door::cuda();
        // SAFETY: what follows orders its work itself, or is the fault that is planted.
        unsafe { context.disable_event_tracking() };
        let (mut wrong, mut found) = (0, 0);
        for seed in 0..32 {
            door.seed(seed);
            assert!(by_hand(&k, &s0, &s1, true) == right(), "seed {seed}");
            context.synchronize().unwrap();
            assert_eq!(door.kinds(), [""; 0]);
            door.seed(seed);
            wrong += u32::from(by_hand(&k, &s0, &s1, false) != right());
            context.synchronize().unwrap();
            found += u32::from(door.kinds() == ["StreamRace"]);
        }
        println!("32 orders: {wrong} wrong answers, {found} with the finding");
        assert!((8..=24).contains(&wrong), "{wrong}");
        assert_eq!(found, 32);
    });
}
