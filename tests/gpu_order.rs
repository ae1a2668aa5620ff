//! A missing event is noticed by the virtual GPU, or the suites that pass there would prove nothing
//! about order. A program of its own: the device is lost to it.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::devices;
use common::optim::*;
use common::vgpu::Door;
use halfstep::Buffer;
use halfstep::optim::*;

/// `d12_events_order_streams_and_nothing_else_has_to` of `gpu_driver.rs` without its first event.
#[test]
fn a_missing_event_is_noticed() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        let (producer, consumer) = (device.stream().unwrap(), device.stream().unwrap());
        let rule = Sgd { lr: 1.0, ..Sgd::default() };
        let mut optimizer =
            Optimizer::<f32, f32>::new(&device, &[group(rule, &[3000])], Config::default())
                .unwrap();
        let mut w: Buffer<f32> = device.zeros(3000).unwrap();
        let mut grad: Buffer<f32> = device.zeros(3000).unwrap();
        grad.write(&producer, 0, &vec![1.0; 3000]).unwrap();
        let ran = optimizer.run(&consumer, &mut [&mut w], &[Some(&grad)]);
        let _ = ran.and_then(|()| device.sync());
        let findings = door.findings();
        assert!(findings.iter().any(|text| text.contains("StreamRace")), "{findings:?}");
    }
}
