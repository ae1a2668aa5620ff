//! Conformance of the general product: special values, and every role on every kind of data.
#![allow(missing_docs)]

mod common;

use common::bound::Growth;
use common::data::{Distribution, Rng};
use common::gemm_case::{Case, Data, Role, check, run};
use common::memory::Values;
use common::policy;
use halfstep::gemm::{Activation, Gemm, Layout, Operands, Source, Subnormals};
use halfstep::{Device, Storage, bf16, f16};

#[test]
fn g11_beta_zero_does_not_read_c_or_d() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let (a, b) = (Values::from([1.0f32; 6]), Values::from([1.0f32; 6]));
        let (c, mut d) = (Values::from([f32::NAN; 4]), Values::from([f32::INFINITY; 4]));
        let plan = Gemm::new(2, 2, 3).plan::<f32, f32>(&device).unwrap();
        for c in [Source::From(&c as _), Source::InPlace, Source::None] {
            d.fill(f32::NAN);
            plan.run(&stream, Operands { c, ..Operands::new(&a, &b, &mut d) }).unwrap();
            assert_eq!(d, [3.0; 4]);
        }
    }
}

#[test]
fn g12_alpha_zero_does_not_read_a_and_b() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let nan = Values::from([f32::NAN; 6]);
        let mut d = Values::from([8.0f32; 4]);
        let plan = Gemm::new(2, 2, 3).alpha(0.0).beta(0.5).plan::<f32, f32>(&device).unwrap();
        let operands = Operands { c: Source::InPlace, ..Operands::new(&nan, &nan, &mut d) };
        plan.run(&stream, operands).unwrap();
        assert_eq!(d, [4.0; 4]);
    }
}

#[test]
fn g16_a_nan_makes_its_row_or_column_nan_and_nothing_else() {
    for device in common::product_devices() {
        // Operands aligned to nothing, and to 4 bytes.
        let pairs = |case| Case { pairs: true, shift: 2, ..case };
        let cases =
            [Case::new(50, 61, 70), pairs(Case::new(50, 62, 72)), pairs(Case::new(50, 61, 71))];
        let cases = cases.map(|case| Layout::ALL.map(|layout| Case { layout, ..case }));
        for case in cases.into_iter().flatten() {
            let layout = case.layout;
            let clean = Data::<bf16, f32>::new(&case);
            let expected = run(&case, &clean, &device);
            for (i, p) in [(0, 0), (49, 69), (7, 8), (8, 7), (48, 64), (23, 33)] {
                let nan = |in_a: bool| {
                    let mut data = Data::<bf16, f32>::new(&case);
                    let (values, index) = match (in_a, layout.a_transposed(), layout.b_transposed())
                    {
                        (true, false, _) => (&mut data.a, i * case.k + p),
                        (true, true, _) => (&mut data.a, p * case.m + i),
                        (false, _, false) => (&mut data.b, p * case.n + i),
                        (false, _, true) => (&mut data.b, i * case.k + p),
                    };
                    values[index] = bf16::NAN;
                    run(&case, &data, &device)
                };
                for in_a in [true, false] {
                    let got = nan(in_a);
                    for (at, (got, clean)) in got.d.iter().zip(&expected.d).enumerate() {
                        let (row, column) = (at / case.n, at % case.n);
                        let hit = if in_a { row == i } else { column == i };
                        assert_eq!(got.is_nan(), hit, "({row}, {column}) of {layout:?}");
                        assert!(hit || got.to_bits() == clean.to_bits());
                    }
                }
            }
        }
    }
}

#[test]
fn g17_infinities_that_meet_zero_or_each_other_give_nan_in_that_element() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let inf = f32::INFINITY;
        let (a, b) = (Values::from([inf, 1.0, 1.0, 1.0]), Values::from([0.0f32, 1.0, 2.0, -inf]));
        let mut d = Values::from([0.0f32; 4]);
        let plan = Gemm::new(2, 2, 2).plan::<f32, f32>(&device).unwrap();
        plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
        assert!(d[0].is_nan() && d[1].is_nan(), "{d:?} on {}", device.info()); // Inf·0 + 2, Inf − Inf
        assert_eq!(d[2..], [2.0, -inf]);
    }
}

