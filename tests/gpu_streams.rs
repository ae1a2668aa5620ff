//! Streams, and the memory that they use, where threads, a framework, captures or failing calls meet.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::vgpu::Door;
use common::{devices, opened_again};
use halfstep::{Buffer, Device, DeviceKind, Error, Stream};

fn gpus() -> Vec<(Device, Door)> {
    let gpus = devices().into_iter().filter(|device| device.info().kind != DeviceKind::Cpu);
    gpus.filter_map(|device| Door::of(&device).map(|door| (device, door))).collect()
}

/// Uploads go through one ring of pinned memory: what one thread has put there stays until the device has read it.
#[test]
fn uploads_of_several_threads_do_not_meet() {
    const LEN: usize = 4 << 20; // all of the ring, in two pieces
    for (device, door) in gpus() {
        std::thread::scope(|scope| {
            for thread in 1..=6u8 {
                let device = &device;
                scope.spawn(move || {
                    let stream = device.stream().unwrap();
                    let mut values = device.zeros::<u8>(LEN).unwrap();
                    let source = vec![thread; LEN];
                    for _ in 0..60 {
                        for _ in 0..4 {
                            values.write(&stream, 0, &source).unwrap();
                        }
                        assert!(values.to_vec(&stream).unwrap() == source, "thread {thread}");
                    }
                });
            }
        });
        assert_eq!(door.findings(), [""; 0]);
    }
}

/// A stream that is not ours: how it is made, filled by somebody else, and ended.
struct Foreign {
    handle: *mut c_void,
    fill: unsafe extern "C" fn(u64, u8, usize, *mut c_void) -> u32,
    destroy: unsafe extern "C" fn(*mut c_void) -> u32,
}

impl Foreign {
    /// The device has been used by this thread: it is current.
    fn new(door: &Door) -> Self {
        let names = match door.vendor {
            "cuda" => ["cuStreamCreate", "cuMemsetD8Async", "cuStreamDestroy_v2"],
            _ => ["hipStreamCreateWithFlags", "hipMemsetD8Async", "hipStreamDestroy"],
        };
        let create: unsafe extern "C" fn(*mut *mut c_void, u32) -> u32 = door.function(names[0]);
        let mut handle = std::ptr::null_mut();
        // SAFETY: one handle is written.
        assert_eq!(unsafe { create(&mut handle, 1) }, 0);
        Self { handle, fill: door.function(names[1]), destroy: door.function(names[2]) }
    }
}

/// The points of a framework's stream are behind what the framework has enqueued there, of which nobody tells us.
#[test]
fn work_of_a_framework_comes_before_the_points_of_its_stream() {
    for (device, door) in gpus() {
        for seed in 0..8 {
            door.seed(seed);
            let ours = device.stream().unwrap();
            let (values, mut copy) =
                (device.zeros::<u8>(5000).unwrap(), device.zeros::<u8>(5000).unwrap());
            let foreign = Foreign::new(&door);
            // SAFETY: it is destroyed below, later.
            let theirs = unsafe { Stream::from_raw(&device, foreign.handle as u64) }.unwrap();
            let fill = |value| {
                let to = values.address();
                // SAFETY: the buffer's memory, used by nobody else until the stream is waited for.
                assert_eq!(unsafe { (foreign.fill)(to, value, 5000, foreign.handle) }, 0);
            };
            for value in [10, 20, 30] {
                fill(value);
                ours.wait(&theirs.record().unwrap()).unwrap();
                let all = values.view(0..5000).unwrap();
                copy.view_mut(0..5000).unwrap().copy_from_view(&ours, &all).unwrap();
                assert!(copy.to_vec(&ours).unwrap() == [value; 5000], "an event, seed {seed}");
                fill(value + 1);
                theirs.sync().unwrap();
                assert!(
                    values.to_vec(&ours).unwrap() == [value + 1; 5000],
                    "the stream, seed {seed}"
                );
                fill(value + 2);
                device.sync().unwrap();
                assert!(
                    values.to_vec(&ours).unwrap() == [value + 2; 5000],
                    "the device, seed {seed}"
                );
            }
            drop((theirs, values));
            // SAFETY: created above, used by nobody any more.
            assert_eq!(unsafe { (foreign.destroy)(foreign.handle) }, 0);
            assert_eq!(door.findings(), [""; 0], "seed {seed}");
        }
    }
}

