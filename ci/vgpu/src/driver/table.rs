//! Handles: numbers that stand for what the driver keeps. None is ever given out twice, and each
//! kind has its own, so that a stale or a wrong one is recognised.

use std::collections::BTreeMap;

use super::error::{Error, Result};

/// Things of one kind by handle.
#[derive(Debug)]
pub struct Table<T> {
    list: BTreeMap<u64, T>,
    next: u64,
}

impl<T> Table<T> {
    /// An empty table; `kind` tells its handles from others'.
    pub fn new(kind: u64) -> Self {
        Self { list: BTreeMap::new(), next: (kind << 40) + 0x1000 }
    }

    /// Keeps a thing.
    pub fn add(&mut self, thing: T) -> u64 {
        let handle = self.next;
        self.next += 16;
        self.list.insert(handle, thing);
        handle
    }

    /// The thing of a handle.
    pub fn get(&self, handle: u64) -> Result<&T> {
        self.list.get(&handle).ok_or(Error::InvalidHandle)
    }

    /// The thing of a handle, to change.
    pub fn get_mut(&mut self, handle: u64) -> Result<&mut T> {
        self.list.get_mut(&handle).ok_or(Error::InvalidHandle)
    }

    /// Gives a thing back; its handle is gone.
    pub fn remove(&mut self, handle: u64) -> Result<T> {
        self.list.remove(&handle).ok_or(Error::InvalidHandle)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.list.iter().map(|(handle, thing)| (*handle, thing))
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.list.iter_mut().map(|(handle, thing)| (*handle, thing))
    }
}
