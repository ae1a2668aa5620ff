//! Rows of `reduce`. Storage types are uniform over a launch and limited by memory, so they are
//! run-time branches: one row for each kernel.

use super::{Entry, Source, Team};

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Row {
    Pack,
    Accumulate,
    Sum,
    SumFixed,
    Unpack,
    InPlace,
    Measure,
    Encode,
    Decode,
    Quantize,
}

impl Row {
    /// Every row.
    pub const ALL: [Self; 10] = [
        Self::Pack,
        Self::Accumulate,
        Self::Sum,
        Self::SumFixed,
        Self::Unpack,
        Self::InPlace,
        Self::Measure,
        Self::Encode,
        Self::Decode,
        Self::Quantize,
    ];

    /// Symbol, block and source.
    pub const fn entry(self) -> Entry {
        let (symbol, block, header, function) = match self {
            Self::Pack => ("hs_reduce_pack", "Pack", "reduce/pack.h", "pack"),
            Self::Accumulate => {
                ("hs_reduce_accumulate", "Accumulate", "reduce/accumulate.h", "accumulate")
            }
            Self::Sum => ("hs_reduce_sum", "Sum", "reduce/sum.h", "sum"),
            Self::Unpack => ("hs_reduce_unpack", "Unpack", "reduce/unpack.h", "unpack"),
            // Buckets in one address space are those of threads, and of the host's memory.
            Self::InPlace => {
                return Entry { symbol: "hs_reduce_in_place", block: "InPlace", device: None };
            }
            Self::SumFixed => {
                return Entry { symbol: "hs_reduce_sum_fixed", block: "Sum", device: None };
            }
            Self::Measure => ("hs_reduce_measure", "Fixed", "reduce/fixed.h", "measure"),
            Self::Encode => ("hs_reduce_encode", "Fixed", "reduce/fixed.h", "encode"),
            Self::Decode => ("hs_reduce_decode", "Fixed", "reduce/fixed.h", "decode"),
            Self::Quantize => ("hs_reduce_quantize", "Quantize", "reduce/quantize.h", "quantize"),
        };
        Entry {
            symbol,
            block,
            device: Some(Source { header, function, team: Team::Threads, asked: 0, only: None }),
        }
    }
}
