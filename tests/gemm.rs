//! Conformance of the general product: bad input and edge cases, each named by its id.
//!
//! Not shown here: G-22 (limits of a grid: blocks walk over tiles), G-24 and G-25
//! (workspaces of sums in parts: plans make them themselves, of the right size, and each part is written whole before
//! it is read; gemm_exact runs them. Counts of what has been stored, which outlive a launch: gpu_driver), the second half of G-26 (memory of another GPU).
#![allow(missing_docs)]

mod common;

use common::bound::Growth;
use common::gemm_case::{Case, Data, Term, check, run};
use common::guard::Guarded;
use common::memory::Values;
use common::policy;
use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, Gemm, Layout, Matrix, Operands, Source, SwigluGrad,
    WeightGrad, WeightGradOperands,
};
use halfstep::{Device, DeviceKind, Error, Raw, bf16, f16};

/// The argument that an error names.
fn arg(error: &Error) -> String {
    match error {
        Error::Shape { op, arg, .. }
        | Error::Range { op, arg, .. }
        | Error::Align { op, arg, .. }
        | Error::Device { op, arg, .. } => {
            assert!(!op.is_empty());
            arg.to_string()
        }
        Error::Overlap { first, second, .. } => format!("{first}/{second}"),
        other => panic!("{other}"),
    }
}

/// Runs a plain product on vectors of these lengths; the error, or whether D was written.
fn attempt(device: &Device, gemm: &Gemm, lens: [usize; 3]) -> Result<bool, Error> {
    let stream = device.stream().unwrap();
    let [a, b] = [lens[0], lens[1]].map(|len| Values::from(vec![bf16::ONE; len]));
    let mut d = Guarded::<bf16>::output(lens[2], 0);
    let plan = gemm.clone().subnormals(policy(device)).plan::<bf16, bf16>(device)?;
    let result = plan.run(&stream, Operands::new(&a, &b, &mut d));
    d.check("d");
    if result.is_err() {
        assert!(d.untouched(), "written in spite of {result:?}");
    }
    result.map(|()| !d.untouched())
}

#[test]
fn g01_operands_shorter_than_their_shapes_are_named() {
    for device in common::devices() {
        let gemm = Gemm::new(3, 4, 5);
        assert_eq!(attempt(&device, &gemm, [15, 20, 12]), Ok(true));
        for (i, name) in ["a", "b"].into_iter().enumerate() {
            let mut lens = [15, 20, 12];
            lens[i] -= 1;
            let error = attempt(&device, &gemm, lens).unwrap_err();
            assert_eq!(arg(&error), name, "{error}");
            let text = error.to_string();
            assert!(
                text.contains(&lens[i].to_string()) && text.contains(&(lens[i] + 1).to_string())
            );
        }
        // The plan stays usable.
        assert_eq!(attempt(&device, &gemm, [15, 20, 12]), Ok(true));
    }
}

#[test]
fn g02_a_short_output_is_named() {
    for device in common::devices() {
        let error = attempt(&device, &Gemm::new(3, 4, 5), [15, 20, 11]).unwrap_err();
        assert_eq!(arg(&error), "d", "{error}");
    }
}

#[test]
fn g03_g04_short_bias_residual_c_and_preactivation_are_named() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let [a, b] = [15, 20].map(|len| Values::from(vec![1.0f32; len]));
        let [bias, short] = [3, 11].map(|len| Values::from(vec![0.0f32; len]));
        let plan = Gemm::new(3, 4, 5).beta(1.0).plan::<f32, f32>(&device).unwrap();
        let (mut d, mut z) = (Values::from([7.0f32; 12]), Values::from([0.0f32; 11]));
        let c = Values::from([0.0f32; 12]);
        for name in ["bias", "residual", "c", "preactivation", "no c"] {
            let mut operands = Operands { c: Source::From(&c), ..Operands::new(&a, &b, &mut d) };
            match name {
                "bias" => operands.bias = Some(&bias),
                "residual" => operands.residual = Source::From(&short),
                "c" => operands.c = Source::From(&short),
                "no c" => operands.c = Source::None,
                _ => operands.preactivation = Some(&mut z),
            }
            let error = plan.run(&stream, operands).unwrap_err();
            assert_eq!(arg(&error), name.trim_start_matches("no "), "{error}");
            assert_eq!(d, [7.0; 12]);
        }
    }
}

