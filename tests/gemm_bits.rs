//! Every form of the matrix kernel gives the reference's bits: for any instruction set, number of
//! threads, alignment, and cut of the work. The one of AMX has an order of its own: its own bits, and the reference's
//! where sums are exact.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::gemm_case::{Case, Data, Role, Term, run};
use halfstep::gemm::{Activation, Gemm, Layout, Matrix, Operands, Subnormals, SwigluGrad};
use halfstep::{Device, Dtype, Storage, bf16, f16};
use proptest::prelude::*;

/// Devices of one thread and of several, for every form that this machine has.
fn forms() -> Vec<Device> {
    let mut devices = Vec::new();
    for arch in ["avx512bf16", "avx512f", "avx2+fma", "portable"] {
        devices.extend(with_threads(arch));
    }
    devices
}

/// A form with one thread, two and three; none where this machine does not have it.
fn with_threads(arch: &str) -> Vec<Device> {
    let device = |threads: usize| Device::cpu_with_arch(threads.try_into().ok()?, arch).ok();
    (1..=3).filter_map(device).collect()
}

fn reference() -> Device {
    Device::cpu_with_arch(1.try_into().expect("not zero"), "reference").expect("always here")
}

/// Sizes around the edges of all tiles (4, 6, 8, 16, 48, 96, 240), and in between.
pub fn any_size() -> impl Strategy<Value = usize> {
    let edges =
        [0usize, 1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33, 47, 48, 49, 95, 96, 97];
    prop_oneof![proptest::sample::select(edges.to_vec()), 1usize..130]
}

/// A vector times a matrix, or a few, around the edges of strips, lines and groups; or a matrix times as few.
pub fn any_few() -> impl Strategy<Value = Case> {
    let few = prop_oneof![Just(1usize), 2usize..9];
    let many = prop_oneof![1usize..600, 1usize..80];
    (any_case(), few, many, 1usize..300, any::<bool>()).prop_map(|(case, few, many, k, rows)| {
        let (m, n) = if rows { (few, many) } else { (many, few) };
        Case { m, n, k, ..case }
    })
}

pub fn any_case() -> impl Strategy<Value = Case> {
    let terms = proptest::sample::select(vec![Term::Absent, Term::Own, Term::InPlace]);
    let sizes = (any_size(), any_size(), any_size());
    let layout = proptest::sample::select(Layout::ALL.to_vec());
    let activation = proptest::sample::select(Activation::ALL.to_vec());
    let role =
        proptest::sample::select(vec![Role::Forward, Role::Forward, Role::Derivative, Role::Gated]);
    let scalars = proptest::sample::select(vec![
        (1.0f32, 0.0f32),
        (1.0, 1.0),
        (-1.25, 0.75),
        (0.0, 0.5),
        (0.5, 0.0),
    ]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0usize..5, 0usize..8);
    (sizes, layout, activation, role, (terms.clone(), terms), scalars, flags, any::<u64>())
        .prop_map(
            |((m, n, k), layout, activation, role, (c, residual), (alpha, beta), flags, seed)| {
                let (bias, preactivation, flush, gap, shift) = flags;
                let beta = if role == Role::Gated { 0.0 } else { beta };
                // C is there exactly where β is not 0; only one of the two can be D's old content.
                let c = match (beta != 0.0, c) {
                    (false, _) => Term::Absent,
                    (true, Term::Absent) => Term::Own,
                    (true, c) => c,
                };
                let both = c == Term::InPlace && residual == Term::InPlace;
                let residual = if both { Term::Own } else { residual };
                let preactivation = preactivation && role != Role::Derivative;
                let data = Distribution::REAL[seed as usize % Distribution::REAL.len()];
                Case {
                    layout,
                    alpha,
                    beta,
                    c,
                    bias,
                    residual,
                    activation,
                    role,
                    preactivation,
                    flush,
                    gap,
                    shift,
                    data,
                    seed,
                    ..Case::new(m, n, k)
                }
            },
        )
}

fn all_forms_agree<T: Storage, O: Storage>(case: &Case, devices: &[Device], exact: &Device) {
    let data = Data::<T, O>::new(case);
    let expected = run(case, &data, exact);
    for device in devices {
        let got = run(case, &data, device);
        assert_eq!(got.bits(), expected.bits(), "{}: {case:?}", device.info());
    }
}

