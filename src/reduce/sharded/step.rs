//! The course of a sharded step, and what comes before the first.

#![forbid(unsafe_code)]

use super::super::config::Unscale;
use super::super::launch::Span;
use super::super::report::Reduced;
use super::core::Core;
use super::lists::{Gradients, Ordered};
use super::{Sharded, alike};
use crate::backend::Address;
use crate::kernel::params::Partial;
use crate::lend::List;
use crate::optim::Source;
use crate::{Buffer, Error, Read, Result, Storage, Stream, Write};

const STEP: &str = "Sharded::step";
const LOAD_PARAMS: &str = "Sharded::load_params";
const INIT: &str = "Sharded::init_from_f32";

impl<P: Storage, G: Storage> Sharded<P, G> {
    /// master ← this rank's part of each parameter: [`Optimizer::load_params`](crate::optim::Optimizer::load_params).
    /// Parameters must be the same on every rank.
    ///
    /// # Errors
    /// As there; [`Error::State`] while parameters have not been waited for.
    pub fn load_params(&mut self, stream: &Stream, mut params: &[&dyn Read<P>]) -> Result<()> {
        self.core.load_params(stream, &mut params)
    }

    /// master ← value and parameter ← round(value):
    /// [`Optimizer::init_from_f32`](crate::optim::Optimizer::init_from_f32). Each rank rounds its parts;
    /// [`wait`](Self::wait) brings the others'. To be called on every rank, with the same values.
    ///
    /// # Errors
    /// As there; [`Error::State`] inside a step, or while parameters have not been waited for;
    /// [`Error::Comm`].
    pub fn init_from_f32(
        &mut self,
        stream: &Stream,
        mut values: &[&dyn Read<f32>],
        mut params: &mut [&mut dyn Write<P>],
    ) -> Result<()> {
        self.core.init_from_f32(stream, &mut values, &mut params)
    }

    /// Ends the step: waits for every bucket, and updates this rank's part of each of `params` (in the
    /// declared order), or nothing at all if the step is skipped. The other parts are on their way:
    /// [`wait`](Self::wait) for each parameter before it is read.
    ///
    /// With [`Unscale::Keep`] the optimizer divides by its own loss scale; [`Unscale::Factor`] is for
    /// gradients that leave the reduction unscaled. Parameters that no rank has a gradient for are left
    /// alone.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of tensors or other lengths, [`Error::Device`],
    /// [`Error::Align`], [`Error::Overlap`], [`Error::Range`] for a factor that is none;
    /// [`Error::State`] while parameters of the last step have not been waited for, or before f32 masters
    /// have values: the step goes on and `step` can be called again. [`Error::State`] naming the
    /// parameters never marked, unless [`Config::allow_unused`](super::Config::allow_unused), or a learning rate
    /// or factor that ranks have set otherwise; [`Error::Comm`]: then this is the last step.
    pub fn step(
        &mut self,
        stream: &Stream,
        mut params: &mut [&mut dyn Write<P>],
        unscale: Unscale,
    ) -> Result<Reduced> {
        self.core.step(stream, &mut params, unscale)
    }
}

impl Core {
    pub(super) fn load_params(&mut self, stream: &Stream, params: &mut dyn List) -> Result<()> {
        self.check_whole(LOAD_PARAMS)?;
        self.check_count(LOAD_PARAMS, params.len())?;
        self.optimizer.load_params(stream, &mut Ordered { order: &self.order, list: params })
    }

    pub(super) fn init_from_f32(
        &mut self,
        stream: &Stream,
        values: &mut dyn List,
        params: &mut dyn List,
    ) -> Result<()> {
        self.check_between(INIT)?;
        self.check_whole(INIT)?;
        self.check_count(INIT, values.len())?;
        self.check_params(INIT, stream, params)?;
        let mut values = Ordered { order: &self.order, list: values };
        let mut ordered = Ordered { order: &self.order, list: params };
        self.optimizer.init_from_f32(stream, &mut values, &mut ordered)?;
        self.settle(|sharded| sharded.send_params(INIT, stream, params))
    }