/// A stream whose end could not be marked when it was dropped is waited for: what its work touches is not given out
/// before.
#[test]
fn memory_of_a_stream_that_could_not_be_closed_is_not_used_again() {
    for (device, door) in gpus() {
        let call = if door.vendor == "cuda" { "cuEventRecord" } else { "hipEventRecord" };
        for seed in 0..8 {
            door.seed(seed);
            let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
            let mut values = device.zeros::<u8>(12_345).unwrap();
            values.clear(&stream).unwrap();
            door.fail(call, 1, 2);
            drop(stream);
            assert_eq!(door.fail_end(), 0);
            drop(values);
            let again = device.upload(&[7u8; 12_345]).unwrap();
            assert!(again.to_vec(&other).unwrap() == [7; 12_345], "seed {seed}");
            assert_eq!(door.findings(), [""; 0], "seed {seed}");
        }
    }
}

/// A call that fails while freed memory is looked through loses none of it.
#[test]
fn freed_memory_outlives_a_call_that_fails() {
    for (device, door) in gpus() {
        let call = if door.vendor == "cuda" { "cuEventQuery" } else { "hipEventQuery" };
        let device = opened_again(&device).unwrap();
        let stream = device.stream().unwrap();
        let buffers = || [1111, 2222, 3333].map(|len| device.zeros::<u8>(len).unwrap());
        let mut first = buffers();
        first.iter_mut().for_each(|values| values.clear(&stream).unwrap());
        let addresses = first.each_ref().map(Buffer::address);
        drop(first);
        door.fail(call, 1, 1);
        device.zeros::<u8>(4444).unwrap_err();
        assert_eq!(door.fail_end(), 0);
        stream.sync().unwrap();
        assert_eq!(buffers().each_ref().map(Buffer::address), addresses);
    }
}

/// What is kept goes back to the driver when that is asked for, once nothing touches it.
#[test]
fn memory_that_is_kept_is_given_back() {
    for (device, door) in gpus() {
        let call = if door.vendor == "cuda" { "cuMemFree_v2" } else { "hipFree" };
        let device = opened_again(&device).unwrap();
        let stream = device.stream().unwrap();
        let mut held = device.upload(&[1u8, 2, 3]).unwrap();
        let before = door.calls(call);
        for _ in 0..3 {
            let mut pair = [11_111, 22_222].map(|len| device.zeros::<u8>(len).unwrap());
            pair.iter_mut().for_each(|values| values.clear(&stream).unwrap());
        }
        assert_eq!(door.calls(call), before, "kept for the next of the same size");
        let inside = stream.capture(|| device.trim());
        assert!(matches!(inside, Err(Error::State { op: "trim", .. })), "{inside:?}");
        device.trim().unwrap();
        assert!(door.calls(call) >= before + 2);
        let after = door.calls(call);
        device.trim().unwrap();
        assert_eq!(door.calls(call), after, "nothing is left");
        held.clear(&stream).unwrap();
        assert_eq!(held.to_vec(&stream).unwrap(), [0; 3]);
        assert_eq!(door.findings(), [""; 0]);
    }
}

/// ROCm looks at the stream that an event was recorded on: of one that has been destroyed, at memory of others.
#[test]
fn streams_outlive_questions_about_their_events() {
    for (device, door) in gpus() {
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let mut values = device.zeros::<u8>(50_000).unwrap();
        values.clear(&stream).unwrap();
        let event = stream.record().unwrap();
        drop(stream);
        other.wait(&event).unwrap();
        drop(values);
        device.upload(&[7u8; 12_345]).unwrap();
        device.sync().unwrap();
        assert_eq!(door.findings(), [""; 0]);
    }
}

/// Nor is it asked while a graph is made of that stream: there, it spoils the graph.
#[test]
fn nothing_is_asked_about_events_of_a_stream_that_is_captured() {
    for (device, door) in gpus() {
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let mut values = device.zeros::<u8>(50_000).unwrap();
        values.clear(&stream).unwrap();
        let before = stream.record().unwrap();
        let graph = stream.capture(|| {
            values.clear(&stream)?;
            other.wait(&before)?;
            device.sync()?;
            device.upload(&[1u8; 77]).map(drop)
        });
        graph.unwrap();
        assert_eq!(door.findings(), [""; 0]);
    }
}

/// What is recorded ends with the closure, also with its panic.
#[test]
fn a_stream_is_whole_after_a_panic_while_a_graph_is_made() {
    for (device, _) in gpus() {
        let stream = device.stream().unwrap();
        let mut buffer = device.upload(&[1.0f32, 2.0]).unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            stream.capture(|| {
                buffer.clear(&stream)?;
                panic!("in the closure")
            })
        }));
        let message = caught.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!(*message, "in the closure");
        assert_eq!(buffer.to_vec(&stream).unwrap(), [1.0, 2.0], "nothing of it has run");
    }
}

