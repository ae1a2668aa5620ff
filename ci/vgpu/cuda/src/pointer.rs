//! What is known of an address.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::error::{Error, Result};

use crate::call::{export, lock, put};

/// Writes one of an address's properties, in the width that it has.
fn attribute(to: *mut c_void, number: c_uint, address: u64) -> Result {
    let d = lock();
    let context = d.pointer_context(address).ok_or(Error::InvalidValue)?;
    let pinned = d.pinned_at(address);
    let place = d.memory.allocation(address).ok_or(Error::InvalidValue)?;
    match number {
        1 => put(to.cast(), context),
        // 1: host, 2: device
        2 => put(to.cast::<c_uint>(), if pinned.is_some() { 1 } else { 2 }),
        3 => put(to.cast(), address),
        4 if pinned.is_some() => put(to.cast(), address),
        4 => Err(Error::InvalidValue),
        6 | 8 | 10 | 15 => put(to.cast::<u8>(), 0),
        7 => put(to.cast(), place.base),
        9 => put(to.cast::<c_int>(), d.device_of(context) as c_int),
        11 => put(to.cast(), place.base),
        12 => put(to.cast::<usize>(), place.len as usize),
        13 => put(to.cast::<u8>(), 1),
        16 => put(to.cast::<c_uint>(), 3),
        17 => put(to.cast::<u64>(), 0),
        _ => Err(Error::InvalidValue),
    }
}

export! {
    #[doc = "One of an address's properties."]
    fn cuPointerGetAttribute(to: *mut c_void, number: c_uint, address: u64) {
        attribute(to, number, address)
    }

    #[doc = "Several of an address's properties; those that it does not have are zero."]
    fn cuPointerGetAttributes(
        count: c_uint,
        numbers: *mut c_uint,
        to: *mut *mut c_void,
        address: u64,
    ) {
        if numbers.is_null() || to.is_null() {
            return Err(Error::InvalidValue);
        }
        for i in 0..count as usize {
            // SAFETY: the caller promised `count` of each.
            let (number, to) = unsafe { (numbers.add(i).read(), to.add(i).read()) };
            if attribute(to, number, address).is_err() {
                let wide = matches!(number, 1 | 3 | 4 | 7 | 11 | 12 | 17);
                if wide { put(to.cast::<u64>(), 0)? } else { put(to.cast::<u8>(), 0)? }
            }
        }
        Ok(())
    }
}
