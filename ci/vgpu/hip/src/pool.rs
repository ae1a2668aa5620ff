//! Memory pools. They keep nothing back, and memory of one is like any other.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::allocate::Pool;
use halfstep_vgpu::driver::error::{Error, Result};

use crate::call::{export, lock, put};

/// hipMemPoolAttrReleaseThreshold.
const THRESHOLD: c_uint = 4;

fn default_pool(device: c_int) -> Result<u64> {
    let d = lock();
    let device = d.device(device)?;
    let mut pools = d.pools.iter().filter(|(_, pool)| pool.default && pool.device == device);
    pools.next().map(|(handle, _)| handle).ok_or(Error::InvalidDevice)
}

export! {
    #[doc = "A device's own pool."]
    fn hipDeviceGetDefaultMemPool(pool: *mut u64, device: c_int) {
        put(pool, default_pool(device)?)
    }

    #[doc = "The pool that a device's allocations come from: its own."]
    fn hipDeviceGetMemPool(pool: *mut u64, device: c_int) {
        put(pool, default_pool(device)?)
    }

    #[doc = "Another pool to come from, which makes no difference."]
    fn hipDeviceSetMemPool(device: c_int, pool: u64) {
        let d = lock();
        d.device(device)?;
        d.pools.get(pool).map(|_| ())
    }

    #[doc = "A pool of one's own."]
    fn hipMemPoolCreate(pool: *mut u64, properties: *const [c_int; 4]) {
        if properties.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null; the first four fields are allocation type, handle types, and the kind
        // and number of the place.
        let [_, _, _, device] = unsafe { *properties };
        let mut d = lock();
        let device = d.device(device)?;
        put(pool, d.pools.add(Pool { device, default: false, threshold: 0 }))
    }

    #[doc = "Ends a pool; its memory stays until it is freed."]
    fn hipMemPoolDestroy(pool: u64) {
        let mut d = lock();
        if d.pools.get(pool)?.default {
            return Err(Error::InvalidValue);
        }
        d.pools.remove(pool).map(|_| ())
    }

    #[doc = "One of a pool's properties: what it keeps back; what is in use is the device's."]
    fn hipMemPoolGetAttribute(pool: u64, number: c_uint, value: *mut c_void) {
        let d = lock();
        let found = *d.pools.get(pool)?;
        let (free, all) = d.memory_info(found.device);
        match number {
            1..=3 => put(value.cast::<c_int>(), 1),
            THRESHOLD => put(value.cast::<u64>(), found.threshold),
            5..=8 => put(value.cast::<u64>(), all - free),
            _ => Err(Error::InvalidValue),
        }
    }

    #[doc = "What it keeps back, which is remembered and no more."]
    fn hipMemPoolSetAttribute(pool: u64, number: c_uint, value: *mut c_void) {
        let mut d = lock();
        let found = d.pools.get_mut(pool)?;
        if value.is_null() || !(1..=8).contains(&number) {
            return Err(Error::InvalidValue);
        }
        if number == THRESHOLD {
            // SAFETY: not null; for this number it points to 64 bits.
            found.threshold = unsafe { value.cast::<u64>().read() };
        }
        Ok(())
    }

    #[doc = "Nothing is kept back."]
    fn hipMemPoolTrimTo(pool: u64, bytes: usize) {
        lock().pools.get(pool).map(|_| ())
    }

    #[doc = "Memory of a pool, in the order of a stream."]
    fn hipMallocFromPoolAsync(address: *mut u64, bytes: usize, pool: u64, stream: u64) {
        if address.is_null() {
            return Err(Error::InvalidValue);
        }
        let mut d = lock();
        d.pools.get(pool)?;
        let stream = d.stream(stream)?;
        put(address, d.allocate_async(bytes as u64, stream)?)
    }
}