#[test]
fn g05_empty_output_is_ok_and_writes_nothing() {
    for device in common::devices() {
        for (m, n) in [(0, 4), (3, 0), (0, 0)] {
            let gemm = Gemm::new(m, n, 5);
            assert_eq!(attempt(&device, &gemm, [m * 5, 5 * n, 12]), Ok(false));
            let gemm = gemm.batch(3);
            assert_eq!(attempt(&device, &gemm, [3 * m * 5, 15 * n, 12]), Ok(false));
        }
        assert_eq!(attempt(&device, &Gemm::new(3, 4, 5).batch(0), [15, 20, 12]), Ok(false));
    }
}

#[test]
fn g06_an_empty_sum_writes_the_epilogue_of_beta_c() {
    for device in common::devices() {
        for layout in Layout::ALL {
            for (beta, c) in [(0.0, Term::Absent), (0.5, Term::Own), (0.5, Term::InPlace)] {
                for activation in Activation::ALL {
                    let base = Case::new(5, 19, 0);
                    let case = Case { layout, beta, c, activation, bias: true, gap: 2, ..base };
                    let case = case.on::<bf16>(&device);
                    let data = Data::<bf16, bf16>::new(&case);
                    check(&case, &data, &run(&case, &data, &device), Growth::Worst);
                }
            }
        }
    }
}

#[test]
fn g07_a_leading_dimension_shorter_than_a_row_is_refused() {
    for device in common::devices() {
        let all = [
            (Matrix::A, 5, "a"),
            (Matrix::B, 4, "b"),
            (Matrix::C, 4, "c"),
            (Matrix::Residual, 4, "residual"),
            (Matrix::Preactivation, 4, "preactivation"),
            (Matrix::D, 4, "d"),
        ];
        for (matrix, row, name) in all {
            for ld in [0, row - 1] {
                let gemm = Gemm::new(3, 4, 5).leading(matrix, ld).subnormals(policy(&device));
                let error = gemm.plan::<bf16, bf16>(&device).unwrap_err();
                assert!(matches!(error, Error::Range { .. }), "{error}");
                assert_eq!(arg(&error), name);
            }
        }
        // Transposed, the row is the other dimension.
        let gemm = Gemm::new(3, 4, 5).layout(Layout::TT).leading(Matrix::A, 2);
        let gemm = gemm.subnormals(policy(&device));
        assert_eq!(arg(&gemm.plan::<bf16, bf16>(&device).unwrap_err()), "a");
    }
}

#[test]
fn g08_g21_sizes_that_overflow_are_refused_and_large_ones_are_not_truncated() {
    for device in common::devices() {
        let huge = 1usize << 40;
        for (m, n, k) in [(huge, huge, 1), (huge, 1, huge), (1, huge, huge), (usize::MAX, 2, 2)] {
            for layout in Layout::ALL {
                let gemm = Gemm::new(m, n, k).layout(layout).subnormals(policy(&device));
                let error = gemm.plan::<bf16, bf16>(&device).unwrap_err();
                assert!(matches!(error, Error::Shape { .. }), "{error}");
            }
        }
        let gemm = Gemm::new(3, 4, 5).leading(Matrix::D, usize::MAX / 2);
        let gemm = gemm.subnormals(policy(&device));
        assert_eq!(arg(&gemm.plan::<bf16, bf16>(&device).unwrap_err()), "d");
        let error = Gemm::swiglu(1, usize::MAX, 1).plan::<f32, f32>(&device).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        // 2³² elements and more are planned as what they are: a short operand is told by how much.
        let gemm = Gemm::new(1 << 17, 1 << 17, 8);
        let error = attempt(&device, &gemm, [1 << 20, 1 << 20, 16]).unwrap_err();
        assert!(error.to_string().contains(&(1u64 << 34).to_string()), "{error}");
    }
}

