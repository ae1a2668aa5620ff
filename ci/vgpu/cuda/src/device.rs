//! Devices.

use std::ffi::{c_char, c_int, c_uint};

use halfstep_vgpu::driver::error::Error;

use crate::attribute::attribute;
use crate::call::{export, lock, put, put_text};

export! {
    #[doc = "A device's handle, which is its number."]
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        lock().device(ordinal)?;
        put(device, ordinal)
    }

    #[doc = "How many devices there are."]
    fn cuDeviceGetCount(count: *mut c_int) {
        put(count, lock().settings.devices as c_int)
    }

    #[doc = "A device's name."]
    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) {
        let d = lock();
        d.device(device)?;
        put_text(name, len.max(0) as usize, d.model.name)
    }

    #[doc = "A device's number among all devices."]
    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        let device = lock().device(device)?;
        put(uuid, uuid_of(device))
    }

    #[doc = "A device's number among all devices."]
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) {
        let device = lock().device(device)?;
        put(uuid, uuid_of(device))
    }

    #[doc = "Bytes of a device's memory."]
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        let d = lock();
        d.device(device)?;
        put(bytes, d.model.memory as usize)
    }

    #[doc = "One of a device's properties."]
    fn cuDeviceGetAttribute(value: *mut c_int, number: c_uint, device: c_int) {
        let d = lock();
        let device = d.device(device)?;
        put(value, attribute(d.model, number, device).ok_or(Error::InvalidValue)?)
    }

    #[doc = "A device's place in the machine."]
    fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: c_int) {
        let device = lock().device(device)?;
        put_text(id, len.max(0) as usize, &format!("0000:{:02X}:00.0", device + 1))
    }

    #[doc = "Whether one device could reach another's memory: all can."]
    fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) {
        let d = lock();
        let (device, peer) = (d.device(device)?, d.device(peer)?);
        put(can, c_int::from(device != peer))
    }
}

/// Different for each device.
fn uuid_of(device: u32) -> [u8; 16] {
    let mut uuid = *b"halfstep vgpu \0\0";
    uuid[15] = device as u8;
    uuid
}
