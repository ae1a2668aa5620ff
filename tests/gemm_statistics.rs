//! Σg² and non-finite counts of a weight gradient: bit for bit those of the finished tensors in the order of memory,
//! whichever launch, tile and block has stored what.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::gemm_case::{SMALL, large};
use common::guard::Guarded;
use common::memory::Values;
use common::policy;
use halfstep::gemm::{
    Activation, Layout, Stats, Tile, WeightGrad, WeightGradOperands, WeightLayout,
};
use halfstep::{Device, Dtype, Error, GradStats, Storage, Summary, bf16, f16};

/// Elements that one partial sum is of.
const CHUNK: usize = 16_384;

/// Lane `l` of 2,048 adds values `l`, `l + 2048`, …; then lanes are added by halves.
fn fold(values: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = vec![0.0; 2048];
    values.enumerate().for_each(|(i, value)| lanes[i % 2048] += value);
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(lane, other)| *lane += other);
    }
    lanes[0]
}

fn expected<O: Storage>(tensors: [&[O]; 2]) -> Summary {
    let tensors = tensors.map(|values| values.iter().map(|v| v.widen()).collect::<Vec<f32>>());
    let tensors = [&tensors[0][..], &tensors[1][..]];
    let squares = |chunk: &[f32]| {
        fold(chunk.iter().map(|v| if v.is_finite() { f64::from(*v) * f64::from(*v) } else { 0.0 }))
    };
    let chunks = tensors.into_iter().flat_map(|values| values.chunks(CHUNK));
    let bad = tensors.map(|values| values.iter().filter(|v| !v.is_finite()).count());
    Summary {
        sum_squares: fold(chunks.map(squares)),
        non_finite: bad.iter().sum::<usize>() as u64,
        first_non_finite: bad.iter().position(|count| *count > 0),
    }
}

#[derive(Debug, Clone)]
struct Way {
    rows: usize,
    input: usize,
    output: usize,
    tile: Option<Tile>,
    split: u32,
    layout: WeightLayout,
    activation: Activation,
    /// Ends of groups of rows.
    ends: Option<Vec<u32>>,
}

/// The gradient of one layer of these sizes.
fn way(rows: usize, input: usize, output: usize) -> Way {
    Way {
        rows,
        input,
        output,
        tile: None,
        split: 0,
        layout: WeightLayout::OutIn,
        activation: Activation::None,
        ends: None,
    }
}

/// Twice into the same statistics, the second time added to the first: nothing of a launch may be left for the next.
fn check<T: Storage, O: Storage>(device: &Device, way: &Way) {
    let Way { rows, input, output, .. } = *way;
    let mut plan = WeightGrad::new(rows, input, output)
        .weight_layout(way.layout)
        .activation(way.activation)
        .subnormals(policy(device))
        .split(way.split)
        .accumulate(true);
    if let Some(tile) = way.tile {
        plan = plan.tile(tile);
    }
    if let Some(ends) = &way.ends {
        plan = plan.groups(ends.len());
    }
    let plan = plan.plan::<T, O>(device).unwrap();
    let members = way.ends.as_ref().map_or(1, Vec::len);
    let (dw_len, db_len) = (members * output * input, members * output);
    let mut rng = Rng((rows * 31 + input * 7 + output) as u64);
    let mut fill = |len| Values::<T>::from(Distribution::Normal.fill(&mut rng, len));
    let (dy, x, z) = (fill(rows * output), fill(rows * input), fill(rows * output));
    let ends = Values::from(way.ends.clone().unwrap_or_default());
    let mut dw = Guarded::new(&vec![O::zeroed(); dw_len], 0);
    let mut db = Guarded::new(&vec![O::zeroed(); db_len], 1);
    let mut stats = GradStats::new(device, &[dw_len, db_len]).unwrap();
    let stream = device.stream().unwrap();
    for turn in 0..2 {
        let operands = WeightGradOperands {
            z: (way.activation != Activation::None).then_some(&z as _),
            group_ends: way.ends.is_some().then_some(&ends as _),
            db: Some(&mut db),
            stats: Some(Stats { stats: &mut stats, weight: 0, bias: Some(1) }),
            ..WeightGradOperands::new(&dy, &x, &mut dw)
        };
        plan.run(&stream, operands).unwrap();
        let found = stats.read(&stream).unwrap();
        let expected = expected([dw.get(), db.get()]);
        assert!(expected.sum_squares > 0.0);
        let bits = found.sum_squares.to_bits();
        assert_eq!(bits, expected.sum_squares.to_bits(), "{way:?}, {turn}: {found:?} {expected:?}");
        assert_eq!(found, expected, "{way:?}");
    }
    dw.check("dw");
    db.check("db");
}

