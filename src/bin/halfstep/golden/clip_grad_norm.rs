//! The norm of all gradients, and the gradients clipped by it.

use halfstep::optim::{Config, Group, Optimizer, Scaler, Sgd, Tensor};
use halfstep::{Device, Read, Storage, Write};

use super::{Case, Reason, Worst, failed, upload, with_storage};

/// f32's unit roundoff.
const U: f64 = 1.0 / 16_777_216.0;

pub fn replay(device: &Device, case: &Case) -> Result<f64, Reason> {
    with_storage!(case.dtype("grad_dtype")?, |G| typed::<G>(device, case))
}

/// An SGD step with a rate of 1 from 0 leaves minus the clipped gradients: what a step really
/// applies.
fn typed<G: Storage>(device: &Device, case: &Case) -> Result<f64, Reason> {
    let grads: Vec<Vec<G>> =
        case.inputs("grads")?.iter().map(|g| g.storage::<G>()).collect::<Result<_, _>>()?;
    let exact_norm = case.output("total_norm")?.shaped(&[1])?.f64s()?[0];
    let clipped = case.outputs("clipped")?;
    if clipped.len() != grads.len() {
        return Err(format!("clipped: {} tensors, expected {}", clipped.len(), grads.len()));
    }

    let stream = device.stream().map_err(failed)?;
    let tensors = grads.iter().enumerate().map(|(i, g)| Tensor::new(format!("{i}"), g.len()));
    let config = Config {
        clip: Some(case.number("max_norm")?),
        scaler: Scaler::Fixed(case.number("loss_scale")?),
        ..Config::default()
    };
    let groups = [Group::new(Sgd { lr: 1.0, ..Sgd::default() }).tensors(tensors)];
    let mut optimizer = Optimizer::<f32, G>::new(device, &groups, config).map_err(failed)?;
    let zeros: Vec<Vec<f32>> = grads.iter().map(|g| vec![0.0; g.len()]).collect();
    let (mut params, lent) = (upload(device, &zeros)?, upload(device, &grads)?);
    let mut writes: Vec<&mut dyn Write<f32>> =
        params.iter_mut().map(|p| p as &mut dyn Write<f32>).collect();
    let reads: Vec<Option<&dyn Read<G>>> = lent.iter().map(|g| Some(g as &dyn Read<G>)).collect();
    optimizer.run(&stream, &mut writes, &reads).map_err(failed)?;
    let report = optimizer.report(&stream).map_err(failed)?;
    if let Some(why) = report.skipped {
        return Err(format!("skipped: {why:?}"));
    }

    let mut worst = Worst::default();
    // Unscaling rounds each element once (not at all by powers of two); the sum is f64.
    worst.add(report.norm, exact_norm, 2.0 * U * exact_norm);
    for ((param, exact), grad) in params.iter().zip(clipped).zip(&grads) {
        let exact = exact.f64s()?;
        if exact.len() != grad.len() {
            return Err(format!("clipped: {} elements, expected {}", exact.len(), grad.len()));
        }
        for (minus, exact) in param.to_vec(&stream).map_err(failed)?.into_iter().zip(exact) {
            // The norm's error, one rounding of the factor, one of the product.
            worst.add(
                -f64::from(minus),
                exact,
                4.0 * U * exact.abs() + f64::from(f32::MIN_POSITIVE),
            );
        }
    }
    Ok(worst.0)
}
