//! Loss scaling: how the scale follows overflows, as a pure function of their history.
#![forbid(unsafe_code)]

use std::hint::black_box;

use crate::environment::Environment;
use crate::kernel::params::optim::ScaleRules;
use crate::{Error, Result};

/// The smallest scale there is: its inverse is a normal f32, so that no gradient is lost in it.
const SMALLEST: f64 = 1.175_494_350_822_287_5e-38; // 2^-126
/// The largest power of two in f32.
const LARGEST: f64 = 1.701_411_834_604_692_3e38; // 2^127

/// What the loss, and with it every gradient, is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Scaler {
    /// 1. Non-finite gradients still skip the step.
    #[default]
    Off,
    /// Always this.
    Fixed(f64),
    /// Grows while gradients are finite, backs off when they are not.
    Dynamic(Dynamic),
}

/// When forgiven overflows are forgiven again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refill {
    /// After any good step (NVIDIA Apex, Transformer Engine, DeepSpeed's consecutive mode).
    OnGoodStep,
    /// After a growth only (Megatron-LM, DeepSpeed).
    OnGrowth,
}

/// Which good steps count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The `interval`-th good step in a row grows the scale.
    Steps,
    /// The first does not count after the start or an overflow: `interval + 1` (DeepSpeed).
    After,
}

/// Rules of a dynamic loss scale.
///
/// After an overflow: if `hysteresis − 1` have been forgiven already, S ← max(S·backoff, min); else
/// it is forgiven. After `interval` good steps in a row: S ← S·growth, unless that passes `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dynamic {
    /// Scale of the first step, in [`min`, `max`]. Powers of two make unscaling exact.
    pub init: f64,
    /// Above 1.
    pub growth: f64,
    /// In (0, 1).
    pub backoff: f64,
    /// At least 1.
    pub interval: u32,
    /// Overflows until the scale backs off, at least 1: 1 forgives none.
    pub hysteresis: u32,
    /// When forgiven overflows are forgiven again.
    pub refill: Refill,
    /// Which good steps count.
    pub count: Count,
    /// From 2⁻¹²⁶ (so never 0, never subnormal) to `max`.
    pub min: f64,
    /// At most 2¹²⁷ (so never infinite).
    pub max: f64,
}

impl Dynamic {
    /// PyTorch's `GradScaler`: S from 2¹⁶, doubled after 2000 good steps, halved at once.
    pub const PYTORCH: Self = Self {
        init: 65536.0,
        growth: 2.0,
        backoff: 0.5,
        interval: 2000,
        hysteresis: 1,
        refill: Refill::OnGoodStep,
        count: Count::Steps,
        min: SMALLEST,
        max: LARGEST,
    };
    /// NVIDIA Apex's `update_scale_hysteresis` (also Transformer Engine's): one overflow is
    /// forgiven, and again after any good step.
    pub const APEX: Self = Self { hysteresis: 2, ..Self::PYTORCH };
    /// Megatron-LM's `DynamicGradScaler`: S from 2³², at least 1; one overflow is forgiven, and
    /// again after a growth.
    pub const MEGATRON: Self = Self {
        init: 4_294_967_296.0,
        interval: 1000,
        hysteresis: 2,
        refill: Refill::OnGrowth,
        min: 1.0,
        ..Self::PYTORCH
    };
    /// DeepSpeed's `DynamicLossScaler`: as Megatron-LM's from 2¹⁶, but the first good step after
    /// the start or an overflow does not count.
    pub const DEEPSPEED: Self = Self { init: 65536.0, count: Count::After, ..Self::MEGATRON };
    /// DeepSpeed's with `consecutive_hysteresis`: forgiven again after any good step.
    pub const DEEPSPEED_CONSECUTIVE: Self = Self { refill: Refill::OnGoodStep, ..Self::DEEPSPEED };
}

impl Scaler {
    /// [`Dynamic::PYTORCH`].
    pub const PYTORCH: Self = Self::Dynamic(Dynamic::PYTORCH);
    /// [`Dynamic::APEX`].
    pub const APEX: Self = Self::Dynamic(Dynamic::APEX);
    /// [`Dynamic::MEGATRON`].
    pub const MEGATRON: Self = Self::Dynamic(Dynamic::MEGATRON);
    /// [`Dynamic::DEEPSPEED`].
    pub const DEEPSPEED: Self = Self::Dynamic(Dynamic::DEEPSPEED);
}

/// A loss scale and its history. The optimizer keeps one on the device; alone it serves whoever
/// drives the steps otherwise.
///
/// ```
/// use halfstep::optim::{Dynamic, LossScale, Scaler};
/// # fn main() -> halfstep::Result<()> {
/// let scaler = Scaler::Dynamic(Dynamic { interval: 2, ..Dynamic::PYTORCH });
/// let mut scale = LossScale::new(scaler)?;
/// let seen: Vec<f32> = [false, false, true]
///     .map(|overflow| {
///         scale.update(overflow);
///         scale.scale()
///     })
///     .into();
/// assert_eq!(seen, [65536.0, 131072.0, 65536.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScale {
    rules: ScaleRules,
    scale: f32,
    growth_tracker: u32,
    hysteresis: u32,
}