/// Three chunks of a `dw` that no tile divides, by every tile and in parts.
fn tiles<T: Storage>(device: &Device) {
    let mut tiles = vec![SMALL];
    if T::DTYPE != Dtype::F32 {
        tiles.extend(large(Layout::TN, device));
    }
    for (turn, tile) in tiles.into_iter().enumerate() {
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            for split in if T::DTYPE == Dtype::F32 { 1..=1 } else { 1..=2 } {
                let way = Way { tile: Some(tile), split, layout, ..way(72, 264, 136) };
                if (turn + split as usize).is_multiple_of(2) {
                    check::<T, T>(device, &way);
                } else {
                    check::<T, f32>(device, &way);
                }
            }
        }
    }
}

#[test]
fn every_tile_of_bf16() {
    common::product_devices().iter().for_each(tiles::<bf16>);
}

#[test]
fn every_tile_of_f16() {
    common::product_devices().iter().for_each(tiles::<f16>);
}

#[test]
fn every_tile_of_f32() {
    common::product_devices().iter().for_each(tiles::<f32>);
}

/// Rows of `dw` longer than a chunk, which a tile's rows make full one by one; a `db` of two chunks; a derivative, with
/// which sums are taken before the product; groups, whose gradients follow each other within a chunk.
#[test]
fn long_rows_derivatives_and_groups() {
    for device in common::product_devices() {
        check::<bf16, f32>(&device, &way(2, 40_000, 3));
        check::<bf16, bf16>(&device, &Way { split: 2, ..way(64, 16_390, 3) });
        check::<bf16, bf16>(&device, &Way { layout: WeightLayout::InOut, ..way(3, 2, 17_000) });
        check::<bf16, f32>(
            &device,
            &Way { layout: WeightLayout::InOut, split: 2, ..way(64, 3, 6_000) },
        );
        check::<f16, f16>(&device, &Way { activation: Activation::GeluTanh, ..way(5, 3, 16_500) });
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            let ends = Some(vec![3, 3, 11, 20]);
            check::<bf16, bf16>(&device, &Way { layout, ends: ends.clone(), ..way(20, 72, 130) });
            check::<f32, f32>(&device, &Way { layout, ends, ..way(20, 31, 170) });
        }
    }
}

/// Numbers that are not finite are counted and left out, in every launch that can store them.
#[test]
fn not_finite() {
    for device in common::product_devices() {
        for split in [1, 2] {
            let (rows, input, output) = (64, 72, 300);
            let plan =
                WeightGrad::new(rows, input, output).subnormals(policy(&device)).split(split);
            let plan = plan.plan::<bf16, f32>(&device).unwrap();
            let mut rng = Rng(split.into());
            let mut dy: Vec<bf16> = Distribution::Normal.fill(&mut rng, rows * output);
            let mut x: Vec<bf16> = Distribution::Normal.fill(&mut rng, rows * input);
            dy[5 * output + 299] = bf16::INFINITY; // the last row of dw, the last of db
            x[7 * input + 1] = bf16::NAN; // a column of dw
            let (dy, x) = (Values::from(dy), Values::from(x));
            let mut dw = Values::from(vec![0.0f32; output * input]);
            let mut db = Values::from(vec![0.0f32; output]);
            let mut stats = GradStats::new(&device, &[output * input, output]).unwrap();
            let stream = device.stream().unwrap();
            let operands = WeightGradOperands {
                db: Some(&mut db),
                stats: Some(Stats { stats: &mut stats, weight: 0, bias: Some(1) }),
                ..WeightGradOperands::new(&dy, &x, &mut dw)
            };
            plan.run(&stream, operands).unwrap();
            let found = stats.read(&stream).unwrap();
            assert_eq!(found, expected::<f32>([&dw, &db]));
            assert_eq!(found.non_finite, (input + output - 1 + 1) as u64);
        }
    }
}

