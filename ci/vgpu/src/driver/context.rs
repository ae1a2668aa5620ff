//! Devices and contexts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Driver;
use super::error::{Error, Result};

/// A context.
#[derive(Debug)]
pub struct Context {
    /// Its device.
    pub device: u32,
    /// The flags that it was made with.
    pub flags: u32,
    /// The error that every call gives from now on.
    pub sticky: Option<Error>,
    /// Its default stream.
    pub default_stream: u64,
    /// Default streams of threads.
    pub thread_streams: BTreeMap<u64, u64>,
    /// Devices whose memory it sees, a bit each.
    pub peers: u64,
    primary: bool,
}

/// A device's primary context.
#[derive(Debug, Clone, Copy, Default)]
pub struct Primary {
    /// The context, while there is one.
    pub context: Option<u64>,
    /// How often it is held.
    pub held: u32,
    /// Its flags.
    pub flags: u32,
}

thread_local! {
    /// The thread's contexts; the last one is current.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// A number for the calling thread.
pub fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    THREAD.with(|cell| {
        if cell.get() == 0 {
            cell.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        cell.get()
    })
}

/// The calling thread's current context, which may be gone.
pub fn current() -> Option<u64> {
    STACK.with_borrow(|stack| stack.last().copied())
}

/// Makes a context current in place of the one that is; none takes it away.
pub fn set_current(context: Option<u64>) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        stack.extend(context);
    });
}

/// Makes a context current until it is popped.
pub fn push_current(context: u64) {
    STACK.with_borrow_mut(|stack| stack.push(context));
}

/// Takes the current context away.
pub fn pop_current() -> Option<u64> {
    STACK.with_borrow_mut(Vec::pop)
}

impl Driver {
    /// Whether the device exists.
    pub fn device(&self, device: i32) -> Result<u32> {
        u32::try_from(device)
            .ok()
            .filter(|d| *d < self.settings.devices)
            .ok_or(Error::InvalidDevice)
    }

    /// The calling thread's context, if it is sound.
    pub fn here(&self) -> Result<u64> {
        let context = current().ok_or(Error::InvalidContext)?;
        self.sound(context)?;
        Ok(context)
    }

    /// Whether a context can still be used.
    pub fn sound(&self, context: u64) -> Result {
        let found = self.contexts.get(context).map_err(|_| Error::InvalidContext)?;
        found.sticky.map_or(Ok(()), Err)
    }

    /// The device of a context.
    pub fn device_of(&self, context: u64) -> u32 {
        self.contexts.get(context).map_or(0, |c| c.device)
    }

    /// Devices whose memory a context's kernels see.
    pub(super) fn visible_from(&self, context: u64) -> u64 {
        self.contexts.get(context).map_or(0, |c| c.peers | 1 << c.device)
    }

    fn add_context(&mut self, device: u32, flags: u32, primary: bool) -> u64 {
        let context = self.contexts.add(Context {
            device,
            flags,
            sticky: None,
            default_stream: 0,
            thread_streams: BTreeMap::new(),
            peers: 0,
            primary,
        });
        let stream = self.add_stream(context, true, 0, true);
        if let Ok(c) = self.contexts.get_mut(context) {
            c.default_stream = stream;
        }
        context
    }

    /// A new context, current on the calling thread.
    pub fn create_context(&mut self, device: u32, flags: u32) -> u64 {
        let context = self.add_context(device, flags, false);
        push_current(context);
        context
    }

    /// Ends a context and all that is in it. Its work is thrown away.
    pub fn destroy_context(&mut self, context: u64) -> Result {
        let found = self.contexts.get(context).map_err(|_| Error::InvalidContext)?;
        if found.primary {
            return Err(Error::InvalidContext);
        }
        self.end_context(context);
        if current() == Some(context) {
            pop_current();
        }
        Ok(())
    }

    fn end_context(&mut self, context: u64) {
        self.lanes.abandon(context);
        for lane in self.lanes.of(context) {
            self.lanes.close(lane);
        }
        let mine = |list: Vec<(u64, u64)>| {
            list.into_iter().filter(|(_, c)| *c == context).map(|(handle, _)| handle)
        };
        for stream in mine(self.streams.iter().map(|(h, s)| (h, s.context)).collect()) {
            let _ = self.streams.remove(stream);
        }
        for event in mine(self.events.iter().map(|(h, e)| (h, e.context)).collect()) {
            let _ = self.events.remove(event);
        }
        for module in mine(self.modules.iter().map(|(h, m)| (h, m.context)).collect()) {
            let _ = self.unload(module);
        }
        for base in self.allocations_of(context) {
            let _ = self.release(base);
        }
        let _ = self.contexts.remove(context);
    }

    /// Holds a device's primary context, which is made if it is not there.
    pub fn retain_primary(&mut self, device: u32) -> u64 {
        let Primary { context, flags, .. } = self.primaries[device as usize];
        let context = context.unwrap_or_else(|| self.add_context(device, flags, true));
        let primary = &mut self.primaries[device as usize];
        primary.context = Some(context);
        primary.held += 1;
        context
    }

    /// A device's primary context, made if it is not there, held by nobody.
    pub fn primary(&mut self, device: u32) -> u64 {
        let context = self.retain_primary(device);
        self.primaries[device as usize].held -= 1;
        context
    }

    /// Lets go of a primary context, which ends with its last holder.
    pub fn release_primary(&mut self, device: u32) -> Result {
        let primary = &mut self.primaries[device as usize];
        if primary.held == 0 {
            return Err(Error::InvalidContext);
        }
        primary.held -= 1;
        if primary.held > 0 {
            return Ok(());
        }
        self.reset_primary(device);
        Ok(())
    }

    /// Ends a primary context whoever holds it.
    pub fn reset_primary(&mut self, device: u32) {
        if let Some(context) = self.primaries[device as usize].context.take() {
            self.end_context(context);
        }
    }

    /// Lets the current context's kernels reach another device's memory.
    pub fn enable_peer(&mut self, device: u32) -> Result {
        let here = self.here()?;
        let context = self.contexts.get_mut(here)?;
        if context.device == device {
            return Err(Error::InvalidDevice);
        }
        if context.peers >> device & 1 == 1 {
            return Err(Error::PeerAccessEnabled);
        }
        context.peers |= 1 << device;
        Ok(())
    }

    /// And no longer.
    pub fn disable_peer(&mut self, device: u32) -> Result {
        let here = self.here()?;
        let context = self.contexts.get_mut(here)?;
        if context.peers >> device & 1 == 0 {
            return Err(Error::PeerAccessNotEnabled);
        }
        context.peers &= !(1 << device);
        Ok(())
    }
}
