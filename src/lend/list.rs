//! Lists of tensors, as operations on many at once take them.

use super::{Memory, Read, Write};
use crate::{Element, Result, Stream};

/// The tensors of one argument, whose type of elements is left behind: what all types do with a list is compiled once.
/// A single tensor is a list of one, `&mut [tensor].as_slice()`, to be lent where the checks before have been made.
pub(crate) trait List {
    /// How many there are, absent ones included.
    fn len(&self) -> usize;

    /// Whether there is one at this place of the list.
    fn has(&self, index: usize) -> bool;

    /// That one; to be written, where the list is of what may be.
    ///
    /// # Panics
    /// If there is none.
    fn lend<'a>(&'a mut self, index: usize, stream: &'a Stream) -> Result<Memory<'a>>;
}

/// To be read, each of them or some.
impl<T: Element> List for &[Option<&dyn Read<T>>] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn has(&self, index: usize) -> bool {
        self[index].is_some()
    }

    fn lend<'a>(&'a mut self, index: usize, stream: &'a Stream) -> Result<Memory<'a>> {
        let tensor = self[index].expect("asked for where there is one");
        Ok(tensor.lend(stream)?.memory())
    }
}

/// To be read, all of them.
impl<T: Element> List for &[&dyn Read<T>] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn has(&self, _: usize) -> bool {
        true
    }

    fn lend<'a>(&'a mut self, index: usize, stream: &'a Stream) -> Result<Memory<'a>> {
        Ok(self[index].lend(stream)?.memory())
    }
}

/// To be written.
impl<T: Element> List for &mut [&mut dyn Write<T>] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn has(&self, _: usize) -> bool {
        true
    }

    fn lend<'a>(&'a mut self, index: usize, stream: &'a Stream) -> Result<Memory<'a>> {
        Ok(self[index].lend_mut(stream)?.memory())
    }
}
