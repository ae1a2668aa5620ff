//! Memory of devices, and of the host.

use std::ffi::{c_uint, c_void};

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::wait;

use crate::call::{driver, export, lock, put, put_if};

fn pinned(start: *mut *mut c_void, bytes: usize, flags: c_uint) -> Result {
    if start.is_null() {
        return Err(Error::InvalidValue);
    }
    put(start, lock().allocate_pinned(bytes, flags)? as *mut c_void)
}

export! {
    #[doc = "Memory of the device."]
    fn hipMalloc(address: *mut u64, bytes: usize) {
        if address.is_null() {
            return Err(Error::InvalidValue);
        }
        // Nothing is a pointer to nothing here.
        if bytes == 0 {
            return put(address, 0);
        }
        put(address, lock().allocate(bytes as u64)?)
    }

    #[doc = "Frees memory, once all work of its context is done."]
    fn hipFree(address: u64) {
        if address == 0 {
            return lock().here().map(|_| ());
        }
        let (context, mark) = {
            let mut d = lock();
            let context = d.owner(address)?;
            d.sound(context)?;
            d.forbid_unsafe()?;
            (context, d.context_mark(context))
        };
        wait(driver(), context, &mark)?;
        lock().free_now(address)
    }

    #[doc = "Memory that is there in the order of a stream."]
    fn hipMallocAsync(address: *mut u64, bytes: usize, stream: u64) {
        if address.is_null() {
            return Err(Error::InvalidValue);
        }
        let mut d = lock();
        let stream = d.stream(stream)?;
        put(address, d.allocate_async(bytes as u64, stream)?)
    }

    #[doc = "Frees memory in the order of a stream."]
    fn hipFreeAsync(address: u64, stream: u64) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        d.free_async(address, stream)
    }

    #[doc = "Memory that moves, which is not provided."]
    fn hipMallocManaged(address: *mut u64, bytes: usize, flags: c_uint) {
        eprintln!("vgpu: hipMallocManaged is not provided");
        Err(Error::NotSupported)
    }

    #[doc = "Pinned memory of the host, which every device reaches whatever the flags."]
    fn hipHostMalloc(start: *mut *mut c_void, bytes: usize, flags: c_uint) {
        pinned(start, bytes, flags)
    }

    #[doc = "Frees it."]
    fn hipHostFree(start: *mut c_void) {
        if start.is_null() {
            return Ok(());
        }
        lock().free_pinned(start as u64)
    }

    #[doc = "Pins memory that the caller has."]
    fn hipHostRegister(start: *mut c_void, bytes: usize, flags: c_uint) {
        lock().register(start as u64, bytes, flags)
    }

    #[doc = "And no longer."]
    fn hipHostUnregister(start: *mut c_void) {
        lock().unregister(start as u64)
    }

    #[doc = "Where devices find pinned memory: at its own address."]
    fn hipHostGetDevicePointer(address: *mut u64, start: *mut c_void, flags: c_uint) {
        lock().pinned_at(start as u64).ok_or(Error::InvalidValue)?;
        put(address, start as u64)
    }

    #[doc = "The flags that pinned memory was made with."]
    fn hipHostGetFlags(flags: *mut c_uint, start: *mut c_void) {
        put(flags, lock().pinned_at(start as u64).ok_or(Error::InvalidValue)?.1.flags)
    }

    #[doc = "Free and all memory of the device."]
    fn hipMemGetInfo(free: *mut usize, total: *mut usize) {
        let d = lock();
        let (left, all) = d.memory_info(d.device_of(d.here()?));
        put_if(free, left as usize);
        put_if(total, all as usize);
        Ok(())
    }

    #[doc = "The allocation that an address lies in."]
    fn hipMemGetAddressRange(base: *mut u64, bytes: *mut usize, address: u64) {
        let d = lock();
        let found = d.memory.allocation(address).ok_or(Error::NotFound)?;
        put_if(base, found.base);
        put_if(bytes, found.len as usize);
        Ok(())
    }
}
