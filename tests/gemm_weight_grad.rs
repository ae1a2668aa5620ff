//! What a weight gradient computes beside its product, in the same launch: sums of the rows of `dy`, and a copy
//! of `dw`. For every tile, and parts of the sums.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::gemm_case::{LARGE, SMALL, flushed, large};
use common::guard::Guarded;
use common::memory::Values;
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

struct Found<O> {
    dw: Vec<O>,
    db: Option<Vec<O>>,
    copy: Option<Vec<bf16>>,
}

fn start<O: Storage>(len: usize) -> Vec<O> {
    (0..len).map(|i| O::narrow(0.1 * i as f32)).collect()
}

/// One gradient, between guard pads; with `more` the sums and, of f32, the copy, too.
fn run<T: Storage, O: Storage>(
    device: &Device,
    way: Way,
    dy: &[T],
    x: &[T],
    more: bool,
) -> Found<O> {
    let plan = WeightGrad::new(way.rows, INPUT, OUTPUT)
        .weight_layout(way.layout)
        .subnormals(policy(device))
        .accumulate(way.accumulate)
        .split(way.split);
    let plan = way.tile.map_or(plan.clone(), |tile| plan.tile(tile)).plan::<T, O>(device).unwrap();
    let (dy, x) = (Guarded::new(dy, 0), Guarded::new(x, 0));
    let mut dw = Guarded::new(&start::<O>(OUTPUT * INPUT), 0);
    let mut db = Guarded::new(&start::<O>(OUTPUT), 1);
    let mut copy = Guarded::<bf16>::output(OUTPUT * INPUT, 3);
    let stream = device.stream().unwrap();
    let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
    if more {
        operands.db = Some(&mut db);
        operands.copy = (O::DTYPE == Dtype::F32).then_some(Copy::Bf16(&mut copy));
    }
    plan.run(&stream, operands).unwrap();
    stream.sync().unwrap();
    dy.unchanged("dy");
    x.unchanged("x");
    dw.check("dw");
    db.check("db");
    copy.check("copy");
    Found {
        dw: dw.get().to_vec(),
        db: more.then(|| db.get().to_vec()),
        copy: (more && O::DTYPE == Dtype::F32).then(|| copy.get().to_vec()),
    }
}

/// Blocks of 256 rows, each from 0, then the blocks from 0, rounded once; of flushed values where the device's policy flushes.
/// (The sums themselves are not subnormal.)
fn sums<T: Storage, O: Storage>(way: Way, dy: &[T], policy: Subnormals) -> Vec<O> {
    let value = |v: &T| match policy {
        Subnormals::Flush => flushed(v.widen().into(), T::DTYPE) as f32,
        _ => v.widen(),
    };
    let column = |o: usize| {
        let values: Vec<f32> = dy.iter().skip(o).step_by(OUTPUT).map(value).collect();
        values.chunks(256).fold(0.0f32, |sum, block| sum + block.iter().fold(0.0f32, |s, v| s + v))
    };
    let old = start::<O>(OUTPUT);
    let before = |o: usize| if way.accumulate { old[o].widen() } else { 0.0 };
    (0..OUTPUT).map(|o| O::narrow(before(o) + column(o))).collect()
}

fn bits<O: Storage>(values: &[O]) -> Vec<u32> {
    values.iter().map(|v| v.widen().to_bits()).collect()
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
            let of_f32 = one::<T, f32>(device, way, &dy, &x);
            let rounded: Vec<bf16> = of_f32.dw.iter().map(|v| bf16::from_f32(*v)).collect();
            assert!(of_f32.copy.unwrap() == rounded, "{way:?}: copy");
            // In the operands' type: the same sums, rounded.
            let narrow = one::<T, T>(device, way, &dy, &x);
            if !way.accumulate {
                let rounded: Vec<T> = of_f32.dw.iter().map(|v| T::narrow(*v)).collect();
                assert_eq!(bits(&narrow.dw), bits(&rounded), "{way:?}");
            }
        }
    }
}

/// The sums are right, and beside them the product is what it is alone.
fn one<T: Storage, O: Storage>(device: &Device, way: Way, dy: &[T], x: &[T]) -> Found<O> {
    let (found, alone) = (run(device, way, dy, x, true), run(device, way, dy, x, false));
    let db = found.db.as_deref().unwrap();
    assert_eq!(bits(db), bits(&sums::<T, O>(way, dy, policy(device))), "{way:?}");
    assert_eq!(bits(&found.dw), bits::<O>(&alone.dw), "{way:?}: the product is another");
    found
}

/// Few inputs, which are few columns of `dw`; stored in both ways, in f32 and in the operands' type.
#[test]
fn few_inputs_have_the_references_bits() {
    fn gradients<O: Storage>(
        device: &Device,
        (rows, input, output): (usize, usize, usize),
    ) -> Vec<u32> {
        let mut rng = Rng((rows * output + input) as u64);
        let dy: Vec<bf16> = Distribution::Normal.fill(&mut rng, rows * output);
        let x: Vec<bf16> = Distribution::Normal.fill(&mut rng, rows * input);
        let mut all = Vec::new();
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            let plan = WeightGrad::new(rows, input, output).weight_layout(layout).accumulate(true);
            let mut dw = start::<O>(output * input);
            let operands = WeightGradOperands::new(&dy, &x, &mut dw);
            let plan = plan.plan::<bf16, O>(device).unwrap();
            plan.run(&device.stream().unwrap(), operands).unwrap();
            all.extend(bits(&dw));
        }
        all
    }
    let device = |arch| Device::cpu_with_arch(2.try_into().unwrap(), arch).ok();
    let exact = device("reference").unwrap();
    for other in ["avx512bf16", "avx512f", "avx2+fma", "portable"].into_iter().filter_map(device) {
        for sizes in [(9, 1, 600), (40, 3, 30), (70, 8, 517), (3, 5, 9)] {
            let case = format!("{sizes:?} on {}", other.info());
            assert!(gradients::<f32>(&other, sizes) == gradients::<f32>(&exact, sizes), "{case}");
            assert!(gradients::<bf16>(&other, sizes) == gradients::<bf16>(&exact, sizes), "{case}");
        }
    }
}

/// A copy is of f32: of 16 bits it would be rounded twice. Nothing is written.
#[test]
fn copies_of_16_bits_are_refused() {
    for device in common::product_devices() {
        let (dy, x) = (Values::from([bf16::ONE; 2]), Values::from([bf16::ONE; 2]));
        let (mut dw, mut copy) = (Values::from([bf16::ZERO]), Values::from([bf16::ZERO]));
        let plan = WeightGrad::new(2, 1, 1).subnormals(policy(&device));
        let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
        operands.copy = Some(Copy::Bf16(&mut copy));
        let plan = plan.plan::<bf16, bf16>(&device).unwrap();
        let error = plan.run(&device.stream().unwrap(), operands).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("a copy of a dw of bf16"), "{error}");
        assert!(dw[0] == bf16::ZERO && copy[0] == bf16::ZERO);
        let error = WeightGrad::new(2, 1, 1).plan::<f16, bf16>(&device).unwrap_err();
        assert!(error.to_string().contains("f16 in, bf16 out"), "{error}");
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
        let weight = weight.tile(LARGE[0]).split(1).plan::<bf16, f32>(&device).unwrap();

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
