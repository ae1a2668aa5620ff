//! The optimizer: its memory, and the three stages of a step.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::launch::launch;
use super::plan::{self, Addresses, Arguments, Layout, Span};
use super::{Config, Group, LossScale, Moments, Report, Rule};
use crate::kernel::params::optim::{
    self as params, Block, Chunk, Control, Convert, MASTER_F32, MASTER_REMAINDER, Progress,
    Scalars, Status, Step,
};
use crate::kernel::table::optim::Row;
use crate::{
    Buffer, Device, Element, Error, GradStats, Read, Result, Storage, Stream, Write, bf16,
};

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

/// A state array.
#[derive(Debug)]
pub(super) enum Slot {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl Slot {
    fn new(device: &Device, moments: Moments, len: usize, value: f64) -> Result<Self> {
        let mut slot = match moments {
            Moments::F32 => Self::F32(device.zeros(len)?),
            Moments::Bf16 => Self::Bf16(device.zeros(len)?),
        };
        if value != 0.0 {
            let stream = device.stream()?;
            match &mut slot {
                Self::F32(buffer) => flood(buffer, &stream, value as f32)?,
                Self::Bf16(buffer) => flood(buffer, &stream, bf16::narrow(value as f32))?,
            }
            stream.sync()?;
        }
        Ok(slot)
    }

    fn address(&self) -> u64 {
        match self {
            Self::F32(buffer) => buffer.address().0,
            Self::Bf16(buffer) => buffer.address().0,
        }
    }
}

fn flood<T: Element>(buffer: &mut Buffer<T>, stream: &Stream, value: T) -> Result<()> {
    let piece = vec![value; buffer.len().min(1 << 16)];
    for start in (0..buffer.len()).step_by(1 << 16) {
        buffer.write(stream, start, &piece[..piece.len().min(buffer.len() - start)])?;
    }
    Ok(())
}

/// Masters, where they are memory of their own.
#[derive(Debug)]
pub(super) enum Masters {
    None,
    F32(Buffer<f32>),
    Remainder(Buffer<u16>),
}

/// Where in a step the optimizer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between steps.
    Idle,
    /// `stats` has run.
    Measured,
    /// `control` has run.
    Decided,
    /// A state file changed while it was read: nobody knows what the state is.
    Damaged,
}

impl Phase {
    /// Whether `op` may begin a step.
    pub(super) fn begin(self, op: &'static str) -> Result<()> {
        match self {
            Self::Idle | Self::Measured => Ok(()),
            Self::Decided => {
                Err(Error::state(op, "`step`, since `control` has run", "another call"))
            }
            Self::Damaged => {
                Err(Error::state(op, "a state file loaded whole", "one that changed meanwhile"))
            }
        }
    }
}