impl LossScale {
    /// The state before the first step.
    ///
    /// # Errors
    /// [`Error::Range`] where a rule is outside the range that [`Dynamic`] gives for it.
    pub fn new(scaler: Scaler) -> Result<Self> {
        let _environment = Environment::standard();
        let scaler = black_box(scaler);
        let rules = rules(scaler)?;
        let scale = match scaler {
            Scaler::Off => 1.0,
            Scaler::Fixed(scale) => scale,
            Scaler::Dynamic(dynamic) => dynamic.init,
        };
        Ok(Self { rules, scale: scale as f32, growth_tracker: 0, hysteresis: rules.hysteresis })
    }

    /// What the next loss is to be multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// 1/S, divided in f64 and rounded once.
    pub fn inverse(&self) -> f32 {
        inverse(self.scale)
    }

    /// Good steps counted towards the next growth.
    pub fn growth_tracker(&self) -> u32 {
        self.growth_tracker
    }

    /// Whether the next overflow that counts cannot lower the scale any more.
    pub fn at_minimum(&self) -> bool {
        self.rules.dynamic == 1 && self.scale <= self.rules.min
    }

    /// Takes note of one step, which overflowed or did not.
    pub fn update(&mut self, overflow: bool) {
        let _environment = Environment::standard();
        let state = (self.scale, self.growth_tracker, self.hysteresis);
        (self.scale, self.growth_tracker, self.hysteresis) = advance(&self.rules, state, overflow);
    }

    pub(crate) fn rules(&self) -> &ScaleRules {
        &self.rules
    }

    pub(crate) fn hysteresis(&self) -> u32 {
        self.hysteresis
    }
}

/// 1/S, divided in f64 and rounded once.
pub(crate) fn inverse(scale: f32) -> f32 {
    // Without it, a thread that flushes subnormals makes 0 of 2^-127. What is a number only, the compiler may move.
    let _environment = Environment::standard();
    black_box((1.0 / f64::from(black_box(scale))) as f32)
}

/// One step of (scale, growth tracker, hysteresis left).
///
/// The tracker counts good steps and goes back to 0 after a growth or an overflow; DeepSpeed's
/// needs one more after an overflow, so that it goes back to 1 after a growth.
pub(crate) fn advance(
    rules: &ScaleRules,
    (scale, tracker, hysteresis): (f32, u32, u32),
    overflow: bool,
) -> (f32, u32, u32) {
    if rules.dynamic == 0 {
        return (scale, tracker, hysteresis);
    }
    if overflow {
        if hysteresis > 1 {
            return (scale, 0, hysteresis - 1);
        }
        let lower = (f64::from(scale) * rules.backoff) as f32;
        return (lower.max(rules.min), 0, hysteresis);
    }
    let tracker = tracker.saturating_add(1);
    let grows = u64::from(tracker) == u64::from(rules.interval) + u64::from(rules.late);
    let refilled = if grows || rules.refill == 1 { rules.hysteresis } else { hysteresis };
    if !grows {
        return (scale, tracker, refilled);
    }
    let higher = (f64::from(scale) * rules.growth) as f32;
    (if higher <= rules.max { higher } else { scale }, rules.late, refilled)
}

/// The rules as the device keeps them, checked (S-01, S-02).
fn rules(scaler: Scaler) -> Result<ScaleRules> {
    let range = |name: &'static str, ok: bool, expected: &str, found: f64| {
        if ok { Ok(()) } else { Err(Error::range("optim::scaler", name, expected, found)) }
    };
    let fixed = ScaleRules {
        growth: 1.0,
        backoff: 1.0,
        min: 0.0,
        max: f32::INFINITY,
        interval: 1,
        hysteresis: 1,
        dynamic: 0,
        refill: 0,
        late: 0,
        pad: 0,
    };
    let dynamic = match scaler {
        Scaler::Off => return Ok(fixed),
        Scaler::Fixed(scale) => {
            let ok = (SMALLEST..=LARGEST).contains(&scale);
            range("scale", ok, "a number from 2^-126 to 2^127", scale)?;
            return Ok(fixed);
        }
        Scaler::Dynamic(dynamic) => dynamic,
    };
    let Dynamic { init, growth, backoff, interval, hysteresis, refill, count, min, max } = dynamic;
    range("min", (SMALLEST..=LARGEST).contains(&min), "a number from 2^-126 to 2^127", min)?;
    range("max", (min..=LARGEST).contains(&max), "a number from `min` to 2^127", max)?;
    range("init", (min..=max).contains(&init), "a number from `min` to `max`", init)?;
    range("growth", growth > 1.0 && growth.is_finite(), "a finite number above 1", growth)?;
    range("backoff", backoff > 0.0 && backoff < 1.0, "a number in (0, 1)", backoff)?;
    range("interval", interval >= 1, "at least 1", f64::from(interval))?;
    range("hysteresis", hysteresis >= 1, "at least 1", f64::from(hysteresis))?;
    Ok(ScaleRules {
        growth,
        backoff,
        min: min as f32,
        max: max as f32,
        interval,
        hysteresis,
        dynamic: 1,
        refill: u32::from(refill == Refill::OnGoodStep),
        late: u32::from(count == Count::After),
        pad: 0,
    })
}