fn property<T: Storage, O: Storage>() {
    let (devices, exact) = (forms(), reference());
    proptest!(common::cases(), |(case in any_case(), few in any_few())| {
        all_forms_agree::<T, O>(&case, &devices, &exact);
        all_forms_agree::<T, O>(&few, &devices, &exact);
        if T::DTYPE == Dtype::F16 {
            for case in [case, few] {
                let through = Case { through_bf16: true, flush: false, ..case };
                all_forms_agree::<T, O>(&through, &devices, &exact);
            }
        }
    });
}

#[test]
fn bf16_to_bf16_has_the_references_bits() {
    property::<bf16, bf16>();
}

#[test]
fn bf16_to_f32_has_the_references_bits() {
    property::<bf16, f32>();
}

#[test]
fn f16_to_f16_has_the_references_bits() {
    property::<f16, f16>();
}

#[test]
fn f16_to_f32_has_the_references_bits() {
    property::<f16, f32>();
}

#[test]
fn f32_to_f32_has_the_references_bits() {
    property::<f32, f32>();
}

/// The form of AMX; a reason where it is not there.
fn amx() -> Vec<Device> {
    common::amx().map(|device| with_threads(&device.info().arch)).unwrap_or_default()
}

/// Its bits do not depend on threads, nor on where operands lie; those of other types are the reference's.
fn amx_has_bits_of_its_own<O: Storage>() {
    let (devices, exact) = (amx(), reference());
    let Some((first, rest)) = devices.split_first() else { return };
    proptest!(common::cases(), |(case in any_case(), few in any_few())| {
        all_forms_agree::<bf16, O>(&case, rest, first);
        all_forms_agree::<bf16, O>(&few, rest, first);
        // Where A can stay where it lies, and where it cannot.
        let whole = Case { k: case.k.next_multiple_of(32), gap: 0, flush: false, ..case };
        let [aligned, shifted] = [0, 1].map(|shift| {
            let case = Case { shift, ..whole };
            let got = run(&case, &Data::<bf16, O>::new(&case), first);
            got.bits()
        });
        assert_eq!(aligned, shifted, "{whole:?}");
        all_forms_agree::<f16, f16>(&case, &devices, &exact);
    });
}

#[test]
fn amx_has_bits_of_its_own_in_bf16() {
    amx_has_bits_of_its_own::<bf16>();
}

#[test]
fn amx_has_bits_of_its_own_in_f32() {
    amx_has_bits_of_its_own::<f32>();
}

/// Sums of small integers are exact in any order: whole tiles and parts of them, several ranges and blocks of `k`, odd
/// steps, every layout and every source of A.
#[test]
fn amx_has_the_references_bits_where_sums_are_exact() {
    let (devices, exact) = (amx(), reference());
    let mut rng = Rng(11);
    for (m, n, k) in [
        (32, 32, 32),
        (31, 33, 31),
        (16, 17, 63),
        (17, 16, 65),
        (1, 1, 1),
        (33, 15, 511),
        (100, 300, 513),
        (100, 33, 1030),
        (40, 36, 4099),
        // A stays where it lies, where it is aligned and stored by rows.
        (97, 70, 64),
        (64, 40, 1024),
        (33, 20, 4128),
    ] {
        for layout in Layout::ALL {
            for role in [Role::Forward, Role::Derivative, Role::Gated] {
                let data = Distribution::Integer(2);
                let activation = Activation::Relu;
                let (seed, shift) = (rng.next(), rng.below(8));
                let case =
                    Case { layout, role, activation, data, seed, shift, ..Case::new(m, n, k) };
                let nans = (m, n, k.next_multiple_of(32));
                devices.iter().for_each(|device| leave_nans(device, nans));
                all_forms_agree::<bf16, f32>(&case, &devices, &exact);
                all_forms_agree::<bf16, bf16>(&Case { gap: 5, ..case }, &devices, &exact);
                let whole_lines = Case { gap: k.next_multiple_of(32) - k, shift: 0, ..case };
                all_forms_agree::<bf16, bf16>(&whole_lines, &devices, &exact);
            }
        }
    }
}

