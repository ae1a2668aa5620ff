//! Memory of devices, and memory of the host that devices reach.

use super::Driver;
use super::error::{Error, Result};
use super::work::Work;
use crate::memory::HOST;

/// Host memory that devices reach.
#[derive(Debug, Clone, Copy)]
pub struct Pinned {
    /// Bytes.
    pub bytes: usize,
    /// Whether the driver allocated it; else it was registered.
    pub ours: bool,
    /// The flags that it was made with.
    pub flags: u32,
    context: u64,
}

/// A pool that memory is taken from in the order of a stream. Pools here keep nothing back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pool {
    /// Its device.
    pub device: u32,
    /// Whether it was there from the start.
    pub default: bool,
    /// Bytes kept back, as was asked for.
    pub threshold: u64,
}

impl Driver {
    /// Memory of the current context's device.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64> {
        let context = self.here()?;
        self.forbid_unsafe()?;
        self.take_memory(context, bytes)
    }

    /// Memory that is there in the order of a stream.
    pub fn allocate_async(&mut self, bytes: u64, stream: u64) -> Result<u64> {
        let context = self.streams.get(stream)?.context;
        if self.streams.get(stream)?.capture.is_some() {
            return self.capture(stream, Work::Allocate { base: 0 }).map(|()| 0);
        }
        let base = self.take_memory(context, bytes)?;
        self.submit(stream, Work::Allocate { base })?;
        Ok(base)
    }

    fn take_memory(&mut self, context: u64, bytes: u64) -> Result<u64> {
        if bytes == 0 {
            return Err(Error::InvalidValue);
        }
        let device = self.device_of(context);
        let used = &mut self.used[device as usize];
        if bytes > self.model.memory - *used {
            return Err(Error::OutOfMemory);
        }
        *used += bytes;
        self.allocated += 1;
        self.memory.home = device;
        let name = format!("allocation {} of device {device}", self.allocated);
        let base = self.memory.allocate(bytes, name);
        self.owners.insert(base, context);
        Ok(base)
    }

    /// The context that owns the allocation that starts at `base`, if it can be freed.
    pub fn owner(&self, base: u64) -> Result<u64> {
        let owner = self.owners.get(&base).copied().ok_or(Error::InvalidValue)?;
        if self.freeing.contains(&base) {
            return Err(Error::InvalidValue);
        }
        Ok(owner)
    }

    /// Frees memory, now.
    pub fn free_now(&mut self, base: u64) -> Result {
        self.owner(base)?;
        self.release(base).map_err(|_| Error::InvalidValue)
    }

    /// Frees memory in the order of a stream.
    pub fn free_async(&mut self, base: u64, stream: u64) -> Result {
        self.owner(base)?;
        self.submit(stream, Work::Free { base })?;
        self.freeing.insert(base);
        Ok(())
    }

    /// Starts of a context's allocations.
    pub(super) fn allocations_of(&self, context: u64) -> Vec<u64> {
        let mine = self.owners.iter().filter(|(_, owner)| **owner == context);
        mine.map(|(base, _)| *base).collect()
    }

    /// Free and all bytes of a device.
    pub fn memory_info(&self, device: u32) -> (u64, u64) {
        (self.model.memory - self.used[device as usize], self.model.memory)
    }

    /// Host memory, zeroed, that every device reaches at its own address.
    pub fn allocate_pinned(&mut self, bytes: usize, flags: u32) -> Result<u64> {
        let context = self.here()?;
        self.forbid_unsafe()?;
        if bytes == 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: a new private mapping; nothing else is at the address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::OutOfMemory);
        }
        self.map(start as u64, Pinned { bytes, ours: true, flags, context })?;
        Ok(start as u64)
    }

    /// Lets devices reach host memory that somebody else has.
    pub fn register(&mut self, start: u64, bytes: usize, flags: u32) -> Result {
        let context = self.here()?;
        self.forbid_unsafe()?;
        if start == 0 || bytes == 0 {
            return Err(Error::InvalidValue);
        }
        self.map(start, Pinned { bytes, ours: false, flags, context })
    }

    fn map(&mut self, start: u64, pinned: Pinned) -> Result {
        let what = if pinned.ours { "pinned" } else { "registered" };
        let name = format!("{what} host memory");
        // SAFETY: mapped above, or the caller of the driver promised that the memory stays until it
        // is unregistered; what the host does meanwhile races with devices as it does on hardware.
        let mapped = unsafe { self.memory.map_host(start as *mut u8, pinned.bytes, name) };
        mapped.map_err(|_| Error::HostRegistered)?;
        self.pinned.insert(start, pinned);
        Ok(())
    }

    /// Ends host memory that the driver allocated. Copies that are still under way to or from it
    /// find it gone.
    pub fn free_pinned(&mut self, start: u64) -> Result {
        self.forbid_unsafe()?;
        match self.pinned.get(&start) {
            Some(Pinned { ours: true, bytes, .. }) => {
                let bytes = *bytes;
                self.unmap(start)?;
                // SAFETY: mapped with this length in `allocate_pinned`; devices' view of it is gone.
                unsafe { libc::munmap(start as *mut _, bytes) };
                Ok(())
            }
            _ => Err(Error::InvalidValue),
        }
    }

    /// Devices reach it no longer.
    pub fn unregister(&mut self, start: u64) -> Result {
        self.forbid_unsafe()?;
        match self.pinned.get(&start) {
            Some(Pinned { ours: false, .. }) => self.unmap(start),
            Some(_) => Err(Error::InvalidValue),
            None => Err(Error::HostNotRegistered),
        }
    }

    fn unmap(&mut self, start: u64) -> Result {
        self.pinned.remove(&start);
        self.memory.free(start).map_err(|_| Error::InvalidValue)
    }

    /// The pinned block that an address lies in: its start and what it is.
    pub fn pinned_at(&self, address: u64) -> Option<(u64, Pinned)> {
        let (start, pinned) = self.pinned.range(..=address).next_back()?;
        (address - start < pinned.bytes as u64).then_some((*start, *pinned))
    }

    /// The context that a pointer belongs to.
    pub fn pointer_context(&self, address: u64) -> Option<u64> {
        if let Some((_, pinned)) = self.pinned_at(address) {
            return Some(pinned.context);
        }
        let base = self.memory.allocation(address)?.base;
        self.owners.get(&base).copied()
    }

    /// Whether an address is a device's, living or not.
    pub fn is_device(&self, address: u64) -> bool {
        let list = self.memory.allocations();
        let at = list.partition_point(|a| a.base <= address);
        at > 0 && list[at - 1].home != HOST && address - list[at - 1].base < list[at - 1].len
    }

    /// What was made and not ended: kind, handle or address, and more where there is more.
    pub fn leaks(&self) -> Vec<(&'static str, u64, String)> {
        let mut list = Vec::new();
        for base in self.owners.keys() {
            let name = self.memory.allocation(*base).map(|a| format!("{} bytes", a.len));
            list.push(("allocation", *base, name.unwrap_or_default()));
        }
        for (start, pinned) in &self.pinned {
            list.push(("host memory", *start, format!("{} bytes", pinned.bytes)));
        }
        let streams = self.streams.iter().filter(|(_, s)| !s.default);
        list.extend(streams.map(|(h, _)| ("stream", h, String::new())));
        list.extend(self.events.iter().map(|(h, _)| ("event", h, String::new())));
        list.extend(self.modules.iter().map(|(h, m)| ("module", h, m.code.kernels().join(" "))));
        list.extend(self.graphs.iter().map(|(h, _)| ("graph", h, String::new())));
        list.extend(self.execs.iter().map(|(h, _)| ("graph exec", h, String::new())));
        list.extend(self.cliques.handles().map(|h| ("communicator", h, String::new())));
        let pools = self.pools.iter().filter(|(_, p)| !p.default);
        list.extend(pools.map(|(h, _)| ("pool", h, String::new())));
        for (device, primary) in self.primaries.iter().enumerate().filter(|(_, p)| p.held > 0) {
            let held = format!("held {} times", primary.held);
            list.push(("primary context", device as u64, held));
        }
        list
    }
}
