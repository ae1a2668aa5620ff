//! Streams, and the memory that they use, where threads, a framework, captures or failing calls meet.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::devices;
use common::vgpu::Door;
use halfstep::{Device, DeviceKind};

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
