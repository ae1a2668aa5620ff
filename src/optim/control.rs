//! The control stage: from partials to a decision, the next loss scale and every tensor's
//! constants. One block on a device; here, plain Rust. All of it is f64 until the last rounding.
#![forbid(unsafe_code)]

use super::rule::scalars;
use super::{adagrad, adam, adamw, lamb, lion, scale, sgd};
use crate::grad_stats::summarize;
use crate::kernel::params::Partial;
use crate::kernel::params::optim::{
    Control, Group, NONE, Progress, Scalars, ScaleRules, Status, Tensor,
};
use crate::kernel::table::optim::Family;

/// Applied.
pub(crate) const APPLIED: u32 = 0;
/// A gradient has a NaN or ±Inf.
pub(crate) const NON_FINITE: u32 = 1;
/// The norm, or the factor that clipping by it needs, has no f32.
pub(crate) const NORM_OVERFLOW: u32 = 2;

/// What of the block is not an address.
pub(crate) struct Rules {
    pub(crate) clip: f64,
    pub(crate) scale: ScaleRules,
    pub(crate) family: Family,
    pub(crate) scaled: bool,
    pub(crate) carried: bool,
    pub(crate) check: bool,
}

impl Rules {
    pub(crate) fn of(block: &Control) -> Self {
        Self {
            clip: block.clip,
            scale: block.scale,
            // Plans write only numbers of families.
            family: Family::from_code(block.family).unwrap_or(Family::AdamW),
            scaled: block.scaled == 1,
            carried: block.carried == 1,
            check: block.check == 1,
        }
    }
}

/// Decides, and moves the loss scale on. Returns whether the step is to be applied.
pub(crate) fn decide(
    rules: &Rules,
    partials: impl Iterator<Item = Partial> + Clone,
    status: &mut Status,
) -> bool {
    let summary = summarize(partials);
    let inverse = f64::from(status.inverse);
    let norm = summary.sum_squares.sqrt() * if rules.scaled { inverse } else { 1.0 };
    // PyTorch's coefficient; 1 for norm 0. `min` would also hide a NaN: a sum of finite f64
    // squares has none.
    let clip = (rules.clip / (norm + 1e-6)).min(1.0);
    let factor = if rules.carried { clip / f64::from(status.scale) } else { clip } as f32;
    // Partials of scaled gradients cannot show what unscaling by a scale below 1 will overflow;
    // then the norm overflows too.
    let unseen = rules.scaled && norm > f64::from(f32::MAX);
    let vanishes = clip < 1.0 && factor < f32::MIN_POSITIVE;
    status.skip = if !rules.check {
        APPLIED
    } else if summary.non_finite > 0 {
        NON_FINITE
    } else if unseen || vanishes || !norm.is_finite() {
        NORM_OVERFLOW
    } else {
        APPLIED
    };
    let skipped = status.skip != APPLIED;
    status.attempts += 1;
    status.non_finite = summary.non_finite;
    status.norm = norm;
    status.clip = clip;
    status.used_scale = status.scale;
    status.factor = factor;
    status.tensor = summary.first_non_finite.map_or(NONE, |tensor| tensor as u32);
    status.exhausted =
        u32::from(skipped && rules.scale.dynamic == 1 && status.scale <= rules.scale.min);
    status.skips = if skipped { status.skips.saturating_add(1) } else { 0 };
    status.applied += u64::from(!skipped);
    let before = (status.scale, status.growth_tracker, status.hysteresis);
    (status.scale, status.growth_tracker, status.hysteresis) =
        scale::advance(&rules.scale, before, skipped);
    status.inverse = scale::inverse(status.scale);
    !skipped
}

/// Moves one tensor a step on and makes its constants.
pub(crate) fn advance(
    family: Family,
    tensor: &Tensor,
    group: &Group,
    progress: &mut Progress,
) -> Scalars {
    progress.step += 1;
    progress.beta1_power *= group.beta1;
    progress.beta2_power *= group.beta2;
    let lr = group.lr * tensor.lr_factor;
    let decay = group.decay * tensor.decay_factor;
    match family {
        Family::AdamW => adamw::constants(group, progress, lr, decay),
        Family::Adam => adam::constants(group, progress, lr, decay),
        Family::Sgd => sgd::constants(group, progress, lr, decay),
        Family::Adagrad => adagrad::constants(group, progress, lr, decay),
        Family::Lamb => lamb::constants(group, progress, lr, decay),
        Family::Lion => lion::constants(group, progress, lr, decay),
    }
}

/// The constants of a tensor that has no gradient in this step, or of a skipped step.
pub(crate) fn inactive(group: &Group) -> Scalars {
    Scalars { active: 0, ..scalars(group, 0.0, 0.0) }
}