    pub(super) fn step(
        &mut self,
        stream: &Stream,
        params: &mut dyn List,
        unscale: Unscale,
    ) -> Result<Reduced> {
        self.reducer.check_fault()?;
        self.reducer.check_unscale(STEP, unscale)?;
        self.check_whole(STEP)?;
        self.check_params(STEP, stream, params)?;
        let (order, parts, dtype) = (&self.order, &self.gradients, self.grad);
        let mut every = Gradients { order, parts, dtype, used: None };
        let mut ordered = Ordered { order, list: params };
        self.optimizer.check_step(STEP, stream, &mut ordered, &mut every)?;
        let span = |part: &Buffer<u8>| Span {
            address: Address(part.address()),
            len: part.len() / dtype.bytes(),
        };
        let spans: Vec<Span> = self.gradients.iter().map(span).collect();
        let reduced = self.reducer.end(stream, &spans, unscale)?;
        self.settle(|sharded| {
            sharded.meet(stream, unscale)?;
            sharded.update(stream, params, unscale, &reduced)?;
            sharded.send_params(STEP, stream, params)
        })?;
        Ok(reduced)
    }

    /// What ranks do together: whoever fails ends it for all.
    pub(super) fn settle(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        work(self).inspect_err(|error| {
            self.reducer.outbox.abort(&error.to_string());
            self.reducer.fail(error.clone());
        })
    }

    /// No bucket is on its way: what ranks do together, they do in one order.
    pub(super) fn check_between(&self, op: &'static str) -> Result<()> {
        self.reducer.check_fault()?;
        match self.reducer.started {
            None => Ok(()),
            Some(_) => Err(Error::state(op, "no gradient marked ready yet", "a step in progress")),
        }
    }

    /// Every rank gets the partials of the whole gradient, if all are about to make the same step.
    fn meet(&mut self, stream: &Stream, unscale: Unscale) -> Result<()> {
        let said = alike::say(unscale, self.optimizer.rules());
        let partials = &mut self.reducer.stats.partials;
        let mut whole = partials.to_vec(stream)?;
        let all = whole.len();
        for _ in 0..self.cut.ranks() {
            whole.extend_from_slice(bytemuck::cast_slice(&said));
        }
        let rows = self.partials.of(self.rank).iter().cloned().flatten();
        let own: Vec<Partial> = rows.map(|row| whole[row]).collect();
        self.partials.exchange(
            &mut self.reducer.outbox,
            stream,
            self.reducer.config.deadline,
            bytemuck::cast_slice(&own),
            bytemuck::cast_slice_mut(&mut whole),
        )?;
        alike::check(STEP, bytemuck::cast_slice(&whole[all..]), said.len())?;
        whole.truncate(all);
        // Named by the optimizer's list from here on.
        for partial in &mut whole {
            partial.tensor = self.place[partial.tensor as usize] as u32;
        }
        partials.write(stream, 0, &whole)
    }

    /// The optimizer's stages.
    fn update(
        &mut self,
        stream: &Stream,
        params: &mut dyn List,
        unscale: Unscale,
        reduced: &Reduced,
    ) -> Result<()> {
        let (order, parts, dtype) = (&self.order, &self.gradients, self.grad);
        let mut grads = Gradients { order, parts, dtype, used: Some(&reduced.used) };
        let stats = [&self.reducer.stats];
        let source = match unscale {
            Unscale::Keep => Source::Scaled(&stats),
            Unscale::Factor(_) => Source::Unscaled(&stats),
        };
        self.optimizer.control(stream, source, &mut grads)?;
        let (outbox, deadline) = (&mut self.reducer.outbox, self.reducer.config.deadline);
        let norms = &mut self.norms;
        let mut meet = |own: &Buffer<f64>, to: &mut Buffer<f64>| {
            let own = own.to_vec(stream)?;
            let mut whole = vec![0.0f64; to.len()];
            let (own, all) = (bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut whole));
            norms.exchange(outbox, stream, deadline, own, all)?;
            to.write(stream, 0, &whole)
        };
        self.optimizer.step_with(
            stream,
            &mut Ordered { order, list: params },
            &mut grads,
            &mut meet,
        )
    }

    pub(super) fn check_params(
        &self,
        op: &'static str,
        stream: &Stream,
        params: &mut dyn List,
    ) -> Result<()> {
        self.check_count(op, params.len())?;
        for (index, declared) in self.reducer.plan.params().iter().enumerate() {
            let found = params.lend(index, stream)?.len();
            if found != declared.len {
                let arg = format!("params[{index}] ({})", declared.name);
                return Err(Error::shape(op, arg, format!("{} elements", declared.len), found));
            }
        }
        Ok(())
    }
}
