//! The loss scale after each step, to be matched exactly.

use halfstep::optim::{Dynamic, LossScale, Scaler};

use super::{Case, Reason, failed};

pub fn replay(case: &Case) -> Result<f64, Reason> {
    let rules = Dynamic {
        init: case.number("init_scale")?,
        growth: case.number("growth_factor")?,
        backoff: case.number("backoff_factor")?,
        interval: u32::try_from(case.size("growth_interval")?)
            .map_err(|_| "attribute growth_interval is too large")?,
        ..Dynamic::PYTORCH
    };
    let overflows = case.input("found_inf")?.f64s()?;
    let scales = case.output("scale")?.shaped(&[overflows.len()])?.f64s()?;
    let trackers = case.output("growth_tracker")?.shaped(&[overflows.len()])?.f64s()?;
    let mut scale = LossScale::new(Scaler::Dynamic(rules)).map_err(failed)?;
    for (step, overflow) in overflows.into_iter().enumerate() {
        scale.update(overflow != 0.0);
        let found = (f64::from(scale.scale()), f64::from(scale.growth_tracker()));
        let expected = (scales[step], trackers[step]);
        if found != expected {
            return Err(format!("step {step}: (scale, tracker) {found:?}, expected {expected:?}"));
        }
    }
    Ok(0.0)
}
