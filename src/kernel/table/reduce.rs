//! Rows of `reduce`. Storage types are uniform over a launch and limited by memory, so they are
//! run-time branches: one row for each kernel.

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Row {
    Pack,
    Accumulate,
    Sum,
    Unpack,
}

impl Row {
    /// Every row.
    pub const ALL: [Self; 4] = [Self::Pack, Self::Accumulate, Self::Sum, Self::Unpack];

    /// The symbol in a device image, and the parameter block that it takes.
    pub const fn symbol(self) -> (&'static str, &'static str) {
        match self {
            Self::Pack => ("hs_reduce_pack", "Pack"),
            Self::Accumulate => ("hs_reduce_accumulate", "Accumulate"),
            Self::Sum => ("hs_reduce_sum", "Sum"),
            Self::Unpack => ("hs_reduce_unpack", "Unpack"),
        }
    }
}
