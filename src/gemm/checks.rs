//! Sizes of operands, with every product and sum checked.
#![forbid(unsafe_code)]

use crate::{Error, Result};

/// A matrix, or a batch of them, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Footprint {
    /// Rows as stored.
    pub rows: usize,
    /// Columns as stored.
    pub cols: usize,
    /// From one row to the next.
    pub ld: usize,
    /// From one matrix of the batch to the next.
    pub stride: usize,
    /// How many matrices.
    pub count: usize,
    /// Elements from the first to the last, both included.
    pub need: usize,
}

impl Footprint {
    /// The dense default for what is `None`; `shared` matrices have stride 0 by default.
    pub fn new(
        op: &'static str,
        arg: &'static str,
        (rows, cols): (usize, usize),
        ld: Option<usize>,
        stride: Option<usize>,
        count: usize,
        shared: bool,
    ) -> Result<Self> {
        let ld = ld.unwrap_or(cols);
        if ld < cols {
            let expected = format!("a leading dimension of at least {cols}");
            return Err(Error::range(op, arg, expected, ld));
        }
        let too_large = || {
            let found = format!("{count} of [{rows}, {cols}], leading dimension {ld}");
            Error::shape(op, arg, "sizes whose product fits the address space", found)
        };
        let one = footprint(rows, cols, ld).ok_or_else(too_large)?;
        let dense = rows.checked_mul(ld).ok_or_else(too_large)?;
        let stride = stride.unwrap_or(if shared { 0 } else { dense });
        let last = stride.checked_mul(count.saturating_sub(1)).ok_or_else(too_large)?;
        let end = last.checked_add(one.max(dense).max(ld)).ok_or_else(too_large)?;
        // In bytes and signed, as pointers are; so that every offset can be counted, those to what is
        // empty included.
        end.checked_mul(8).filter(|&bytes| bytes <= isize::MAX as usize).ok_or_else(too_large)?;
        let need = if one == 0 || count == 0 { 0 } else { last + one };
        let stride = if count > 1 { stride } else { 0 };
        Ok(Self { rows, cols, ld, stride, count, need })
    }

    /// For outputs: no two elements may be the same memory.
    pub fn distinct(self, op: &'static str, arg: &'static str) -> Result<Self> {
        let one = footprint(self.rows, self.cols, self.ld).unwrap_or(usize::MAX);
        let side_by_side = self.stride >= self.cols
            && self
                .stride
                .checked_mul(self.count.saturating_sub(1))
                .is_some_and(|last| last.checked_add(self.cols).is_some_and(|end| end <= self.ld));
        if self.count <= 1 || one == 0 || self.stride >= one || side_by_side {
            return Ok(self);
        }
        let expected =
            format!("a stride of at least {one}, or matrices side by side in their rows");
        Err(Error::range(op, arg, expected, self.stride))
    }
}

fn footprint(rows: usize, cols: usize, ld: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    (rows - 1).checked_mul(ld)?.checked_add(cols)
}
