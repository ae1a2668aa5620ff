//! Masters from, or to, parameters or f32 values.

use super::Threads;
use super::chunk::{Half, Param};
use super::memory::{Work, part, part_ref, slice};
use super::tile;
use crate::kernel::params::optim::{
    CONVERT_EXPORT, CONVERT_LOAD, CONVERT_ROUND, CONVERT_STORE, Convert, Tensor,
};
use crate::optim::round;

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
        // SAFETY: the plan checked both arguments' lengths; one task for each chunk. f32 values are
        // written only in the direction that exports to a buffer of the optimizer's own.
        let (mut param, values) = unsafe {
            let param = part_ref::<u64>(block.params, row, 1)[0];
            let values = part_ref::<u64>(block.values, row, 1)[0];
            let kind = (block.mode, block.param);
            let param = Param::new(kind, (param, start), (block.master, tensor.state), len);
            (param, (values, start, len))
        };
        match block.direction {
            CONVERT_LOAD => load(&mut param),
            // SAFETY: as above, only read.
            CONVERT_STORE => store(&mut param, unsafe { part_ref(values.0, values.1, values.2) }),
            CONVERT_ROUND => round(&mut param),
            CONVERT_EXPORT => {
                // SAFETY: as above: the optimizer's own buffer.
                export(&param, unsafe { part(values.0, values.1, values.2) });
            }
            _ => {}
        }
    });
}

/// master ← parameter.
fn load(param: &mut Param<'_>) {
    match param {
        Param::Master(master, Half::Bf16(from)) => tile::widen(master, from, 1.0),
        Param::Master(master, Half::F16(from)) => tile::widen(master, from, 1.0),
        Param::Remainder(_, low) => low.fill(0),
        Param::Own(_) | Param::Nearest(_) | Param::Stochastic(_) => {}
    }
}

/// master ← value, parameter ← round(value).
fn store(param: &mut Param<'_>, values: &[f32]) {
    match param {
        Param::Own(own) => own.copy_from_slice(values),
        Param::Master(master, _) => {
            master.copy_from_slice(values);
            round(param);
        }
        Param::Remainder(high, low) => tile::split(high, low, values),
        Param::Nearest(Half::Bf16(to)) | Param::Stochastic(Half::Bf16(to)) => {
            tile::narrow(to, values);
        }
        Param::Nearest(Half::F16(to)) | Param::Stochastic(Half::F16(to)) => {
            tile::narrow(to, values);
        }
    }
}

/// parameter ← round(master).
fn round(param: &mut Param<'_>) {
    match param {
        Param::Master(master, Half::Bf16(to)) => tile::narrow(to, master),
        Param::Master(master, Half::F16(to)) => tile::narrow(to, master),
        Param::Own(_) | Param::Remainder(..) | Param::Nearest(_) | Param::Stochastic(_) => {}
    }
}

/// value ← master.
fn export(param: &Param<'_>, values: &mut [f32]) {
    match param {
        Param::Own(from) | Param::Master(from, _) => values.copy_from_slice(from),
        Param::Remainder(high, low) => {
            for ((to, high), low) in values.iter_mut().zip(high.iter()).zip(low.iter()) {
                *to = round::join(*high, *low);
            }
        }
        Param::Nearest(Half::Bf16(from)) | Param::Stochastic(Half::Bf16(from)) => {
            tile::widen(values, from, 1.0);
        }
        Param::Nearest(Half::F16(from)) | Param::Stochastic(Half::F16(from)) => {
            tile::widen(values, from, 1.0);
        }
    }
}