/// 2³¹ elements and more between the rows of D: offsets are 64-bit. (Memory that is never touched
/// costs nothing.)
#[test]
#[cfg(target_pointer_width = "64")]
fn g21_offsets_beyond_32_bits_arrive() {
    for device in common::gemm_devices() {
        let stream = device.stream().unwrap();
        let ld = (1usize << 31) + 7;
        // Pages of zeros that the system makes up when they are touched.
        let mut memory = vec![0u16; ld + 3];
        let mut d: &mut [bf16] = bytemuck::cast_slice_mut(&mut memory);
        let plan = Gemm::new(2, 3, 1).leading(Matrix::D, ld).plan::<bf16, bf16>(&device).unwrap();
        let (a, b) = (vec![bf16::ONE, bf16::from_f32(2.0)], vec![bf16::from_f32(3.0); 3]);
        plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
        stream.sync().unwrap();
        assert_eq!(d[ld..], [bf16::from_f32(6.0); 3]);
        assert_eq!(d[..4], [3.0, 3.0, 3.0, 0.0].map(bf16::from_f32));
    }
}

#[test]
fn g09_any_element_alignment_works_and_less_is_an_error() {
    for device in common::devices() {
        for shift in 0..8 {
            let case = Case { shift, bias: true, gap: 1, ..Case::new(17, 33, 20) };
            let data = Data::<f16, f16>::new(&case);
            let aligned = run(&Case { shift: 0, ..case }, &data, &device);
            assert_eq!(run(&case, &data, &device).bits(), aligned.bits());
        }
        let stream = device.stream().unwrap();
        let bytes = [0u8; 64];
        // SAFETY: inside `bytes`, which is only ever refused.
        let odd = unsafe { Raw::<bf16>::new(bytes.as_ptr() as u64 | 1, 4) };
        let (b, mut d) = (Values::from([bf16::ONE; 4]), Values::from([bf16::ZERO; 4]));
        let gemm = Gemm::new(2, 2, 2).subnormals(policy(&device));
        let plan = gemm.plan::<bf16, bf16>(&device).unwrap();
        let error = plan.run(&stream, Operands::new(&odd, &b, &mut d)).unwrap_err();
        assert!(matches!(error, Error::Align { need: 2, .. }), "{error}");
        assert_eq!((arg(&error).as_str(), &d[..]), ("a", &[bf16::ZERO; 4][..]));
    }
}

#[test]
fn g13_g15_c_and_residual_in_place_give_the_bits_of_separate_ones() {
    for device in common::devices() {
        let base = Case { beta: 0.75, bias: true, gap: 3, ..Case::new(70, 50, 33) };
        for (c, residual) in [(Term::InPlace, Term::Own), (Term::Own, Term::InPlace)] {
            for activation in [Activation::Relu, Activation::GeluErf] {
                let own = Case { c: Term::Own, residual: Term::Own, activation, ..base };
                let data = Data::<bf16, bf16>::new(&own);
                let expected = run(&own, &data, &device);
                let got = run(&Case { c, residual, ..own }, &data, &device);
                assert_eq!(got.bits(), expected.bits());
            }
        }
        // By address too: raw memory that is exactly D.
        let stream = device.stream().unwrap();
        let (a, b) = (Values::from([1.0f32; 6]), Values::from([1.0f32; 6]));
        let d = device.upload(&[8.0f32; 4]).unwrap();
        let address = d.address();
        // SAFETY: `d` outlives both and is not used meanwhile.
        let (c, mut out) = unsafe { (Raw::<f32>::new(address, 4), Raw::<f32>::new(address, 4)) };
        let plan = Gemm::new(2, 2, 3).beta(1.0).plan::<f32, f32>(&device).unwrap();
        plan.run(&stream, Operands { c: Source::From(&c), ..Operands::new(&a, &b, &mut out) })
            .unwrap();
        let mut got = [0.0; 4];
        d.read(&stream, 0, &mut got).unwrap();
        assert_eq!(got, [11.0; 4]);
    }
}

