//! Values in and out of an optimizer's state.
#![forbid(unsafe_code)]

use super::core::{Core, Masters, Slot};
use super::{Optimizer, Rule};
use crate::kernel::params::optim::{
    CONVERT_EXPORT, CONVERT_LOAD, CONVERT_ROUND, CONVERT_STORE, Progress,
};
use crate::lend::List;
use crate::{Error, Read, Result, Storage, Stream, Write};

/// Steps applied to a tensor and the powers of β that correct its moments' bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counters {
    /// Steps applied to the tensor: those with a gradient that were not skipped.
    pub step: u64,
    /// β₁ multiplied `step` times.
    pub beta1_power: f64,
    /// β₂ multiplied `step` times.
    pub beta2_power: f64,
}

impl<P: Storage, G: Storage> Optimizer<P, G> {
    /// master ← parameter, for every tensor; remainders become 0. Needed once before the first
    /// step where masters are f32 copies, and whenever parameters have been changed by others.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Align`], [`Error::Device`] for a parameter that does not fit;
    /// [`Error::State`] between `control` and `step`.
    pub fn load_params(&mut self, stream: &Stream, mut params: &[&dyn Read<P>]) -> Result<()> {
        self.core.load_params(stream, &mut params)
    }

    /// master ← value and parameter ← round(value), for every tensor: where finer values than the
    /// parameters are at hand, nothing of them is lost. Without a master, parameters are rounded to
    /// nearest.
    ///
    /// # Errors
    /// As [`load_params`](Self::load_params); [`Error::Overlap`] if a parameter shares memory with
    /// another argument.
    pub fn init_from_f32(
        &mut self,
        stream: &Stream,
        mut values: &[&dyn Read<f32>],
        mut params: &mut [&mut dyn Write<P>],
    ) -> Result<()> {
        self.core.init_from_f32(stream, &mut values, &mut params)
    }

    /// parameter ← round(master), for every tensor: what a step leaves there. After loading a state
    /// file this brings parameters in line with f32 masters. Where there is no f32 master,
    /// parameters stay as they are.
    ///
    /// # Errors
    /// As [`load_params`](Self::load_params); [`Error::Overlap`] if parameters share memory.
    pub fn write_params(
        &mut self,
        stream: &Stream,
        mut params: &mut [&mut dyn Write<P>],
    ) -> Result<()> {
        self.core.write_params(stream, &mut params)
    }

    /// The f32 value that steps of this tensor add to: master, parameter and remainder, or the
    /// parameter itself. Allocates and waits; for inspection and tests.
    ///
    /// # Errors
    /// [`Error::Range`] for a tensor there is not; [`Error::State`] before f32 masters have values; otherwise
    /// as [`load_params`](Self::load_params).
    pub fn master(
        &mut self,
        stream: &Stream,
        tensor: usize,
        param: &dyn Read<P>,
    ) -> Result<Vec<f32>> {
        self.core.master(stream, tensor, &mut [param].as_slice())
    }

    /// State array number `slot` (see [`Rule::slots`]) of a tensor, widened to f32. Allocates and
    /// waits; for inspection and tests.
    ///
    /// # Errors
    /// [`Error::Range`] for a slot or tensor there is not; [`Error::Device`] for another device's
    /// stream.
    pub fn moment(&self, stream: &Stream, slot: usize, tensor: usize) -> Result<Vec<f32>> {
        self.core.moment(stream, slot, tensor)
    }

    /// A tensor's step counters. Waits. Empty tensors have none: they are always at step 0.
    ///
    /// # Errors
    /// [`Error::Range`] for a tensor there is not; [`Error::Device`] for another device's stream.
    pub fn counters(&self, stream: &Stream, tensor: usize) -> Result<Counters> {
        self.core.counters(stream, tensor)
    }

    /// The first tensor, and slot, whose state has a NaN or ±Inf: what no check of gradients
    /// reports, since it came from overflow in the state itself or was there before. Reads all
    /// state and waits; for a look now and then.
    ///
    /// # Errors
    /// [`Error::Device`] for another device's stream.
    pub fn non_finite_state(&self, stream: &Stream) -> Result<Option<(usize, usize)>> {
        self.core.non_finite_state(stream)
    }

    /// Bytes of masters and state arrays.
    pub fn state_bytes(&self) -> usize {
        self.core.state_bytes()
    }

    /// How many tensors the optimizer has, empty ones included.
    pub fn len(&self) -> usize {
        self.core.layout.items.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.core.layout.items.is_empty()
    }

    /// A tensor's name.
    pub fn name(&self, tensor: usize) -> Option<&str> {
        self.core.layout.items.get(tensor).map(|item| item.name.as_str())
    }

    /// Names of the state arrays.
    pub fn slots(&self) -> &'static [&'static str] {
        self.core.rule.slots()
    }

    /// A group's rule with its hyper-parameters.
    pub fn rule(&self, group: usize) -> Option<&Rule> {
        self.core.rules.get(group)
    }
}

impl Core {
    pub(crate) fn load_params(&mut self, stream: &Stream, params: &mut dyn List) -> Result<()> {
        const OP: &str = "optim::load_params";
        self.between_steps(OP)?;
        self.gather_params(OP, stream, params)?;
        self.convert(stream, CONVERT_LOAD, 0..self.layout.chunks.len())?;
        self.loaded = true;
        Ok(())
    }

