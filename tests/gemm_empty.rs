//! Backward products of layers of which a dimension is 0.
#![allow(missing_docs)]

mod common;

use common::memory::Values;
use halfstep::Device;
use halfstep::gemm::{DataGrad, DataGradOperands, WeightGrad, WeightGradOperands};

/// A layer without inputs has no `dx` and no `dw`, and a `db` all the same. Of one row (of `dy`, or of `dw`), in a group or
/// not, too.
#[test]
fn layers_without_inputs_have_a_bias_gradient_and_nothing_else() {
    let forms = ["reference", "avx512bf16", "avx512f", "avx2+fma", "portable"];
    let form = |arch| Device::cpu_with_arch(2.try_into().unwrap(), arch).ok();
    for device in common::product_devices().into_iter().chain(forms.into_iter().filter_map(form)) {
        let stream = device.stream().unwrap();
        for (rows, output, groups) in [(1, 5, None), (2, 5, Some(2)), (4, 1, None), (4, 1, Some(2))]
        {
            let dy = Values::from(vec![1.0f32; rows * output]);
            let (none, ends) = (Values::<f32>::from(vec![]), Values::from([1u32, rows as u32]));
            let (mut dx, mut dw) = (none.clone(), none.clone());
            let data = DataGrad::new(rows, 0, output);
            let data = groups.map_or(data.clone(), |count| data.groups(count));
            let mut operands = DataGradOperands::new(&dy, &none, &mut dx);
            operands.group_ends = groups.map(|_| &ends as _);
            data.plan::<f32, f32>(&device).unwrap().run(&stream, operands).unwrap();
            for (accumulate, wanted) in [(false, false), (false, true), (true, true)] {
                let mut db = Values::from(vec![8.0f32; groups.unwrap_or(1) * output]);
                let weight = WeightGrad::new(rows, 0, output).accumulate(accumulate);
                let weight = groups.map_or(weight.clone(), |count| weight.groups(count));
                let mut operands = WeightGradOperands::new(&dy, &none, &mut dw);
                operands.db = wanted.then_some(&mut db);
                operands.group_ends = groups.map(|_| &ends as _);
                weight.plan::<f32, f32>(&device).unwrap().run(&stream, operands).unwrap();
                stream.sync().unwrap();
                let of = |group: usize| match groups {
                    Some(_) => [1, rows - 1][group],
                    None => rows,
                };
                let old = if accumulate || !wanted { 8.0 } else { 0.0 };
                for (at, found) in db.iter().enumerate() {
                    let sum = if wanted { of(at / output) as f32 } else { 0.0 };
                    assert_eq!(
                        *found,
                        old + sum,
                        "{rows}, {output}, {groups:?}: {}",
                        device.info()
                    );
                }
            }
        }
    }
}