/// An optimizer of parameters stored as `P`, from gradients stored as `G` (each bf16, f16 or f32).
///
/// See the [module's page](super) for an example and for the stages of a step.
#[derive(Debug)]
pub struct Optimizer<P: Storage, G: Storage> {
    pub(super) device: Device,
    pub(super) config: Config,
    pub(super) rules: Vec<Rule>,
    /// The rule whose rows and slots serve all groups.
    pub(super) rule: Rule,
    pub(super) mode: u32,
    pub(super) layout: Layout,
    pub(super) scale_rules: LossScale,
    pub(super) phase: Phase,
    /// Whether f32 masters have been given values.
    pub(super) loaded: bool,
    /// Whether the device's group table is out of date.
    groups_changed: bool,
    param_addresses: Addresses,
    grad_addresses: Addresses,
    value_addresses: Addresses,
    spans: Vec<Span>,
    source_rows: Vec<params::Source>,
    chunks: Buffer<Chunk>,
    tensors: Buffer<params::Tensor>,
    groups: Buffer<params::Group>,
    pub(super) progress: Buffer<Progress>,
    scalars: Buffer<Scalars>,
    pub(super) status: Buffer<Status>,
    params: Buffer<u64>,
    grads: Buffer<u64>,
    values: Buffer<u64>,
    sources: Buffer<params::Source>,
    norms: Buffer<f64>,
    pub(super) masters: Masters,
    pub(super) slots: Vec<Slot>,
    stats: GradStats,
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
        plan::check_rules(groups)?;
        plan::check_config(&config)?;
        let mode = plan::mode(P::DTYPE, &config)?;
        let scale_rules = LossScale::new(config.scaler)?;
        let layout = Layout::new(groups)?;
        let rule = plan::widest(groups);
        let rows = layout.tensors.len();
        let status = Status {
            scale: scale_rules.scale(),
            inverse: scale_rules.inverse(),
            hysteresis: scale_rules.hysteresis(),
            ..bytemuck::Zeroable::zeroed()
        };
        let lengths: Vec<usize> = layout.items.iter().map(|item| item.len).collect();
        let fresh = Progress { step: 0, beta1_power: 1.0, beta2_power: 1.0 };
        let group_rows: Vec<params::Group> = groups.iter().map(|g| g.rule.group()).collect();
        let trust = if matches!(rule, Rule::Lamb(_)) { 2 * layout.chunks.len() } else { 0 };
        let masters = match mode {
            MASTER_F32 => Masters::F32(device.zeros(layout.state_len)?),
            MASTER_REMAINDER => Masters::Remainder(device.zeros(layout.state_len)?),
            _ => Masters::None,
        };
        let slots = rule
            .slots()
            .iter()
            .map(|_| Slot::new(device, config.moments, layout.state_len, rule.initial_state()))
            .collect::<Result<_>>()?;
        Ok(Self {
            device: device.clone(),
            config,
            rules: groups.iter().map(|group| group.rule).collect(),
            rule,
            mode,
            scale_rules,
            phase: Phase::Idle,
            loaded: mode != MASTER_F32,
            groups_changed: false,
            param_addresses: Addresses::new(rows),
            grad_addresses: Addresses::new(rows),
            value_addresses: Addresses::new(rows),
            spans: Vec::with_capacity(2 * rows),
            source_rows: Vec::with_capacity(layout.items.len().max(1)),
            chunks: device.upload(&layout.chunks)?,
            tensors: device.upload(&layout.tensors)?,
            groups: device.upload(&group_rows)?,
            progress: device.upload(&vec![fresh; rows])?,
            scalars: device.zeros(rows)?,
            status: device.upload(&[status])?,
            params: device.zeros(rows)?,
            grads: device.zeros(rows)?,
            values: device.zeros(rows)?,
            sources: device.zeros(layout.items.len().max(1))?,
            norms: device.zeros(trust)?,
            masters,
            slots,
            stats: GradStats::new(device, &lengths)?,
            layout,
            storage: PhantomData,
        })
    }

    /// Stage 1: of each gradient, unscaled in f32 by 1/S as it is read, Σg² in f64 and how many
    /// elements are not finite.
    ///
    /// `grads` has one entry for each tensor of the list, in its order; `None` where a tensor has
    /// no gradient in this step. May be called again with other gradients before `control`.
    ///
    /// # Errors
    /// [`Error::State`] between `control` and `step`; [`Error::Shape`], [`Error::Align`],
    /// [`Error::Device`] for a gradient that does not fit.
    pub fn stats(&mut self, stream: &Stream, grads: &[Option<&dyn Read<G>>]) -> Result<()> {
        const OP: &str = "optim::stats";
        self.phase.begin(OP)?;
        self.gather_grads(OP, stream, grads)?;
        self.upload_grads(stream)?;
        launch(
            stream,
            Block::Stats(params::Stats {
                chunks: self.chunks.address().0,
                tensors: self.tensors.address().0,
                grads: self.grads.address().0,
                status: self.status.address().0,
                partials: self.stats.partials.address().0,
                chunk_count: self.layout.chunks.len() as u64,
                tensor_count: self.layout.tensors.len() as u64,
                grad: G::DTYPE as u32,
                pad: 0,
            }),
        )?;
        self.phase = Phase::Measured;
        Ok(())
    }

    /// Stage 2: the decision whether to step, the factor clip/S of every gradient, the next loss
    /// scale, and for an applied step the counters and constants of each tensor that has a
    /// gradient. The host learns nothing of it unless it asks ([`report`](Self::report)).
    ///
    /// `grads` as in `stats`: which tensors have a gradient. A [`GradStats`] made elsewhere names
    /// tensors by their place in this optimizer's list; their partials are summed in the order of
    /// `source`, and there may be as many as tensors. Partials of still-scaled gradients cannot
    /// show an overflow made by unscaling with S < 1: then a norm beyond f32 skips the step.
    ///
    /// # Errors
    /// [`Error::State`] for [`Source::Own`] without `stats`, or if `control` has run already;
    /// [`Error::Shape`], [`Error::Align`], [`Error::Device`] for an argument that does not fit.
    pub fn control(
        &mut self,
        stream: &Stream,
        source: Source<'_>,
        grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        const OP: &str = "optim::control";
        self.phase.begin(OP)?;
        let own = [&self.stats];
        let (sources, scaled, carried): (&[&GradStats], _, _) = match (self.phase, source) {
            (Phase::Idle, Source::Own) => {
                return Err(Error::state(OP, "`stats` before `control`", "`control`"));
            }
            (_, Source::Own) => (&own, false, true),
            (_, Source::Scaled(sources)) => (sources, true, true),
            (_, Source::Unscaled(sources)) => (sources, false, false),
        };
        if sources.len() > self.sources.len() {
            let expected = format!("at most {} lists of partials", self.sources.len());
            return Err(Error::shape(OP, "source", expected, sources.len()));
        }
        self.source_rows.clear();
        for (index, stats) in sources.iter().enumerate() {
            let lent = stats.partials.lend(stream)?;
            let address = lent.address(OP, || format!("source[{index}]").into(), stream)?;
            let row = params::Source { partials: address.0, count: lent.len() as u64 };
            self.source_rows.push(row);
        }
        self.gather_grads(OP, stream, grads)?;
        self.upload_grads(stream)?;
        self.sources.write(stream, 0, &self.source_rows)?;
        if self.groups_changed {
            for (index, rule) in self.rules.iter().enumerate() {
                self.groups.write(stream, index, &[rule.group()])?;
            }
            self.groups_changed = false;
        }
        launch(
            stream,
            Block::Control(Control {
                sources: self.sources.address().0,
                tensors: self.tensors.address().0,
                groups: self.groups.address().0,
                grads: self.grads.address().0,
                progress: self.progress.address().0,
                scalars: self.scalars.address().0,
                status: self.status.address().0,
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
        params: &mut [&mut dyn Write<P>],
        grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        const OP: &str = "optim::step";
        if self.phase != Phase::Decided {
            return Err(Error::state(OP, "`control` before `step`", "`step`"));
        }
        for (index, grad) in grads.iter().enumerate().take(self.layout.items.len()) {
            let Some(row) = self.layout.items[index].row else { continue };
            if grad.is_some() != (self.grad_addresses.rows[row] != 0) {
                let name = |some| if some { "a gradient" } else { "none" };
                let expected = format!("{}, as in `control`", name(grad.is_none()));
                let found = name(grad.is_some());
                return Err(Error::shape(OP, format!("grads[{index}]"), expected, found));
            }
        }
        self.check_step(OP, stream, params, grads)?;
        self.upload_grads(stream)?;
        self.upload_params(stream)?;
        for &row in self.rule.rows() {
            launch(stream, Block::Step(self.step_block(row)))?;
        }
        self.phase = Phase::Idle;
        Ok(())
    }

    /// `stats`, `control` and `step`, after the checks of all three.
    ///
    /// # Errors
    /// As the three stages; nothing has been written then.
    pub fn run(
        &mut self,
        stream: &Stream,
        params: &mut [&mut dyn Write<P>],
        grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        const OP: &str = "optim::run";
        self.phase.begin(OP)?;
        self.check_step(OP, stream, params, grads)?;
        self.stats(stream, grads)?;
        self.control(stream, Source::Own, grads)?;
        self.step(stream, params, grads)
    }

    /// What the last `control` decided. Waits for it.
    ///
    /// # Errors
    /// [`Error::State`] before the first `control`; [`Error::Device`] for another device's stream.
    pub fn report(&self, stream: &Stream) -> Result<Report> {
        let status = self.read_status(stream)?;
        if status.attempts == 0 {
            return Err(Error::state("optim::report", "a `control` before it", "none"));
        }
        Ok(Report::of(&status))
    }

    /// What the next loss, and so every gradient, is to be multiplied by. Waits for the last
    /// `control`.
    ///
    /// # Errors
    /// [`Error::Device`] for another device's stream.
    pub fn scale(&self, stream: &Stream) -> Result<f32> {
        Ok(self.read_status(stream)?.scale)
    }

    /// Sets the learning rate of a group, from the next `control` on.
    ///
    /// # Errors
    /// [`Error::Range`] for a group there is not, or a rate that is negative or not finite.
    pub fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        plan::check_lr(self.rules.len(), group, lr)?;
        self.rules[group].set_lr(lr);
        self.groups_changed = true;
        Ok(())
    }

    /// The last result of [`stats`](Self::stats).
    pub fn grad_stats(&self) -> &GradStats {
        &self.stats
    }

    pub(super) fn read_status(&self, stream: &Stream) -> Result<Status> {
        let mut status = [bytemuck::Zeroable::zeroed()];
        self.status.read(stream, 0, &mut status)?;
        Ok(status[0])
    }

    /// All checks of a step; only the host's notes of addresses change.
    fn check_step(
        &mut self,
        op: &'static str,
        stream: &Stream,
        params: &mut [&mut dyn Write<P>],
        grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        if !self.loaded {
            let expected = "f32 masters with values: `load_params` or `init_from_f32`";
            return Err(Error::state(op, expected, "masters without"));
        }
        self.gather_params(op, stream, params)?;
        self.gather_grads(op, stream, grads)?;
        let (params, grads) = (&mut self.param_addresses, &mut self.grad_addresses);
        if params.unchecked || grads.unchecked {
            let written = ("params", params.rows.as_slice(), P::DTYPE);
            let read = ("grads", grads.rows.as_slice(), G::DTYPE);
            plan::check_overlap(op, &self.layout.tensors, written, read, &mut self.spans)?;
            (params.unchecked, grads.unchecked) = (false, false);
        }
        Ok(())
    }

    fn gather_grads(
        &mut self,
        op: &'static str,
        stream: &Stream,
        grads: &[Option<&dyn Read<G>>],
    ) -> Result<()> {
        self.same_device(op, stream)?;
        let arguments = Arguments { op, list: "grads", stream, items: &self.layout.items };
        arguments.read(grads.len(), |index| grads[index], &mut self.grad_addresses)
    }

    pub(super) fn gather_params(
        &mut self,
        op: &'static str,
        stream: &Stream,
        params: &mut [&mut dyn Write<P>],
    ) -> Result<()> {
        self.same_device(op, stream)?;
        let arguments = Arguments { op, list: "params", stream, items: &self.layout.items };
        arguments.write(params, &mut self.param_addresses)
    }

    pub(super) fn read_params(
        &mut self,
        op: &'static str,
        stream: &Stream,
        params: &[&dyn Read<P>],
    ) -> Result<()> {
        self.same_device(op, stream)?;
        let arguments = Arguments { op, list: "params", stream, items: &self.layout.items };
        arguments.read(params.len(), |index| Some(params[index]), &mut self.param_addresses)
    }

    pub(super) fn read_values(
        &mut self,
        op: &'static str,
        stream: &Stream,
        values: &[&dyn Read<f32>],
    ) -> Result<()> {
        let arguments = Arguments { op, list: "values", stream, items: &self.layout.items };
        arguments.read(values.len(), |index| Some(values[index]), &mut self.value_addresses)
    }

    /// No f32 values take part in the next conversion.
    pub(super) fn forget_values(&mut self) {
        self.value_addresses.rows.fill(0);
        self.value_addresses.changed = true;
    }

    /// O-05 for a conversion.
    pub(super) fn check_values_apart(&mut self, op: &'static str) -> Result<()> {
        let written = ("params", self.param_addresses.rows.as_slice(), P::DTYPE);
        let read = ("values", self.value_addresses.rows.as_slice(), crate::Dtype::F32);
        self.param_addresses.unchecked = true;
        plan::check_overlap(op, &self.layout.tensors, written, read, &mut self.spans)
    }

    pub(super) fn same_device(&self, op: &'static str, stream: &Stream) -> Result<()> {
        if stream.device().same_as(&self.device) {
            return Ok(());
        }
        Err(Error::Device {
            op,
            arg: "stream".into(),
            expected: self.device.info().to_string(),
            found: stream.device().info().to_string(),
        })
    }

    fn upload_grads(&mut self, stream: &Stream) -> Result<()> {
        upload(&mut self.grads, &mut self.grad_addresses, stream)
    }

    fn upload_params(&mut self, stream: &Stream) -> Result<()> {
        upload(&mut self.params, &mut self.param_addresses, stream)
    }

    fn master_address(&self) -> u64 {
        match &self.masters {
            Masters::None => 0,
            Masters::F32(buffer) => buffer.address().0,
            Masters::Remainder(buffer) => buffer.address().0,
        }
    }

    fn step_block(&self, row: Row) -> Step {
        let slot = |number: usize| self.slots.get(number).map_or(0, Slot::address);
        let moment = match self.config.moments {
            Moments::F32 => crate::Dtype::F32,
            Moments::Bf16 => crate::Dtype::Bf16,
        };
        Step {
            chunks: self.chunks.address().0,
            tensors: self.tensors.address().0,
            scalars: self.scalars.address().0,
            status: self.status.address().0,
            params: self.params.address().0,
            grads: self.grads.address().0,
            master: self.master_address(),
            slot0: slot(0),
            slot1: slot(1),
            slot2: slot(2),
            norms: self.norms.address().0,
            chunk_count: self.layout.chunks.len() as u64,
            tensor_count: self.layout.tensors.len() as u64,
            state_len: self.layout.state_len as u64,
            seed: self.config.seed,
            row: row as u32,
            param: P::DTYPE as u32,
            grad: G::DTYPE as u32,
            moment: moment as u32,
            mode: self.mode,
            pad: 0,
        }
    }

    /// Enqueues a conversion of `chunks` between parameters, masters and f32 values, at the
    /// addresses gathered last.
    pub(super) fn convert(
        &mut self,
        stream: &Stream,
        direction: u32,
        chunks: std::ops::Range<usize>,
    ) -> Result<()> {
        self.upload_params(stream)?;
        upload(&mut self.values, &mut self.value_addresses, stream)?;
        launch(
            stream,
            Block::Convert(Convert {
                chunks: self.chunks.address().0,
                tensors: self.tensors.address().0,
                params: self.params.address().0,
                values: self.values.address().0,
                master: self.master_address(),
                first_chunk: chunks.start as u64,
                chunk_count: chunks.len() as u64,
                tensor_count: self.layout.tensors.len() as u64,
                state_len: self.layout.state_len as u64,
                param: P::DTYPE as u32,
                mode: self.mode,
                direction,
                pad: 0,
            }),
        )
    }

    /// Notes one parameter and one array of f32 values; all other rows are absent.
    pub(super) fn note_one(&mut self, row: usize, param: u64, values: u64) {
        for (addresses, address) in
            [(&mut self.param_addresses, param), (&mut self.value_addresses, values)]
        {
            addresses.rows.fill(0);
            addresses.rows[row] = address;
            (addresses.changed, addresses.unchecked) = (true, true);
        }
    }
}

fn upload(table: &mut Buffer<u64>, addresses: &mut Addresses, stream: &Stream) -> Result<()> {
    if addresses.changed {
        table.write(stream, 0, &addresses.rows)?;
        addresses.changed = false;
    }
    Ok(())
}
