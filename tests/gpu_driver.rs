//! What the GPU backends ask of a driver, and what they make of its answers: nothing in a step waits,
//! steps replay from graphs, order is by streams and events alone, and every call may fail.
//!
//! Rows D-01 … D-20. Not shown here, with the reason:
//!
//! | id | reason |
//! |---|---|
//! | D-02 | in src/backend/gpu/tests.rs |
//! | D-06, D-17 | in tests/device.rs |
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::optim::*;
use common::policy;
use common::training::Training;
use common::vgpu::Door;
use common::{devices, opened_again};
use halfstep::gemm::{Activation, Stats, WeightGrad, WeightGradOperands};
use halfstep::optim::*;
use halfstep::{Buffer, Device, DeviceKind, Error, GradStats, bf16};

fn gpus() -> Vec<(Device, Door)> {
    let gpus = devices().into_iter().filter(|device| device.info().kind != DeviceKind::Cpu);
    gpus.filter_map(|device| Door::of(&device).map(|door| (device, door))).collect()
}

#[test]
fn steps_replay_from_a_graph() {
    for (device, _) in gpus() {
        for rule in [AdamW::default().into(), Lamb::default().into()] {
            let mut eager = Training::new(&device, rule);
            let mut replayed = Training::new(&device, rule);
            for _ in 0..4 {
                eager.step().unwrap();
            }
            replayed.step().unwrap(); // uploads the tables of addresses
            let stream = device.stream().unwrap();
            stream.wait(&replayed.stream.record().unwrap()).unwrap();
            let Training { optimizer, params, grads, .. } = &mut replayed;
            let graph = stream
                .capture(|| optimizer.run(&stream, &mut writes(params), &reads(grads)))
                .unwrap();
            for _ in 0..3 {
                // SAFETY: optimizer, parameters and gradients are alive, and used by nobody else.
                unsafe { graph.run(&stream) }.unwrap();
            }
            stream.sync().unwrap();
            let bits = |training: &mut Training| {
                let Training { stream, optimizer, params, .. } = training;
                state(optimizer, stream, params)
            };
            assert!(bits(&mut eager) == bits(&mut replayed), "{rule:?}");
            assert_eq!(replayed.optimizer.report(&replayed.stream).unwrap().attempts, 4);
        }
    }
}

/// An event names a stream of its device by a number, as a graph does: another device does not look it up.
#[test]
fn events_and_graphs_of_another_device_are_refused() {
    for (device, _) in gpus() {
        let (gpu, cpu) = (device.stream().unwrap(), common::cpu(1).stream().unwrap());
        for (here, there) in [(&gpu, &cpu), (&cpu, &gpu)] {
            let error = here.wait(&there.record().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Device { op: "Stream::wait", .. }), "{error}");
        }
        let mut buffer = device.zeros::<u32>(1).unwrap();
        let graph = gpu.capture(|| buffer.clear(&gpu)).unwrap();
        // SAFETY: it is refused; else the buffer is alive, and used by nobody else.
        let error = unsafe { graph.run(&cpu) }.unwrap_err();
        assert!(matches!(error, Error::Device { op: "Graph::run", .. }), "{error}");
        // SAFETY: as above.
        unsafe { graph.run(&gpu) }.unwrap();
        gpu.sync().unwrap();
    }
}

