//! `y = act(z)`, `z = x·Wᵀ + b`, and its three gradients from `dy`.

use halfstep::gemm::bound::{self, Forward, Growth};
use halfstep::gemm::{
    DataGrad, DataGradOperands, Gemm, Layout, Operands, WeightGrad, WeightGradOperands,
};
use halfstep::{Buffer, Device, Dtype, Storage};

use super::{Case, Reason, Worst, failed, flushed, subnormals, with_storage};

pub fn replay(device: &Device, case: &Case) -> Result<f64, Reason> {
    with_storage!(case.dtype("dtype")?, |T| typed::<T>(device, case))
}

fn typed<T: Storage>(device: &Device, case: &Case) -> Result<f64, Reason> {
    let (rows, input, output) =
        (case.size("rows")?, case.size("in_features")?, case.size("out_features")?);
    let activation = case.activation()?;
    let x = case.input("x")?.shaped(&[rows, input])?.storage::<T>()?;
    let w = case.input("w")?.shaped(&[output, input])?.storage::<T>()?;
    let b = case.input("b")?.shaped(&[output])?.storage::<T>()?;
    let dy = case.input("dy")?.shaped(&[rows, output])?.storage::<T>()?;
    let main_grad = case.input("main_grad")?.shaped(&[output, input])?.storage::<f32>()?;
    let exact = |role: &str, shape: &[usize]| case.output(role)?.shaped(shape)?.f64s();
    let exact_z = exact("preactivation", &[rows, output])?;
    let exact_dz = exact("d_preactivation", &[rows, output])?;
    let exact_dx = exact("dx", &[rows, input])?;
    let exact_dw = exact("dw_accumulated", &[output, input])?;
    let exact_db = exact("db", &[output])?;

    // Forward: the pre-activation, kept in the operands' type as the backward pass reads it.
    let stream = device.stream().map_err(failed)?;
    let policy = subnormals::<T>(device);
    let flush = flushed::<T>(device);
    let lend = |values: &[T]| device.upload(values).map_err(failed);
    let zeros = |len: usize| device.zeros::<T>(len).map_err(failed);
    let (x_lent, w_lent, b_lent, dy_lent) = (lend(&x)?, lend(&w)?, lend(&b)?, lend(&dy)?);
    let (mut z, mut y) = (zeros(rows * output)?, zeros(rows * output)?);
    let forward =
        Gemm::new(rows, output, input).layout(Layout::NT).activation(activation).subnormals(policy);
    let operands = Operands {
        bias: Some(&b_lent),
        preactivation: Some(&mut z),
        ..Operands::new(&x_lent, &w_lent, &mut y)
    };
    forward.plan::<T, T>(device).and_then(|p| p.run(&stream, operands)).map_err(failed)?;

    let mut dz = zeros(rows * output)?;
    let mut dx = device.zeros::<f32>(rows * input).map_err(failed)?;
    let data_grad = DataGrad::new(rows, input, output).activation(activation).subnormals(policy);
    let operands = DataGradOperands {
        z: Some(&z),
        d_preactivation: Some(&mut dz),
        ..DataGradOperands::new(&dy_lent, &w_lent, &mut dx)
    };
    data_grad.plan::<T, f32>(device).and_then(|p| p.run(&stream, operands)).map_err(failed)?;

    let mut dw = device.upload(&main_grad).map_err(failed)?;
    let mut db = device.zeros::<f32>(output).map_err(failed)?;
    let weight_grad = WeightGrad::new(rows, input, output)
        .activation(activation)
        .accumulate(true)
        .subnormals(policy);
    let operands = WeightGradOperands {
        z: Some(&z),
        db: Some(&mut db),
        ..WeightGradOperands::new(&dy_lent, &x_lent, &mut dw)
    };
    weight_grad.plan::<T, f32>(device).and_then(|p| p.run(&stream, operands)).map_err(failed)?;
    let (z, dz) = (z.to_vec(&stream).map_err(failed)?, dz.to_vec(&stream).map_err(failed)?);
    let f32s = |buffer: &Buffer<f32>| buffer.to_vec(&stream).map_err(failed);
    let (dx, dw, db) = (f32s(&dx)?, f32s(&dw)?, f32s(&db)?);

    let wide = |values: &[T]| -> Vec<f64> { values.iter().map(|v| f64::from(v.widen())).collect() };
    let f32s = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| v.into()).collect() };
    let (x, w, b, dy) = (wide(&x), wide(&w), wide(&b), wide(&dy));
    let mut worst = Worst::default();

    // z, and with its error that of dz.
    let mut z_error = vec![0.0; rows * output];
    let mut dz_error = vec![0.0; rows * output];
    for at in 0..exact_z.len() {
        let (r, o) = (at / output, at % output);
        let magnitude = (0..input).map(|i| (x[r * input + i] * w[o * input + i]).abs());
        z_error[at] = bound::bound(Forward {
            growth: Growth::Expected,
            k: input,
            magnitude: magnitude.sum::<f64>() + b[o].abs(),
            activation: halfstep::gemm::Activation::None,
            preactivation: exact_z[at],
            exact: exact_z[at],
            output: T::DTYPE,
        });
        dz_error[at] = bound::dz(activation, T::DTYPE, dy[at], exact_z[at], z_error[at]);
    }
    compare(&mut worst, &wide(&z), &exact_z, |at| z_error[at]);
    // Without an activation dz is dy itself, and not stored.
    let dz = if activation == halfstep::gemm::Activation::None { dy.clone() } else { wide(&dz) };
    // It is stored as the products read it: flushed where they flush.
    compare(&mut worst, &dz, &exact_dz, |at| dz_error[at] + flush.min(exact_dz[at].abs()));
    // Each gradient is a sum over dz, which brings its own error.
    let sum = |terms: usize, dz_at: &dyn Fn(usize) -> usize, by: &dyn Fn(usize) -> f64| {
        (0..terms).fold((0.0, 0.0), |(magnitude, inherited), term| {
            let (at, by) = (dz_at(term), by(term).abs());
            let dz = exact_dz[at].abs();
            // Either factor may be read as zero where it is subnormal.
            let read = flush.min(dz) * by + flush.min(by) * dz;
            (magnitude + dz * by, inherited + dz_error[at] * by + read)
        })
    };
    let tolerance = |k, (magnitude, inherited), extra: f64, exact| {
        bound::backward(Growth::Expected, k, magnitude + extra, inherited, exact, Dtype::F32)
    };
    compare(&mut worst, &f32s(&dx), &exact_dx, |at| {
        let (r, i) = (at / input, at % input);
        let sums = sum(output, &|o| r * output + o, &|o| w[o * input + i]);
        tolerance(output, sums, 0.0, exact_dx[at])
    });
    compare(&mut worst, &f32s(&dw), &exact_dw, |at| {
        let (o, i) = (at / input, at % input);
        let sums = sum(rows, &|r| r * output + o, &|r| x[r * input + i]);
        tolerance(rows, sums, f64::from(main_grad[at]).abs(), exact_dw[at])
    });
    compare(&mut worst, &f32s(&db), &exact_db, |o| {
        let sums = sum(rows, &|r| r * output + o, &|_| 1.0);
        tolerance(rows, sums, 0.0, exact_db[o])
    });
    Ok(worst.0)
}

fn compare(worst: &mut Worst, got: &[f64], exact: &[f64], bound: impl Fn(usize) -> f64) {
    for (at, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        worst.add(got, exact, bound(at));
    }
}
