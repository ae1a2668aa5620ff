//! Copies and fills, as calls: what is read at once, what later, and what the host waits for. This
//! follows the vendors' rules for pageable and pinned memory where they promise least.

use std::sync::{Arc, Mutex};

use super::Driver;
use super::error::{Error, Result};
use super::order::Label;
use super::schedule::{lock, wait};
use super::work::{Place, Work};
use crate::finding::Kind;

/// Which way, as the caller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Host to device.
    Up,
    /// Device to host.
    Down,
    /// Device to device.
    Across,
    /// As the addresses say.
    Find,
}

impl Driver {
    fn place(&self, address: u64, device: bool) -> Place {
        if device || self.is_device(address) || self.pinned_at(address).is_some() {
            Place::Mapped(address)
        } else {
            Place::Host(address as usize)
        }
    }

    fn places(&self, to: u64, from: u64, way: Way) -> (Place, Place) {
        let (to_device, from_device) = match way {
            Way::Up => (true, false),
            Way::Down => (false, true),
            Way::Across => (true, true),
            Way::Find => (false, false),
        };
        (self.place(to, to_device), self.place(from, from_device))
    }

    /// Refuses what no allocation holds, as drivers do when they are asked.
    pub(super) fn check(
        &mut self,
        what: &str,
        place: Place,
        bytes: u64,
        write: bool,
        stream: u64,
    ) -> Result {
        let Place::Mapped(address) = place else { return Ok(()) };
        let (kind, detail) = match self.memory.allocation(address) {
            Some(a) if bytes <= a.len - (address - a.base) => return Ok(()),
            Some(a) => {
                let kind = if write { Kind::WriteOutOfBounds } else { Kind::ReadOutOfBounds };
                (
                    kind,
                    format!(
                        "{bytes} bytes at {} of {}, which has {}",
                        address - a.base,
                        a.name,
                        a.len
                    ),
                )
            }
            None if self.is_device(address) => {
                (Kind::UseAfterFree, format!("{bytes} bytes of memory that was freed"))
            }
            None => {
                let kind = if write { Kind::WriteOutOfBounds } else { Kind::ReadOutOfBounds };
                (kind, format!("{bytes} bytes outside every allocation"))
            }
        };
        let context = self.streams.get(stream)?.context;
        let label = Label { what: what.into(), stream };
        self.note(&label, context, kind, address, detail);
        Err(Error::InvalidValue)
    }

    /// A copy in the order of a stream; the host does not wait for it here.
    pub fn copy_async(&mut self, to: u64, from: u64, bytes: u64, way: Way, stream: u64) -> Result {
        if bytes == 0 {
            return Ok(());
        }
        if to == 0 || from == 0 {
            return Err(Error::InvalidValue);
        }
        let (to, from) = self.places(to, from, way);
        self.check("copy", to, bytes, true, stream)?;
        self.check("copy", from, bytes, false, stream)?;
        let captures = self.streams.get(stream)?.capture.is_some();
        let work = match (to, from) {
            // Pageable memory is read into a buffer of the driver's before the call returns. A graph
            // reads it whenever it runs.
            (Place::Mapped(to), Place::Host(from)) if !captures => {
                // SAFETY: the caller of the driver promised `bytes` readable bytes at the source.
                let data = unsafe { std::slice::from_raw_parts(from as *const u8, bytes as usize) };
                Work::Upload { to, data: Arc::from(data) }
            }
            _ => Work::Copy { to, from, bytes },
        };
        self.submit(stream, work)
    }

    /// A fill that the host does not wait for.
    pub fn fill_async(&mut self, to: u64, pattern: &[u8], count: u64, stream: u64) -> Result {
        if count == 0 {
            return Ok(());
        }
        if !to.is_multiple_of(pattern.len() as u64) {
            return Err(Error::InvalidValue);
        }
        let bytes = count.checked_mul(pattern.len() as u64).ok_or(Error::InvalidValue)?;
        self.check("fill", Place::Mapped(to), bytes, true, stream)?;
        self.submit(stream, Work::Fill { to, pattern: pattern.to_vec(), count })
    }
}

/// A copy in the order of a stream. For its pageable memory to be written the host waits, as the
/// vendors have promised for long and callers rely on; for nothing else.
pub fn copy_in_stream(
    driver: &Mutex<Driver>,
    to: u64,
    from: u64,
    bytes: u64,
    way: Way,
    stream: u64,
) -> Result {
    let (context, mark) = {
        let mut guard = lock(driver);
        let stream = guard.stream(stream)?;
        guard.copy_async(to, from, bytes, way, stream)?;
        let captures = guard.streams.get(stream)?.capture.is_some();
        let (target, _) = guard.places(to, from, way);
        if captures || bytes == 0 || matches!(target, Place::Mapped(_)) {
            return Ok(());
        }
        (guard.streams.get(stream)?.context, guard.stream_mark(stream)?)
    };
    wait(driver, context, &mark)
}

/// A copy in the default stream. The host waits only as far as the vendors promise: not for copies
/// on the device, and for pageable memory only until it was read.
pub fn copy(driver: &Mutex<Driver>, to: u64, from: u64, bytes: u64, way: Way) -> Result {
    let (context, mark) = {
        let mut guard = lock(driver);
        guard.forbid_unsafe()?;
        let stream = guard.stream(0)?;
        let context = guard.here()?;
        let (target, source) = guard.places(to, from, way);
        let staged = matches!((target, source), (Place::Mapped(_), Place::Host(_)));
        if staged && bytes > 0 {
            let before = guard.stream_mark(stream)?;
            drop(guard);
            wait(driver, context, &before)?;
            return lock(driver).copy_async(to, from, bytes, way, stream);
        }
        guard.copy_async(to, from, bytes, way, stream)?;
        let pinned =
            |place| matches!(place, Place::Mapped(address) if guard.pinned_at(address).is_some());
        let on_device = |place| matches!(place, Place::Mapped(_)) && !pinned(place);
        if on_device(target) && on_device(source) {
            return Ok(());
        }
        (context, guard.stream_mark(stream)?)
    };
    wait(driver, context, &mark)
}

/// A fill in the default stream. The host waits only for its own memory.
pub fn fill(driver: &Mutex<Driver>, to: u64, pattern: &[u8], count: u64) -> Result {
    let (context, mark) = {
        let mut guard = lock(driver);
        guard.forbid_unsafe()?;
        let stream = guard.stream(0)?;
        guard.fill_async(to, pattern, count, stream)?;
        if guard.pinned_at(to).is_none() {
            return Ok(());
        }
        (guard.here()?, guard.stream_mark(stream)?)
    };
    wait(driver, context, &mark)
}
