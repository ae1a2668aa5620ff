//! The reduction's launches: checked arguments in, one parameter block out. The one place of this
//! op that is unsafe.

use std::ops::Range;

use super::exchange::Geometry;
use super::in_place::Layout;
use super::targets::Targets;
use super::wire::Wire;
use crate::backend::Address;
use crate::kernel::Launch;
use crate::kernel::params::Partial;
use crate::kernel::params::reduce::{
    Accumulate, Block, Fixed, INT8_BLOCK, INT8_BYTES, InPlace, Pack, Piece, Quantize, Sum, Unpack,
};
use crate::{Buffer, Dtype, Result, Stream};

/// A gradient as lent for one call: address (absent: zeros) and number of elements.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub address: Address,
    pub len: usize,
}

fn enqueue(stream: &Stream, block: Block) -> Result<()> {
    // SAFETY: each function below builds the block from buffers of ours, whose lengths it checks,
    // and from spans that `Reducer` has lent and checked against the declared lengths. Buckets are
    // reached through `&mut`, or through an `Arc` that is held until the work has run. What is written
    // through an `Arc` (in place) was lent for that: each rank writes pieces that it alone has claimed, and
    // nobody reads them before all ranks have met again.
    unsafe { stream.launch(&Launch::Reduce(block)) }
}

/// Packs gradients that lie one after the other into a bucket, from element `offset` on of its blocks from
/// `first` on; with what was accumulated of them.
#[allow(clippy::too_many_arguments)]
pub(super) fn pack(
    stream: &Stream,
    dtype: Dtype,
    gradient: Span,
    accumulated: Option<(&mut Buffer<f32>, usize)>,
    bucket: &mut Buffer<u8>,
    non_finite: &mut Buffer<u64>,
    geometry: Geometry,
    (first, offset, wire): (usize, usize, Dtype),
    scale: f32,
) -> Result<()> {
    if gradient.len == 0 {
        return Ok(());
    }
    let last = offset + gradient.len - 1;
    let start = first * geometry.block_bytes;
    let end = start
        + last / geometry.shard * geometry.block_bytes
        + (last % geometry.shard + 1) * wire.bytes();
    assert!(end <= bucket.len(), "the plan places parameters inside");
    let accumulated = accumulated.map_or(0, |(sums, at)| {
        assert!(at + gradient.len <= sums.len(), "accumulators allocated for this bucket");
        sums.address() + (at * 4) as u64
    });
    let block = Pack {
        gradient: gradient.address.0,
        accumulated,
        bucket: bucket.address() + start as u64,
        non_finite: non_finite.address(),
        shard: geometry.shard as u64,
        stride: geometry.block_bytes as u64,
        offset: offset as u64,
        len: gradient.len as u64,
        scale,
        gradient_type: dtype as u32,
        wire: wire as u32,
        padding: 0,
    };
    enqueue(stream, Block::Pack(block))
}

/// One of the three rows of fixed point; `block`'s operands were checked by
/// [`FixedPoint`](super::FixedPoint) in the same call.
pub(super) fn fixed(stream: &Stream, row: fn(Fixed) -> Block, block: Fixed) -> Result<()> {
    enqueue(stream, row(block))
}

/// Adds a gradient to its accumulator, which starts at element `offset` of the bucket's.
pub(super) fn accumulate(
    stream: &Stream,
    dtype: Dtype,
    gradient: Span,
    (accumulated, offset): (&mut Buffer<f32>, usize),
) -> Result<()> {
    assert!(offset + gradient.len <= accumulated.len(), "accumulators allocated for this bucket");
    let block = Accumulate {
        gradient: gradient.address.0,
        accumulated: accumulated.address() + (offset * 4) as u64,
        len: gradient.len as u64,
        gradient_type: dtype as u32,
        padding: 0,
    };
    enqueue(stream, Block::Accumulate(block))
}