/// A `dw` of two chunks, and lists that it is not in.
#[test]
fn statistics_count_non_finite_gradients_and_refuse_foreign_lists() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let plan = WeightGrad::new(2, 200, 100).plan::<f32, f32>(&device).unwrap(); // 20,000: two partials
        let (mut dy, x) = (Values::from(vec![1.0f32; 200]), Values::from(vec![1.0f32; 400]));
        dy[99] = f32::INFINITY;
        let (mut dw, mut db) = (Values::from(vec![0.0f32; 20_000]), Values::from([0.0f32; 100]));
        let mut stats = GradStats::new(&device, &[20_000, 100, 7]).unwrap();
        let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
        operands.db = Some(&mut db);
        operands.stats = Some(Stats { stats: &mut stats, weight: 0, bias: Some(1) });
        plan.run(&stream, operands).unwrap();
        let summary = stats.read(&stream).unwrap();
        assert_eq!((summary.non_finite, summary.first_non_finite), (201, Some(0)));
        assert_eq!(summary.sum_squares, 4.0 * (19_800 + 99) as f64);
        for (weight, bias) in [(1, None), (3, None), (usize::MAX, None), (0, Some(0)), (0, Some(2))]
        {
            let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
            operands.stats = Some(Stats { stats: &mut stats, weight, bias });
            assert!(plan.run(&stream, operands).is_err(), "{weight} {bias:?}");
        }
    }
}

/// Lengths are compared, not numbers of partials.
#[test]
fn statistics_made_for_other_lengths_are_refused() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let (dy, x) = (Values::from([1.0f32; 4]), Values::from([1.0f32; 6]));
        let plan = WeightGrad::new(2, 3, 2).plan::<f32, f32>(&device).unwrap();
        for (lengths, arg) in [([5, 2], "stats.weight"), ([6, 3], "stats.bias")] {
            let mut stats = GradStats::new(&device, &lengths).unwrap();
            let (mut dw, mut db) = (Values::from([7.0f32; 6]), Values::from([7.0f32; 2]));
            let operands = WeightGradOperands {
                db: Some(&mut db),
                stats: Some(Stats { stats: &mut stats, weight: 0, bias: Some(1) }),
                ..WeightGradOperands::new(&dy, &x, &mut dw)
            };
            let error = plan.run(&stream, operands).unwrap_err();
            assert!(matches!(&error, Error::Shape { arg: found, .. } if found == arg), "{error}");
            assert_eq!((&dw[..], &db[..]), (&[7.0; 6][..], &[7.0; 2][..]));
        }
    }
}

/// What an earlier step has left is gone, and what comes names its tensor again.
#[test]
fn cleared_statistics_hold_nothing_of_an_earlier_step() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let plan = WeightGrad::new(1, 1, 1).plan::<f32, f32>(&device).unwrap();
        let mut stats = GradStats::new(&device, &[1, 1]).unwrap();
        let write = |value: f32, weight: usize, stats: &mut GradStats| {
            let (dy, x) = (Values::from([value]), Values::from([1.0f32]));
            let mut dw = Values::from([0.0f32]);
            let operands = WeightGradOperands {
                stats: Some(Stats { stats, weight, bias: None }),
                ..WeightGradOperands::new(&dy, &x, &mut dw)
            };
            plan.run(&stream, operands).unwrap();
        };
        write(f32::NAN, 0, &mut stats);
        write(2.0, 1, &mut stats);
        stats.clear(&stream).unwrap();
        let nothing = Summary { sum_squares: 0.0, non_finite: 0, first_non_finite: None };
        assert_eq!(stats.read(&stream).unwrap(), nothing);
        write(3.0, 0, &mut stats);
        write(f32::INFINITY, 1, &mut stats);
        let found = Summary { sum_squares: 9.0, non_finite: 1, first_non_finite: Some(1) };
        assert_eq!(stats.read(&stream).unwrap(), found);
    }
}
