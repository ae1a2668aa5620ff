//! In which type values travel.

#![forbid(unsafe_code)]

use super::exchange::Geometry;
use super::trailer::Trailer;
use crate::Dtype;
use crate::kernel::params::reduce::{INT8, INT8_BLOCK, INT8_BYTES};

/// A type of what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Elements of a storage type.
    Elements(Dtype),
    /// Blocks of 8-bit integers, each with a scale.
    Int8,
}

impl Wire {
    /// The number in parameter blocks.
    pub fn code(self) -> u32 {
        match self {
            Self::Elements(dtype) => dtype as u32,
            Self::Int8 => INT8,
        }
    }
}

/// How a bucket of 8-bit integers lies in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Int8Geometry {
    /// Elements of a rank's part, which is whole blocks.
    pub part: usize,
    /// Bytes of a part.
    pub part_bytes: usize,
    /// Bytes from one part to the next, where each has a trailer behind it.
    pub stride: usize,
    /// Bytes of a part that travels without one.
    pub result: usize,
}

impl Int8Geometry {
    /// Of a rank's part of a bucket with so many parameters.
    pub fn new(part: usize, params: usize) -> Self {
        let part_bytes = part / INT8_BLOCK * INT8_BYTES;
        let stride = (part_bytes + Trailer::bytes(params)).next_multiple_of(256);
        Self { part, part_bytes, stride, result: part_bytes.next_multiple_of(256) }
    }

    /// How the same bucket is packed: in f32, one rank's part after the other, and a trailer.
    pub fn packed(len: usize, params: usize, ranks: usize) -> Geometry {
        let part = len.div_ceil(ranks).max(1).next_multiple_of(INT8_BLOCK);
        let shard = Geometry::of_parts(ranks * part, params, Dtype::F32, (1, 1));
        Geometry { part, ..shard }
    }
}
