//! What is known of an address.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::error::Error;

use crate::call::{export, lock, put};

/// hipPointerAttribute_t, whose layout is the same in all versions.
#[repr(C)]
pub struct PointerAttributes {
    kind: c_uint,
    device: c_int,
    device_pointer: u64,
    host_pointer: u64,
    managed: c_int,
    flags: c_uint,
}

/// hipMemoryTypeHost and hipMemoryTypeDevice of ROCm 6.
const HOST: c_uint = 1;
const DEVICE: c_uint = 2;

export! {
    #[doc = "What an address is."]
    fn hipPointerGetAttributes(to: *mut PointerAttributes, address: u64) {
        let d = lock();
        let context = d.pointer_context(address).ok_or(Error::InvalidValue)?;
        let pinned = d.pinned_at(address);
        put(to, PointerAttributes {
            kind: if pinned.is_some() { HOST } else { DEVICE },
            device: d.device_of(context) as c_int,
            device_pointer: address,
            host_pointer: if pinned.is_some() { address } else { 0 },
            managed: 0,
            flags: pinned.map_or(0, |(_, pinned)| pinned.flags),
        })
    }

    #[doc = "One of an address's properties."]
    fn hipPointerGetAttribute(to: *mut c_void, number: c_uint, address: u64) {
        let d = lock();
        let context = d.pointer_context(address).ok_or(Error::InvalidValue)?;
        let pinned = d.pinned_at(address).is_some();
        let place = d.memory.allocation(address).ok_or(Error::InvalidValue)?;
        match number {
            1 => put(to.cast(), context),
            2 => put(to.cast(), if pinned { HOST } else { DEVICE }),
            3 => put(to.cast(), address),
            4 if pinned => put(to.cast(), address),
            8 => put(to.cast::<u8>(), 0),
            9 => put(to.cast::<c_int>(), d.device_of(context) as c_int),
            11 => put(to.cast(), place.base),
            12 => put(to.cast::<usize>(), place.len as usize),
            _ => Err(Error::InvalidValue),
        }
    }
}
