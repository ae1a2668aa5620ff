//! Integer operands, sized so that sums need 12 to 23 bits: f32 sums are exact in any order, so D has to
//! be the oracle's value rounded once, to the bit. Whatever reads a wrong element, drops a product, sums
//! in fewer bits or rounds another way shows.
#![allow(missing_docs)]

mod common;

use common::data::Distribution;
use common::gemm_case::{Case, Data, Role, SMALL, Term, Written, exact, large, run};
use common::memory::Values;
use common::rounding::round;
use halfstep::gemm::{Activation, Gemm, Layout, Operands, Subnormals, Tile};
use halfstep::{Device, DeviceKind, Dtype, Storage, bf16, f16};
use proptest::prelude::*;

/// Integers up to this keep `Σ|a||b| + |bias| + …` under 2²³, and make sums of more than 11 bits.
fn largest(k: usize) -> u32 {
    match k {
        0..=128 => 15,
        129..=1024 => 7,
        _ => 4,
    }
}

/// The oracle's D, rounded.
fn expected<T: Storage, O: Storage>(case: &Case, data: &Data<T, O>) -> Vec<f64> {
    let elements = (0..case.m).flat_map(|i| (0..case.n).map(move |j| (i, j)));
    elements.map(|(i, j)| round(exact(case, data, i, j).value, O::DTYPE)).collect()
}

