//! Loss-scaled optimizer steps on mixed-precision tensors.
//!
//! A step is three stages, none of which the host waits for:
//!
//! 1. [`stats`](Optimizer::stats): Σg² and non-finite elements of every gradient. Free where the
//!    weight-gradient product or the unpacking of a bucket has already made a
//!    [`GradStats`](crate::GradStats).
//! 2. [`control`](Optimizer::control): whether to step at all, the clipping factor, the next loss
//!    scale, step counters and bias corrections. A [`Report`] can be read when wanted.
//! 3. [`step`](Optimizer::step): the update of all tensors of all groups.
//!
//! [`run`](Optimizer::run) is the three in order. Gradients are read, never written: the factor
//! clip/scale is applied on the way in.
//!
//! ```
//! # fn main() -> halfstep::Result<()> {
//! use halfstep::optim::{AdamW, Config, Group, Optimizer, Scaler, Tensor};
//! use halfstep::{bf16, Device};
//!
//! let device = Device::cpu();
//! let stream = device.stream()?;
//! let group = Group::new(AdamW { lr: 0.1, ..AdamW::default() }).tensor(Tensor::new("w", 4));
//! let config = Config { clip: Some(1.0), scaler: Scaler::PYTORCH, ..Config::default() };
//! let mut optimizer = Optimizer::<bf16, bf16>::new(&device, &[group], config)?;
//!
//! let mut w = vec![bf16::ONE; 4];
//! optimizer.load_params(&stream, &[&w])?;
//! let scale = optimizer.scale(&stream)?; // multiply the loss by this
//! let g = vec![bf16::from_f32(0.25 * scale); 4];
//! optimizer.run(&stream, &mut [&mut w], &[Some(&g)])?;
//!
//! let report = optimizer.report(&stream)?;
//! assert_eq!((report.skipped, report.norm), (None, 0.5));
//! assert!(w[0] < bf16::ONE);
//! # Ok(())
//! # }
//! ```
//!
//! **Numerics.** Storage is bf16, f16 or f32; arithmetic is f32, a fixed sequence of IEEE
//! operations that each rule's page writes out; norms are f64. Results have the same bits on every
//! device, for any number of threads, any alignment and any way tensors are cut. How far they can
//! be from exact arithmetic, [`bound`] computes.
//!
//! **Memory.** State and work list are allocated by [`Optimizer::new`]; a step allocates nothing.
//! [`Sharded`](crate::reduce::Sharded) shares both out over the ranks of a job.

mod access;
mod adagrad;
mod adam;
mod adamw;
pub mod bound;
mod config;
pub(crate) mod control;
pub(crate) mod core;
mod lamb;
mod launch;
mod lion;
mod operands;
mod optimizer;
mod plan;
pub(crate) mod random;
pub(crate) mod reference;
mod report;
pub(crate) mod round;
mod rule;
mod scale;
mod sgd;
mod stages;
#[cfg(feature = "safetensors")]
pub(crate) mod state;

pub use access::Counters;
pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamw::AdamW;
pub use config::{Config, Group, Master, Moments, Tensor};
pub use lamb::Lamb;
pub use lion::Lion;
pub use optimizer::Optimizer;
pub use report::{Report, Skip};
pub use rule::Rule;
pub use scale::{Count, Dynamic, LossScale, Refill, Scaler};
pub use sgd::Sgd;
pub use stages::Source;
#[cfg(feature = "safetensors")]
pub use state::{LoadOptions, Loaded};

pub(crate) use rule::Apply;

/// The rows' updates, for backends that run them in Rust.
pub(crate) mod rows {
    pub(crate) use super::adagrad::Plain as Adagrad;
    pub(crate) use super::adam::{Max as AdamMax, Plain as Adam};
    pub(crate) use super::adamw::{Max as AdamWMax, Plain as AdamW};
    pub(crate) use super::lamb::{
        Moments as LambMoments, Update as LambApply, direction as lamb_direction, trust,
    };
    pub(crate) use super::lion::Plain as Lion;
    pub(crate) use super::sgd::{Momentum as SgdMomentum, Plain as Sgd};
}
