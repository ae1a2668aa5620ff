//! One launch, as a backend sees it: a row of the table, how many blocks have work, and the bytes of
//! the parameter block.

use super::params::{PARTIAL_CHUNK, gemm, optim, reduce};
use super::table::{self, Entry, THREADS};

/// One launch: which op, and the parameter block of one of its kernels.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // lives for one call, behind a reference
pub(crate) enum Launch {
    Gemm(gemm::Block),
    Optim(optim::Block),
    Reduce(reduce::Block),
}

/// Elements that a block of an element-wise row covers at once: 8 a thread.
const STRIP: u64 = 8 * THREADS as u64;
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
                table::gemm::product(block.input, transposed.0, transposed.1).entry()
            }
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
            Self::Reduce(reduce::Block::Unpack(_)) => table::reduce::Row::Unpack.entry(),
            Self::Reduce(reduce::Block::Measure(_)) => table::reduce::Row::Measure.entry(),
            Self::Reduce(reduce::Block::Encode(_)) => table::reduce::Row::Encode.entry(),
            Self::Reduce(reduce::Block::Decode(_)) => table::reduce::Row::Decode.entry(),
        }
    }

    /// Blocks that have work; rows walk over it with any number of them.
    pub(crate) fn blocks(&self) -> u64 {
        use optim::Block as O;
        use reduce::Block as R;
        use table::optim::Row;
        match self {
            Self::Gemm(_) => 0,
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
            Self::Reduce(R::Sum(block)) => block.len.div_ceil(STRIP),
            Self::Reduce(R::Measure(block) | R::Encode(block) | R::Decode(block)) => {
                block.len.div_ceil(STRIP)
            }
            Self::Reduce(R::Unpack(block)) => block.len.div_ceil(PARTIAL_CHUNK as u64),
        }
    }

    /// The parameter block.
    pub(crate) fn bytes(&self) -> &[u8] {
        use bytemuck::bytes_of;
        use reduce::Block as R;
        match self {
            Self::Gemm(gemm::Block::Product(block)) => bytes_of(block),
            Self::Gemm(gemm::Block::SwigluGrad(block)) => bytes_of(block),
            Self::Optim(optim::Block::Stats(block)) => bytes_of(block),
            Self::Optim(optim::Block::Control(block)) => bytes_of(block),
            Self::Optim(optim::Block::Step(block)) => bytes_of(block),
            Self::Optim(optim::Block::Convert(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Pack(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Accumulate(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Sum(block)) => bytes_of(block),
            Self::Reduce(reduce::Block::Unpack(block)) => bytes_of(block),
            Self::Reduce(R::Measure(block) | R::Encode(block) | R::Decode(block)) => {
                bytes_of(block)
            }
        }
    }
}