/// A product of NaNs, which stay in the memory that packing needs: what is behind an operand's last step has to be
/// written there, not assumed.
fn leave_nans(device: &Device, (m, n, k): (usize, usize, usize)) {
    let nan = bf16::narrow(f32::NAN);
    let (a, b, mut d) = (vec![nan; m * k], vec![nan; k * n], vec![nan; m * n]);
    let plan = Gemm::new(m, n, k).plan::<bf16, bf16>(device);
    plan.and_then(|plan| plan.run(&device.stream()?, Operands::new(&a, &b, &mut d)))
        .expect("a product");
}

/// How many results are subnormal of a product that has the same bits on all devices.
fn subnormals_that_agree(
    gemm: &Gemm,
    len: usize,
    (a, b): (&[bf16], &[bf16]),
    devices: &[Device],
    exact: &Device,
) -> usize {
    let product = |device: &Device| {
        let mut d = vec![0.0f32; len];
        // Aligned: A stays where it lies, if it can.
        let [a, b] = [a, b].map(|values| device.upload(values).expect("memory"));
        let plan = gemm.plan::<bf16, f32>(device);
        plan.and_then(|plan| plan.run(&device.stream()?, Operands::new(&a, &b, &mut d)))
            .expect("a product");
        d.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let expected = product(exact);
    for device in devices {
        assert!(product(device) == expected, "{gemm:?} on {}", device.info());
    }
    let subnormal = |bits: &&u32| (1..1 << 23).contains(&(**bits & 0x7fff_ffff));
    expected.iter().filter(subnormal).count()
}

/// AMX flushes subnormals; products whose sums, or elements, might be some are computed without it, unless they are flushed first. Integers times powers
/// of two, so that sums are exact: those of lanes of every third group of 32 are subnormal, as factors or as sums.
#[test]
fn amx_keeps_subnormals() {
    let (devices, exact) = (amx(), reference());
    let mut rng = Rng(12);
    let mut subnormal = 0;
    for (m, n, k) in [(100, 70, 700), (100, 70, 704), (33, 97, 40), (8, 40, 5000)] {
        for (layout, exponents, policy) in Layout::ALL.into_iter().flat_map(|layout| {
            [
                (layout, [-70, -70], Subnormals::Preserve),
                (layout, [-132, 0], Subnormals::Preserve),
                (layout, [-132, 0], Subnormals::Flush),
            ]
        }) {
            let mut fill = |lanes: usize, together: bool, exponent: i32| -> Vec<bf16> {
                let lane = |i: usize| if together { i % lanes } else { i / k };
                let value = |i: usize| {
                    let exponent = if lane(i) / 32 % 3 == 1 { 0 } else { exponent };
                    (rng.below(5) as f64 - 2.0) * f64::from(exponent).exp2()
                };
                (0..lanes * k).map(value).map(|value| bf16::narrow(value as f32)).collect()
            };
            let a = fill(m, layout.a_transposed(), exponents[0]);
            let b = fill(n, !layout.b_transposed(), exponents[1]);
            let gemm = Gemm::new(m, n, k).layout(layout).subnormals(policy);
            subnormal += subnormals_that_agree(&gemm, m * n, (&a, &b), &devices, &exact);
        }
    }
    assert!(subnormal > 1000, "only {subnormal} subnormal results");
}

/// Sizes beyond one block of each kind: several row tiles, several column tiles, `k` cut in panels and
/// in blocks.
#[test]
fn large_products_have_the_references_bits() {
    let (devices, exact) = (forms(), reference());
    let mut rng = Rng(7);
    for (m, n, k) in [
        (200, 500, 300),
        (1, 700, 520),
        (1, 33_000, 9),
        (17, 49, 9000),
        (500, 33, 64),
        (7, 1000, 4097),
        (96, 112, 40),
        (1050, 97, 510),
    ] {
        for layout in Layout::ALL {
            let role = if [300, 510].contains(&k) { Role::Gated } else { Role::Forward };
            let case = Case { layout, role, bias: true, seed: rng.next(), ..Case::new(m, n, k) };
            all_forms_agree::<bf16, bf16>(&case, &devices[..devices.len().min(6)], &exact);
            // f32 results, with gaps between rows.
            let plain = Case { layout, gap: 3, seed: rng.next(), ..Case::new(m, n, k) };
            all_forms_agree::<bf16, f32>(&plain, &devices[..devices.len().min(6)], &exact);
            if k < 1000 {
                all_forms_agree::<f32, f32>(&plain, &devices, &exact);
            }
        }
    }
}

/// Rows a power of two apart: where A is stored by columns, panels are packed few steps at a time.
#[test]
fn rows_a_power_of_two_apart_have_the_references_bits() {
    let (devices, exact) = (forms(), reference());
    for m in [512, 1024, 2048] {
        let layout = Layout::TN;
        for case in [Case::new(m, 17, 139), Case { role: Role::Derivative, ..Case::new(m, 10, 83) }]
        {
            let case = Case { layout, seed: m as u64, ..case };
            all_forms_agree::<bf16, f32>(&case, &devices, &exact);
            all_forms_agree::<f16, f32>(&case, &devices, &exact);
            all_forms_agree::<f32, f32>(&case, &devices, &exact);
        }
    }
}

/// Results too large for the caches, some of whose rows start with a line and some of which do not.
#[test]
fn results_stored_past_the_caches_have_the_references_bits() {
    let (devices, exact) = (forms(), reference());
    let mut rng = Rng(8);
    let case = Case { gap: 3, bias: true, seed: rng.next(), ..Case::new(2050, 2112, 3) };
    all_forms_agree::<bf16, bf16>(&case, &devices, &exact);
    all_forms_agree::<f16, f16>(&case, &devices, &exact);
    all_forms_agree::<f32, f32>(&case, &devices, &exact);
}

/// Products beyond one block of packed A and B, in both dimensions and in `k`, and beyond the columns whose sums there is
/// room for, have the bits of their parts, each a small product of its own.
#[test]
fn blocks_of_a_huge_product_have_the_bits_of_small_ones() {
    let (m, n) = (1700, 3500);
    let mut rng = Rng(21);
    let fast = forms().into_iter().filter(|device| device.info().arch != "portable");
    for device in fast.chain(amx()) {
        let stream = device.stream().expect("a stream");
        for k in [3000, 4500] {
            let a: Vec<bf16> = Distribution::Normal.fill(&mut rng, m * k);
            let b: Vec<bf16> = Distribution::Normal.fill(&mut rng, k * n);
            let mut d = vec![0.0f32; m * n];
            let plan = Gemm::new(m, n, k).plan::<bf16, f32>(&device).expect("a plan");
            plan.run(&stream, Operands::new(&a, &b, &mut d)).expect("a run");
            for _ in 0..40 {
                let (i, j) = (rng.below(m - 8), rng.below(n - 50));
                let mut part = vec![0.0f32; 8 * 50];
                let plan = Gemm::new(8, 50, k).leading(Matrix::B, n).plan::<bf16, f32>(&device);
                let (a, b) = (a[i * k..].to_vec(), &b[j..]);
                plan.expect("a plan")
                    .run(&stream, Operands::new(&a, &b, &mut part))
                    .expect("a run");
                for (r, row) in part.chunks(50).enumerate() {
                    let whole = &d[(i + r) * n + j..][..50];
                    let same = whole.iter().zip(row).all(|(x, y)| x.to_bits() == y.to_bits());
                    assert!(same, "rows {i}.., columns {j}.. of k = {k} on {}", device.info());
                }
            }
        }
    }
}

/// Of two blocks of columns one has sums that were subnormal in the first block of `k`, with numbers of another size in
/// the second; the other block, which is packed between the two, has none.
#[test]
fn what_is_known_of_a_block_of_columns_is_not_of_another() {
    let (m, n, k) = (97, 480, 4096 + 2);
    let mut rng = Rng(23);
    let mut number =
        |exponent: i32| bf16::narrow(((1.0 + rng.unit()) * f64::from(exponent).exp2()) as f32);
    let a: Vec<bf16> = (0..m * k).map(|_| number(-20)).collect();
    let of_b = |i: usize| match (i / n < 4096, i % n < 240) {
        (_, false) => 0,
        (true, true) => -122,
        (false, true) => -92,
    };
    let b: Vec<bf16> = (0..k * n).map(|i| number(of_b(i))).collect();
    let devices = with_threads("avx512bf16");
    let gemm = Gemm::new(m, n, k);
    subnormals_that_agree(&gemm, m * n, (&a, &b), &devices, &reference());
}

/// Sums that are, or have been, subnormal: in some ranges of `k`, rows and columns and not in others, so that what
/// instructions that flush may compute and what they may not lies side by side.
#[test]
fn sums_that_turn_subnormal_have_the_references_bits() {
    let (devices, exact) = (forms(), reference());
    let mut rng = Rng(5);
    let small = |rng: &mut Rng, exponent: i32| {
        let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        let value = sign * (1.0 + rng.unit()) * f64::from(exponent).exp2();
        bf16::narrow(if rng.below(8) == 0 { 0.0 } else { value as f32 })
    };
    let mut subnormal = 0;
    for (m, n, k) in [
        (17, 100, 1536usize),
        (16, 80, 600),
        (8, 112, 600),
        (1, 48, 33),
        (9, 50, 1),
        (200, 60, 5000),
    ] {
        for layout in Layout::ALL {
            // Products around the smallest normal number for all of k; now and then; and subnormal sums to which
            // normal products are added that are just large enough.
            for exponents in [
                vec![-52, -55, -64, -66, -68, -75],
                vec![-40, -60, -63, -66, -75, -130],
                vec![-68, -56],
            ] {
                let flush = [Subnormals::Preserve, Subnormals::Flush][rng.below(2)];
                let exponent = |rng: &mut Rng, range: usize| match exponents.len() {
                    // In the first block of packed steps, or the first range of a single one.
                    2 => exponents[usize::from(range >= if k > 4096 { 8 } else { 1 })],
                    all => exponents[rng.below(all)],
                };
                let ranges: Vec<_> = (0..k.div_ceil(512))
                    .map(|range| [exponent(&mut rng, range), exponent(&mut rng, range)])
                    .collect();
                // A row in three, and a column in three, has numbers of a usual size.
                let mut fill = |lanes: usize, operand: usize, together: bool| -> Vec<bf16> {
                    let place = |i: usize| {
                        if together { (i % lanes, i / lanes) } else { (i / k, i % k) }
                    };
                    let exponent = |(lane, step): (usize, usize)| {
                        if lane / 8 % 3 == 2 { 0 } else { ranges[step / 512][operand] }
                    };
                    (0..lanes * k).map(|i| small(&mut rng, exponent(place(i)))).collect()
                };
                let a = fill(m, 0, layout.a_transposed());
                let b = fill(n, 1, !layout.b_transposed());
                let gemm = Gemm::new(m, n, k).layout(layout).subnormals(flush);
                subnormal += subnormals_that_agree(&gemm, m * n, (&a, &b), &devices, &exact);
            }
        }
    }
    assert!(subnormal > 1000, "only {subnormal} subnormal results");
}

/// Strips of 256 columns, their edges, and what is flushed; the rows' own halves and no others.
fn gates<T: Storage>(devices: &[Device], exact: &Device) {
    for (rows, n) in [(1, 1), (3, 31), (2, 255), (2, 256), (5, 257), (3, 600)] {
        let mut rng = Rng((rows * 1000 + n) as u64);
        let mut fill = |len: usize| -> Vec<T> { Distribution::Normal.fill(&mut rng, len) };
        let (dy, mut z) = (fill(rows * n), fill(rows * 2 * n));
        // Some so small that products are subnormal in 16 bits.
        z.iter_mut().step_by(3).for_each(|z| *z = T::narrow(z.widen() * 3e-6));
        for activation in Activation::ALL {
            for subnormals in [Subnormals::Preserve, Subnormals::Flush] {
                let on = |device: &Device| -> Vec<u32> {
                    let plan = SwigluGrad::new(rows, n).activation(activation);
                    let plan = plan.subnormals(subnormals).plan::<T>(device).unwrap();
                    let mut dz = vec![T::narrow(7.0); rows * 2 * n];
                    plan.run(&device.stream().unwrap(), &dy, &z, &mut dz).unwrap();
                    dz.iter().map(|v| v.widen().to_bits()).collect()
                };
                let expected = on(exact);
                for device in devices {
                    let what =
                        format!("{rows}×{n} {activation:?} {subnormals:?} {}", device.info());
                    assert!(on(device) == expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn gates_gradients_have_the_references_bits() {
    let mut devices = forms();
    devices.extend(with_threads("amx-bf16"));
    gates::<bf16>(&devices, &reference());
    gates::<f16>(&devices, &reference());
    gates::<f32>(&devices, &reference());
}
