//! One launch, as a backend sees it: a row of the table, how many blocks have work, and the bytes of
//! the parameter block.

use super::params::{gemm, optim, reduce, roof};
use super::table::{self, Entry, THREADS};

/// One launch: which op, and the parameter block of one of its kernels.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // lives for one call, behind a reference
pub(crate) enum Launch {
    Gemm(gemm::Block),
    Optim(optim::Block),
    Reduce(reduce::Block),
    Roof(roof::Block),
}

/// Elements that a block of an element-wise row covers at once: 8 a thread.
const STRIP: u64 = 8 * THREADS as u64;

/// Blocks of a product, a tile's each or, where k is split, one part's of a tile; of a product in groups, whose sizes only the device knows, the most there can be.
pub(crate) fn tiles(block: &gemm::Product) -> u64 {
    let tile = table::gemm::Tile::from_code(block.tile);
    let (rows, columns) = (u64::from(tile.rows), u64::from(tile.columns));
    let gated = block.flags & gemm::FLAG_GATED != 0;
    let across = block.n.div_ceil(if gated { columns / 2 } else { columns });
    let down = block.m.div_ceil(rows);
    let rows = match block.groups {
        0 => down.saturating_mul(block.batch),
        groups if block.flags & gemm::FLAG_GROUPS_CUT_K != 0 => down.saturating_mul(groups),
        groups => down.saturating_add(groups),
    };
    rows.saturating_mul(across).saturating_mul(block.splits.max(1).into())
}

/// Columns that a block has of sums of A, and of what is prepared (`STRIP_COLUMNS`, column_sums.h).
const SUMS_STRIP: u64 = 32;

/// Pieces of a chunk that blocks of `step` and `convert` take.
const PIECES: u64 = 4;

#[cfg_attr(
    not(any(feature = "cuda", feature = "hip")),
    expect(dead_code, reason = "GPUs' backends use it")
)]
impl Launch {
    /// The row of the table.
    pub(crate) fn entry(&self) -> Entry {
        match self {
            Self::Gemm(gemm::Block::Product(block)) => {
                let set = |flag| block.flags & flag != 0;
                let transposed = (set(gemm::FLAG_A_TRANSPOSED), set(gemm::FLAG_B_TRANSPOSED));
                let tile = table::gemm::Tile::from_code(block.tile);
                table::gemm::product(block.multiplied(), transposed.0, transposed.1, tile).entry()
            }
            Self::Gemm(gemm::Block::Prepare(_)) => table::gemm::prepare().entry(),
            Self::Gemm(gemm::Block::Combine(_)) => table::gemm::combine().entry(),
            Self::Gemm(gemm::Block::SwigluGrad(_)) => table::gemm::swiglu_grad().entry(),
            Self::Optim(optim::Block::Stats(_)) => table::optim::Row::Stats.entry(),
            Self::Optim(optim::Block::Control(_)) => table::optim::Row::Control.entry(),
            Self::Optim(optim::Block::Convert(_)) => table::optim::Row::Convert.entry(),
            Self::Optim(optim::Block::Step(block)) => {
                let row = table::optim::Row::from_code(block.row);
                row.expect("plans write numbers of rows").entry()
            }
            Self::Reduce(reduce::Block::Pack(_)) => table::reduce::Row::Pack.entry(),
            Self::Reduce(reduce::Block::Accumulate(_)) => table::reduce::Row::Accumulate.entry(),
            Self::Reduce(reduce::Block::Sum(_)) => table::reduce::Row::Sum.entry(),
            Self::Reduce(reduce::Block::SumFixed(_)) => table::reduce::Row::SumFixed.entry(),
            Self::Reduce(reduce::Block::Unpack(_)) => table::reduce::Row::Unpack.entry(),
            Self::Reduce(reduce::Block::InPlace(_)) => table::reduce::Row::InPlace.entry(),
            Self::Reduce(reduce::Block::Measure(_)) => table::reduce::Row::Measure.entry(),
            Self::Reduce(reduce::Block::Encode(_)) => table::reduce::Row::Encode.entry(),
            Self::Reduce(reduce::Block::Decode(_)) => table::reduce::Row::Decode.entry(),
            Self::Reduce(reduce::Block::Quantize(_)) => table::reduce::Row::Quantize.entry(),
            Self::Roof(roof::Block::F32(_)) => table::roof::Row::F32.entry(),
            Self::Roof(roof::Block::Bf16(_)) => table::roof::Row::Bf16.entry(),
        }
    }