/// What is in place lies as D does: only D's rows and members have to be told.
#[test]
fn what_is_in_place_has_the_leading_dimension_and_stride_of_d() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let (a, b) = (Values::from([1.0f32; 6]), Values::from([1.0f32; 6]));
        let gemm = Gemm::new(2, 2, 1).batch(3).leading(Matrix::D, 3).stride(Matrix::D, 7).beta(2.0);
        let plan = gemm.plan::<f32, f32>(&device).unwrap();
        let old: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let inside = |i: usize| i % 7 < 6 && i % 7 % 3 < 2;
        let expected = |factor: f32, plus: f32| -> Vec<f32> {
            let new = |(i, &v): (usize, &f32)| if inside(i) { factor * v + plus } else { v };
            old.iter().enumerate().map(new).collect()
        };
        let mut d = Values::from(old.clone());
        plan.run(&stream, Operands { c: Source::InPlace, ..Operands::new(&a, &b, &mut d) })
            .unwrap();
        assert_eq!(&d[..], expected(2.0, 1.0));
        let plan = gemm.beta(0.0).plan::<f32, f32>(&device).unwrap();
        let mut d = Values::from(old.clone());
        plan.run(&stream, Operands { residual: Source::InPlace, ..Operands::new(&a, &b, &mut d) })
            .unwrap();
        assert_eq!(&d[..], expected(1.0, 1.0));
    }
}

#[test]
fn g14_an_output_over_another_operand_is_refused() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let memory = device.upload(&[1.0f32; 64]).unwrap();
        let start = memory.address();
        // SAFETY: inside `memory`, which outlives them and is read once all is done.
        let raw = |at: usize, len: usize| unsafe { Raw::<f32>::new(start + 4 * at as u64, len) };
        let plan = Gemm::new(2, 2, 3).beta(1.0).plan::<f32, f32>(&device).unwrap();
        let apart = || (raw(0, 6), raw(8, 6), raw(16, 4), raw(32, 4));
        let cases = [
            ("d/a", raw(5, 4), raw(20, 4)),
            ("d/b", raw(8, 4), raw(20, 4)),
            ("d/c", raw(32, 4), raw(33, 4)),
            ("d/c", raw(32, 4), raw(29, 4)),
            ("preactivation/c", raw(20, 4), raw(40, 4)),
            ("d/preactivation", raw(42, 4), raw(20, 4)),
        ];
        for (expected, mut d, c) in cases {
            let (a, b, ..) = apart();
            let mut z = raw(40, 4);
            let mut operands = Operands { c: Source::From(&c), ..Operands::new(&a, &b, &mut d) };
            if expected.contains("pre") {
                operands.preactivation = Some(&mut z);
            }
            let error = plan.run(&stream, operands).unwrap_err();
            assert!(matches!(error, Error::Overlap { .. }), "{expected}: {error}");
            assert_eq!(arg(&error), expected);
        }
        // Columns of one matrix, side by side, share no element.
        let side = Gemm::new(2, 2, 2).leading(Matrix::A, 8).leading(Matrix::D, 8);
        let plan = side.plan::<f32, f32>(&device).unwrap();
        let (a, b, mut d) = (raw(0, 10), raw(40, 4), raw(2, 10));
        plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
        let mut d = raw(1, 10);
        assert!(plan.run(&stream, Operands::new(&a, &b, &mut d)).is_err());
        let mut got = [0.0; 5];
        memory.read(&stream, 0, &mut got).unwrap();
        assert_eq!(got, [1.0, 1.0, 2.0, 2.0, 1.0]);
    }
}

