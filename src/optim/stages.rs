//! The three stages of a step.
#![forbid(unsafe_code)]

use super::Optimizer;
use super::core::{Core, Phase};
use super::launch::launch;
use crate::kernel::params::optim::{self as params, Block, Control};
use crate::kernel::table::optim::Row;
use crate::lend::List;
use crate::{Buffer, Error, GradStats, Read, Result, Storage, Stream, Write};

/// Where [`Optimizer::control`] takes Σg² and non-finite counts from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The [`stats`](Optimizer::stats) stage of this step.
    Own,
    /// Made elsewhere from gradients **that still carry the loss scale**, as the gradients passed
    /// to [`step`](Optimizer::step) do: the weight-gradient product.
    Scaled(&'a [&'a GradStats]),
    /// Made elsewhere from **unscaled** gradients, and so are the gradients passed to
    /// [`step`](Optimizer::step): the unpacking of a bucket that unscales on the way. The step's
    /// gradient factor is then the clipping coefficient alone.
    Unscaled(&'a [&'a GradStats]),
}

/// Makes LAMB's norms of whole tensors (a row of two for each chunk, in order of tensors) from those of parts.
type Meet<'a> = dyn FnMut(&Buffer<f64>, &mut Buffer<f64>) -> Result<()> + 'a;

impl<P: Storage, G: Storage> Optimizer<P, G> {
    /// Stage 1: of each gradient, unscaled in f32 by 1/S as it is read, Σg² in f64 and how many
    /// elements are not finite.
    ///
    /// `grads` has one entry for each tensor of the list, in its order; `None` where a tensor has
    /// no gradient in this step. May be called again with other gradients before `control`.
    ///
    /// # Errors
    /// [`Error::State`] between `control` and `step`; [`Error::Shape`], [`Error::Align`],
    /// [`Error::Device`] for a gradient that does not fit.
    pub fn stats(&mut self, stream: &Stream, mut grads: &[Option<&dyn Read<G>>]) -> Result<()> {
        self.core.measure(stream, &mut grads)
    }

    /// Stage 2: the decision whether to step, the factor clip/S of every gradient, the next loss
    /// scale, and for an applied step the counters and constants of each tensor that has a
    /// gradient. The host learns nothing of it unless it asks ([`report`](Self::report)).
    ///
    /// `grads` says which tensors have a gradient: those that had one in `stats`; or, where `source` is
    /// others' statistics, no more elements than those are of. A [`GradStats`] made elsewhere names
    /// tensors by their place in this optimizer's list; their partials are summed in the order of
    /// `source`, and there may be as many as tensors. Partials of still-scaled gradients cannot
    /// show an overflow made by unscaling with S < 1: then a norm beyond f32 skips the step. All that a `GradStats` holds
    /// counts, also of tensors without a gradient: what nothing has written in this step is to be
    /// [cleared](GradStats::clear). One in another order of the tensors, as a reducer's may be, adds up in that order,
    /// and [`Report::skipped`](super::Report) then names a tensor by its place in that order.
    ///
    /// # Errors
    /// [`Error::State`] for [`Source::Own`] without `stats`, or if `control` has run already;
    /// [`Error::Shape`], [`Error::Align`], [`Error::Device`] for an argument that does not fit.
    pub fn control(
        &mut self,
        stream: &Stream,
        source: Source<'_>,
        mut grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        self.core.control(stream, source, &mut grads)
    }

    /// Stage 3: the update of every tensor that has a gradient, or nothing at all if `control`
    /// decided to skip: then parameters, masters, moments and counters keep their bits.
    ///
    /// `params` has one entry for each tensor of the list; `grads` must have gradients where those
    /// of `control` had.
    ///
    /// # Errors
    /// [`Error::State`] without `control`, or before f32 masters have values; [`Error::Shape`],
    /// [`Error::Align`], [`Error::Device`] for an argument that does not fit; [`Error::Overlap`] if
    /// a parameter shares memory with another argument. After an error the step is still to be
    /// made: nothing has been written.
    pub fn step(
        &mut self,
        stream: &Stream,
        mut params: &mut [&mut dyn Write<P>],
        mut grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        self.core.step(stream, &mut params, &mut grads)
    }

    /// `stats`, `control` and `step`, after the checks of all three.
    ///
    /// # Errors
    /// As the three stages; nothing has been written then.
    pub fn run(
        &mut self,
        stream: &Stream,
        mut params: &mut [&mut dyn Write<P>],
        mut grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        self.core.run(stream, &mut params, &mut grads)
    }
}

impl Core {
    pub(crate) fn measure(&mut self, stream: &Stream, grads: &mut dyn List) -> Result<()> {
        const OP: &str = "optim::stats";
        self.phase.begin(OP)?;
        self.gather_grads(OP, stream, grads)?;
        self.upload_grads(stream)?;
        launch(
            stream,
            Block::Stats(params::Stats {
                chunks: self.chunks.address(),
                tensors: self.tensors.address(),
                grads: self.grads.address(),
                status: self.status.address(),
                partials: self.stats.partials.address(),
                chunk_count: self.layout.chunks.len() as u64,
                tensor_count: self.layout.tensors.len() as u64,
                grad: self.grad as u32,
                pad: 0,
            }),
        )?;
        self.phase = Phase::Measured;
        Ok(())
    }

