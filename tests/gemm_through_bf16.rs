//! Products of f16 whose factors are rounded to bf16: the bits of the product of bf16, on every device, and what stays f16.
#![allow(missing_docs)]

mod common;

use common::bound::Growth;
use common::data::{Distribution, Rng};
use common::gemm_case::{Case, Data, Role, Term, check, run};
use common::memory::Values;
use common::policy;
use common::rounding::round;
use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, Gemm, Layout, Operands, Subnormals, Tile, WeightGrad,
    WeightGradOperands,
};
use halfstep::{Device, DeviceKind, Dtype, Error, Storage, bf16, f16};

/// f16 of all sizes, a third of them subnormal; each as bf16 by the oracle's rounding.
fn numbers(rng: &mut Rng, len: usize) -> (Vec<f16>, Vec<bf16>) {
    let value = |_| {
        let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        f16::narrow(
            (sign * (1.0 + rng.unit()) * f64::from(rng.below(30) as i32 - 24).exp2()) as f32,
        )
    };
    let values: Vec<f16> = (0..len).map(value).collect();
    let rounded = values.iter().map(|v| as_bf16(*v)).collect();
    (values, rounded)
}

fn as_bf16(value: f16) -> bf16 {
    bf16::narrow(round(f64::from(value.widen()), Dtype::Bf16) as f32)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `[m,n]` of f32, by the same order of summation: parts of k and the tile are pinned.
fn product<T: Storage>(gemm: Gemm, a: &[T], b: &[T], len: usize, device: &Device) -> Vec<u32>
where
    Values<T>: halfstep::Read<T>,
{
    let plan = gemm.tile(Tile::new(64, 64)).plan::<T, f32>(device).unwrap();
    let (a, b) = (Values::from(a.to_vec()), Values::from(b.to_vec()));
    let mut d = Values::from(vec![0.0f32; len]);
    plan.run(&device.stream().unwrap(), Operands::new(&a, &b, &mut d)).unwrap();
    bits(&d)
}

#[test]
fn sums_have_the_bits_of_the_product_of_bf16() {
    let mut rng = Rng(41);
    for device in common::devices() {
        for layout in Layout::ALL {
            for (m, n, k, splits) in
                [(1, 1, 1, 1), (70, 66, 45, 1), (1, 40, 130, 1), (40, 72, 200, 3)]
            {
                let gemm = Gemm::new(m, n, k).layout(layout).split(splits);
                let (a, rounded_a) = numbers(&mut rng, m * k);
                let (b, rounded_b) = numbers(&mut rng, k * n);
                let through = gemm.clone().subnormals(Subnormals::ThroughBf16);
                let expected = product(
                    gemm.subnormals(policy(&device)),
                    &rounded_a,
                    &rounded_b,
                    m * n,
                    &device,
                );
                let got = product(through, &a, &b, m * n, &device);
                assert!(got == expected, "{m} {n} {k} {layout:?} on {}", device.info());
            }
        }
    }
}

/// Ties go to even, infinities and NaN stay, and nothing is flushed.
#[test]
fn factors_are_rounded_to_nearest_even() {
    for device in common::devices() {
        let step = 2f32.powi(-8);
        let cases = [
            (1.0 + step, 1.0),
            (1.0 + 3.0 * step, 1.0 + 4.0 * step),
            (1.0 + 1.25 * step, 1.0 + 2.0 * step),
            (-1.0 - 0.75 * step, -1.0),
            (2f32.powi(-24), 2f32.powi(-24)),
            (-1023.0 * 2f32.powi(-24), -1024.0 * 2f32.powi(-24)),
            (65504.0, 65536.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (f32::NAN, f32::NAN),
        ];
        for (value, expected) in cases {
            for in_a in [true, false] {
                let (x, one) = ([f16::narrow(value)], [f16::ONE]);
                let (a, b) = if in_a { (&x, &one) } else { (&one, &x) };
                let gemm = Gemm::new(1, 1, 1).subnormals(Subnormals::ThroughBf16);
                let got = f32::from_bits(product(gemm, a, b, 1, &device)[0]);
                let same = got == expected || got.is_nan() && expected.is_nan();
                assert!(same, "{value} became {got} on {}", device.info());
            }
        }
    }
}

/// Everything around the sum is f16: within the bound of factors that are rounded, and of nothing else.
#[test]
fn epilogues_are_within_their_bounds() {
    for device in common::devices() {
        let mut cases = Vec::new();
        for (i, data) in Distribution::REAL.into_iter().enumerate() {
            let role = [Role::Forward, Role::Derivative, Role::Gated][i % 3];
            let (layout, activation) = (Layout::ALL[i % 4], Activation::ALL[i % 5]);
            let case = Case { data, layout, role, activation, bias: true, ..Case::new(33, 40, 50) };
            let residual = if i % 2 == 0 { Term::Own } else { Term::Absent };
            cases.push(Case { residual, gap: i, shift: i, through_bf16: true, ..case });
        }
        for case in cases {
            let data = Data::<f16, f16>::new(&case);
            check(&case, &data, &run(&case, &data, &device), Growth::Worst);
        }
    }
}

/// A layer's gradients: `dz` and `db` are what they are without; products have the bits of those of bf16.
#[test]
fn gradients_of_a_layer() {
    let (rows, input, output) = (45, 37, 70);
    let mut rng = Rng(43);
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let ((dy, _), (z, _)) =
            (numbers(&mut rng, rows * output), numbers(&mut rng, rows * output));
        let ((w, rounded_w), (x, rounded_x)) =
            (numbers(&mut rng, output * input), numbers(&mut rng, rows * input));
        let (dy, z) = (Values::from(dy), Values::from(z));
        let (w, x) = (Values::from(w), Values::from(x));
        let data_grad = |stored: Option<&mut Values<f16>>| {
            let plan = DataGrad::new(rows, input, output).activation(Activation::Silu);
            let plan = plan.subnormals(Subnormals::ThroughBf16).plan::<f16, f32>(&device).unwrap();
            let mut dx = Values::from(vec![0.0f32; rows * input]);
            let operands = DataGradOperands::new(&dy, &w, &mut dx);
            let d_preactivation = stored.map(|v| v as _);
            let operands = DataGradOperands { z: Some(&z), d_preactivation, ..operands };
            plan.run(&stream, operands).unwrap();
            bits(&dx)
        };
        let mut dz = Values::from(vec![f16::narrow(0.0); rows * output]);
        let dx = data_grad(Some(&mut dz));
        assert!(data_grad(None) == dx, "stored or not, on {}", device.info());
        let exact = Device::cpu();
        let cpu_dz = {
            let plan = DataGrad::new(rows, input, output).activation(Activation::Silu);
            let plan = plan.plan::<f16, f32>(&exact).unwrap();
            let (mut dz, mut dx) =
                (vec![f16::narrow(0.0); rows * output], vec![0.0f32; rows * input]);
            let (dy, z, w) = (dy.to_vec(), z.to_vec(), w.to_vec());
            let operands = DataGradOperands::new(&dy, &w, &mut dx);
            let operands =
                DataGradOperands { z: Some(&z), d_preactivation: Some(&mut dz), ..operands };
            plan.run(&exact.stream().unwrap(), operands).unwrap();
            dz
        };
        assert!(dz.iter().zip(&cpu_dz).all(|(x, y)| x.to_bits() == y.to_bits()));
        let rounded_dz: Vec<bf16> = dz.iter().map(|v| as_bf16(*v)).collect();
        let gemm = Gemm::new(rows, input, output).split(1).subnormals(policy(&device));
        assert!(dx == product(gemm, &rounded_dz, &rounded_w, rows * input, &device));

        let plan = WeightGrad::new(rows, input, output).activation(Activation::Silu);
        let plan = plan.subnormals(Subnormals::ThroughBf16).plan::<f16, f32>(&device).unwrap();
        let (mut dw, mut db) =
            (Values::from(vec![0.0f32; output * input]), Values::from(vec![0.0f32; output]));
        let operands = WeightGradOperands::new(&dy, &x, &mut dw);
        plan.run(&stream, WeightGradOperands { z: Some(&z), db: Some(&mut db), ..operands })
            .unwrap();
        let gemm = Gemm::new(output, input, rows).layout(Layout::TN).split(1);
        let gemm = gemm.subnormals(policy(&device));
        assert!(bits(&dw) == product(gemm, &rounded_dz, &rounded_x, output * input, &device));
        // Sums of f16, not of what they are rounded to.
        for (j, sum) in db.iter().enumerate() {
            let column = (0..rows).map(|i| dz[i * output + j].widen());
            assert_eq!(sum.to_bits(), column.fold(0.0f32, |s, v| s + v).to_bits(), "db[{j}]");
        }
    }
}

#[test]
fn it_is_for_f16() {
    for device in common::devices() {
        let refused = |error: Error, dtype: &str| {
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("ThroughBf16") && text.contains(dtype), "{text}");
        };
        let gemm = Gemm::new(2, 2, 2).subnormals(Subnormals::ThroughBf16);
        refused(gemm.plan::<bf16, bf16>(&device).unwrap_err(), "bf16");
        refused(gemm.plan::<f32, f32>(&device).unwrap_err(), "f32");
        let data = DataGrad::new(2, 2, 2).subnormals(Subnormals::ThroughBf16);
        refused(data.plan::<bf16, bf16>(&device).unwrap_err(), "bf16");
        let weight = WeightGrad::new(2, 2, 2).subnormals(Subnormals::ThroughBf16);
        refused(weight.plan::<f32, f32>(&device).unwrap_err(), "f32");
        let explained = gemm.plan::<f16, f16>(&device).unwrap().explain();
        let says = match device.info().kind {
            DeviceKind::Cpu => explained.ends_with("factors are rounded to bf16"),
            _ => explained.starts_with("hs_gemm_product_bf16_nn:"),
        };
        assert!(says, "{explained}");
    }
}
