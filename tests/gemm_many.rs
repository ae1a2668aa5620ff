//! Products of many: gated layers, batches and groups.
#![allow(missing_docs)]

mod common;

use common::bound::{self};
use common::data::{Distribution, Rng};
use common::gemm_case::{LARGE, SMALL, large};
use common::guard::Guarded;
use common::memory::Values;
use common::oracle_gemm::act_derivative;
use common::policy;
use halfstep::gemm::{
    DataGrad, DataGradOperands, Gemm, Layout, Matrix, Operands, SwigluGrad, WeightGrad,
    WeightGradOperands,
};
use halfstep::{Dtype, bf16};

#[test]
fn swiglu_and_its_gradient_match_f64() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let (rows, n) = (7, 33);
        let mut rng = Rng(5);
        let dy: Values<bf16> = Distribution::Normal.fill(&mut rng, rows * n).into();
        let z: Values<bf16> = Distribution::Normal.fill(&mut rng, rows * 2 * n).into();
        let mut dz = Guarded::<bf16>::output(rows * 2 * n, 3);
        let plan =
            SwigluGrad::new(rows, n).subnormals(policy(&device)).plan::<bf16>(&device).unwrap();
        plan.run(&stream, &dy, &z, &mut dz).unwrap();
        dz.check("dz");
        for r in 0..rows {
            for j in 0..n {
                let at = |half: usize| r * 2 * n + half * n + j;
                let (dy, gate, up) = (dy[r * n + j].to_f64(), z[at(0)].to_f64(), z[at(1)].to_f64());
                let d_gate = dy * up * act_derivative("silu", gate);
                let d_up = dy * common::oracle_gemm::act("silu", gate);
                for (half, exact) in [(0, d_gate), (1, d_up)] {
                    let got = dz.get()[at(half)].to_f64();
                    let slack = 1e-6 * (dy * up).abs() + 1e-6 * exact.abs();
                    let bound = bound::half_ulp(exact, Dtype::Bf16) + slack;
                    assert!((got - exact).abs() <= bound, "{half}: {got} {exact}");
                }
            }
        }
        assert!(plan.run(&stream, &dy, &Values::from(z[1..].to_vec()), &mut dz).is_err());
    }
}

/// A batch is its members, whatever the strides; an input with stride 0 is shared.
#[test]
fn batches_are_their_members() {
    for device in common::product_devices().into_iter().chain([common::cpu(3), common::cpu(1)]) {
        let stream = device.stream().unwrap();
        let (count, m, n, k) = (5, 9, 17, 20);
        let mut rng = Rng(9);
        let a: Values<bf16> = Distribution::Integer(15).fill(&mut rng, count * m * k).into();
        let b: Values<bf16> = Distribution::Integer(15).fill(&mut rng, k * n).into();
        // Heads side by side: D is [m, count, n].
        let gemm = Gemm::new(m, n, k).subnormals(policy(&device)).batch(count).stride(Matrix::B, 0);
        let heads = gemm.leading(Matrix::D, count * n).stride(Matrix::D, n);
        let mut d = Guarded::<f32>::output(m * count * n, 1);
        heads
            .plan::<bf16, f32>(&device)
            .unwrap()
            .run(&stream, Operands::new(&a, &b, &mut d))
            .unwrap();
        d.check("d");
        for i in 0..count {
            let one = Values::from(a[i * m * k..(i + 1) * m * k].to_vec());
            let mut expected = Values::from(vec![0.0f32; m * n]);
            let plan =
                Gemm::new(m, n, k).subnormals(policy(&device)).plan::<bf16, f32>(&device).unwrap();
            plan.run(&stream, Operands::new(&one, &b, &mut expected)).unwrap();
            for r in 0..m {
                let row = &d.get()[(r * count + i) * n..][..n];
                assert_eq!(row, &expected[r * n..(r + 1) * n]);
            }
        }
    }
}

/// More tiles than a GPU has room for at once: blocks compute several, in the same memory.
#[test]
fn blocks_compute_one_tile_after_another() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let (count, m, n, k) = (450, 120, 16, 8); // rows in the last pass of an epilogue
        let mut rng = Rng(10);
        let a: Values<bf16> = Distribution::Integer(15).fill(&mut rng, count * m * k).into();
        let b: Values<bf16> = Distribution::Integer(15).fill(&mut rng, count * k * n).into();
        for tile in [SMALL, LARGE[0], LARGE[1]] {
            let gemm = Gemm::new(m, n, k).batch(count).subnormals(policy(&device)).tile(tile);
            let mut d = Guarded::<f32>::output(count * m * n, 0);
            let plan = gemm.plan::<bf16, f32>(&device).unwrap();
            plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
            d.check("d");
            for (at, got) in d.get().iter().enumerate() {
                let (member, i, j) = (at / (m * n), at / n % m, at % n);
                let term = |p: usize| {
                    a[(member * m + i) * k + p].to_f64() * b[(member * k + p) * n + j].to_f64()
                };
                assert_eq!(f64::from(*got), (0..k).map(term).sum::<f64>(), "{tile}: {at}");
            }
        }
    }
}

