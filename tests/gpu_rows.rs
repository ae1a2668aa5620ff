//! Every row of the table that has device code is in the image and has run: its name is among the
//! launches that the virtual GPU executed.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use std::collections::BTreeSet;

use common::devices;
use common::optim::*;
use common::reduction::params_from;
use common::vgpu::Door;
use halfstep::optim::*;
use halfstep::reduce::{BucketPlan, Config as Reduction, FixedPoint, Reducer, Unscale, local};
use halfstep::{Device, Dtype, Write, bf16};

fn steps(device: &Device) {
    for rule in rules().into_iter().chain([Adam { amsgrad: true, ..Adam::default() }.into()]) {
        let (stream, mut optimizer, mut params, mut rng) =
            setup::<bf16, bf16>(device, rule, Config::default(), &[300, 7]);
        let grads = normal::<bf16>(&mut rng, &[300, 7]);
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        stream.sync().unwrap();
    }
}

fn reductions(device: &Device) {
    let plan = BucketPlan::ddp(&params_from(&[300]), Dtype::Bf16, 4000, 9000).unwrap();
    std::thread::scope(|scope| {
        for comm in local(2.try_into().unwrap()) {
            let plan = plan.clone();
            scope.spawn(move || {
                let stream = device.stream().unwrap();
                let config = Reduction { accumulate: true, ..Reduction::default() };
                let mut reducer =
                    Reducer::<f32>::new(device, plan, Box::new(comm), config).unwrap();
                let mut values = Values::from(vec![1.0f32; 300]);
                reducer.accumulate(&stream, 0, &values).unwrap();
                reducer.ready(&stream, 0, &values).unwrap();
                let mut out: [&mut dyn Write<f32>; 1] = [&mut values];
                reducer.finish(&stream, &mut out, Unscale::Keep).unwrap();
                assert_eq!(values[299], 2.0);
            });
        }
    });
    let stream = device.stream().unwrap();
    let fixed = FixedPoint::new(1).unwrap();
    let mut values = Values::from(vec![1.0f32; 300]);
    let mut exponents = device.zeros::<u8>(2).unwrap();
    let mut integers = device.zeros::<i32>(300).unwrap();
    fixed.measure(&stream, &values, 1.0, &mut exponents).unwrap();
    fixed.encode(&stream, &values, 1.0, &exponents, &mut integers).unwrap();
    fixed.decode(&stream, &integers, &exponents, 1.0, &mut values).unwrap();
    assert_eq!(values[299], 1.0);
}

#[test]
fn every_row_runs() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        steps(&device);
        reductions(&device);
        let ran: BTreeSet<String> =
            door.launches().into_iter().map(|launch| launch.kernel).collect();
        // Matrix products have suites of their own.
        let rows: Vec<&str> =
            halfstep::device_symbols().filter(|symbol| !symbol.starts_with("hs_gemm")).collect();
        let missing: Vec<&&str> = rows.iter().filter(|row| !ran.contains(**row)).collect();
        println!("{}: {} rows loaded, {} executed", device.info(), rows.len(), ran.len());
        assert!(missing.is_empty(), "not executed: {missing:?}");
    }
}
