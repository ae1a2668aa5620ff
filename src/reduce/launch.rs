//! The reduction's launches: checked arguments in, one parameter block out. The one place of this
//! op that is unsafe.

use super::exchange::Geometry;
use crate::backend::Address;
use crate::kernel::Launch;
use crate::kernel::params::reduce::{Accumulate, Block, Fixed, Pack, Sum, Unpack};
use crate::kernel::params::{PARTIAL_CHUNK, Partial};
use crate::{Buffer, Dtype, Result, Storage, Stream};

/// A gradient as lent for one call: address (absent: zeros) and number of elements.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub address: Address,
    pub len: usize,
}

fn enqueue(stream: &Stream, block: Block) -> Result<()> {
    // SAFETY: each function below builds the block from buffers of ours, whose lengths it checks,
    // and from spans that `Reducer` has lent and checked against the declared lengths. Buckets are
    // reached through `&mut`, or through an `Arc` that is held until the work has run.
    unsafe { stream.launch(&Launch::Reduce(block)) }
}

/// Packs a gradient into a bucket, from element `offset` of the bucket on.
#[allow(clippy::too_many_arguments)]
pub(super) fn pack<G: Storage>(
    stream: &Stream,
    gradient: Span,
    accumulated: Option<&mut Buffer<f32>>,
    bucket: &mut Buffer<u8>,
    non_finite: &mut Buffer<u64>,
    geometry: Geometry,
    (offset, wire): (usize, Dtype),
    scale: f32,
) -> Result<()> {
    let accumulated = accumulated.map_or(Address::NULL, |a| {
        assert_eq!(a.len(), gradient.len, "accumulator allocated for this parameter");
        Address(a.address())
    });
    // The bucket is cut in shards; so is a parameter that crosses from one into the next.
    let mut done = 0;
    while done < gradient.len {
        let at = offset + done;
        let (block, within) = (at / geometry.shard, at % geometry.shard);
        let len = (geometry.shard - within).min(gradient.len - done);
        let byte = block * geometry.block_bytes + within * wire.bytes();
        assert!(byte + len * wire.bytes() <= bucket.len(), "the plan places parameters inside");
        let advance = |address: Address, bytes: usize| match address {
            Address::NULL => 0,
            address => address.offset(done * bytes).0,
        };
        let block = Pack {
            gradient: advance(gradient.address, size_of::<G>()),
            accumulated: advance(accumulated, 4),
            to: bucket.address() + (byte) as u64,
            non_finite: non_finite.address(),
            len: len as u64,
            scale,
            gradient_type: G::DTYPE as u32,
            wire: wire as u32,
            padding: 0,
        };
        enqueue(stream, Block::Pack(block))?;
        done += len;
    }
    Ok(())
}

/// One of the three rows of fixed point; `block`'s operands were checked by
/// [`FixedPoint`](super::FixedPoint) in the same call.
pub(super) fn fixed(stream: &Stream, row: fn(Fixed) -> Block, block: Fixed) -> Result<()> {
    enqueue(stream, row(block))
}

/// Adds a gradient to its accumulator.
pub(super) fn accumulate<G: Storage>(
    stream: &Stream,
    gradient: Span,
    accumulated: &mut Buffer<f32>,
) -> Result<()> {
    assert_eq!(accumulated.len(), gradient.len, "accumulator allocated for this parameter");
    let block = Accumulate {
        gradient: gradient.address.0,
        accumulated: accumulated.address(),
        len: gradient.len as u64,
        gradient_type: G::DTYPE as u32,
        padding: 0,
    };
    enqueue(stream, Block::Accumulate(block))
}

/// Sums one shard over all ranks.
pub(super) fn sum(
    stream: &Stream,
    parts: &Buffer<u64>,
    weights: &Buffer<f32>,
    to: &mut Buffer<u8>,
    geometry: Geometry,
    factor: f32,
    wire: Dtype,
) -> Result<()> {
    assert_eq!((parts.len(), to.len()), (weights.len(), geometry.shard_bytes), "sized for it");
    let block = Sum {
        parts: parts.address(),
        weights: weights.address(),
        to: to.address(),
        len: geometry.shard as u64,
        ranks: parts.len() as u32,
        wire: wire as u32,
        factor,
        padding: 0,
    };
    enqueue(stream, Block::Sum(block))
}

/// Unpacks a parameter from the shards of its bucket into its gradient.
#[allow(clippy::too_many_arguments)]
pub(super) fn unpack<G: Storage>(
    stream: &Stream,
    shards: &Buffer<u64>,
    to: Span,
    (partials, first): (&mut Buffer<Partial>, usize),
    geometry: Geometry,
    (offset, wire): (usize, Dtype),
    factor: f32,
    tensor: usize,
) -> Result<()> {
    let chunks = to.len.div_ceil(PARTIAL_CHUNK);
    assert!(first + chunks <= partials.len(), "partials allocated for every parameter");
    assert!(offset + to.len <= shards.len() * geometry.shard, "the plan places parameters inside");
    let block = Unpack {
        shards: shards.address(),
        to: to.address.0,
        partials: partials.address() + (first * size_of::<Partial>()) as u64,
        shard: geometry.shard as u64,
        offset: offset as u64,
        len: to.len as u64,
        factor,
        gradient_type: G::DTYPE as u32,
        wire: wire as u32,
        tensor: tensor as u32,
    };
    enqueue(stream, Block::Unpack(block))
}