/// D-15: what cannot be part of a graph says so, and the stream goes on.
#[test]
fn d15_reading_while_a_graph_is_made_is_refused() {
    for (device, _) in gpus() {
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let mut buffer = device.upload(&[1.0f32, 2.0]).unwrap();
        let mut elsewhere = device.zeros::<u8>(100).unwrap();
        elsewhere.clear(&other).unwrap();
        let pending = other.record().unwrap();
        for refused in [
            stream.capture(|| stream.wait(&pending)).map(drop),
            stream.capture(|| stream.capture(|| Ok(())).map(drop)).map(drop),
            stream.capture(|| buffer.to_vec(&stream).map(drop)).map(drop),
            stream.capture(|| buffer.write(&stream, 0, &[5.0])).map(drop),
            stream.capture(|| stream.sync()).map(drop),
            stream.capture(|| stream.time(|| Ok(())).map(drop)).map(drop),
        ] {
            assert!(matches!(refused, Err(Error::State { .. })), "{refused:?}");
        }
        let zeroed = stream.capture(|| {
            let memory = device.zeros::<f32>(4)?; // elsewhere: not part of the graph
            buffer.clear(&stream)?;
            drop(memory);
            Ok(())
        });
        assert_eq!(buffer.to_vec(&stream).unwrap(), [1.0, 2.0]);
        // SAFETY: the buffer is alive.
        unsafe { zeroed.unwrap().run(&stream) }.unwrap();
        assert_eq!(buffer.to_vec(&stream).unwrap(), [0.0, 0.0]);
    }
}

/// D-10, D-11, D-12: two streams that only events order, and streams and buffers dropped with work
/// pending, under 32 orders of execution.
#[test]
fn d12_events_order_streams_and_nothing_else_has_to() {
    for (device, door) in gpus() {
        for seed in 0..32 {
            door.seed(seed);
            let producer = device.stream().unwrap();
            let consumer = device.stream().unwrap();
            let rule = Sgd { lr: 1.0, ..Sgd::default() };
            let mut optimizer =
                Optimizer::<f32, f32>::new(&device, &[group(rule, &[3000])], Config::default())
                    .unwrap();
            let mut w: Buffer<f32> = device.zeros(3000).unwrap();
            let mut grad: Buffer<f32> = device.zeros(3000).unwrap();
            for step in 1..4 {
                grad.write(&producer, 0, &vec![step as f32; 3000]).unwrap();
                consumer.wait(&producer.record().unwrap()).unwrap();
                optimizer.run(&consumer, &mut [&mut w], &[Some(&grad)]).unwrap();
                // The next gradient comes after this step has read the last.
                producer.wait(&consumer.record().unwrap()).unwrap();
                // Memory given back while work is pending is not given out again before it has run.
                let scratch: Buffer<f32> = device.upload(&[7.0; 3000]).unwrap();
                let third = device.stream().unwrap();
                third.wait(&consumer.record().unwrap()).unwrap();
                drop((scratch, third));
            }
            drop((producer, grad));
            assert_eq!(w.to_vec(&consumer).unwrap(), vec![-6.0; 3000], "seed {seed}");
            assert_eq!(door.findings(), [""; 0], "seed {seed}");
        }
    }
}

/// D-01, D-04, D-19: devices that are not there are errors that say what there is.
#[test]
fn d01_devices_that_are_not_there_are_named() {
    #[cfg(feature = "cuda")]
    let cuda = Device::cuda(1000);
    #[cfg(not(feature = "cuda"))]
    let cuda: halfstep::Result<Device> =
        Err(Error::NoDevice { backend: "cuda", index: 1000, reason: "no".into() });
    let error = cuda.unwrap_err();
    assert!(matches!(&error, Error::NoDevice { index: 1000, .. }), "{error}");
    assert!(error.to_string().starts_with("cuda device 1000: "), "{error}");
}

/// D-13, D-18: what the host had while it made a call is its own again afterwards, whatever the device has done of
/// it; and what is forgotten is lost, not freed under anybody's feet.
#[test]
fn d18_a_source_may_go_before_its_copy_has_come() {
    for (device, door) in gpus() {
        for seed in 0..8 {
            door.seed(seed);
            let stream = device.stream().unwrap();
            let mut values: Buffer<f32> = device.zeros(100_000).unwrap();
            let mut source = vec![3.0f32; 100_000];
            values.write(&stream, 0, &source).unwrap();
            source.fill(5.0);
            drop(source);
            let forgotten = device.stream().unwrap();
            forgotten.wait(&stream.record().unwrap()).unwrap();
            std::mem::forget(device.upload(&[7.0f32; 3000]).unwrap());
            std::mem::forget(forgotten);
            assert_eq!(values.to_vec(&stream).unwrap(), vec![3.0; 100_000], "seed {seed}");
            assert_eq!(door.findings(), [""; 0], "seed {seed}");
        }
    }
}