#[test]
fn g18_g19_overflow_of_the_output_type_is_infinite_and_ties_go_to_even() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let f = |v: f32| f16::from_f32(v);
        let a = Values::from([f(256.0), f(-256.0), f(1.0)]);
        let b = Values::from([f(256.0), f(255.875), f(255.75)]);
        let mut d = Values::from([f16::ZERO; 9]);
        let gemm = Gemm::new(3, 3, 1).subnormals(policy(&device));
        let plan = gemm.plan::<f16, f16>(&device).unwrap();
        plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
        let expected = [65536.0, 65504.0, 65472.0].map(f16::from_f32);
        assert_eq!(d[..3], expected);
        assert_eq!((d[0], d[3]), (f16::INFINITY, f16::NEG_INFINITY));
        // f32 values at the edge of bf16, through C: D = 1·C.
        let edge = f32::from_bits(0x7f7f_8000); // the tie with infinity
        let c = [edge, f32::from_bits(0x7f7f_7fff), -edge, 1.003_906_2, 1.011_718_8];
        for value in c {
            let (high, low) = (bf16::from_f32(value), bf16::ONE);
            let rest = value - high.to_f32();
            if !rest.is_finite() {
                continue;
            }
            let (a, b) = (Values::from([high, bf16::from_f32(rest)]), Values::from([low, low]));
            let mut d = Values::from([bf16::ZERO]);
            let gemm = Gemm::new(1, 1, 2).subnormals(policy(&device));
            let plan = gemm.plan::<bf16, bf16>(&device).unwrap();
            plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
            let sum = high.to_f32() + bf16::from_f32(rest).to_f32();
            assert_eq!(d[0].to_bits(), bf16::from_f32(sum).to_bits());
        }
    }
}

#[test]
fn g20_subnormals_are_kept_or_flushed_as_asked() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let tiny = f16::from_bits(0x03ff); // the largest subnormal, 6.1e-5
        let normal = f16::from_bits(0x0400);
        let a = Values::from([tiny, normal, -normal]);
        let b = Values::from([f16::ONE, f16::from_f32(0.5)]);
        for flush in [false, true] {
            let policy = if flush { Subnormals::Flush } else { Subnormals::Preserve };
            let gemm = Gemm::new(3, 2, 1).subnormals(policy);
            if !flush && device.info().flushes_subnormals {
                let error = gemm.plan::<f16, f16>(&device).unwrap_err().to_string();
                assert!(error.contains("Subnormals::Flush"), "{error}");
                continue;
            }
            let mut d = Values::from([f16::NAN; 6]);
            gemm.plan::<f16, f16>(&device)
                .unwrap()
                .run(&stream, Operands::new(&a, &b, &mut d))
                .unwrap();
            // Row of tiny: an operand is flushed. Row of normal: half of it is a subnormal result.
            let kept = [tiny, f16::from_bits(0x0200), normal, f16::from_bits(0x0200)];
            let zeros = [f16::ZERO, f16::ZERO, normal, f16::ZERO];
            assert_eq!(d[..4], if flush { zeros } else { kept });
            if flush {
                assert_eq!(d[5].to_bits(), 0x8000); // a zero of its sign
            }
            let mut d = Values::from([f32::NAN; 6]);
            gemm.plan::<f16, f32>(&device)
                .unwrap()
                .run(&stream, Operands::new(&a, &b, &mut d))
                .unwrap();
            assert_eq!(d[0], if flush { 0.0 } else { tiny.to_f32() });
            assert_eq!(d[3], normal.to_f32() * 0.5); // f32 results are never flushed
        }
    }
}

/// Every activation in every role, on all seven distributions.
#[test]
fn every_role_and_distribution_is_within_its_bound() {
    for device in common::product_devices() {
        let mut worst = 0.0f64;
        for role in [Role::Forward, Role::Derivative, Role::Gated] {
            for activation in Activation::ALL {
                for data in Distribution::REAL {
                    let case = Case { role, activation, data, bias: true, ..Case::new(9, 50, 65) };
                    worst = worst.max(both::<bf16, bf16>(&case, &device));
                    worst = worst.max(both::<f16, f32>(&case, &device));
                    worst = worst.max(both::<f32, f32>(&case, &device));
                }
            }
        }
        println!("largest error over bound: {worst:.3}");
    }
}

fn both<T: Storage, O: Storage>(case: &Case, device: &Device) -> f64 {
    let case = &case.on::<T>(device);
    let data = Data::<T, O>::new(case);
    let growth = if case.data.zero_mean() { Growth::ZeroMean } else { Growth::Expected };
    check(case, &data, &run(case, &data, device), growth)
}

