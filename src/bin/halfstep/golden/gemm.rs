//! `D = act(α·A·B + β·C + bias)`.

use halfstep::gemm::bound::{self, Forward, Growth};
use halfstep::gemm::{Gemm, Layout, Operands, Source};
use halfstep::{Device, Storage};

use super::{Case, Reason, Worst, failed, subnormals, with_storage};

pub fn replay(device: &Device, case: &Case) -> Result<f64, Reason> {
    with_storage!(case.dtype("dtype")?, |T| {
        with_storage!(case.dtype("out_dtype")?, |O| typed::<T, O>(device, case))
    })
}

fn typed<T: Storage, O: Storage>(device: &Device, case: &Case) -> Result<f64, Reason> {
    let (m, n, k) = (case.size("m")?, case.size("n")?, case.size("k")?);
    let (alpha, beta) = (case.number("alpha")?, case.number("beta")?);
    let activation = case.activation()?;
    let layout = case.text("layout")?;
    let (a_shape, b_shape, layout) = match layout {
        "nn" => ([m, k], [k, n], Layout::NN),
        "nt" => ([m, k], [n, k], Layout::NT),
        "tn" => ([k, m], [k, n], Layout::TN),
        "tt" => ([k, m], [n, k], Layout::TT),
        other => return Err(format!("unknown layout {other}")),
    };
    let a = case.input("a")?.shaped(&a_shape)?.storage::<T>()?;
    let b = case.input("b")?.shaped(&b_shape)?.storage::<T>()?;
    let bias = match case.flag("bias")? {
        true => Some(case.input("bias")?.shaped(&[n])?.storage::<T>()?),
        false => None,
    };
    // The format's residual is C, and enters before the activation.
    let c = match case.flag("residual")? || beta != 0.0 {
        true => Some(case.input("c")?.shaped(&[m, n])?.storage::<O>()?),
        false => None,
    };
    let exact = case.output("d")?.shaped(&[m, n])?.f64s()?;

    let (policy, flushed) = subnormals::<T>(device);
    let gemm = Gemm::new(m, n, k)
        .layout(layout)
        .alpha(alpha as f32)
        .beta(beta as f32)
        .activation(activation)
        .subnormals(policy);
    let plan = gemm.plan::<T, O>(device).map_err(failed)?;
    let stream = device.stream().map_err(failed)?;
    let run = || {
        let mut d = device.zeros(m * n)?;
        let c_there = c.as_ref().map(|c| device.upload(c)).transpose()?;
        let bias_there = bias.as_ref().map(|bias| device.upload(bias)).transpose()?;
        let (a, b) = (device.upload(&a)?, device.upload(&b)?);
        let operands = Operands {
            c: c_there.as_ref().map_or(Source::None, |c| Source::From(c)),
            bias: bias_there.as_ref().map(|bias| bias as _),
            ..Operands::new(&a, &b, &mut d)
        };
        plan.run(&stream, operands)?;
        d.to_vec(&stream)
    };
    let d: Vec<O> = run().map_err(failed)?;

    let a_as_named = matches!(layout, Layout::NN | Layout::NT);
    let b_as_named = matches!(layout, Layout::NN | Layout::TN);
    let widen = |value: T| f64::from(value.widen());
    let mut worst = Worst::default();
    for (at, (d, &exact)) in d.iter().zip(&exact).enumerate() {
        let (i, j) = (at / n, at % n);
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for p in 0..k {
            let x = widen(if a_as_named { a[i * k + p] } else { a[p * m + i] });
            let y = widen(if b_as_named { b[p * n + j] } else { b[j * k + p] });
            sum += x * y;
            magnitude += (x * y).abs();
        }
        let added = c.as_ref().map_or(0.0, |c| beta * f64::from(c[at].widen()));
        let bias = bias.as_ref().map_or(0.0, |bias| widen(bias[j]));
        let tolerance = bound::bound(Forward {
            growth: Growth::Expected,
            k,
            magnitude: alpha.abs() * magnitude + added.abs() + bias.abs(),
            activation,
            preactivation: alpha * sum + added + bias,
            exact,
            output: O::DTYPE,
        }) + flushed;
        let got = f64::from(d.widen());
        // An infinity where the bound reaches the type's largest number is right.
        if !(got.is_infinite() && bound::within(got, exact, tolerance, O::DTYPE)) {
            worst.add(got, exact, tolerance);
        }
    }
    Ok(worst.0)
}
