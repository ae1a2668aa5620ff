//! What a weight gradient computes beside its product, in the same launch: sums of the rows of `dy`, and a copy
//! of `dw`. For every tile, and parts of the sums.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::gemm_case::{LARGE, SMALL, flushed, large};
use common::guard::Guarded;
use common::policy;
use halfstep::gemm::{
    Activation, Copy, DataGrad, DataGradOperands, Layout, Subnormals, Tile, WeightGrad,
    WeightGradOperands, WeightLayout,
};
use halfstep::{Device, Dtype, Error, Storage, bf16, f16};

/// Sizes that no tile divides, in rows that the loops of the large tiles take.
const OUTPUT: usize = 136;
const INPUT: usize = 24;

#[derive(Debug, Clone, Copy)]
struct Way {
    rows: usize,
    tile: Option<Tile>,
    split: u32,
    layout: WeightLayout,
    accumulate: bool,
}

struct Found {
    dw: Vec<f32>,
    db: Option<Vec<f32>>,
    copy: Option<Vec<bf16>>,
}

fn start(len: usize) -> Vec<f32> {
    (0..len).map(|i| 0.1 * i as f32).collect()
}

/// One gradient, between guard pads; with `more` the sums and the copy, too.
fn run<T: Storage>(device: &Device, way: Way, dy: &[T], x: &[T], more: bool) -> Found {
    let plan = WeightGrad::new(way.rows, INPUT, OUTPUT)
        .weight_layout(way.layout)
        .subnormals(policy(device))
        .accumulate(way.accumulate)
        .split(way.split);
    let plan = way.tile.map_or(plan.clone(), |tile| plan.tile(tile)).plan::<T>(device).unwrap();
    let (dy, x) = (Guarded::new(dy, 0), Guarded::new(x, 0));
    let mut dw = Guarded::new(&start(OUTPUT * INPUT), 0);
    let mut db = Guarded::new(&start(OUTPUT), 1);
    let mut copy = Guarded::<bf16>::output(OUTPUT * INPUT, 3);
    let stream = device.stream().unwrap();
    let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
    if more {
        operands.db = Some(&mut db);
        operands.copy = Some(Copy::Bf16(&mut copy));
    }
    plan.run(&stream, operands).unwrap();
    stream.sync().unwrap();
    dw.check("dw");
    db.check("db");
    copy.check("copy");
    Found {
        dw: dw.get().to_vec(),
        db: more.then(|| db.get().to_vec()),
        copy: more.then(|| copy.get().to_vec()),
    }
}

/// Blocks of 256 rows, each from 0, then the blocks from 0; of flushed values where the device's policy flushes.
fn sums<T: Storage>(way: Way, dy: &[T], policy: Subnormals) -> Vec<f32> {
    let value = |v: &T| match policy {
        Subnormals::Flush => flushed(v.widen().into(), T::DTYPE) as f32,
        _ => v.widen(),
    };
    let column = |o: usize| {
        let values: Vec<f32> = dy.iter().skip(o).step_by(OUTPUT).map(value).collect();
        values.chunks(256).fold(0.0f32, |sum, block| sum + block.iter().fold(0.0f32, |s, v| s + v))
    };
    let old = start(OUTPUT);
    (0..OUTPUT).map(|o| if way.accumulate { old[o] + column(o) } else { column(o) }).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn all_tiles<T: Storage>(device: &Device) {
    let mut tiles = vec![None, Some(SMALL)];
    if T::DTYPE != Dtype::F32 {
        tiles.extend(large(Layout::TN, device).into_iter().map(Some));
    }
    for (turn, tile) in tiles.into_iter().enumerate() {
        for split in [1, 3] {
            if split > 1 && T::DTYPE == Dtype::F32 {
                continue;
            }
            // More rows than eight blocks of 256, and a rest; or an end inside the first.
            let rows = [2088, 96 + 8 * turn][(turn + split as usize / 2) % 2];
            let layout = [WeightLayout::OutIn, WeightLayout::InOut][turn % 2];
            let way = Way { rows, tile, split, layout, accumulate: turn % 3 == 1 };
            let mut rng = Rng(rows as u64);
            let dy: Vec<T> = Distribution::Normal.fill(&mut rng, rows * OUTPUT);
            let x: Vec<T> = Distribution::Normal.fill(&mut rng, rows * INPUT);
            let (found, alone) =
                (run(device, way, &dy, &x, true), run(device, way, &dy, &x, false));
            assert_eq!(bits(&found.db.unwrap()), bits(&sums(way, &dy, policy(device))), "{way:?}");
            assert_eq!(bits(&found.dw), bits(&alone.dw), "{way:?}: the product is another");
            let rounded: Vec<bf16> = found.dw.iter().map(|v| bf16::from_f32(*v)).collect();
            assert!(found.copy.unwrap() == rounded, "{way:?}: copy");
        }
    }
}

#[test]
fn sums_and_copies_of_bf16() {
    common::product_devices().iter().for_each(all_tiles::<bf16>);
}

#[test]
fn sums_and_copies_of_f16() {
    common::product_devices().iter().for_each(all_tiles::<f16>);
}

#[test]
fn sums_and_copies_of_f32() {
    common::product_devices().iter().for_each(all_tiles::<f32>);
}

/// A large tile of a layer with an activation takes the stored `dz` as it is; without that there is none to take.
#[test]
fn pinned_tiles_need_the_stored_derivative() {
    for device in common::gpus() {
        let stream = device.stream().unwrap();
        let rows = 40;
        let mut rng = Rng(8);
        let mut fill = |len| -> common::memory::Values<bf16> {
            Distribution::Normal.fill(&mut rng, len).into()
        };
        let (dy, z, w, x) =
            (fill(rows * OUTPUT), fill(rows * OUTPUT), fill(OUTPUT * INPUT), fill(rows * INPUT));
        let mut dz = Guarded::<bf16>::output(rows * OUTPUT, 0);
        let mut dx = Guarded::<bf16>::output(rows * INPUT, 0);
        let mut dw = Guarded::<f32>::output(OUTPUT * INPUT, 0);
        let (data, weight) =
            (DataGrad::new(rows, INPUT, OUTPUT), WeightGrad::new(rows, INPUT, OUTPUT));
        let data = data.activation(Activation::Silu).subnormals(policy(&device));
        let weight = weight.activation(Activation::Silu).subnormals(policy(&device));
        let data = data.tile(LARGE[0]).split(1).plan::<bf16, bf16>(&device).unwrap();
        let weight = weight.tile(LARGE[0]).split(1).plan::<bf16>(&device).unwrap();

        let operands = DataGradOperands { z: Some(&z), ..DataGradOperands::new(&dy, &w, &mut dx) };
        let refused = data.run(&stream, operands).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        let operands =
            WeightGradOperands { z: Some(&z), ..WeightGradOperands::new(&dy, &x, &mut dw) };
        let refused = weight.run(&stream, operands).unwrap_err().to_string();
        assert!(refused.contains("128×128") && refused.contains("derivative"), "{refused}");

        let mut operands = DataGradOperands::new(&dy, &w, &mut dx);
        operands.z = Some(&z);
        operands.d_preactivation = Some(&mut dz);
        data.run(&stream, operands).unwrap();
        let mut again = Guarded::<bf16>::output(rows * OUTPUT, 0);
        let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
        operands.z = Some(&z);
        operands.d_preactivation = Some(&mut again);
        weight.run(&stream, operands).unwrap();
        stream.sync().unwrap();
        assert!(dz.get() == again.get());
    }
}
