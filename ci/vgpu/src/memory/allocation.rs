//! One allocation of global memory: its bytes and its shadows.

use super::Bytes;
use super::footprint::Touched;
use super::race::RaceShadow;

/// One allocation.
#[derive(Debug)]
pub struct Allocation {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// What it is called in findings.
    pub name: String,
    /// False once freed; the bytes are gone then.
    pub live: bool,
    /// Kernels may not write it.
    pub constant: bool,
    /// The device that it belongs to; [`HOST`] for the host's memory.
    pub home: u32,
    pub(super) bytes: Bytes,
    pub(super) races: RaceShadow,
    pub(super) touched: Touched,
}

/// The home of the host's memory, which every device sees.
pub const HOST: u32 = u32::MAX;

impl Allocation {
    pub(super) fn new(base: u64, bytes: Bytes, name: String, home: u32) -> Self {
        let len = bytes.len();
        Self {
            base,
            len: len as u64,
            name,
            live: true,
            constant: false,
            home,
            bytes,
            races: RaceShadow::new(len),
            touched: Touched::new(len),
        }
    }
}
