//! Errors against the bounds that the documentation derives: on seven kinds of data, and on data made to
//! hurt.
#![allow(missing_docs)]

mod common;

use common::bound::{self, Growth};
use common::data::{Distribution, Rng};
use common::gemm_case::{Case, Data, Role, SMALL, check, exact, run};
use halfstep::gemm::{Activation, Layout};
use halfstep::{DeviceKind, Dtype, Storage, bf16, f16};
use proptest::prelude::*;

fn growth(case: &Case) -> Growth {
    if case.data.zero_mean() { Growth::ZeroMean } else { Growth::Expected }
}

/// On the CPU, and an eighth of the cases on GPUs, an interpreter's share: there once more, and at other addresses,
/// for the same bits.
fn within<T: Storage, O: Storage>(case: &Case) {
    for device in common::product_devices() {
        let gpu = device.info().kind != DeviceKind::Cpu;
        if gpu && !case.seed.is_multiple_of(8) {
            continue;
        }
        let case = &Case { tile: gpu.then_some(SMALL), ..case.on::<T>(&device) };
        let data = Data::<T, O>::new(case);
        let written = run(case, &data, &device);
        check(case, &data, &written, growth(case));
        for shift in if gpu { &[0, 3][..] } else { &[] } {
            let again = run(&Case { shift: *shift, ..*case }, &data, &device);
            assert!(again.bits() == written.bits(), "{case:?}, {shift} elements further");
        }
    }
}

proptest! {
    #![proptest_config(common::cases())]

    /// The main loop: f32 output, nothing that hides its error.
    #[test]
    fn sums_are_within_the_tight_bound(
        (m, n) in (1usize..40, 1usize..60),
        k in prop_oneof![1usize..97, 97usize..1200],
        layout in proptest::sample::select(Layout::ALL.to_vec()),
        data in proptest::sample::select(Distribution::REAL.to_vec()),
        seed in any::<u64>(),
    ) {
        let case = Case { layout, data, seed, ..Case::new(m, n, k) };
        within::<bf16, f32>(&case);
        within::<f16, f32>(&case);
        within::<f32, f32>(&case);
    }

    /// Epilogues and rounding to 16 bits.
    #[test]
    fn epilogues_are_within_the_bound(
        (m, n, k) in (1usize..33, 1usize..60, 0usize..97),
        activation in proptest::sample::select(Activation::ALL.to_vec()),
        role in proptest::sample::select(vec![Role::Forward, Role::Derivative, Role::Gated]),
        data in proptest::sample::select(Distribution::REAL.to_vec()),
        (alpha, bias) in (proptest::sample::select(vec![1.0f32, -0.75, 0.1]), any::<bool>()),
        flush in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let case = Case { activation, role, data, alpha, bias, flush, seed, ..Case::new(m, n, k) };
        within::<bf16, bf16>(&case);
        within::<f16, f16>(&case);
        within::<bf16, f32>(&case);
    }
}

/// The library's documented bound says what the suite's own derivation says.
#[test]
fn the_documented_bound_is_the_derived_one() {
    use halfstep::gemm::bound as documented;
    let mut rng = Rng(3);
    for _ in 0..1000 {
        let k = rng.below(5000);
        for (theirs, ours) in [
            (documented::Growth::ZeroMean, Growth::ZeroMean),
            (documented::Growth::Expected, Growth::Expected),
            (documented::Growth::Worst, Growth::Worst),
        ] {
            assert_eq!(theirs.constant(k), bound::constant(ours, k));
            let (z, magnitude) = (rng.normal() * 5.0, 10.0 + rng.unit());
            for activation in Activation::ALL {
                for output in Dtype::ALL {
                    let value = common::oracle_gemm::act(activation.name(), z);
                    let case = Case { activation, ..Case::new(1, 1, k) };
                    let exact = common::gemm_case::Exact {
                        value,
                        z,
                        magnitude,
                        up: 1.0,
                        up_magnitude: 0.0,
                    };
                    let expected = bound::forward(&case, ours, &exact, output);
                    let got = documented::bound(documented::Forward {
                        growth: theirs,
                        k,
                        magnitude,
                        activation,
                        preactivation: z,
                        exact: value,
                        output,
                    });
                    assert!((got / expected - 1.0).abs() < 1e-5, "{got:e} {expected:e}");
                    let dy = rng.normal();
                    let (got, expected) = (
                        documented::dz(activation, output, dy, z, 0.0),
                        bound::dz(activation, output, dy, z),
                    );
                    let relu_dead = activation == Activation::Relu && z < 0.0;
                    assert!(relu_dead || got <= expected * 2.0 + 1e-300, "{got:e} {expected:e}");
                }
            }
        }
    }
    assert!(documented::within(f64::NAN, f64::NAN, 0.0, Dtype::F16));
    assert!(!documented::within(f64::NAN, 1.0, 1e9, Dtype::F16));
    assert!(!documented::within(1.0, 1.0 + 1e-9, f64::NAN, Dtype::F16));
    for (got, exact) in [(3.0, f64::INFINITY), (f64::INFINITY, 3.0), (3.0, 0.0)] {
        assert!(!documented::within(got, exact, f64::INFINITY, Dtype::F16), "{got} {exact}");
    }
    assert!(documented::within(f64::INFINITY, 65520.0, 0.0, Dtype::F16));
    assert!(!documented::within(f64::INFINITY, 65519.0, 0.5, Dtype::F16));
    assert!(!documented::within(f64::NEG_INFINITY, 65520.0, 9.0, Dtype::F16));
}

