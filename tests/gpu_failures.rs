//! Every call of a driver fails in turn. A program of its own, so that what is left behind can be
//! counted.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::devices;
use common::optim::*;
use common::vgpu::Door;
use halfstep::optim::*;
use halfstep::{Device, Error, Result};

/// All that a program does, from opening the device on.
fn program(vendor: &str) -> Result<Vec<f32>> {
    let device = match vendor {
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0)?,
        #[cfg(feature = "hip")]
        "hip" => Device::hip(0)?,
        other => unreachable!("{other}"),
    };
    let stream = device.stream()?;
    let other = device.stream()?;
    let rule = Sgd { lr: 1.0, momentum: 0.5, ..Sgd::default() };
    let mut optimizer =
        Optimizer::<f32, f32>::new(&device, &[group(rule, &[5, 300])], Config::default())?;
    let mut a = device.upload(&[1.0f32; 5])?;
    let mut b = device.upload(&[2.0f32; 300])?;
    let (g, h) = (device.upload(&[0.5f32; 5])?, device.upload(&[0.25f32; 300])?);
    other.wait(&stream.record()?)?;
    optimizer.run(&stream, &mut [&mut a, &mut b], &[Some(&g), Some(&h)])?;
    other.wait(&stream.record()?)?;
    let graph =
        stream.capture(|| optimizer.run(&stream, &mut [&mut a, &mut b], &[Some(&g), Some(&h)]))?;
    // SAFETY: all of it is alive.
    unsafe { graph.run(&stream) }?;
    let _ = optimizer.report(&stream)?;
    drop(device.zeros::<f32>(77)?);
    device.trim()?;
    let mut found = a.to_vec(&stream)?;
    found.extend(b.to_vec(&stream)?);
    Ok(found)
}

/// D-05, D-07, D-08, D-09: each call of the program fails in turn, with an error that comes from
/// somewhere else, one that says there is no memory and one that says the device is lost: always a
/// typed error, nothing left behind, and the next try works.
#[test]
fn d07_every_call_may_fail() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        let expected = program(door.vendor).unwrap();
        door.trace(true);
        program(door.vendor).unwrap();
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for line in door.trace(false) {
            let Some(call) = line.split("] ").nth(1).and_then(|rest| rest.split('(').next()) else {
                continue;
            };
            *counts.entry(call.to_string()).or_default() += 1;
        }
        println!(
            "{}: {} calls of {} functions",
            device.info(),
            counts.values().sum::<u64>(),
            counts.len()
        );
        let mut failed = 0;
        for (call, count) in counts {
            let mut numbers = vec![1, 2, count / 2, count];
            numbers.retain(|&number| number >= 1 && number <= count);
            numbers.dedup();
            for (number, code) in numbers.into_iter().flat_map(|n| [2, 719, 999].map(|c| (n, c))) {
                let before = door.leaks();
                door.fail(&call, number, code);
                let ended = std::panic::catch_unwind(|| program(door.vendor));
                door.fail_end();
                let ended = ended.unwrap_or_else(|_| panic!("{call}:{number}:{code} panics"));
                match ended {
                    Err(error) => {
                        let typed = matches!(
                            error,
                            Error::Driver { .. }
                                | Error::NoDevice { .. }
                                | Error::OutOfMemory { .. }
                        );
                        assert!(typed, "{call}:{number}:{code}: {error}");
                        failed += 1;
                    }
                    // What fails while things are given back has nobody to tell.
                    Ok(found) => assert_eq!(found, expected, "{call}:{number}:{code}"),
                }
                door.findings();
                // What could not be given back since giving back failed is the driver's to keep.
                let gives_back = ["Free", "Destroy", "Unload", "Release"];
                let gives_back = gives_back.iter().any(|end| call.contains(end));
                // The last one enters the context to give everything back.
                let last = number == count && call.contains("Set");
                if !gives_back && !last && code != 719 {
                    assert_eq!(door.leaks(), before, "after {call}:{number}:{code}");
                }
                assert_eq!(program(door.vendor).unwrap(), expected, "after {call}:{number}:{code}");
            }
        }
        println!("{failed} errors");
        assert!(failed > 100);
    }
}
