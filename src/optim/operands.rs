//! Arguments on their way to the device: checked, noted, and written where they changed.
#![forbid(unsafe_code)]

use super::Moments;
use super::core::{Core, Masters, Slot};
use super::launch::launch;
use super::plan::{self, Addresses, Arguments};
use crate::kernel::params::optim::{Block, Convert, Step};
use crate::kernel::table::optim::Row;
use crate::lend::List;
use crate::{Buffer, Result, Stream};

impl Core {
    /// All checks of a step; only the host's notes of addresses change.
    pub(crate) fn check_step(
        &mut self,
        op: &'static str,
        stream: &Stream,
        params: &mut dyn List,
        grads: &mut dyn List,
    ) -> Result<()> {
        self.check_masters(op)?;
        self.gather_params(op, stream, params)?;
        self.gather_grads(op, stream, grads)?;
        let (params, grads) = (&mut self.param_addresses, &mut self.grad_addresses);
        if params.unchecked || grads.unchecked {
            let written = ("params", params.rows.as_slice(), self.param);
            let read = ("grads", grads.rows.as_slice(), self.grad);
            plan::check_overlap(op, &self.layout, written, read, &mut self.spans)?;
            (params.unchecked, grads.unchecked) = (false, false);
        }
        Ok(())
    }

    pub(super) fn gather_grads(
        &mut self,
        op: &'static str,
        stream: &Stream,
        grads: &mut dyn List,
    ) -> Result<()> {
        stream.expect_device(op, &self.device)?;
        let arguments = Arguments::parts(op, "grads", stream, &self.layout.items, self.grad);
        arguments.gather(grads, &mut self.grad_addresses)
    }

    pub(super) fn gather_params(
        &mut self,
        op: &'static str,
        stream: &Stream,
        params: &mut dyn List,
    ) -> Result<()> {
        stream.expect_device(op, &self.device)?;
        let arguments = Arguments::whole(op, "params", stream, &self.layout.items);
        arguments.gather(params, &mut self.param_addresses)
    }

    pub(super) fn read_values(
        &mut self,
        op: &'static str,
        stream: &Stream,
        values: &mut dyn List,
    ) -> Result<()> {
        let arguments = Arguments::whole(op, "values", stream, &self.layout.items);
        arguments.gather(values, &mut self.value_addresses)
    }

    /// No f32 values take part in the next conversion.
    pub(super) fn forget_values(&mut self) {
        self.value_addresses.rows.fill(0);
        self.value_addresses.changed = true;
    }

    /// O-05 for a conversion.
    pub(super) fn check_values_apart(&mut self, op: &'static str) -> Result<()> {
        let written = ("params", self.param_addresses.rows.as_slice(), self.param);
        let read = ("values", self.value_addresses.rows.as_slice(), crate::Dtype::F32);
        self.param_addresses.unchecked = true;
        plan::check_overlap(op, &self.layout, written, read, &mut self.spans)
    }

    pub(super) fn upload_grads(&mut self, stream: &Stream) -> Result<()> {
        upload(&mut self.grads, &mut self.grad_addresses, stream)
    }

    pub(super) fn upload_params(&mut self, stream: &Stream) -> Result<()> {
        upload(&mut self.params, &mut self.param_addresses, stream)
    }

    pub(super) fn master_address(&self) -> u64 {
        match &self.masters {
            Masters::None => 0,
            Masters::F32(buffer) => buffer.address(),
            Masters::Remainder(buffer) => buffer.address(),
        }
    }

    pub(super) fn step_block(&self, row: Row) -> Step {
        let slot = |number: usize| self.slots.get(number).map_or(0, Slot::address);
        let moment = match self.config.moments {
            Moments::F32 => crate::Dtype::F32,
            Moments::Bf16 => crate::Dtype::Bf16,
        };
        // Ratios are of whole tensors.
        let whole = self.whole.as_ref().filter(|_| row == Row::LambTrust);
        let (tensors, norms, chunk_count) = match whole {
            Some(whole) => (&whole.tensors, &whole.norms, self.layout.whole_chunks),
            None => (&self.tensors, &self.norms, self.layout.chunks.len()),
        };
        Step {
            chunks: self.chunks.address(),
            tensors: tensors.address(),
            scalars: self.scalars.address(),
            status: self.status.address(),
            params: self.params.address(),
            grads: self.grads.address(),
            master: self.master_address(),
            slot0: slot(0),
            slot1: slot(1),
            slot2: slot(2),
            norms: norms.address(),
            chunk_count: chunk_count as u64,
            tensor_count: self.layout.tensors.len() as u64,
            state_len: self.layout.state_len as u64,
            seed: self.config.seed,
            row: row as u32,
            param: self.param as u32,
            grad: self.grad as u32,
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
                chunks: self.chunks.address(),
                tensors: self.tensors.address(),
                params: self.params.address(),
                values: self.values.address(),
                master: self.master_address(),
                first_chunk: chunks.start as u64,
                chunk_count: chunks.len() as u64,
                tensor_count: self.layout.tensors.len() as u64,
                state_len: self.layout.state_len as u64,
                param: self.param as u32,
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
