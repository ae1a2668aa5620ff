//! Steps of an optimizer on f32 parameters.

use halfstep::optim::bound::{Enclosure, Trajectory};
use halfstep::optim::{
    Adagrad, Adam, AdamW, Config, Group, Lamb, Lion, Optimizer, Rule, Scaler, Sgd, Tensor,
};
use halfstep::{Device, Read, Storage, Write};
use serde_json::Value;

use super::{Case, Reason, Worst, failed, upload, with_storage};

pub fn replay(device: &Device, case: &Case) -> Result<f64, Reason> {
    with_storage!(case.dtype("grad_dtype")?, |G| typed::<G>(device, case))
}

fn typed<G: Storage>(device: &Device, case: &Case) -> Result<f64, Reason> {
    let rule = rule(case)?;
    let scale = case.number("loss_scale")?;
    let skipped = case.attr("skipped_steps")?.as_array().ok_or("skipped_steps is not a list")?;
    let inputs = case.inputs("params")?;
    let values: Vec<Vec<f32>> =
        inputs.iter().map(|p| p.storage::<f32>()).collect::<Result<_, _>>()?;

    let stream = device.stream().map_err(failed)?;
    let mut params = upload(device, &values)?;
    let tensors = params.iter().enumerate().map(|(i, p)| Tensor::new(format!("{i}"), p.len()));
    let config = Config { scaler: Scaler::Fixed(scale), ..Config::default() };
    let groups = [Group::new(rule).tensors(tensors)];
    let mut optimizer = Optimizer::<f32, G>::new(device, &groups, config).map_err(failed)?;
    // The exact history, and how far from it f32 arithmetic may be.
    let wide = |values: &[f32]| values.iter().map(|&v| v.into()).collect::<Vec<f64>>();
    let mut exact: Vec<_> = values.iter().map(|p| Trajectory::new(rule, &wide(p))).collect();

    for step in 0..case.size("steps")? {
        let grads = gradients::<G>(case, step, &values)?;
        let lent = upload(device, &grads)?;
        let mut writes: Vec<&mut dyn Write<f32>> =
            params.iter_mut().map(|p| p as &mut dyn Write<f32>).collect();
        let reads: Vec<Option<&dyn Read<G>>> =
            lent.iter().map(|g| Some(g as &dyn Read<G>)).collect();
        optimizer.run(&stream, &mut writes, &reads).map_err(failed)?;
        let report = optimizer.report(&stream).map_err(failed)?;
        let skip = skipped.iter().any(|s| s.as_u64() == Some(step as u64));
        match report.skipped {
            Some(_) if skip => continue,
            None if !skip => {}
            Some(why) => return Err(format!("step {step} was skipped: {why:?}")),
            None => return Err(format!("step {step} was not skipped")),
        }
        for (exact, grad) in exact.iter_mut().zip(&grads) {
            let grad: Vec<f64> = grad.iter().map(|g| g.widen().into()).collect();
            exact.step(&grad, 1.0 / scale);
        }
    }

    case.outputs("params")?;
    let mut worst = Worst::default();
    for (role, tensors) in &case.outputs {
        let slot = optimizer.slots().iter().position(|slot| slot == role);
        if slot.is_none() && role != "params" {
            let slots = optimizer.slots().join(", ");
            return Err(format!("output {role}: this optimizer has params, {slots}"));
        }
        if tensors.len() != params.len() {
            let (found, expected) = (tensors.len(), params.len());
            return Err(format!("output {role}: {found} tensors, expected {expected}"));
        }
        for (index, tensor) in tensors.iter().enumerate() {
            let found = match slot {
                Some(slot) => optimizer.moment(&stream, slot, index).map_err(failed)?,
                None => params[index].to_vec(&stream).map_err(failed)?,
            };
            let bounds = match slot {
                Some(slot) => exact[index].slot(slot),
                None => exact[index].params(),
            };
            compare(&mut worst, role, &found, &tensor.f64s()?, bounds)?;
        }
    }
    Ok(worst.0)
}

fn compare(
    worst: &mut Worst,
    role: &str,
    found: &[f32],
    exact: &[f64],
    bounds: &[Enclosure],
) -> Result<(), Reason> {
    if exact.len() != found.len() {
        return Err(format!("{role}: {} elements, expected {}", exact.len(), found.len()));
    }
    for ((&found, &exact), bound) in found.iter().zip(exact).zip(bounds) {
        worst.add(found.into(), exact, bound.error);
    }
    Ok(())
}

fn gradients<G: Storage>(
    case: &Case,
    step: usize,
    params: &[Vec<f32>],
) -> Result<Vec<Vec<G>>, Reason> {
    let role = format!("grads{step}");
    let tensors = case.inputs(&role)?;
    let fit = tensors.len() == params.len()
        && tensors.iter().zip(params).all(|(tensor, param)| tensor.len() == param.len());
    if !fit {
        return Err(format!("{role}: not one gradient for each parameter, of its length"));
    }
    tensors.iter().map(|tensor| tensor.storage::<G>()).collect()
}

/// The rule and its hyper-parameters, by PyTorch's names. One that is missing has its default; one
/// that is unknown is an error, not ignored.
fn rule(case: &Case) -> Result<Rule, Reason> {
    let hyper = case.attr("hyper")?.as_object().ok_or("hyper is not an object")?;
    let number = |name: &str, default: f64| match hyper.get(name) {
        None => Ok(default),
        Some(value) => value.as_f64().ok_or(format!("hyper {name} is not a number")),
    };
    let flag = |name: &str| match hyper.get(name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or(format!("hyper {name} is not true or false")),
    };
    // The rule, and the names that it knows.
    macro_rules! rule {
        ($rule:ident: $($number:ident)*; $($flag:ident)*) => {{
            let of = $rule::default();
            let rule = $rule {
                $($number: number(stringify!($number), of.$number)?,)*
                $($flag: flag(stringify!($flag))?,)*
            };
            (rule.into(), [$(stringify!($number),)* $(stringify!($flag),)*].to_vec())
        }};
    }
    let name = case.text("optimizer")?;
    let (rule, known): (Rule, Vec<&str>) = match name {
        "adamw" => rule!(AdamW: lr beta1 beta2 eps weight_decay; amsgrad),
        "adam" => rule!(Adam: lr beta1 beta2 eps weight_decay; amsgrad),
        "sgd" => rule!(Sgd: lr momentum dampening weight_decay; nesterov),
        "adagrad" => rule!(Adagrad: lr lr_decay weight_decay initial_accumulator_value eps;),
        "lamb" => rule!(Lamb: lr beta1 beta2 eps weight_decay;),
        "lion" => rule!(Lion: lr beta1 beta2 weight_decay;),
        other => return Err(format!("unknown optimizer {other}")),
    };
    let off = |value: &Value| matches!(value, Value::Bool(false) | Value::Null);
    for (key, value) in hyper {
        if !known.contains(&key.as_str()) && !off(value) {
            return Err(format!("{name} has no hyper-parameter {key}"));
        }
    }
    Ok(rule)
}
