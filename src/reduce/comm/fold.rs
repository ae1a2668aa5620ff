//! Reductions of parts on the host, and the memory of those who have no place of their own for it.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::pool::Pool;
use super::{Part, Reduction};
use crate::backend::cpu::reduce::total;
use crate::{Buffer, Device, DeviceKind, Dtype, Element, Result, Storage, Stream, bf16, f16};

/// Elements that are joined at a time, in the first-level cache.
const STRIP: usize = 2048;

thread_local! {
    /// What the all-reduces of a thread work in, used again by the next ones.
    static ROOM: RefCell<Pool> = RefCell::default();
}

/// Memory of this length, in which anything may be.
pub(super) fn room(device: &Device, bytes: usize) -> Result<Buffer<u8>> {
    ROOM.with_borrow_mut(|room| room.take_exactly(device, bytes))
}

/// Such memory, filled: room again when nobody holds it.
pub(super) fn keep(buffer: Buffer<u8>) -> Arc<Buffer<u8>> {
    ROOM.with_borrow_mut(|room| room.keep(buffer))
}

/// Reduces parts, which are as long as each other, to the first bytes of a buffer.
pub(super) fn reduce(
    reduction: Reduction,
    parts: &[Part],
    to: &mut Buffer<u8>,
    stream: &Stream,
) -> Result<()> {
    let len = parts.first().map_or(0, |part| part.len);
    if len == 0 {
        return Ok(());
    }
    let here = parts.iter().map(|part| on_host(part, stream)).collect::<Result<Vec<Part>>>()?;
    let views = here.iter().map(|part| part.buffer.view(part.start..part.start + len));
    let views = views.collect::<Result<Vec<_>>>()?;
    let values: Vec<&[u8]> = views.iter().map(|view| view.host().expect(HERE)).collect();
    if let Some(to) = to.view_mut(0..len)?.host() {
        join(reduction, &values, to);
        return Ok(());
    }
    let mut sums = room(&host(), len)?;
    join(reduction, &values, sums.view_mut(0..len)?.host().expect(HERE));
    to.write(stream, 0, sums.view(0..len)?.host().expect(HERE))?;
    stream.sync()?;
    keep(sums);
    Ok(())
}

const HERE: &str = "memory of the CPU";

fn host() -> Device {
    Device::cpu_with_threads(NonZeroUsize::MIN)
}

/// A part where the host can read it: itself, or a copy.
fn on_host(part: &Part, stream: &Stream) -> Result<Part> {
    if part.buffer.device().info().kind == DeviceKind::Cpu {
        return Ok(part.clone());
    }
    let mut copy = room(&host(), part.len)?;
    let mut whole = copy.view_mut(0..part.len)?;
    part.buffer.read(stream, part.start, whole.host().expect(HERE))?;
    Ok(Part { buffer: keep(copy), start: 0, len: part.len })
}

/// `to[i]` of all `parts[..][i]`. Bytes are of whole values, aligned.
fn join(reduction: Reduction, parts: &[&[u8]], to: &mut [u8]) {
    match reduction {
        Reduction::Sum(Dtype::F32) => sum::<f32>(parts, to),
        Reduction::Sum(Dtype::Bf16) => sum::<bf16>(parts, to),
        Reduction::Sum(Dtype::F16) => sum::<f16>(parts, to),
        Reduction::SumI32 => fold(parts, to, i32::wrapping_add),
        Reduction::MaxU8 => fold(parts, to, u8::max),
    }
}

fn sum<T: Storage>(parts: &[&[u8]], to: &mut [u8]) {
    let parts: Vec<&[T]> = parts.iter().map(|part| bytemuck::cast_slice(part)).collect();
    total(&parts, bytemuck::cast_slice_mut(to));
}

fn fold<T: Element>(parts: &[&[u8]], to: &mut [u8], join: impl Fn(T, T) -> T) {
    for (strip, to) in bytemuck::cast_slice_mut(to).chunks_mut(STRIP).enumerate() {
        let start = strip * STRIP;
        for (rank, part) in parts.iter().enumerate() {
            let part = &bytemuck::cast_slice::<u8, T>(part)[start..start + to.len()];
            if rank == 0 {
                to.copy_from_slice(part);
                continue;
            }
            to.iter_mut().zip(part).for_each(|(to, value)| *to = join(*to, *value));
        }
    }
}