    pub(crate) fn init_from_f32(
        &mut self,
        stream: &Stream,
        values: &mut dyn List,
        params: &mut dyn List,
    ) -> Result<()> {
        const OP: &str = "optim::init_from_f32";
        self.between_steps(OP)?;
        self.read_values(OP, stream, values)?;
        self.gather_params(OP, stream, params)?;
        self.check_values_apart(OP)?;
        self.convert(stream, CONVERT_STORE, 0..self.layout.chunks.len())?;
        self.loaded = true;
        Ok(())
    }

    pub(crate) fn write_params(&mut self, stream: &Stream, params: &mut dyn List) -> Result<()> {
        const OP: &str = "optim::write_params";
        self.between_steps(OP)?;
        self.check_masters(OP)?;
        self.gather_params(OP, stream, params)?;
        self.forget_values();
        self.check_values_apart(OP)?;
        self.convert(stream, CONVERT_ROUND, 0..self.layout.chunks.len())
    }

    pub(crate) fn master(
        &mut self,
        stream: &Stream,
        tensor: usize,
        param: &mut dyn List,
    ) -> Result<Vec<f32>> {
        const OP: &str = "optim::master";
        self.between_steps(OP)?;
        self.check_masters(OP)?;
        stream.expect_device(OP, &self.device)?;
        let Some(row) = self.row(OP, tensor)? else { return Ok(Vec::new()) };
        let len = self.layout.items[tensor].len;
        let lent = param.lend(0, stream)?;
        if lent.len() != len {
            return Err(Error::shape(OP, "param", format!("{len} elements"), lent.len()));
        }
        let address = lent.address(OP, &|| "param".into(), stream)?;
        let part = self.layout.items[tensor].part.clone();
        let values = self.device.zeros::<f32>(part.len())?;
        let origin = values.address().wrapping_sub((part.start * size_of::<f32>()) as u64);
        self.note_one(row, address.0, origin);
        let of = &self.layout.tensors[row];
        let first = of.first_chunk as usize;
        let chunks = first..first + of.chunks as usize;
        self.convert(stream, CONVERT_EXPORT, chunks)?;
        values.to_vec(stream)
    }

    pub(crate) fn moment(&self, stream: &Stream, slot: usize, tensor: usize) -> Result<Vec<f32>> {
        const OP: &str = "optim::moment";
        let row = self.row(OP, tensor)?;
        let Some(array) = self.slots.get(slot) else {
            let expected = format!("less than {}", self.slots.len());
            return Err(Error::range(OP, "slot", expected, slot));
        };
        let Some(row) = row else { return Ok(Vec::new()) };
        let (start, len) = (self.layout.first_state(row), self.layout.items[tensor].part.len());
        let mut values = vec![0.0f32; len];
        match array {
            Slot::F32(buffer) => buffer.read(stream, start, &mut values)?,
            Slot::Bf16(buffer) => {
                let mut stored = vec![crate::bf16::ZERO; len];
                buffer.read(stream, start, &mut stored)?;
                values.iter_mut().zip(stored).for_each(|(to, from)| *to = from.widen());
            }
        }
        Ok(values)
    }

    pub(crate) fn counters(&self, stream: &Stream, tensor: usize) -> Result<Counters> {
        let row = self.row("optim::counters", tensor)?;
        let mut progress = [Progress { step: 0, beta1_power: 1.0, beta2_power: 1.0 }];
        if let Some(row) = row {
            self.progress.read(stream, row, &mut progress)?;
        }
        let Progress { step, beta1_power, beta2_power } = progress[0];
        Ok(Counters { step, beta1_power, beta2_power })
    }

    pub(crate) fn non_finite_state(&self, stream: &Stream) -> Result<Option<(usize, usize)>> {
        for tensor in 0..self.layout.items.len() {
            for slot in 0..self.slots.len() {
                if self.moment(stream, slot, tensor)?.iter().any(|value| !value.is_finite()) {
                    return Ok(Some((tensor, slot)));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn state_bytes(&self) -> usize {
        let masters = match &self.masters {
            Masters::None => 0,
            Masters::F32(buffer) => size_of::<f32>() * buffer.len(),
            Masters::Remainder(buffer) => size_of::<u16>() * buffer.len(),
        };
        let slot = |slot: &Slot| match slot {
            Slot::F32(buffer) => size_of::<f32>() * buffer.len(),
            Slot::Bf16(buffer) => size_of::<crate::bf16>() * buffer.len(),
        };
        masters + self.slots.iter().map(slot).sum::<usize>()
    }

    /// The rules of all groups.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    fn row(&self, op: &'static str, tensor: usize) -> Result<Option<usize>> {
        match self.layout.items.get(tensor) {
            Some(item) => Ok(item.row),
            None => {
                let expected = format!("less than {}", self.layout.items.len());
                Err(Error::range(op, "tensor", expected, tensor))
            }
        }
    }

    /// f32 masters have been given values, where there are such.
    pub(super) fn check_masters(&self, op: &'static str) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        let expected = "f32 masters with values: `load_params` or `init_from_f32`";
        Err(Error::state(op, expected, "masters without"))
    }

    pub(super) fn between_steps(&self, op: &'static str) -> Result<()> {
        self.phase.begin(op)
    }
}
