//! What a step asks of a driver: three launches, and nothing that waits. A program of its own, so that
//! the trace has no other calls.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::devices;
use common::training::Training;
use common::vgpu::Door;
use halfstep::optim::*;

#[test]
fn a_step_is_three_launches_and_nothing_that_waits() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        let mut training = Training::new(&device, AdamW::default().into());
        training.step().unwrap(); // uploads the tables of addresses
        door.trace(true);
        training.step().unwrap();
        let trace = door.trace(false);
        let name = |line: &str| {
            line.split(['(', ' '])
                .find(|w| w.contains("cu") || w.contains("hip"))
                .map(str::to_string)
        };
        let mut calls: Vec<String> = trace.iter().filter_map(|line| name(line)).collect();
        // Which context or device is meant is said before each call.
        calls.retain(|call| call != "cuCtxSetCurrent" && call != "hipSetDevice");
        let launch = if door.vendor == "cuda" { "cuLaunchKernel" } else { "hipModuleLaunchKernel" };
        assert_eq!(calls, [launch; 3], "{trace:#?}");
    }
}
