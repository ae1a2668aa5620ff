//! Masters from, or to, parameters or f32 values.

use super::Threads;
use super::chunk::{Half, Param};
use super::copy;
use super::memory::{Work, part, part_ref, slice};
use super::tile;
use crate::kernel::params::optim::{
    CONVERT_EXPORT, CONVERT_LOAD, CONVERT_ROUND, CONVERT_STORE, Convert, MASTER_F32, MASTER_OWN,
    MASTER_REMAINDER, Tensor,
};
use crate::{Dtype, bf16, f16};

/// All of one direction.
///
/// # Safety
/// As [`super::run`].
pub(super) unsafe fn run(threads: &Threads, block: &Convert) {
    // SAFETY: the caller's promise: tables of these lengths, which no kernel writes.
    let work = unsafe {
        let chunks = part_ref(block.chunks, block.first_chunk, block.chunk_count);
        Work { chunks, tensors: slice::<Tensor>(block.tensors, block.tensor_count) }
    };
    work.run(threads, |_, chunk, tensor| {
        let (start, len, row) = (chunk.start, u64::from(chunk.len), u64::from(chunk.tensor));
        // SAFETY: as for the work list.
        let (param, values) = unsafe {
            let param = part_ref::<u64>(block.params, row, 1)[0];
            (param, part_ref::<u64>(block.values, row, 1)[0])
        };
        let state = tensor.state.wrapping_add(start);
        let piece = Piece { block, param, start, state, len, total: tensor.len };
        // SAFETY: the plan checked both arguments' lengths; one task for each chunk. Parameters
        // are only read where they were lent to read (load, export); f32 values are written only
        // in the direction that exports, to a buffer of the optimizer's own.
        unsafe {
            match block.direction {
                CONVERT_LOAD => piece.load(),
                CONVERT_STORE => {
                    let values = part_ref(values, start, len);
                    store(&mut piece.writable(tensor), values, tensor.len);
                }
                CONVERT_ROUND => round(&mut piece.writable(tensor), tensor.len),
                CONVERT_EXPORT => piece.export(part(values, start, len)),
                _ => {}
            }
        }
    });
}

/// One chunk's place in the parameter and in the masters.
struct Piece<'a> {
    block: &'a Convert,
    param: u64,
    start: u64,
    state: u64,
    len: u64,
    /// Elements of the whole tensor.
    total: u64,
}

const F16: u32 = Dtype::F16 as u32;

impl Piece<'_> {
    /// # Safety
    /// The parameter was lent to write.
    unsafe fn writable(&self, tensor: &Tensor) -> Param<'_> {
        let kind = (self.block.mode, self.block.param);
        let master = (self.block.master, tensor.state);
        // SAFETY: the caller's promise.
        unsafe { Param::new(kind, (self.param, self.start), master, self.len) }
    }

    /// The parameter, widened.
    ///
    /// # Safety
    /// The parameter has 16 bits and was lent.
    unsafe fn widen(&self, to: &mut [f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.block.param {
                F16 => {
                    copy::widen(to, part_ref::<f16>(self.param, self.start, self.len), self.total)
                }
                _ => {
                    copy::widen(to, part_ref::<bf16>(self.param, self.start, self.len), self.total)
                }
            }
        }
    }

    /// master ← parameter.
    ///
    /// # Safety
    /// As [`super::run`]; the parameter is only read.
    unsafe fn load(&self) {
        // SAFETY: the caller's promise; masters are the optimizer's own.
        unsafe {
            match self.block.mode {
                MASTER_F32 => self.widen(part(self.block.master, self.state, self.len)),
                MASTER_REMAINDER => {
                    part::<u16>(self.block.master, self.state, self.len).fill(0);
                }
                _ => {}
            }
        }
    }

    /// value ← master.
    ///
    /// # Safety
    /// As [`super::run`]; the parameter is only read.
    unsafe fn export(&self, values: &mut [f32]) {
        let Self { block, param, start, state, len, .. } = *self;
        // SAFETY: the caller's promise; masters are the optimizer's own.
        unsafe {
            match block.mode {
                MASTER_OWN => values.copy_from_slice(part_ref(param, start, len)),
                MASTER_F32 => values.copy_from_slice(part_ref(block.master, state, len)),
                MASTER_REMAINDER => {
                    let low = part_ref(block.master, state, len);
                    tile::join(values, part_ref(param, start, len), low);
                }
                _ => self.widen(values),
            }
        }
    }
}

/// master ← value, parameter ← round(value).
fn store(param: &mut Param<'_>, values: &[f32], total: u64) {
    match param {
        Param::Own(own) => own.copy_from_slice(values),
        Param::Master(master, _) => {
            master.copy_from_slice(values);
            round(param, total);
        }
        Param::Remainder(high, low) => tile::split(high, low, values),
        Param::Nearest(Half::Bf16(to)) | Param::Stochastic(Half::Bf16(to)) => {
            copy::narrow(to, values, total);
        }
        Param::Nearest(Half::F16(to)) | Param::Stochastic(Half::F16(to)) => {
            copy::narrow(to, values, total);
        }
    }
}

/// parameter ← round(master).
fn round(param: &mut Param<'_>, total: u64) {
    match param {
        Param::Master(master, Half::Bf16(to)) => copy::narrow(to, master, total),
        Param::Master(master, Half::F16(to)) => copy::narrow(to, master, total),
        Param::Own(_) | Param::Remainder(..) | Param::Nearest(_) | Param::Stochastic(_) => {}
    }
}