/// Fails on a test that proves nothing: too many zeros, or too many equal values. Not on a few elements,
/// which chance can make zeros of; those are compared all the same.
fn not_vacuous(values: &[f64], case: &Case) {
    if values.len() < 64 {
        return;
    }
    let zeros = values.iter().filter(|v| **v == 0.0).count();
    let mut distinct: Vec<u64> = values.iter().map(|v| v.to_bits()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let relu = case.activation == Activation::Relu;
    assert!(zeros * 10 <= values.len() * if relu { 9 } else { 1 }, "{zeros} zeros: {case:?}");
    let distinct = distinct.len();
    assert!(
        distinct * 10 >= values.len().min(1000),
        "{distinct} distinct of {}: {case:?}",
        values.len()
    );
}

fn exactly<T: Storage, O: Storage>(case: &Case, device: &Device) {
    let case = &case.on::<T>(device);
    let data = Data::<T, O>::new(case);
    let expected = expected(case, &data);
    let Written { d, preactivation } = run(case, &data, device);
    if case.k >= 12 && case.alpha != 0.0 && case.role == Role::Forward {
        not_vacuous(&expected, case);
    }
    for (index, (got, expected)) in d.iter().zip(&expected).enumerate() {
        let (i, j) = (index / case.n, index % case.n);
        let got = f64::from(got.widen());
        assert!(got == *expected, "{case:?}: d[{i},{j}] = {got}, not {expected}");
    }
    if case.preactivation && case.role == Role::Forward {
        for (index, got) in preactivation.iter().enumerate() {
            let z = exact(case, &data, index / case.n, index % case.n).z;
            assert_eq!(f64::from(got.widen()), round(z, T::DTYPE), "{case:?}: z[{index}]");
        }
    }
}

fn each_type(case: &Case, device: &Device) {
    exactly::<bf16, bf16>(case, device);
    exactly::<bf16, f32>(case, device);
    exactly::<f16, f16>(case, device);
    exactly::<f16, f32>(case, device);
    exactly::<f32, f32>(case, device);
}

/// The sizes around one edge of a tile.
fn around(t: usize) -> [usize; 5] {
    [1, t - 1, t, t + 1, 2 * t + 1]
}

/// G-10 on GPUs: every size around the edges of the tiles in one dimension at a time and in all at once, in
/// each layout. An interpreter takes 50 ms for 256³, so not every size with every other.
#[test]
fn g10_tile_edges_of_gpus_are_exact() {
    for device in common::gpus() {
        println!("{}: edges of 64 and 128 along each dimension, not their product", device.info());
        for layout in Layout::ALL {
            for t in [64, 128] {
                let mut sizes: Vec<_> = around(t).map(|s| (s, s, s)).into();
                for s in around(t) {
                    sizes.extend([(s, t, 32), (t, s, 32), (33, 40, s)]);
                }
                for (m, n, k) in sizes {
                    let data = Distribution::Integer(largest(k));
                    let seed = (m * 10_007 + n * 101 + k) as u64;
                    let case = Case { layout, data, seed, bias: true, ..Case::new(m, n, k) };
                    exactly::<bf16, bf16>(&case, &device);
                    if m != t {
                        exactly::<f16, f32>(&Case { gap: 8, ..case }, &device);
                        exactly::<f32, f32>(&case, &device);
                    }
                }
            }
        }
    }
}

/// G-10 for the tiles of aligned operands: every size around their edges, as far as the device takes it. The smallest
/// tile has a loop for them on CUDA only.
#[test]
fn g10_edges_of_aligned_tiles_are_exact() {
    for device in common::gpus() {
        println!("{}: one dimension at a time, an interpreter's share", device.info());
        let small = (device.info().kind == DeviceKind::Cuda).then_some(SMALL);
        let tiles = |layout| large(layout, &device).into_iter().chain(small);
        for (layout, tile) in Layout::ALL.into_iter().flat_map(|l| tiles(l).map(move |t| (l, t))) {
            let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
            let mut sizes =
                vec![(2 * rows + 1, columns + 2, 64), (1, 1, 1), (2, 2 * columns + 2, 33)];
            sizes.extend(around(rows).map(|s| (s, 40, 40)));
            sizes.extend(around(columns).map(|s| (33, s, 31)));
            sizes.extend(around(32).map(|s| (30, 50, s)));
            if tile == Tile::new(128, 64) {
                // Which has 64 steps of k in a stage, and three stages.
                sizes.extend([63, 127, 128, 129, 191, 192, 193, 257].map(|s| (30, 50, s)));
            }
            sizes.extend([(rows + 1, columns - 1, 95), (50, 70, 96), (70, 50, 97), (40, 40, 1000)]);
            for (m, n, k) in sizes {
                let case = aligned(Case { layout, ..Case::new(m, n, k) }, tile, &device);
                exactly::<bf16, f32>(&case, &device);
                if m % 2 == 1 {
                    exactly::<f16, f16>(&case, &device);
                }
            }
            for (role, k) in [Role::Derivative, Role::Gated].into_iter().zip([41, 203]) {
                let case =
                    Case { layout, role, activation: Activation::Relu, ..Case::new(70, 72, k) };
                let case = Case { data: Distribution::Integer(3), ..aligned(case, tile, &device) };
                exactly::<bf16, bf16>(&Case { bias: true, ..case }, &device);
            }
        }
    }
}

/// G-10 for operands that are aligned to 4 bytes, in every tile: tails of each length in each dimension, and the epilogues
/// that read A and B as they are not stored.
#[test]
fn g10_operands_aligned_to_four_bytes_are_exact() {
    for device in common::gpus() {
        let tiles = |layout| large(layout, &device).into_iter().chain([SMALL]);
        for (layout, tile) in Layout::ALL.into_iter().flat_map(|l| tiles(l).map(move |t| (l, t))) {
            let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
            let mut sizes = vec![(1, 1, 1), (rows + 1, columns - 1, 95), (2, columns + 3, 33)];
            sizes.extend((0..8).map(|tail| (9 + tail, 17 + tail, 40 + tail)));
            sizes.extend([(rows - 1, 20, 70), (rows, 30, 98), (33, columns, 6), (30, 50, 258)]);
            for (m, n, k) in sizes {
                let case = aligned(Case { layout, ..Case::new(m, n, k) }, tile, &device);
                let case = Case { aligned: false, pairs: true, shift: 2, ..case };
                exactly::<bf16, f32>(&case, &device);
                exactly::<f16, f16>(&Case { shift: 6, ..case }, &device);
            }
            for (role, k) in [Role::Derivative, Role::Gated].into_iter().zip([41, 203]) {
                let case =
                    Case { layout, role, activation: Activation::Relu, ..Case::new(70, 74, k) };
                let case = Case { data: Distribution::Integer(3), ..aligned(case, tile, &device) };
                let case = Case { aligned: false, pairs: true, shift: 2, ..case };
                exactly::<bf16, bf16>(&Case { bias: true, ..case }, &device);
            }
            // Whatever the size, where the tile takes every product: through registers on HIP, or where subnormals are
            // flushed.
            for (m, n, k) in [(33, 50, 71), (9, 13, 6), (65, 66, 34)] {
                let data = Distribution::Integer(largest(k));
                let case = Case { layout, data, pairs: true, shift: 2, ..Case::new(m, n, k) };
                if tile == SMALL {
                    exactly::<f16, f32>(&Case { flush: true, ..case }, &device);
                    exactly::<bf16, bf16>(&case, &device);
                }
            }
        }
    }
}

/// Sums in parts of k are the sums: every layout, tile and epilogue, with parts of different lengths and with more
/// parts than steps.
#[test]
fn parts_of_k_add_up() {
    for device in common::gpus() {
        for layout in Layout::ALL {
            let cut = |(i, tile): (usize, Tile)| ([3, 2][i % 2], tile, [200, 120][i % 2]);
            let larger = large(layout, &device).into_iter().enumerate().map(cut);
            let many = larger.clone().take(1).map(|(_, tile, k)| (64, tile, k));
            for (splits, tile, k) in
                [(2, SMALL, 75), (7, SMALL, 97)].into_iter().chain(larger).chain(many)
            {
                let case = Case { layout, splits, tile: Some(tile), ..Case::new(40, 72, k) };
                let case = if tile != SMALL {
                    aligned(case, tile, &device)
                } else {
                    Case { gap: 3, shift: 1, data: Distribution::Integer(largest(k)), ..case }
                };
                exactly::<bf16, f32>(&case, &device);
            }
            for role in [Role::Forward, Role::Derivative, Role::Gated] {
                let case = Case { layout, role, splits: 3, ..Case::new(37, 23, 130) };
                let case = Case { activation: Activation::Relu, bias: true, gap: 1, ..case };
                let case = Case { residual: Term::InPlace, data: Distribution::Integer(3), ..case };
                exactly::<f16, f32>(&case, &device);
                exactly::<bf16, bf16>(
                    &Case { preactivation: role != Role::Derivative, ..case },
                    &device,
                );
            }
        }
        let f32s = Case { splits: 2, ..Case::new(8, 8, 64) }.gemm().plan::<f32, f32>(&device);
        assert!(f32s.unwrap_err().to_string().contains("k in 2 parts"));
        let many = Case { splits: 65, ..Case::new(8, 8, 64) }.on::<bf16>(&device);
        assert!(many.gemm().plan::<bf16, f32>(&device).is_err());
    }
}

/// Two streams that run one plan at the same time do not share a workspace, and a run finds nothing of the last.
#[test]
fn parts_of_k_of_two_streams_stay_apart() {
    for device in common::gpus() {
        let policy = match device.info().flushes_subnormals {
            true => Subnormals::Flush,
            false => Subnormals::Preserve,
        };
        let gemm = Gemm::new(24, 40, 256).split(4).subnormals(policy);
        let plan = gemm.plan::<bf16, f32>(&device).unwrap();
        let streams = [device.stream().unwrap(), device.stream().unwrap()];
        let b = [0, 1].map(|_| Values::from(vec![bf16::ONE; 256 * 40]));
        let a: Vec<_> = (1..=6u8)
            .map(|factor| Values::from(vec![bf16::from_f32(factor.into()); 24 * 256]))
            .collect();
        let mut d: Vec<_> = (0..6).map(|_| Values::from(vec![0.0f32; 24 * 40])).collect();
        for (i, (a, d)) in a.iter().zip(&mut d).enumerate() {
            plan.run(&streams[i % 2], Operands::new(a, &b[i % 2], d)).unwrap();
        }
        device.sync().unwrap();
        for (i, d) in d.iter().enumerate() {
            assert!(d.iter().all(|&v| v == 256.0 * (i as f32 + 1.0)), "run {i}");
        }
    }
}

/// The case with a tile of aligned operands pinned, and with sizes that the device's loads end at.
fn aligned(case: Case, tile: Tile, device: &Device) -> Case {
    let Case { mut m, mut n, mut k, layout, .. } = case;
    if device.info().kind == DeviceKind::Hip {
        let (a, b) = (layout.a_transposed(), layout.b_transposed());
        m = if a { m.next_multiple_of(2) } else { m };
        n = if b { n } else { n.next_multiple_of(2) };
        k = if a && !b { k } else { k.next_multiple_of(8) };
    }
    let data = Distribution::Integer(largest(k));
    let seed = (m * 10_007 + n * 101 + k) as u64;
    Case { m, n, k, data, seed, aligned: true, tile: Some(tile), ..case }
}

/// Every layout, type and epilogue that is exact, on GPUs: sixteen draws of what
/// [`integers_are_exact`] draws 256 of.
#[test]
fn integers_are_exact_on_gpus() {
    for device in common::gpus() {
        println!("{}: 16 cases, an interpreter's share", device.info());
        let mut rng = common::data::Rng(31);
        for layout in Layout::ALL.into_iter().cycle().take(16) {
            let mut draw = |below: usize| rng.below(below);
            let (m, n, k) = (1 + draw(140), 1 + draw(140), draw(97));
            let (alpha, beta) = [(1.0, 0.0), (1.0, 1.0), (-1.0, 2.0), (0.5, -1.0)][draw(4)];
            let own = if draw(2) == 0 { Term::Own } else { Term::InPlace };
            let case = Case {
                layout,
                alpha,
                beta,
                activation: [Activation::None, Activation::Relu][draw(2)],
                bias: draw(2) == 0,
                preactivation: draw(2) == 0,
                c: if beta == 0.0 { Term::Absent } else { own },
                residual: [Term::Absent, Term::Own][draw(2)],
                gap: draw(4),
                shift: draw(8),
                data: Distribution::Integer(largest(k)),
                seed: rng.next(),
                ..Case::new(m, n, k)
            };
            each_type(&case, &device);
        }
    }
}

/// G-10: every size around the edges of the tiles of every form, in each dimension, in each layout.
#[test]
fn g10_tile_edges_are_exact() {
    for device in common::gemm_devices().into_iter().chain(common::amx()) {
        // 8×48, 6×16 and 32×32 tiles; 8 steps to a transposition, 64 to a pass of packing.
        for layout in Layout::ALL {
            for m in around(8).into_iter().chain(around(6)).chain(around(32)) {
                for n in around(48).into_iter().chain(around(16)).chain(around(32)) {
                    for k in around(8).into_iter().chain(around(32)) {
                        let data = Distribution::Integer(largest(k));
                        let seed = (m * 10_007 + n * 101 + k) as u64;
                        let case = Case { layout, data, seed, bias: true, ..Case::new(m, n, k) };
                        exactly::<bf16, bf16>(&case, &device);
                    }
                }
            }
            for (m, n, k) in [(96, 240, 256), (97, 241, 257), (193, 481, 65), (95, 239, 513)] {
                let data = Distribution::Integer(largest(k));
                exactly::<f16, f32>(&Case { layout, data, ..Case::new(m, n, k) }, &device);
            }
        }
    }
}

proptest! {
    #![proptest_config(common::cases())]

    /// All layouts, types, and every epilogue that is exact, between guard pads and with gaps.
    #[test]
    fn integers_are_exact(
        (m, n, k) in (1usize..97, 1usize..97, 0usize..97),
        layout in proptest::sample::select(Layout::ALL.to_vec()),
        relu in any::<bool>(),
        (bias, preactivation) in any::<(bool, bool)>(),
        (alpha, beta) in proptest::sample::select(vec![(1.0f32, 0.0f32), (1.0, 1.0), (-1.0, 2.0), (0.5, -1.0)]),
        in_place in any::<bool>(),
        residual in any::<bool>(),
        (gap, shift) in (0usize..4, 0usize..8),
        seed in any::<u64>(),
    ) {
        let c = match (beta == 0.0, in_place) {
            (true, _) => Term::Absent,
            (false, true) => Term::InPlace,
            (false, false) => Term::Own,
        };
        let activation = if relu { Activation::Relu } else { Activation::None };
        let residual = if residual { Term::Own } else { Term::Absent };
        let data = Distribution::Integer(largest(k));
        let case = Case {
            layout, activation, bias, preactivation, alpha, beta, c, residual, gap, shift, data, seed,
            ..Case::new(m, n, k)
        };
        each_type(&case, &Device::cpu());
    }
}

/// The derivative of ReLU in the epilogue, and a gate with ReLU, are exact too.
#[test]
fn exact_roles_are_exact() {
    for device in common::product_devices() {
        for role in [Role::Derivative, Role::Gated] {
            for layout in Layout::ALL {
                let data = Distribution::Integer(if role == Role::Gated { 3 } else { 15 });
                let activation = Activation::Relu;
                // A gated product of two sums: 3·3·19 each, so under 2¹⁶.
                let case = Case { role, layout, activation, data, ..Case::new(37, 101, 19) };
                exactly::<bf16, f32>(&case, &device);
                exactly::<f16, f16>(&Case { bias: true, ..case }, &device);
            }
        }
    }
}

/// Sums of thousands, through several blocks of `k`.
#[test]
fn long_sums_are_exact() {
    for device in common::product_devices() {
        let few = device.info().kind != DeviceKind::Cpu;
        for k in [255, 256, 257, 4095, 4096, 4097, 65_536] {
            if few && k > 4097 {
                println!("{}: k = {k} left out, too long to interpret", device.info());
                continue;
            }
            for layout in [Layout::NT, Layout::TN] {
                let data = Distribution::Integer(if k > 10_000 { 2 } else { largest(k) });
                let case = Case { layout, data, ..Case::new(9, 50, k) };
                exactly::<bf16, bf16>(&case, &device);
            }
        }
    }
}

/// Every f16 and bf16 value arrives as itself: D = A·I, for finite values.
#[test]
fn every_value_passes_unharmed() {
    fn all<T: Storage + bytemuck::Pod>(device: &Device) {
        let values: Vec<T> = (0..=u16::MAX).map(|bits| bytemuck::cast(bits)).collect();
        let finite: Vec<T> = values.into_iter().filter(|v: &T| v.widen().is_finite()).collect();
        let n = finite.len();
        let stream = device.stream().unwrap();
        let one = Values::from([T::narrow(1.0)]);
        let finite = Values::from(finite);
        let mut d = Values::from(vec![T::zeroed(); n]);
        let flush = device.info().flushes_subnormals;
        let policy = if flush { Subnormals::Flush } else { Subnormals::Preserve };
        let gemm = halfstep::gemm::Gemm::new(1, n, 1).subnormals(policy);
        let plan = gemm.plan::<T, T>(device).unwrap();
        plan.run(&stream, halfstep::gemm::Operands::new(&one, &finite, &mut d)).unwrap();
        for (got, &expected) in d.iter().zip(finite.iter()) {
            let exact = f64::from(expected.widen());
            let kept = if flush { common::gemm_case::flushed(exact, T::DTYPE) } else { exact };
            assert!(f64::from(got.widen()) == kept); // −0 becomes 0 in a sum that starts from 0
        }
    }
    for device in common::product_devices() {
        all::<bf16>(&device);
        all::<f16>(&device);
        assert_eq!(bf16::DTYPE, Dtype::Bf16);
    }
}