#[test]
fn g26_memory_and_streams_of_other_devices() {
    for device in common::devices() {
        let other = common::cpu(2);
        let plan = Gemm::new(1, 1, 1).plan::<f32, f32>(&device).unwrap();
        let (a, mut d) = (Values::from([1.0f32]), Values::from([0.0f32]));
        let stream = other.stream().unwrap();
        let error = plan.run(&stream, Operands::new(&a, &a, &mut d)).unwrap_err();
        assert_eq!(arg(&error), "stream");
        assert_eq!(d, [0.0]);
        if device.info().kind != DeviceKind::Cpu {
            let (stream, host) = (device.stream().unwrap(), vec![1.0f32]);
            let error = plan.run(&stream, Operands::new(&a, &host, &mut d)).unwrap_err();
            assert!(matches!(error, Error::Device { .. }), "{error}");
            assert_eq!(arg(&error), "b");
            assert_eq!(d, [0.0]);
        }
    }
}

/// Two that look the same: the error says what to do.
#[test]
fn a_device_that_was_opened_twice_is_two() {
    let (device, again) = (common::cpu(2), common::cpu(2));
    let plan = Gemm::new(1, 1, 1).plan::<f32, f32>(&device).unwrap();
    let run = |stream: &halfstep::Stream| {
        let mut d = [0.0];
        plan.run(stream, Operands::new(&[1.0f32], &[1.0f32], &mut d))
    };
    run(&device.clone().stream().unwrap()).unwrap();
    let error = run(&again.stream().unwrap()).unwrap_err();
    assert!(error.to_string().contains("opened another time; clone the one there is"), "{error}");
}

/// Pins are a GPU's; one that no device could have is refused by all.
#[test]
fn more_parts_of_k_than_there_can_be_are_refused() {
    for device in common::devices() {
        let error = Gemm::new(1, 1, 4096).split(65).plan::<f32, f32>(&device).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("k in 65 parts: 1 to 64 parts of k"), "{text}");
    }
}

#[test]
fn g27_type_pairs_that_are_not_built_say_which_are() {
    for device in common::devices() {
        let errors = [
            (Gemm::new(1, 1, 1).plan::<f16, bf16>(&device).unwrap_err(), "f16 in, f16 or f32 out"),
            (
                Gemm::new(1, 1, 1).plan::<bf16, f16>(&device).unwrap_err(),
                "bf16 in, bf16 or f32 out",
            ),
            (Gemm::new(1, 1, 1).plan::<f32, bf16>(&device).unwrap_err(), "f32 in, f32 out"),
            (
                DataGrad::new(1, 1, 1).plan::<f16, bf16>(&device).unwrap_err(),
                "f16 in, f16 or f32 out",
            ),
        ];
        for (error, there) in errors {
            assert!(matches!(error, Error::Unsupported { .. }));
            assert!(error.to_string().ends_with(&format!("supported: {there}")), "{error}");
        }
    }
}

#[test]
fn g28_a_derivative_without_its_preactivation_is_refused() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let (x, mut d) = (Values::from([1.0f32]), Values::from([5.0f32]));
        let plan =
            Gemm::new(1, 1, 1).derivative(Activation::Relu).plan::<f32, f32>(&device).unwrap();
        let error = plan.run(&stream, Operands::new(&x, &x, &mut d)).unwrap_err();
        assert_eq!(arg(&error), "derivative_of");
        // What would be ignored is refused, too.
        let plan =
            Gemm::new(1, 1, 1).activation(Activation::Relu).plan::<f32, f32>(&device).unwrap();
        let operands = Operands { derivative_of: Some(&x), ..Operands::new(&x, &x, &mut d) };
        assert_eq!(arg(&plan.run(&stream, operands).unwrap_err()), "derivative_of");
        let plan =
            DataGrad::new(1, 1, 1).activation(Activation::Silu).plan::<f32, f32>(&device).unwrap();
        let error = plan.run(&stream, DataGradOperands::new(&x, &x, &mut d)).unwrap_err();
        assert_eq!(arg(&error), "z");
        let plan = WeightGrad::new(1, 1, 1)
            .activation(Activation::Silu)
            .plan::<f32, f32>(&device)
            .unwrap();
        let error = plan.run(&stream, WeightGradOperands::new(&x, &x, &mut d)).unwrap_err();
        assert_eq!(arg(&error), "z");
        assert_eq!(d, [5.0]);
    }
}