/// Groups without rows, the first of them at the operands' start: their weight gradients are sums of nothing, in whatever
/// tile.
#[test]
fn empty_groups_have_gradients_of_zero_in_every_tile() {
    for device in common::gpus() {
        let stream = device.stream().unwrap();
        let (rows, input, output) = (40, 24, 264); // more than a tile
        let ends = Values::from([0u32, 17, 17, 40]);
        let mut rng = Rng(13);
        let small = Distribution::Integer(7);
        let x: Values<bf16> = small.fill(&mut rng, rows * input).into();
        let dy: Values<bf16> = small.fill(&mut rng, rows * output).into();
        for tile in large(Layout::TN, &device).into_iter().chain([SMALL]) {
            let plan = WeightGrad::new(rows, input, output).subnormals(policy(&device)).groups(4);
            let plan = plan.tile(tile).plan::<bf16, f32>(&device).unwrap();
            let mut dw = Guarded::<f32>::output(4 * output * input, 0);
            let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
            operands.group_ends = Some(&ends);
            plan.run(&stream, operands).unwrap();
            for (at, got) in dw.get().iter().enumerate() {
                let (g, o, i) = (at / (output * input), at / input % output, at % input);
                let term = |r: usize| dy[r * output + o].to_f64() * x[r * input + i].to_f64();
                let sum: f64 = [0..0, 0..17, 17..17, 17..40][g].clone().map(term).sum();
                assert_eq!(f64::from(*got), sum, "{tile} on {}: {at}", device.info());
            }
        }
    }
}

/// Each group is a product with its own weight; rows behind the last group are left alone.
#[test]
fn groups_are_their_members_forward_and_backward() {
    for device in common::product_devices() {
        let stream = device.stream().unwrap();
        let (rows, input, output) = (40, 18, 21);
        let ends = Values::from([7u32, 7, 30, 25, 38]); // an empty group, and one that ends before the last
        let starts = [0usize, 7, 7, 30, 30];
        let stops = [7usize, 7, 30, 30, 38];
        let mut rng = Rng(11);
        let small = Distribution::Integer(7);
        let x: Values<bf16> = small.fill(&mut rng, rows * input).into();
        let dy: Values<bf16> = small.fill(&mut rng, rows * output).into();
        let w: Values<bf16> = small.fill(&mut rng, 5 * output * input).into();
        let bias: Values<bf16> = small.fill(&mut rng, 5 * output).into();
        let at = |group: usize, o: usize, i: usize| w[(group * output + o) * input + i].to_f64();

        let plan =
            Gemm::new(rows, output, input).subnormals(policy(&device)).layout(Layout::NT).groups(5);
        let mut y = Guarded::<f32>::output(rows * output, 0);
        let mut operands = Operands::new(&x, &w, &mut y);
        operands.bias = Some(&bias);
        operands.group_ends = Some(&ends);
        plan.plan::<bf16, f32>(&device).unwrap().run(&stream, operands).unwrap();
        y.check("y");

        let plan = DataGrad::new(rows, input, output)
            .subnormals(policy(&device))
            .groups(5)
            .plan::<bf16, f32>(&device)
            .unwrap();
        let mut dx = Guarded::<f32>::output(rows * input, 0);
        let operands =
            DataGradOperands { group_ends: Some(&ends), ..DataGradOperands::new(&dy, &w, &mut dx) };
        plan.run(&stream, operands).unwrap();

        let plan = WeightGrad::new(rows, input, output)
            .subnormals(policy(&device))
            .groups(5)
            .plan::<bf16, f32>(&device)
            .unwrap();
        let mut dw = Guarded::<f32>::output(5 * output * input, 0);
        let mut db = Guarded::<f32>::output(5 * output, 0);
        let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
        operands.db = Some(&mut db);
        operands.group_ends = Some(&ends);
        plan.run(&stream, operands).unwrap();

        for g in 0..5 {
            for r in starts[g]..stops[g] {
                for o in 0..output {
                    let sum: f64 =
                        (0..input).map(|i| x[r * input + i].to_f64() * at(g, o, i)).sum();
                    let expected = sum + bias[g * output + o].to_f64();
                    assert_eq!(f64::from(y.get()[r * output + o]), expected);
                }
                for i in 0..input {
                    let sum: f64 =
                        (0..output).map(|o| dy[r * output + o].to_f64() * at(g, o, i)).sum();
                    assert_eq!(f64::from(dx.get()[r * input + i]), sum);
                }
            }
            for o in 0..output {
                let rows = || starts[g]..stops[g];
                let sum: f64 = rows().map(|r| dy[r * output + o].to_f64()).sum();
                assert_eq!(f64::from(db.get()[g * output + o]), sum);
                for i in 0..input {
                    let term = |r: usize| dy[r * output + o].to_f64() * x[r * input + i].to_f64();
                    let sum: f64 = rows().map(term).sum();
                    assert_eq!(f64::from(dw.get()[(g * output + o) * input + i]), sum);
                }
            }
        }
        let canary = Guarded::<f32>::canary().to_bits();
        assert!(y.get()[38 * output..].iter().all(|v| v.to_bits() == canary));
        assert!(dx.get()[38 * input..].iter().all(|v| v.to_bits() == canary));
        // Without its list a grouped product does not run; without groups it writes nothing.
        let mut d = Values::from(vec![3.0f32; rows * output]);
        let gemm = Gemm::new(rows, output, input).subnormals(policy(&device)).layout(Layout::NT);
        let plan = gemm.clone().groups(5).plan::<bf16, f32>(&device).unwrap();
        assert!(plan.run(&stream, Operands::new(&x, &w, &mut d)).is_err());
        let none = Values::from(Vec::<u32>::new());
        let plan = gemm.groups(0).plan::<bf16, f32>(&device).unwrap();
        let operands = Operands { group_ends: Some(&none), ..Operands::new(&x, &w, &mut d) };
        plan.run(&stream, operands).unwrap();
        assert!(d.iter().all(|v| *v == 3.0));
    }
}
