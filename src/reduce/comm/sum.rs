//! An all-reduce of exchanges and sums of this crate's: what a communicator has that has none of its own.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ALIGN, Collective, Communicator, Part, check_parts};
use crate::environment::Environment;
use crate::{Buffer, Dtype, Element, Error, Result, Storage, Stream, bf16, f16};

/// What [`Communicator::all_reduce`] does to the values of all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(feature = "mpi", feature = "tcp"), derive(serde::Serialize, serde::Deserialize))]
pub enum Reduction {
    /// Adds up values of a storage type.
    Sum(Dtype),
    /// Adds up 32-bit integers, modulo 2³².
    SumI32,
    /// Takes the largest of bytes.
    MaxU8,
}

impl Reduction {
    /// Bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sum(dtype) => dtype.bytes(),
            Self::SumI32 => 4,
            Self::MaxU8 => 1,
        }
    }
}

const OP: &str = "Communicator::all_reduce";

/// Whether `len` bytes of the buffer are values of the reduction.
pub(super) fn check(buffer: &Buffer<u8>, len: usize, reduction: Reduction) -> Result<()> {
    if len <= buffer.len() && len.is_multiple_of(reduction.bytes()) {
        return Ok(());
    }
    let expected = format!("values of {} bytes inside {} bytes", reduction.bytes(), buffer.len());
    Err(Error::shape(OP, "len", expected, len))
}

/// All-to-all, the reduction of this rank's block on the host, and all-gather. Sums of bf16, f16 and f32
/// are f32, in rank order, rounded once.
pub(super) fn in_rank_order<C: Communicator + ?Sized>(
    comm: &mut C,
    mut buffer: Buffer<u8>,
    len: usize,
    reduction: Reduction,
    stream: &Stream,
    deadline: Instant,
) -> Result<(Buffer<u8>, Duration)> {
    check(&buffer, len, reduction)?;
    let _environment = Environment::standard();
    let (ranks, device) = (comm.size(), stream.device());
    let block = len.div_ceil(ranks).next_multiple_of(ALIGN);
    let mut send = device.zeros(block * ranks)?;
    send.view_mut(0..len)?.copy_from_view(stream, &buffer.view(0..len)?)?;
    let parts = comm.exchange(Collective::AllToAll, &Arc::new(send), stream, deadline)?;
    check_parts(&parts.parts, stream, ranks, block)?;
    let skew = parts.skew;
    let reduced = match reduction {
        Reduction::Sum(Dtype::F32) => sum::<f32>(&parts.parts, stream)?,
        Reduction::Sum(Dtype::Bf16) => sum::<bf16>(&parts.parts, stream)?,
        Reduction::Sum(Dtype::F16) => sum::<f16>(&parts.parts, stream)?,
        Reduction::SumI32 => fold::<i32>(&parts.parts, stream, |a, b| *a = a.wrapping_add(b))?,
        Reduction::MaxU8 => fold::<u8>(&parts.parts, stream, |a, b| *a = b.max(*a))?,
    };
    drop(parts);
    let reduced = Arc::new(device.upload(&reduced)?);
    let parts = comm.exchange(Collective::AllGather, &reduced, stream, deadline)?;
    check_parts(&parts.parts, stream, ranks, block)?;
    for (rank, part) in parts.parts.iter().enumerate() {
        let (from, to) = ((rank * block).min(len), ((rank + 1) * block).min(len));
        let part = part.buffer.view(part.start..part.start + (to - from))?;
        buffer.view_mut(from..to)?.copy_from_view(stream, &part)?;
    }
    stream.sync()?; // the parts are read no more
    Ok((buffer, skew))
}

/// The values of a part, on the host.
fn values<T: Element>(part: &Part, stream: &Stream) -> Result<Vec<T>> {
    let mut values = vec![T::zeroed(); part.len / size_of::<T>()];
    part.buffer.read(stream, part.start, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

fn fold<T: Element>(parts: &[Part], stream: &Stream, join: impl Fn(&mut T, T)) -> Result<Vec<u8>> {
    let mut all = values::<T>(&parts[0], stream)?;
    for part in &parts[1..] {
        for (a, b) in all.iter_mut().zip(values::<T>(part, stream)?) {
            join(a, b);
        }
    }
    Ok(bytemuck::cast_slice(&all).to_vec())
}

fn sum<T: Storage>(parts: &[Part], stream: &Stream) -> Result<Vec<u8>> {
    let mut sums = vec![0.0f32; parts[0].len / size_of::<T>()];
    for part in parts {
        for (sum, value) in sums.iter_mut().zip(values::<T>(part, stream)?) {
            *sum += value.widen();
        }
    }
    let rounded: Vec<T> = sums.into_iter().map(T::narrow).collect();
    Ok(bytemuck::cast_slice(&rounded).to_vec())
}