/// Sums the same `len` elements of the first `ranks` parts, which weigh what `weights` says from `first` on.
pub(super) fn sum(
    stream: &Stream,
    (parts, ranks): (&Buffer<u64>, usize),
    (weights, first): (&Buffer<f32>, usize),
    to: &mut Buffer<u8>,
    len: usize,
    factor: f32,
    (from, into): (Wire, Dtype),
) -> Result<()> {
    assert!(from != Wire::Int8 || into == Dtype::F32 && len.is_multiple_of(INT8_BLOCK), "blocks");
    let block = of_parts((parts, ranks), (weights, first), to, len, factor, (from, into));
    enqueue(stream, Block::Sum(block))
}

/// The same in fixed point, which is of the host's memory. The first element begins a block of the bucket.
pub(super) fn sum_fixed(
    stream: &Stream,
    parts: (&Buffer<u64>, usize),
    weights: (&Buffer<f32>, usize),
    to: &mut Buffer<u8>,
    len: usize,
    factor: f32,
    (from, into): (Dtype, Dtype),
) -> Result<()> {
    let block = of_parts(parts, weights, to, len, factor, (Wire::Elements(from), into));
    enqueue(stream, Block::SumFixed(block))
}

/// What both sums are told.
fn of_parts(
    (parts, ranks): (&Buffer<u64>, usize),
    (weights, first): (&Buffer<f32>, usize),
    to: &mut Buffer<u8>,
    len: usize,
    factor: f32,
    (from, into): (Wire, Dtype),
) -> Sum {
    assert!(ranks <= parts.len() && first + ranks <= weights.len(), "one of each rank");
    assert!(to.len() >= len * into.bytes(), "sized for it");
    Sum {
        parts: parts.address(),
        weights: weights.address() + (first * size_of::<f32>()) as u64,
        to: to.address(),
        len: len as u64,
        ranks: ranks as u32,
        from_type: from.code(),
        to_type: into as u32,
        factor,
    }
}

/// Rounds `len` f32 to blocks of 8-bit integers, in shards of so many elements that start so many bytes
/// after each other; with what was lost before. What that loses stays in `values`.
pub(super) fn quantize(
    stream: &Stream,
    values: &mut Buffer<u8>,
    carried: &Buffer<u8>,
    to: &mut Buffer<u8>,
    (len, shard, stride): (usize, usize, usize),
) -> Result<()> {
    assert!(values.len() >= 4 * len && carried.len() >= 4 * len, "as much was lost as there is");
    assert!(shard.is_multiple_of(INT8_BLOCK) && len.is_multiple_of(shard), "whole blocks");
    assert!(
        stride.is_multiple_of(4) && stride >= shard / INT8_BLOCK * INT8_BYTES,
        "not to overlap"
    );
    assert!(to.len() >= len / shard * stride, "sized for it");
    let blocks =
        u32::try_from(shard / INT8_BLOCK).expect("a rank's part has less than 2^40 elements");
    assert!(len <= 1 << 40, "so has a bucket");
    assert!((values.address() | carried.address()).is_multiple_of(16), "buffers of ours");
    let block = Quantize {
        values: values.address(),
        carried: carried.address(),
        to: to.address(),
        stride: stride as u64,
        len: len as u64,
        blocks,
        padding: 0,
    };
    enqueue(stream, Block::Quantize(block))
}

/// Unpacks all parameters of a bucket from its shards, each into its target.
#[allow(clippy::too_many_arguments)]
pub(super) fn unpack(
    stream: &Stream,
    dtype: Dtype,
    shards: &Buffer<u64>,
    (targets, bucket): (&Targets, usize),
    partials: &mut Buffer<Partial>,
    geometry: Geometry,
    wire: Wire,
    factor: f32,
) -> Result<()> {
    let pieces = &targets.pieces[bucket];
    let elements = targets.lens[bucket];
    assert!(elements <= shards.len() * geometry.part, "the plan places parameters inside");
    assert!(targets.partials <= partials.len(), "partials allocated for every parameter");
    let block = Unpack {
        shards: shards.address(),
        pieces: pieces.address(),
        targets: targets.table.address(),
        partials: partials.address(),
        shard: geometry.part as u64,
        count: pieces.len() as u64,
        factor,
        gradient_type: dtype as u32,
        wire: wire.code(),
        padding: 0,
    };
    enqueue(stream, Block::Unpack(block))
}