/// D-08, D-09, D-20: after an error that the device cannot recover from (a launch that failed, a context that
/// another library has reset, a contained error), every call gives it again, and it names what was launched before, not the call
/// that met it.
#[test]
fn d08_a_lost_device_gives_the_same_error_to_everyone() {
    for ((of, door), code) in gpus().iter().flat_map(|gpu| [719, 709, 226].map(|code| (gpu, code)))
    {
        if code == 226 && door.vendor == "hip" {
            continue; // which has no such code
        }
        let device = opened_again(of).unwrap();
        let stream = device.stream().unwrap();
        let (mut w, g) =
            (device.upload(&[1.0f32; 4]).unwrap(), device.upload(&[1.0f32; 4]).unwrap());
        let mut optimizer =
            Optimizer::<f32, f32>::new(&device, &[group(Sgd::default(), &[4])], Config::default())
                .unwrap();
        optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
        let call = if door.vendor == "cuda" { "cuEventSynchronize" } else { "hipEventSynchronize" };
        door.fail(call, 1, code);
        let first = stream.sync().unwrap_err();
        door.fail_end();
        let Error::Driver { deferred: true, recent, .. } = &first else { panic!("{first}") };
        assert_eq!(recent.last(), Some(&"hs_optim_step_sgd"));
        assert_eq!(device.stream().unwrap_err(), first);
        assert_eq!(device.zeros::<f32>(1).unwrap_err(), first);
        assert_eq!(w.to_vec(&stream).unwrap_err(), first);
        drop((w, g, optimizer, stream, device)); // no panic, no loop
    }
}

/// G-25: whichever launch of a gradient fails, the next run finds no count of what has been stored: statistics are those
/// of a run in which nothing failed.
#[test]
fn g25_statistics_after_a_failed_launch_are_of_the_next_run() {
    for (device, door) in gpus() {
        let call = if door.vendor == "cuda" { "cuLaunchKernel" } else { "hipModuleLaunchKernel" };
        let stream = device.stream().unwrap();
        // 19,008 elements, more than a chunk; of dz, of the parts of k, and of their sum: three launches.
        let (rows, input, output) = (64, 72, 264);
        let plan = WeightGrad::new(rows, input, output)
            .activation(Activation::GeluTanh)
            .subnormals(policy(&device))
            .split(2)
            .plan::<bf16, f32>(&device)
            .unwrap();
        let values = |len: usize| {
            let values: Vec<bf16> =
                (0..len).map(|i| bf16::from_f32((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
            device.upload(&values).unwrap()
        };
        let (dy, z, x) = (values(rows * output), values(rows * output), values(rows * input));
        let mut dz = device.zeros::<bf16>(rows * output).unwrap();
        let mut dw = device.zeros::<f32>(output * input).unwrap();
        let mut db = device.zeros::<f32>(output).unwrap();
        let lengths = [output * input, output];
        let mut run = |stats: &mut GradStats| {
            let operands = WeightGradOperands {
                z: Some(&z),
                d_preactivation: Some(&mut dz),
                db: Some(&mut db),
                stats: Some(Stats { stats, weight: 0, bias: Some(1) }),
                ..WeightGradOperands::new(&dy, &x, &mut dw)
            };
            plan.run(&stream, operands)
        };
        let mut undisturbed = GradStats::new(&device, &lengths).unwrap();
        run(&mut undisturbed).unwrap();
        let expected = undisturbed.read(&stream).unwrap();
        assert!(expected.sum_squares > 0.0);
        for launch in 1..=3 {
            let mut stats = GradStats::new(&device, &lengths).unwrap();
            door.fail(call, launch, 2);
            let error = run(&mut stats).unwrap_err();
            assert!(matches!(error, Error::OutOfMemory { .. } | Error::Driver { .. }), "{error}");
            run(&mut stats).unwrap();
            assert_eq!(stats.read(&stream).unwrap(), expected, "launch {launch} failed");
        }
    }
}
