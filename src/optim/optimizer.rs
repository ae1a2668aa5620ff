//! The optimizer.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::core::Core;
use super::plan;
use super::{Config, Group, Report};
use crate::{Device, Error, GradStats, Result, Storage, Stream};

/// An optimizer of parameters stored as `P`, from gradients stored as `G` (each bf16, f16 or f32).
///
/// See the [module's page](super) for an example and for the stages of a step.
#[derive(Debug)]
pub struct Optimizer<P: Storage, G: Storage> {
    pub(super) core: Core,
    storage: PhantomData<(P, G)>,
}

impl<P: Storage, G: Storage> Optimizer<P, G> {
    /// An optimizer of the tensors of all groups. All memory it will ever need is allocated here.
    ///
    /// State is 0 (Adagrad: its initial accumulator value). f32 masters of 16-bit parameters have
    /// no value yet: see [`load_params`](Self::load_params) and
    /// [`init_from_f32`](Self::init_from_f32).
    ///
    /// # Errors
    /// [`Error::Range`] for a hyper-parameter, factor or scale outside its range, or a name used
    /// twice; [`Error::Unsupported`] for groups that follow different rules, or a kind of master
    /// that `P` does not have; [`Error::Shape`] for lengths that cannot be counted;
    /// [`Error::OutOfMemory`].
    pub fn new(device: &Device, groups: &[Group], config: Config) -> Result<Self> {
        let core = Core::new((P::DTYPE, G::DTYPE), device, groups, config, None)?;
        Ok(Self { core, storage: PhantomData })
    }

    /// What the last `control` decided. Waits for it.
    ///
    /// # Errors
    /// [`Error::State`] before the first `control`, and before the first of a state that was loaded: files
    /// hold how many steps there were, not what the last one did; [`Error::Device`] for another device's
    /// stream.
    pub fn report(&self, stream: &Stream) -> Result<Report> {
        self.core.report(stream)
    }

    /// What the newest `control` that has run decided, without waiting: on a GPU it lags behind the
    /// calls by what is still enqueued. `None` before the first has run.
    ///
    /// ```
    /// # use halfstep::optim::{Config, Group, Optimizer, Sgd, Tensor};
    /// # fn main() -> halfstep::Result<()> {
    /// let (device, group) = (halfstep::Device::cpu(), Group::new(Sgd::default()));
    /// let stream = device.stream()?;
    /// let group = group.tensor(Tensor::new("w", 2));
    /// let mut optimizer = Optimizer::<f32, f32>::new(&device, &[group], Config::default())?;
    /// assert!(optimizer.last_report().is_none());
    /// let mut w = [1.0f32, 2.0];
    /// optimizer.run(&stream, &mut [&mut w], &[Some(&[3.0f32, 4.0])])?;
    /// assert_eq!(optimizer.last_report().map(|report| report.norm), Some(5.0)); // a CPU has run it
    /// # Ok(())
    /// # }
    /// ```
    pub fn last_report(&self) -> Option<Report> {
        self.core.last_report()
    }

    /// What the next loss, and so every gradient, is to be multiplied by. Waits for the last
    /// `control`.
    ///
    /// # Errors
    /// [`Error::Device`] for another device's stream.
    pub fn scale(&self, stream: &Stream) -> Result<f32> {
        self.core.scale(stream)
    }

    /// Sets the learning rate of a group, from the next `control` on.
    ///
    /// # Errors
    /// [`Error::Range`] for a group there is not, or a rate that is negative or not finite.
    pub fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        self.core.set_lr(group, lr)
    }

    /// The last result of [`stats`](Self::stats).
    pub fn grad_stats(&self) -> &GradStats {
        &self.core.stats
    }
}

impl Core {
    pub(crate) fn report(&self, stream: &Stream) -> Result<Report> {
        let status = self.read_status(stream)?;
        // Gradients of a step have carried a scale, and none is 0.
        if status.used_scale == 0.0 {
            let found = if status.attempts == 0 { "none" } else { "none since `load`" };
            return Err(Error::state("optim::report", "a `control` before it", found));
        }
        Ok(Report::of(&status))
    }

    pub(crate) fn last_report(&self) -> Option<Report> {
        // A kernel writes it in far less time than the host needs to look twice.
        for _ in 0..1000 {
            let post = self.post.read();
            match (post.begun, post.ended) {
                (0, 0) => return None,
                (begun, ended) if begun == ended => return Some(Report::of(&post.status)),
                _ => std::hint::spin_loop(),
            }
        }
        None
    }

    pub(crate) fn scale(&self, stream: &Stream) -> Result<f32> {
        Ok(self.read_status(stream)?.scale)
    }

    pub(crate) fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        plan::check_lr(self.rules.len(), group, lr)?;
        self.rules[group].set_lr(lr);
        self.groups_changed = true;
        Ok(())
    }
}