    pub(crate) fn control(
        &mut self,
        stream: &Stream,
        source: Source<'_>,
        grads: &mut dyn List,
    ) -> Result<()> {
        const OP: &str = "optim::control";
        self.phase.begin(OP)?;
        let own = [&self.stats];
        let (sources, scaled, carried): (&[&GradStats], _, _) = match (self.phase, source) {
            (Phase::Idle, Source::Own) => {
                return Err(Error::state(OP, "`stats` before `control`", "`control`"));
            }
            (_, Source::Own) => {
                self.check_present(OP, "stats", grads)?;
                (&own, false, true)
            }
            (_, Source::Scaled(sources)) => (sources, true, true),
            (_, Source::Unscaled(sources)) => (sources, false, false),
        };
        if sources.len() > self.sources.len() {
            let expected = format!("at most {} lists of partials", self.sources.len());
            return Err(Error::shape(OP, "source", expected, sources.len()));
        }
        // What nobody has measured would be stepped with unseen.
        let items = self.layout.items.iter().enumerate().take(grads.len());
        let given = items.filter(|(index, _)| grads.has(*index));
        let given: usize = given.map(|(_, item)| item.part.len()).sum();
        let measured = sources.iter().map(|stats| stats.elements()).sum::<usize>();
        if measured < given {
            let expected = format!("statistics of {given} elements, as `grads` has");
            return Err(Error::shape(OP, "source", expected, measured));
        }
        let mut rows = std::mem::take(&mut self.spare_sources);
        rows.clear();
        for (index, stats) in sources.iter().enumerate() {
            let lent = stats.partials.lend(stream)?;
            let address = lent.address(OP, || format!("source[{index}]").into(), stream)?;
            let row = params::Source { partials: address.0, count: lent.len() as u64 };
            rows.push(row);
        }
        self.gather_grads(OP, stream, grads)?;
        self.upload_grads(stream)?;
        // Most often the lists are those of the last step.
        if rows != self.source_rows {
            self.sources.write(stream, 0, &rows)?;
        }
        self.spare_sources = std::mem::replace(&mut self.source_rows, rows);
        if self.groups_changed {
            for (index, rule) in self.rules.iter().enumerate() {
                self.groups.write(stream, index, &[rule.group()])?;
            }
            self.groups_changed = false;
        }
        launch(
            stream,
            Block::Control(Control {
                sources: self.sources.address(),
                tensors: self.tensors.address(),
                groups: self.groups.address(),
                grads: self.grads.address(),
                progress: self.progress.address(),
                scalars: self.scalars.address(),
                status: self.status.address(),
                post: self.post.address().0,
                source_count: self.source_rows.len() as u64,
                tensor_count: self.layout.tensors.len() as u64,
                group_count: self.rules.len() as u64,
                clip: self.config.clip.unwrap_or(f64::INFINITY),
                scale: *self.scale_rules.rules(),
                family: self.rule.family() as u32,
                scaled: u32::from(scaled),
                carried: u32::from(carried),
                check: u32::from(self.config.check_finite),
            }),
        )?;
        self.phase = Phase::Decided;
        Ok(())
    }

    pub(crate) fn step(
        &mut self,
        stream: &Stream,
        params: &mut dyn List,
        grads: &mut dyn List,
    ) -> Result<()> {
        self.step_with(stream, params, grads, &mut |_, _| Ok(()))
    }

    /// [`step`](Self::step) of an optimizer of parts: `meet` makes LAMB's norms of whole tensors (a row
    /// of two for each chunk, in order of tensors) from those of the parts.
    pub(crate) fn step_with(
        &mut self,
        stream: &Stream,
        params: &mut dyn List,
        grads: &mut dyn List,
        meet: &mut Meet<'_>,
    ) -> Result<()> {
        const OP: &str = "optim::step";
        if self.phase != Phase::Decided {
            return Err(Error::state(OP, "`control` before `step`", "`step`"));
        }
        self.check_present(OP, "control", grads)?;
        self.check_step(OP, stream, params, grads)?;
        self.upload_grads(stream)?;
        self.upload_params(stream)?;
        for &row in self.rule.rows() {
            if let (Row::LambTrust, Some(whole)) = (row, &mut self.whole) {
                meet(&self.norms, &mut whole.norms)?;
            }
            launch(stream, Block::Step(self.step_block(row)))?;
        }
        self.phase = Phase::Idle;
        Ok(())
    }

    /// There are gradients where there were in an earlier stage of this step.
    fn check_present(&self, op: &'static str, stage: &str, grads: &dyn List) -> Result<()> {
        for (index, item) in self.layout.items.iter().enumerate().take(grads.len()) {
            let Some(row) = item.row else { continue };
            if grads.has(index) != (self.grad_addresses.rows[row] != 0) {
                let name = |some| if some { "a gradient" } else { "none" };
                let expected = format!("{}, as in `{stage}`", name(!grads.has(index)));
                let found = name(grads.has(index));
                return Err(Error::shape(op, format!("grads[{index}]"), expected, found));
            }
        }
        Ok(())
    }

    pub(crate) fn run(
        &mut self,
        stream: &Stream,
        params: &mut dyn List,
        grads: &mut dyn List,
    ) -> Result<()> {
        const OP: &str = "optim::run";
        self.phase.begin(OP)?;
        self.phase = Phase::Idle; // statistics of earlier gradients are not of these
        self.check_step(OP, stream, params, grads)?;
        self.measure(stream, grads)?;
        self.control(stream, Source::Own, grads)?;
        self.step(stream, params, grads)
    }
}