/// Cancellation, orders that lose the most, extremes of the type; long sums. Any correct kernel is
/// within the worst bound.
#[test]
fn adversarial_sums_are_within_the_worst_bound() {
    let mut worst = 0.0f64;
    for device in common::product_devices() {
        let gpu = device.info().kind != DeviceKind::Cpu;
        if gpu {
            println!("{}: sums of up to 4,097, an interpreter's share", device.info());
        }
        for k in [1, 31, 4097, 65_536, 1 << 20].into_iter().filter(|k| !gpu || *k < 5000) {
            for kind in 0..8 {
                let case = Case { layout: Layout::NT, ..Case::new(1, 1, k) }.on::<bf16>(&device);
                let mut data = Data::<bf16, f32>::new(&case);
                let mut rng = Rng(kind);
                for p in 0..k {
                    let x = rng.normal();
                    let pair = if p % 2 == 0 { 1.0 } else { -1.0 };
                    let value = match kind {
                        0 => pair * if p + 1 == k { 1.001 } else { 3.0 }, // x, −x, …, ε
                        1 => (-(p as f64) * 20.0 / k as f64).exp2() * x,  // descending
                        2 => (-((k - p) as f64) * 20.0 / k as f64).exp2() * x, // ascending
                        3 => {
                            if p == 0 {
                                3e4
                            } else {
                                1e-3
                            }
                        } // one huge, many tiny
                        4 => pair * 32768.0,
                        5 => 1e15,
                        6 => f64::from(bf16::from_bits(1).to_f32()), // subnormal
                        _ => x * 2f64.powi(-64),                     // and so are products
                    };
                    data.a[p] = bf16::from_f64(value);
                    let other = (x.abs() + 0.5) * if kind == 7 { 2f64.powi(-63) } else { 1.0 };
                    data.b[p] = if kind == 6 { bf16::ONE } else { bf16::from_f64(other) };
                }
                worst = worst.max(check(&case, &data, &run(&case, &data, &device), Growth::Worst));
            }
        }
    }
    println!("largest error over the worst bound: {worst:.3}");
}

/// Without a sum, too: half the smallest number is a tie, which becomes 0, and is multiplied by a large one.
#[test]
fn gates_that_underflow_are_within_the_bound() {
    for device in common::product_devices() {
        let case = Case {
            role: Role::Gated,
            bias: true,
            activation: Activation::Silu,
            ..Case::new(1, 1, 0)
        };
        let mut data = Data::<f32, f32>::new(&case);
        (data.bias[0], data.bias[1]) = (f32::from_bits(1), 1e30);
        check(&case, &data, &run(&case, &data, &device), Growth::Worst);
    }
}

/// f16 output near its largest number: infinity exactly where it has to be.
#[test]
fn overflow_of_f16_is_where_the_bound_allows_it() {
    for device in common::product_devices() {
        for scale in [180.0f32, 255.0, 256.0, 260.0] {
            let case = Case { layout: Layout::NN, ..Case::new(8, 48, 4) }.on::<f16>(&device);
            let mut data = Data::<f16, f16>::new(&case);
            for value in data.a.iter_mut().chain(&mut data.b) {
                *value = f16::from_f32(scale / 2.0 * (1.0 + value.to_f32() / 64.0));
            }
            check(&case, &data, &run(&case, &data, &device), Growth::Worst);
            let value = exact(&case, &data, 0, 0).value;
            assert!(scale < 250.0 || value.abs() > 6e4);
        }
    }
}