/// Without groups, a B of several would be read as its first.
#[test]
fn group_ends_of_a_plan_without_groups_are_refused() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let (x, ends, mut d) =
            (Values::from([1.0f32]), Values::from([1u32]), Values::from([5.0f32]));
        let group_ends = Some(&ends as _);
        let forward = Operands { group_ends, ..Operands::new(&x, &x, &mut d) };
        let plan = Gemm::new(1, 1, 1).plan::<f32, f32>(&device).unwrap();
        assert_eq!(arg(&plan.run(&stream, forward).unwrap_err()), "group_ends");
        let data = DataGradOperands { group_ends, ..DataGradOperands::new(&x, &x, &mut d) };
        let plan = DataGrad::new(1, 1, 1).plan::<f32, f32>(&device).unwrap();
        assert_eq!(arg(&plan.run(&stream, data).unwrap_err()), "group_ends");
        let weight = WeightGradOperands { group_ends, ..WeightGradOperands::new(&x, &x, &mut d) };
        let plan = WeightGrad::new(1, 1, 1).plan::<f32, f32>(&device).unwrap();
        assert_eq!(arg(&plan.run(&stream, weight).unwrap_err()), "group_ends");
        assert_eq!(d, [5.0]);
    }
}

#[test]
fn g30_outputs_whose_elements_would_share_memory_are_refused() {
    for device in common::devices() {
        for stride in [0, 1, 11] {
            let gemm = Gemm::new(3, 4, 5).batch(2).stride(Matrix::D, stride);
            let gemm = gemm.subnormals(policy(&device));
            let error = gemm.plan::<bf16, bf16>(&device).unwrap_err();
            assert_eq!(arg(&error), "d", "{error}");
        }
        // Side by side in the rows of one larger matrix: the heads of attention.
        let heads = Gemm::new(3, 4, 5).batch(2).leading(Matrix::D, 8).stride(Matrix::D, 4);
        let heads = heads.subnormals(policy(&device));
        assert!(heads.plan::<bf16, bf16>(&device).is_ok());
        assert!(heads.batch(3).plan::<bf16, bf16>(&device).is_err());
    }
}

#[test]
fn scalars_and_combinations_that_make_no_sense_are_refused() {
    for device in common::devices() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(
                arg(&Gemm::new(1, 1, 1).alpha(bad).plan::<f32, f32>(&device).unwrap_err()),
                "alpha"
            );
            assert_eq!(
                arg(&Gemm::new(1, 1, 1).beta(bad).plan::<f32, f32>(&device).unwrap_err()),
                "beta"
            );
        }
        for gemm in [
            Gemm::swiglu(1, 1, 1).beta(1.0),
            Gemm::swiglu(1, 1, 1).derivative(Activation::Silu),
            Gemm::new(1, 1, 1).groups(1).batch(2),
            Gemm::new(1, 1, 1).groups(1).layout(Layout::TN),
            Gemm::new(1, 1, 1).batch(2).leading(Matrix::Bias, 1),
        ] {
            let error = gemm.plan::<f32, f32>(&device).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
        assert!(SwigluGrad::new(1, usize::MAX).plan::<f32>(&device).is_err());
        let gemm = Gemm::new(2, 3, 4).subnormals(policy(&device));
        let said = gemm.plan::<bf16, bf16>(&device).unwrap().explain();
        // The CPU has no kernel of that name, and no tile of a GPU's.
        let cpu = device.info().kind == DeviceKind::Cpu;
        assert_eq!(said.contains("hs_gemm_product_bf16_nn"), !cpu, "{said}");
        assert_eq!(said.contains("bf16 NN") && said.contains(&device.info().arch), cpu, "{said}");
    }
}