/// Where the buckets of an [`in_place`] launch are.
pub(super) struct Buckets<'a> {
    /// `[ranks]` or more addresses of buckets of the layout: of their pieces at least.
    pub addresses: &'a Buffer<u64>,
    /// Addresses of the whole buckets that are written, so many.
    pub written: (&'a Buffer<u64>, usize),
    /// What they weigh.
    pub weights: &'a Buffer<f32>,
    pub ranks: usize,
    /// The rank at work.
    pub rank: usize,
    /// Rank 0's bucket, where all ranks are at work on the same pieces; else this launch does all.
    pub shared: Option<&'a Buffer<u8>>,
}

/// Writes down the exponents of a bucket that is averaged in place, of its elements times `weight`.
pub(super) fn measure_in_place(
    stream: &Stream,
    bucket: &mut Buffer<u8>,
    layout: &Layout,
    weight: f32,
) -> Result<()> {
    let Some(exponents) = &layout.exponents else { return Ok(()) };
    assert!(bucket.len() == layout.bytes, "a bucket of the layout");
    let block = Fixed {
        values: bucket.address(),
        exponents: bucket.address() + exponents.start as u64,
        sums: 0,
        len: layout.len as u64,
        factor: weight,
        value_type: layout.value as u32,
        headroom: 0,
        padding: 0,
    };
    enqueue(stream, Block::Measure(block))
}

/// Averages a run of pieces of buckets in place, with or without partials. `skipped` has a byte for each parameter that is not 0 where
/// it is left alone; or nothing: none is.
pub(super) fn in_place(
    stream: &Stream,
    buckets: &Buckets<'_>,
    (layout, run): (&Layout, Range<usize>),
    skipped: Option<&Buffer<u8>>,
    wire: Dtype,
    (scale, factor): (f32, f32),
    stats: bool,
) -> Result<()> {
    let Buckets { addresses, written, weights, ranks, rank, shared } = *buckets;
    assert!(ranks <= addresses.len() && ranks <= weights.len(), "one of each rank");
    assert!((1..=written.0.len()).contains(&written.1), "as many as there are");
    assert!(run.start <= run.end && run.end <= layout.pieces.len(), "pieces of the layout");
    assert!(rank < layout.ranks && ranks <= layout.ranks, "inside the bucket");
    assert!(shared.is_none_or(|bucket| bucket.len() == layout.bytes), "a bucket of the layout");
    assert!(skipped.is_none_or(|table| table.len() >= layout.tensors), "one of each parameter");
    // One bucket alone is not summed.
    let exponents = layout.exponents.as_ref().filter(|_| shared.is_some());
    let row = layout.counts + rank * layout.ranks * size_of::<u64>();
    let block = InPlace {
        buckets: addresses.address(),
        written: written.0.address(),
        weights: weights.address(),
        pieces: layout.pieces.address() + (run.start * size_of::<Piece>()) as u64,
        skipped: skipped.map_or(0, Buffer::address),
        next: shared.map_or(0, |bucket| bucket.address() + layout.next as u64),
        partials: if stats {
            (layout.partials + run.start * size_of::<Partial>()) as u64
        } else {
            0
        },
        non_finite: row as u64,
        exponents: exponents.map_or(0, |exponents| exponents.start as u64),
        count: run.len() as u64,
        ranks: ranks as u32,
        written_count: written.1 as u32,
        rank: rank as u32,
        value_type: layout.value as u32,
        wire: wire as u32,
        scale,
        factor,
        padding: 0,
    };
    enqueue(stream, Block::InPlace(block))
}
