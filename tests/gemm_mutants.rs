//! The tests' own test: seven defects that matrix kernels have had, each in a copy of the product, and
//! the checks of the suites have to catch every one of them. A correct copy has to pass.
#![allow(missing_docs)]

mod common;

use common::bound::{self, Growth};
use common::data::Distribution;
use common::gemm_case::{Case, Data, Written, exact};
use common::rounding::round;
use halfstep::gemm::Layout;
use halfstep::{Storage, bf16};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Defect {
    None,
    /// The last step of `k` is left out, everywhere.
    LastStepDropped,
    /// One product of one element is left out.
    OneProductDropped,
    /// The last eight steps read the next row of A.
    WrongRow,
    /// The sum is rounded to bf16 every 32 steps.
    Bf16Sums,
    /// Two halves of `k` are rounded to bf16 before they are added.
    Bf16Partials,
    /// The output is cut off, not rounded.
    Truncated,
    /// The tile past the edge is written where the next row begins.
    Shifted,
}

const DEFECTS: [Defect; 7] = [
    Defect::LastStepDropped,
    Defect::OneProductDropped,
    Defect::WrongRow,
    Defect::Bf16Sums,
    Defect::Bf16Partials,
    Defect::Truncated,
    Defect::Shifted,
];

/// `D = A·B`, with a defect.
fn product<O: Storage>(case: &Case, data: &Data<bf16, O>, defect: Defect) -> Written<bf16, O> {
    let (m, n, k) = (case.m, case.n, case.k);
    let narrow = |v: f32| bf16::narrow(v).widen();
    let mut d = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut first_half) = (0.0f32, 0.0f32);
            for p in 0..k {
                let row = if defect == Defect::WrongRow && p + 8 >= k { (i + 1) % m } else { i };
                let dropped = match defect {
                    Defect::LastStepDropped => p + 1 == k,
                    Defect::OneProductDropped => (i, j, p) == (m / 2, n / 3, k / 2),
                    _ => false,
                };
                if !dropped {
                    sum = data.a[row * k + p].widen().mul_add(data.b[p * n + j].widen(), sum);
                }
                if defect == Defect::Bf16Sums && p % 32 == 31 {
                    sum = narrow(sum);
                }
                if defect == Defect::Bf16Partials && p + 1 == k / 2 {
                    (first_half, sum) = (narrow(sum), 0.0);
                }
            }
            if defect == Defect::Bf16Partials {
                sum = first_half + narrow(sum);
            }
            d.push(if defect == Defect::Truncated && size_of::<O>() == 2 {
                O::narrow(f32::from_bits(sum.to_bits() & 0xffff_0000))
            } else {
                O::narrow(sum)
            });
        }
    }
    if defect == Defect::Shifted {
        d.rotate_right(1);
    }
    Written { d, preactivation: Vec::new() }
}

/// Whether the check of `gemm_exact` finds something.
fn caught_by_integers<O: Storage>(case: &Case, defect: Defect) -> bool {
    let data = Data::<bf16, O>::new(case);
    let written = product(case, &data, defect);
    written.d.iter().enumerate().any(|(index, got)| {
        let exact = exact(case, &data, index / case.n, index % case.n);
        f64::from(got.widen()) != round(exact.value, O::DTYPE)
    })
}

/// Whether the check of `gemm_bound` finds something.
fn caught_by_bound<O: Storage>(case: &Case, defect: Defect) -> bool {
    let data = Data::<bf16, O>::new(case);
    let written = product(case, &data, defect);
    let growth = if case.data.zero_mean() { Growth::ZeroMean } else { Growth::Expected };
    written.d.iter().enumerate().any(|(index, got)| {
        let exact = exact(case, &data, index / case.n, index % case.n);
        let bound = bound::forward(case, growth, &exact, O::DTYPE);
        !bound::within(f64::from(got.widen()), exact.value, bound, O::DTYPE)
    })
}

/// Cases as the suites draw them: the integers of `gemm_exact` and the data of `gemm_bound`.
fn cases() -> impl Iterator<Item = (Case, Case)> {
    let sizes = [(16, 16, 64), (16, 16, 96), (9, 50, 1000)];
    sizes.into_iter().zip(1..).map(|((m, n, k), seed)| {
        let base = Case { layout: Layout::NN, seed, ..Case::new(m, n, k) };
        let integers = Distribution::Integer(if k <= 128 { 15 } else { 7 });
        (Case { data: integers, ..base }, Case { data: Distribution::Normal, ..base })
    })
}

#[test]
fn a_correct_product_passes() {
    for (integers, real) in cases() {
        assert!(!caught_by_integers::<bf16>(&integers, Defect::None));
        assert!(!caught_by_integers::<f32>(&integers, Defect::None));
        assert!(!caught_by_bound::<bf16>(&real, Defect::None));
        assert!(!caught_by_bound::<f32>(&real, Defect::None));
    }
}

/// Each defect, at each size, by the integers alone: in the output type where it can show.
#[test]
fn every_mutant_is_caught_by_integers() {
    for defect in DEFECTS {
        for (integers, _) in cases() {
            let in_bf16 = caught_by_integers::<bf16>(&integers, defect);
            let in_f32 = caught_by_integers::<f32>(&integers, defect);
            assert!(in_bf16 || in_f32, "{defect:?} passes at {integers:?}");
            if !matches!(defect, Defect::Truncated) {
                assert!(in_f32, "{defect:?} passes in f32 at {integers:?}");
            }
        }
    }
}

/// Each defect by the bounds alone.
#[test]
fn every_mutant_is_caught_by_the_bounds() {
    for defect in DEFECTS {
        for (_, real) in cases() {
            let caught =
                caught_by_bound::<f32>(&real, defect) || caught_by_bound::<bf16>(&real, defect);
            assert!(caught, "{defect:?} passes at {real:?}");
        }
    }
}
