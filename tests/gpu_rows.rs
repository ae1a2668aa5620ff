//! Every row of the table that has device code is in the image and has run: its name is among the
//! launches that the virtual GPU executed.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use std::collections::BTreeSet;

use common::bound::Growth;
use common::devices;
use common::gemm_case::{Case, Data, SMALL, check, large, run};
use common::optim::*;
use common::reduction::params_from;
use common::vgpu::Door;
use halfstep::gemm::{
    Activation, Copy, Layout, Stats, SwigluGrad, Tile, WeightGrad, WeightGradOperands,
};
use halfstep::optim::*;
use halfstep::reduce::{BucketPlan, Config as Reduction, FixedPoint, Reducer, Sum, Unscale, local};
use halfstep::{Device, DeviceKind, Dtype, GradStats, Rates, Storage, Write, bf16, f16};

/// Each layout by each tile that the type has, the result within its bound; and what stands before and behind a
/// product.
fn products(device: &Device) {
    fn of<T: Storage>(device: &Device, tiles: fn(Layout, &Device) -> Vec<Tile>) {
        for layout in Layout::ALL {
            for tile in tiles(layout, device) {
                let case =
                    Case { layout, tile: Some(tile), aligned: true, ..Case::new(72, 80, 48) }
                        .on::<T>(device);
                let data = Data::<T, f32>::new(&case);
                check(&case, &data, &run(&case, &data, device), Growth::Worst);
            }
        }
    }
    let small = |_: Layout, _: &Device| vec![SMALL];
    of::<bf16>(device, small);
    of::<bf16>(device, large);
    of::<f16>(device, small);
    of::<f16>(device, large);
    of::<f32>(device, small);
    let case = Case { splits: 2, ..Case::new(9, 10, 64) }.on::<bf16>(device);
    let data = Data::<bf16, f32>::new(&case);
    check(&case, &data, &run(&case, &data, device), Growth::Worst);

    let stream = device.stream().unwrap();
    let (dy, x) = (Values::from(vec![1.0f32; 12]), Values::from(vec![2.0f32; 20]));
    let z = Values::from(vec![1.0f32; 12]);
    let (mut dw, mut db) = (Values::from(vec![0.0f32; 15]), Values::from(vec![0.0f32; 3]));
    let mut copy = Values::from(vec![bf16::ZERO; 15]);
    let mut stats = GradStats::new(device, &[15]).unwrap();
    let operands = WeightGradOperands {
        z: Some(&z),
        db: Some(&mut db),
        copy: Some(Copy::Bf16(&mut copy)),
        stats: Some(Stats { stats: &mut stats, weight: 0, bias: None }),
        ..WeightGradOperands::new(&dy, &x, &mut dw)
    };
    let plan =
        WeightGrad::new(4, 5, 3).activation(Activation::Relu).plan::<f32, f32>(device).unwrap();
    plan.run(&stream, operands).unwrap();
    assert_eq!((dw[14], copy[14], db[2]), (8.0, bf16::from_f32(8.0), 4.0));

    let (gates, mut dz) = (Values::from(vec![1.0f32; 12]), Values::from(vec![0.0f32; 12]));
    let dy = Values::from(vec![1.0f32; 6]);
    let plan = SwigluGrad::new(2, 3).activation(Activation::Relu).plan::<f32>(device).unwrap();
    plan.run(&stream, &dy, &gates, &mut dz).unwrap();
    assert_eq!(*dz, [1.0; 12]);
}

fn steps(device: &Device) {
    for rule in rules().into_iter().chain([Adam { amsgrad: true, ..Adam::default() }.into()]) {
        let (stream, mut optimizer, mut params, mut rng) =
            setup::<bf16, bf16>(device, rule, Config::default(), &[300, 7]);
        let grads = normal::<bf16>(&mut rng, &[300, 7]);
        optimizer.run(&stream, &mut writes(&mut params), &reads(&grads)).unwrap();
        stream.sync().unwrap();
    }
}

fn reductions(device: &Device, sum: Sum) {
    let plan = BucketPlan::ddp(&params_from(&[300]), Dtype::Bf16, 4000, 9000).unwrap();
    std::thread::scope(|scope| {
        for comm in local(2.try_into().unwrap()) {
            let plan = plan.clone();
            scope.spawn(move || {
                let stream = device.stream().unwrap();
                let config = Reduction { accumulate: true, sum, ..Reduction::default() };
                let mut reducer =
                    Reducer::<f32>::new(device, plan, Box::new(comm), config).unwrap();
                let mut values = Values::from(vec![1.0f32; 300]);
                reducer.accumulate(&stream, 0, &values).unwrap();
                reducer.ready(&stream, 0, &values).unwrap();
                let mut out: [&mut dyn Write<f32>; 1] = [&mut values];
                reducer.finish(&stream, &mut out, Unscale::Keep).unwrap();
                assert!((values[299] - 2.0).abs() < 1e-3);
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

fn roofs(device: &Device) {
    let rates = Rates::measure(device).unwrap();
    assert!(rates.f32_flops > 0.0 && rates.matrix_flops > 0.0, "{rates:?}");
}

#[test]
fn every_row_runs() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        products(&device);
        steps(&device);
        reductions(&device, Sum::RankOrder);
        reductions(&device, Sum::Int8);
        roofs(&device);
        let ran: BTreeSet<String> =
            door.launches().into_iter().map(|launch| launch.kernel).collect();
        let target = if device.info().kind == DeviceKind::Cuda { "cuda" } else { "hip" };
        let rows: Vec<&str> = halfstep::device_symbols(target).collect();
        let missing: Vec<&&str> = rows.iter().filter(|row| !ran.contains(**row)).collect();
        println!("{}: {} rows loaded, {} executed", device.info(), rows.len(), ran.len());
        assert!(missing.is_empty(), "not executed: {missing:?}");
    }
}
