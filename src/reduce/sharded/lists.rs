//! Lists in the order of the optimizer's tensors.

#![forbid(unsafe_code)]

use crate::lend::{List, Memory};
use crate::{Buffer, Dtype, Result, Stream};

/// A list in the declared order, whose tensor `order[i]` is the optimizer's tensor `i`.
pub(super) struct Ordered<'o> {
    pub order: &'o [usize],
    pub list: &'o mut dyn List,
}

impl List for Ordered<'_> {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn has(&self, index: usize) -> bool {
        self.list.has(self.order[index])
    }

    fn lend<'a>(&'a mut self, index: usize, stream: &'a Stream) -> Result<Memory<'a>> {
        self.list.lend(self.order[index], stream)
    }
}

/// This rank's parts of the averaged gradients.
pub(super) struct Gradients<'o> {
    pub order: &'o [usize],
    pub parts: &'o [Buffer<u8>],
    pub dtype: Dtype,
    /// Which have a gradient in this step, if not all.
    pub used: Option<&'o [bool]>,
}

impl List for Gradients<'_> {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn has(&self, index: usize) -> bool {
        self.used.is_none_or(|used| used[self.order[index]])
    }

    fn lend<'a>(&'a mut self, index: usize, _: &'a Stream) -> Result<Memory<'a>> {
        Ok(Memory::of(&self.parts[self.order[index]], self.dtype))
    }
}
