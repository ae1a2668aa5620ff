//! Rows of `roof`: the device's arithmetic at its fastest, from registers to registers.

use super::{Entry, Source, Team};

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Row {
    F32,
    Bf16,
}

impl Row {
    /// Every row.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Symbol, block and source.
    pub const fn entry(self) -> Entry {
        let (symbol, function) = match self {
            Self::F32 => ("hs_roof_f32", "roof_f32"),
            Self::Bf16 => ("hs_roof_bf16", "roof_bf16"),
        };
        let source =
            Source { header: "roof.h", function, team: Team::Threads, asked: 0, only: None };
        Entry { symbol, block: "Roof", device: Some(source) }
    }
}
