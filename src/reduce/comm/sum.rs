//! An all-reduce of exchanges and sums of this crate's: what a communicator has that has none of its own.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::fold::{self, keep, room};
use super::{ALIGN, Collective, Communicator, Fault, Part, check_parts};
use crate::environment::Environment;
use crate::{Buffer, Dtype, Error, Result, Stream};

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
    const ALL: [Self; 5] = [
        Self::Sum(Dtype::Bf16),
        Self::Sum(Dtype::F16),
        Self::Sum(Dtype::F32),
        Self::SumI32,
        Self::MaxU8,
    ];

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
    let mut send = room(device, block * ranks)?;
    send.view_mut(0..len)?.copy_from_view(stream, &buffer.view(0..len)?)?;
    let parts = comm.exchange(Collective::AllToAll, &keep(send), stream, deadline)?;
    check_parts(&parts.parts, stream, ranks, block)?;
    let skew = parts.skew;
    let mut reduced = room(device, block + Call::BYTES)?;
    fold::reduce(reduction, &parts.parts, &mut reduced, stream)?;
    drop(parts);
    let call = Call { reduction, len };
    reduced.write(stream, block, &call.encode())?;
    let parts = comm.exchange(Collective::AllGather, &keep(reduced), stream, deadline)?;
    check_parts(&parts.parts, stream, ranks, block + Call::BYTES)?;
    if let Err(fault) = Call::compare(&parts.parts, block, stream)? {
        comm.aborter().abort(&fault.to_string());
        return Err(fault.into());
    }
    for (rank, part) in parts.parts.iter().enumerate() {
        let (from, to) = ((rank * block).min(len), ((rank + 1) * block).min(len));
        let part = part.buffer.view(part.start..part.start + (to - from))?;
        buffer.view_mut(from..to)?.copy_from_view(stream, &part)?;
    }
    stream.sync()?; // the parts are read no more
    Ok((buffer, skew))
}

/// What a rank has called: behind its block, since exchanges compare lengths alone.
struct Call {
    reduction: Reduction,
    len: usize,
}

impl Call {
    const BYTES: usize = ALIGN;

    fn encode(&self) -> [u8; Self::BYTES] {
        let place = Reduction::ALL.iter().position(|other| *other == self.reduction);
        let words = [place.expect("one of all") as u64, self.len as u64];
        std::array::from_fn(|i| words[i / 8].to_le_bytes()[i % 8])
    }

    fn describe(bytes: &[u8; Self::BYTES]) -> String {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        match usize::try_from(word(0)).ok().and_then(|place| Reduction::ALL.get(place)) {
            Some(reduction) => format!("{reduction:?} of {} bytes", word(8)),
            None => "no all-reduce".into(),
        }
    }

    /// Whether all ranks have called the same.
    fn compare(parts: &[Part], block: usize, stream: &Stream) -> Result<Result<(), Fault>> {
        let mut calls = vec![[0; Self::BYTES]; parts.len()];
        for (part, call) in parts.iter().zip(&mut calls) {
            part.buffer.read(stream, part.start + block, call)?;
        }
        Ok(match calls.iter().position(|call| *call != calls[0]) {
            None => Ok(()),
            Some(rank) => Err(Fault::Mismatch {
                sequence: 0,
                rank,
                expected: Self::describe(&calls[0]),
                found: Self::describe(&calls[rank]),
            }),
        })
    }
}
