//! What an optimizer is: its memory, whatever the types of parameters and gradients.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::plan::{self, Addresses, Layout, Span};
use super::{Config, Group, LossScale, Moments, Rule};
use crate::buffer::HostCell;
use crate::environment::Environment;
use crate::kernel::params::optim::{
    self as params, Chunk, MASTER_F32, MASTER_REMAINDER, Progress, Scalars, Status,
};
use crate::{Buffer, Device, Dtype, Element, Error, GradStats, Result, Storage, Stream, bf16};

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

    pub(super) fn address(&self) -> u64 {
        match self {
            Self::F32(buffer) => buffer.address(),
            Self::Bf16(buffer) => buffer.address(),
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

/// What LAMB needs where state is of parts: norms are of whole tensors.
#[derive(Debug)]
pub(super) struct Whole {
    /// The rows, with the chunks of the whole tensors.
    pub(super) tensors: Buffer<params::Tensor>,
    /// Two sums of each chunk of the whole tensors.
    pub(super) norms: Buffer<f64>,
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
    #[cfg(feature = "safetensors")]
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
            #[cfg(feature = "safetensors")]
            Self::Damaged => {
                Err(Error::state(op, "a state file loaded whole", "one that changed meanwhile"))
            }
        }
    }
}

/// An [`Optimizer`](super::Optimizer) whose types are values: all that it does is compiled once, and not for each pair.
#[derive(Debug)]
pub(crate) struct Core {
    /// What parameters are stored as.
    pub(super) param: Dtype,
    /// And gradients.
    pub(super) grad: Dtype,
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
    pub(super) groups_changed: bool,
    pub(super) param_addresses: Addresses,
    pub(super) grad_addresses: Addresses,
    pub(super) value_addresses: Addresses,
    pub(super) spans: Vec<Span>,
    /// What the device's list of partials holds, and room to make the next one.
    pub(super) source_rows: Vec<params::Source>,
    pub(super) spare_sources: Vec<params::Source>,
    pub(super) chunks: Buffer<Chunk>,
    pub(super) tensors: Buffer<params::Tensor>,
    pub(super) groups: Buffer<params::Group>,
    pub(super) progress: Buffer<Progress>,
    pub(super) scalars: Buffer<Scalars>,
    pub(super) status: Buffer<Status>,
    pub(super) post: HostCell<params::Post>,
    pub(super) params: Buffer<u64>,
    pub(super) grads: Buffer<u64>,
    pub(super) values: Buffer<u64>,
    pub(super) sources: Buffer<params::Source>,
    pub(super) norms: Buffer<f64>,
    pub(super) whole: Option<Whole>,
    pub(super) masters: Masters,
    pub(super) slots: Vec<Slot>,
    pub(super) stats: GradStats,
}

impl Core {
    /// For all of each tensor, or with state for a part of each, cut between chunks.
    /// Parameters are passed whole, and changed in the part; gradients are passed as parts. Control needs
    /// the partials of all parts, and [`step_with`](Self::step_with) the norms.
    pub(crate) fn new(
        (param, grad): (Dtype, Dtype),
        device: &Device,
        groups: &[Group],
        config: Config,
        parts: Option<&[Range<usize>]>,
    ) -> Result<Self> {
        let _environment = Environment::standard();
        plan::check_rules(groups)?;
        plan::check_config(&config)?;
        let mode = plan::mode(param, &config)?;
        let scale_rules = LossScale::new(config.scaler)?;
        let mut layout = Layout::new(groups, parts)?;
        let rule = plan::widest(groups);
        let rows = layout.tensors.len();
        let status = Status {
            scale: scale_rules.scale(),
            inverse: scale_rules.inverse(),
            hysteresis: scale_rules.hysteresis(),
            ..bytemuck::Zeroable::zeroed()
        };
        let lengths: Vec<usize> = layout.items.iter().map(|item| item.part.len()).collect();
        let fresh = Progress { step: 0, beta1_power: 1.0, beta2_power: 1.0 };
        let group_rows: Vec<params::Group> = groups.iter().map(|g| g.rule.group()).collect();
        let lamb = matches!(rule, Rule::Lamb(_));
        let trust = if lamb { 2 * layout.chunk_count } else { 0 };
        let whole = match parts {
            Some(_) if lamb => Some(Whole {
                tensors: device.upload(&layout.whole_tensors())?,
                norms: device.zeros(2 * layout.whole_chunks)?,
            }),
            _ => None,
        };
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
        let stats = GradStats::new(device, &lengths)?;
        layout.cut()?;
        Ok(Self {
            param,
            grad,
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
            spare_sources: Vec::with_capacity(layout.items.len().max(1)),
            chunks: device.upload(&layout.chunks)?,
            tensors: device.upload(&layout.tensors)?,
            groups: device.upload(&group_rows)?,
            progress: device.upload(&vec![fresh; rows])?,
            scalars: device.zeros(rows)?,
            status: device.upload(&[status])?,
            post: HostCell::new(device)?,
            params: device.zeros(rows)?,
            grads: device.zeros(rows)?,
            values: device.zeros(rows)?,
            sources: device.zeros(layout.items.len().max(1))?,
            norms: device.zeros(trust)?,
            whole,
            masters,
            slots,
            stats,
            layout,
        })
    }

    pub(super) fn read_status(&self, stream: &Stream) -> Result<Status> {
        let mut status = [bytemuck::Zeroable::zeroed()];
        self.status.read(stream, 0, &mut status)?;
        Ok(status[0])
    }
}