/// Leading dimensions and strides that no offset can count are errors, used or not; none panics.
#[test]
fn g_offsets_that_cannot_be_counted_are_errors() {
    use halfstep::gemm::{DataGrad, DataGradOperands, Matrix};
    const HUGE: [usize; 3] = [usize::MAX, usize::MAX / 2, usize::MAX / 8];
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let (a, b) = (Values::from([1.0f32; 8]), Values::from([1.0f32; 8]));
        let mut d = Values::from([0.0f32; 8]);
        for (m, n, k, batch) in [(1, 2, 2, 1), (1, 2, 0, 2), (0, 2, 2, 2), (0, 0, 0, 3)] {
            for (huge, matrix) in
                HUGE.into_iter().flat_map(|h| [Matrix::A, Matrix::B, Matrix::D].map(|x| (h, x)))
            {
                let dense = Gemm::new(m, n, k).batch(batch);
                for gemm in
                    [dense.clone().leading(matrix, huge), dense.clone().stride(matrix, huge)]
                {
                    if let Ok(plan) = gemm.plan::<f32, f32>(&device) {
                        plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
                    }
                }
            }
        }
        let error = Gemm::new(1, 2, 2).leading(Matrix::A, usize::MAX).plan::<f32, f32>(&device);
        assert!(matches!(error, Err(halfstep::Error::Shape { .. })), "{error:?}");

        // Rows of nothing are nothing to do, however many.
        let (none, mut out): (Values<f32>, Values<f32>) = (vec![].into(), vec![].into());
        let plan = DataGrad::new(1 << 60, 0, 0).plan::<f32, f32>(&device).unwrap();
        plan.run(&stream, DataGradOperands::new(&none, &none, &mut out)).unwrap();
    }
}

/// f32 products are one chain of fused multiply-adds everywhere: sums that cancel, underflow to subnormals or to zeros of
/// either sign, overflow, and what NaN and ±Inf make of a row and a column.
#[test]
fn f32_products_of_gpus_have_the_cpus_bits() {
    let exact = Device::cpu_with_arch(1.try_into().unwrap(), "reference").unwrap();
    let mut rng = Rng(31);
    for device in common::gpus() {
        let (mut subnormal, mut negative_zeros) = (0, 0);
        for (layout, (m, n, k)) in Layout::ALL.into_iter().flat_map(|layout| {
            [(1, 1, 1), (70, 66, 45), (65, 130, 33), (3, 5, 300)].map(|size| (layout, size))
        }) {
            // Products around 1, around the smallest normal number, just above half the smallest number, and beyond all.
            for exponent in [0, -63, -75, 64] {
                let mut fill = |len: usize| -> Vec<f32> {
                    let mut value = |_| {
                        let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
                        let spread = rng.below(5) as i32 - 2;
                        sign * ((1.0 + rng.unit()) * f64::from(exponent + spread).exp2()) as f32
                    };
                    (0..len).map(&mut value).collect()
                };
                let (mut a, mut b) = (fill(m * k), fill(k * n));
                if exponent == 0 && m > 1 {
                    (a[m * k / 2], a[m * k - 1]) = (f32::INFINITY, f32::NAN);
                    b[k * n / 3] = f32::NEG_INFINITY;
                }
                let product = |device: &Device| {
                    let (a, b) = (Values::from(a.clone()), Values::from(b.clone()));
                    let mut d = Values::from(vec![0.0f32; m * n]);
                    let plan = Gemm::new(m, n, k).layout(layout).plan::<f32, f32>(device).unwrap();
                    plan.run(&device.stream().unwrap(), Operands::new(&a, &b, &mut d)).unwrap();
                    d.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits()).collect()
                };
                let (expected, got): (Vec<u32>, Vec<u32>) = (product(&exact), product(&device));
                subnormal +=
                    expected.iter().filter(|b| (1..1 << 23).contains(&(**b & !(1 << 31)))).count();
                negative_zeros += expected.iter().filter(|bits| **bits == 1 << 31).count();
                assert!(
                    got == expected,
                    "{m} {n} {k} {layout:?} 2^{exponent} on {}",
                    device.info()
                );
            }
        }
        println!("{}: {subnormal} subnormal, {negative_zeros} of -0", device.info());
        assert!(subnormal > 1000 && negative_zeros > 0);
    }
}