    /// Blocks that have work; rows walk over it with any number of them.
    pub(crate) fn blocks(&self) -> u64 {
        use optim::Block as O;
        use reduce::Block as R;
        use table::optim::Row;
        match self {
            Self::Gemm(gemm::Block::Product(block)) => {
                // Those of the sums of A come first.
                tiles(block) + if block.a_sums != 0 { block.m.div_ceil(SUMS_STRIP) } else { 0 }
            }
            Self::Gemm(gemm::Block::Prepare(block)) => {
                let transposed = block.flags & gemm::FLAG_A_TRANSPOSED != 0;
                let (rows, columns) =
                    if transposed { (block.k, block.m) } else { (block.m, block.k) };
                let turns = if block.a_sums != 0 { 1 } else { rows.div_ceil(2048).max(1) };
                turns * columns.div_ceil(SUMS_STRIP)
            }
            Self::Gemm(gemm::Block::Combine(block)) => {
                let transposed = block.flags & gemm::FLAG_D_TRANSPOSED != 0;
                let (along, across) =
                    if transposed { (block.m, block.n) } else { (block.n, block.m) };
                (along.div_ceil(8) * across).div_ceil(THREADS.into())
            }
            Self::Gemm(gemm::Block::SwigluGrad(block)) => {
                (block.rows * block.n.div_ceil(8)).div_ceil(THREADS.into())
            }
            Self::Optim(O::Stats(block)) => block.chunk_count,
            Self::Optim(O::Control(_)) => 1,
            Self::Optim(O::Step(block)) if block.row == Row::LambTrust as u32 => 1,
            Self::Optim(O::Step(block)) if block.row == Row::LambMoments as u32 => {
                block.chunk_count
            }
            Self::Optim(O::Step(block)) => block.chunk_count * PIECES,
            Self::Optim(O::Convert(block)) => block.chunk_count * PIECES,
            Self::Reduce(R::Pack(block)) => block.len.div_ceil(STRIP),
            Self::Reduce(R::Accumulate(block)) => block.len.div_ceil(STRIP),
            Self::Reduce(R::Sum(block) | R::SumFixed(block)) => block.len.div_ceil(STRIP),
            Self::Reduce(R::Measure(block) | R::Encode(block) | R::Decode(block)) => {
                block.len.div_ceil(STRIP)
            }
            Self::Reduce(R::Quantize(block)) => block.len.div_ceil(STRIP),
            Self::Reduce(R::Unpack(block)) => block.count,
            Self::Reduce(R::InPlace(block)) => block.count,
            Self::Roof(roof::Block::F32(block) | roof::Block::Bf16(block)) => block.blocks,
        }
    }

    /// The parameter block.
    pub(crate) fn bytes(&self) -> &[u8] {
        use bytemuck::bytes_of;
        use gemm::Block as B;
        use reduce::Block as R;
        match self {
            Self::Gemm(B::Product(block) | B::Prepare(block) | B::Combine(block)) => {
                bytes_of(block)
            }
            Self::Gemm(B::SwigluGrad(block)) => bytes_of(block),
            Self::Optim(optim::Block::Stats(block)) => bytes_of(block),
            Self::Optim(optim::Block::Control(block)) => bytes_of(block),
            Self::Optim(optim::Block::Step(block)) => bytes_of(block),
            Self::Optim(optim::Block::Convert(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Pack(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Accumulate(block)) => bytes_of(block),
            Self::Reduce(R::Sum(block) | R::SumFixed(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Unpack(block)) => bytes_of(block),
            Self::Reduce(R::InPlace(block)) => bytes_of(block),
            Self::Reduce(R::Measure(block) | R::Encode(block) | R::Decode(block)) => {
                bytes_of(block)
            }
            Self::Reduce(R::Quantize(block)) => bytes_of(block),
            Self::Roof(roof::Block::F32(block) | roof::Block::Bf16(block)) => bytes_of(block),
        }
    }
}
