//! The activations against f64: every bf16 and f16 number, and a sweep of f32.
#![allow(missing_docs)]

mod common;

use common::oracle_gemm::{act, act_derivative};
use common::rounding::ulp;
use halfstep::gemm::Activation;
use halfstep::{Dtype, Storage, bf16, f16};

/// Every finite bf16 and f16 number, and every 1,009th f32.
fn inputs() -> impl Iterator<Item = f32> {
    let bf16s = (0..=u16::MAX).map(|bits| bf16::from_bits(bits).widen());
    let f16s = (0..=u16::MAX).map(|bits| f16::from_bits(bits).widen());
    let f32s = (0..=u32::MAX / 1009).map(|i| f32::from_bits(i * 1009));
    bf16s.chain(f16s).chain(f32s).filter(|z| z.is_finite())
}

/// The ulps that the documentation promises.
fn promised_ulps(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::None | Activation::Relu => 0.0,
        Activation::Silu => 4.0,
        Activation::GeluErf => 8.0,
        Activation::GeluTanh if z >= -1.0 => 4.0,
        Activation::GeluTanh => 4.0 + 6.0 * z * z,
    }
}

#[test]
fn values_are_within_the_promised_ulps() {
    for activation in Activation::ALL {
        let mut worst = [(0.0f64, 0.0f64); 4]; // ratio, z
        for z in inputs() {
            let exact = act(activation.name(), f64::from(z));
            let got = f64::from(activation.apply(z));
            if exact.abs() > f64::from(f32::MAX) {
                assert!(got.is_infinite());
                continue;
            }
            let error = (got - exact).abs() / ulp(exact, Dtype::F32);
            let tiny = exact.abs() < 1e-32;
            let region = [-8.0, -1.0, 0.0].iter().filter(|&&edge| f64::from(z) >= edge).count();
            if error > worst[region].0 && !tiny {
                worst[region] = (error, f64::from(z));
            }
            let allowed = promised_ulps(activation, f64::from(z));
            if got == 0.0 && exact.abs() < 1e-32 {
                continue;
            }
            assert!(
                error <= allowed,
                "{activation:?}({z:e}): {error} ulp of {exact:e}, got {got:e}"
            );
        }
        println!("{activation:?}: worst ulps below -8, -1, 0 and above: {worst:?}");
    }
}

#[test]
fn derivatives_are_within_the_promised_error() {
    for activation in Activation::ALL {
        let promised = match activation {
            Activation::None | Activation::Relu => 0.0,
            _ => 4.0 / 16_777_216.0,
        };
        let mut worst = (0.0f64, 0.0f32);
        for z in inputs() {
            let exact = act_derivative(activation.name(), f64::from(z));
            let error = (f64::from(activation.derivative(z)) - exact).abs();
            if error > worst.0 {
                worst = (error, z);
            }
            assert!(error <= promised, "{activation:?}'({z:e}): off {exact:e} by {error:e}");
        }
        println!("{activation:?}': worst {:.2}·2⁻²⁴ at {}", worst.0 * 16_777_216.0, worst.1);
    }
}

#[test]
fn g29_special_values_follow_the_table() {
    for activation in Activation::ALL {
        let (apply, slope) = (|z| activation.apply(z), |z| activation.derivative(z));
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)] {
            assert!(apply(nan).is_nan(), "{activation:?}");
            assert!(slope(nan).is_nan() || activation == Activation::None, "{activation:?}");
        }
        assert_eq!(apply(f32::INFINITY), f32::INFINITY);
        assert_eq!(apply(f32::MAX), f32::MAX);
        assert_eq!(slope(f32::INFINITY), 1.0);
        assert_eq!(slope(f32::MAX), 1.0);
        for zero in [0.0f32, -0.0] {
            assert_eq!(apply(zero).to_bits(), zero.to_bits(), "{activation:?}({zero})");
        }
        match activation {
            Activation::None => assert_eq!(apply(f32::NEG_INFINITY), f32::NEG_INFINITY),
            Activation::Relu => {
                assert_eq!(apply(f32::NEG_INFINITY).to_bits(), 0);
                assert_eq!((slope(0.0), slope(f32::NEG_INFINITY)), (0.0, 0.0));
            }
            _ => {
                for z in [f32::NEG_INFINITY, f32::MIN, -1e4] {
                    assert_eq!(apply(z).to_bits(), (-0.0f32).to_bits(), "{activation:?}({z:e})");
                    assert_eq!(slope(z), 0.0, "{activation:?}'({z:e})");
                }
                assert!((slope(0.0) - 0.5).abs() < 1e-6 && (slope(-0.0) - 0.5).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn the_oracles_erfc_is_right() {
    // Abramowitz and Stegun, table 7.1 and 7.3.
    for (x, expected) in [
        (0.5, 0.479_500_122_186_953_5),
        (1.0, 0.157_299_207_050_285_13),
        (1.999_999, 0.004_677_755_65),
        (2.0, 0.004_677_734_981_047_266),
        (3.0, 2.209_049_699_858_544e-5),
        (9.0, 4.137_031_746_513_81e-37),
    ] {
        let relative = (common::oracle_gemm::erfc(x) / expected - 1.0).abs();
        assert!(relative < if x == 1.999_999 { 1e-8 } else { 2e-12 }, "erfc({x}): {relative:e}");
    }
}