/// While one stream is recorded, the host waits for what runs, before it on this stream as well, and both go on.
#[test]
fn a_device_is_waited_for_while_a_graph_is_made() {
    for (device, door) in gpus() {
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let mut buffers = [(); 2].map(|()| device.upload(&[1.0f32; 900]).unwrap());
        let [first, second] = &mut buffers;
        first.write(&stream, 0, &[2.0; 900]).unwrap();
        let graph = stream.capture(|| {
            first.clear(&stream)?;
            second.write(&other, 0, &[3.0; 900])?;
            device.sync()?;
            assert!(first.to_vec(&other)? == [2.0; 900]);
            second.clear(&stream)
        });
        // SAFETY: the buffers are alive, and used by nobody else.
        unsafe { graph.unwrap().run(&stream) }.unwrap();
        device.sync().unwrap();
        for buffer in &buffers {
            assert!(buffer.to_vec(&stream).unwrap() == [0.0; 900]);
        }
        assert_eq!(door.findings(), [""; 0]);
    }
}

/// A thread's own default stream: the handle that `CUstream` and `hipStream_t` have for it.
const PER_THREAD: u64 = 2;

/// Memory that work of a thread's own default stream touches is not given out before that has run, also not to another
/// thread, on which the handle means another stream.
#[test]
fn memory_of_a_threads_own_stream_is_not_used_again_before_its_work_has_run() {
    for (device, door) in gpus() {
        for seed in 0..8 {
            door.seed(seed);
            // SAFETY: every thread has it for as long as it lives.
            let theirs = unsafe { Stream::from_raw(&device, PER_THREAD) }.unwrap();
            let mut values = device.zeros::<u8>(54_321).unwrap();
            let other = device.upload(&[5u8; 54_321]).unwrap();
            let graph = theirs.capture(|| values.clear(&theirs)).unwrap();
            let all = other.view(0..54_321).unwrap();
            values.view_mut(0..54_321).unwrap().copy_from_view(&theirs, &all).unwrap();
            // SAFETY: the buffer is alive, and given out again after the work only: that is what is tested.
            unsafe { graph.run(&theirs) }.unwrap();
            drop(values);
            let again = std::thread::scope(|scope| {
                let upload = || device.upload(&[7u8; 54_321]).unwrap();
                scope.spawn(upload).join().unwrap()
            });
            theirs.sync().unwrap();
            assert!(again.to_vec(&device.stream().unwrap()).unwrap() == [7; 54_321], "seed {seed}");
            assert_eq!(door.findings(), [""; 0], "seed {seed}");
        }
    }
}

/// On another thread it would be another stream: nothing is given to that one in its place.
#[test]
fn a_threads_own_stream_is_refused_on_another() {
    for (device, door) in gpus() {
        // SAFETY: every thread has it for as long as it lives.
        let theirs = unsafe { Stream::from_raw(&device, PER_THREAD) }.unwrap();
        let mut values = device.upload(&[1.0f32; 9]).unwrap();
        let event = device.stream().unwrap().record().unwrap();
        std::thread::scope(|scope| {
            let work = || {
                for refused in [
                    values.clear(&theirs),
                    values.write(&theirs, 0, &[2.0]),
                    values.to_vec(&theirs).map(drop),
                    theirs.wait(&event),
                    theirs.record().map(drop),
                    theirs.sync(),
                    theirs.time(|| Ok(())).map(drop),
                    theirs.capture(|| Ok(())).map(drop),
                ] {
                    assert!(matches!(refused, Err(Error::State { .. })), "{refused:?}");
                }
            };
            scope.spawn(work).join().unwrap();
        });
        assert_eq!(values.to_vec(&theirs).unwrap(), [1.0; 9]);
        std::thread::scope(|scope| scope.spawn(|| drop(theirs)).join()).unwrap();
        assert_eq!(door.findings(), [""; 0]);
    }
}

/// A stream that is dropped leaves nothing behind, however many come after it.
#[test]
fn streams_that_come_and_go_leave_no_events() {
    for (device, door) in gpus() {
        let device = opened_again(&device).unwrap();
        let call = if door.vendor == "cuda" { "cuEventCreate" } else { "hipEventCreateWithFlags" };
        let mut values: Vec<_> = (0..101).map(|_| device.zeros::<u8>(1000).unwrap()).collect();
        let round = |values: &mut Buffer<u8>| {
            let stream = device.stream().unwrap();
            values.clear(&stream).unwrap();
        };
        let (first, others) = values.split_first_mut().unwrap();
        round(first);
        let before = door.calls(call);
        others.iter_mut().for_each(round);
        let made = door.calls(call) - before;
        println!("{}: {made} events for 100 streams", device.info());
        assert!(made < 50, "{made}");
    }
}
