//! Devices. Each has one context, which is made when it is needed.

use std::ffi::{c_char, c_int, c_uint};

use halfstep_vgpu::driver::error::Error;
use halfstep_vgpu::driver::schedule::wait;

use crate::attribute::attribute;
use crate::call::{
    device as current_device, driver, export, lock, put, put_if, put_text, set_device,
};
use crate::properties::{New, Old, uuid_of};

export! {
    #[doc = "How many devices there are."]
    fn hipGetDeviceCount(count: *mut c_int) {
        let devices = lock().settings.devices;
        put(count, devices as c_int)?;
        if devices == 0 { Err(Error::NoDevice) } else { Ok(()) }
    }

    #[doc = "Another device for the thread."]
    fn hipSetDevice(device: c_int) {
        set_device(lock().device(device)?);
        Ok(())
    }

    #[doc = "The thread's device."]
    fn hipGetDevice(device: *mut c_int) {
        put(device, current_device() as c_int)
    }

    #[doc = "A device's handle, which is its number."]
    fn hipDeviceGet(device: *mut c_int, ordinal: c_int) {
        lock().device(ordinal)?;
        put(device, ordinal)
    }

    #[doc = "A device's properties, as callers up to ROCm 5.7 know them."]
    fn hipGetDeviceProperties(properties: *mut Old, device: c_int) {
        let d = lock();
        let device = d.device(device)?;
        put(properties, Old::of(d.model, device))
    }

    #[doc = "A device's properties, as callers from ROCm 6.0 on know them."]
    fn hipGetDevicePropertiesR0600(properties: *mut New, device: c_int) {
        let d = lock();
        let device = d.device(device)?;
        put(properties, New::of(d.model, device))
    }

    #[doc = "One of a device's properties."]
    fn hipDeviceGetAttribute(value: *mut c_int, number: c_uint, device: c_int) {
        let d = lock();
        let device = d.device(device)?;
        put(value, attribute(d.model, number, device).ok_or(Error::InvalidValue)?)
    }

    #[doc = "A device's name."]
    fn hipDeviceGetName(name: *mut c_char, len: c_int, device: c_int) {
        let d = lock();
        d.device(device)?;
        put_text(name, len.max(0) as usize, d.model.name)
    }

    #[doc = "A device's number among all devices."]
    fn hipDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        let device = lock().device(device)?;
        put(uuid, uuid_of(device))
    }

    #[doc = "A device's place in the machine."]
    fn hipDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: c_int) {
        let device = lock().device(device)?;
        put_text(id, len.max(0) as usize, &format!("0000:{:02x}:00.0", device + 1))
    }

    #[doc = "Bytes of a device's memory."]
    fn hipDeviceTotalMem(bytes: *mut usize, device: c_int) {
        let d = lock();
        d.device(device)?;
        put(bytes, d.model.memory as usize)
    }

    #[doc = "gfx90a is 9.0."]
    fn hipDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: c_int) {
        lock().device(device)?;
        put(major, 9)?;
        put(minor, 0)
    }

    #[doc = "A wish for how to wait, which is heard and no more."]
    fn hipSetDeviceFlags(flags: c_uint) {
        Ok(())
    }

    #[doc = "How to wait."]
    fn hipGetDeviceFlags(flags: *mut c_uint) {
        put(flags, 0)
    }

    #[doc = "Ends everything on the thread's device."]
    fn hipDeviceReset() {
        lock().reset_primary(current_device());
        Ok(())
    }

    #[doc = "Waits for all work of the thread's device."]
    fn hipDeviceSynchronize() {
        let (context, mark) = lock().all_to_wait_for()?;
        wait(driver(), context, &mark)
    }

    #[doc = "The least and the greatest priority of streams."]
    fn hipDeviceGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        put_if(least, 1);
        put_if(greatest, -1);
        Ok(())
    }

    #[doc = "Whether one device could reach another's memory: all can."]
    fn hipDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) {
        let d = lock();
        let (device, peer) = (d.device(device)?, d.device(peer)?);
        put(can, c_int::from(device != peer))
    }

    #[doc = "Lets the thread's device reach another one's memory."]
    fn hipDeviceEnablePeerAccess(peer: c_int, flags: c_uint) {
        let mut d = lock();
        let peer = d.device(peer)?;
        d.enable_peer(peer)
    }

    #[doc = "And no longer."]
    fn hipDeviceDisablePeerAccess(peer: c_int) {
        let mut d = lock();
        let peer = d.device(peer)?;
        d.disable_peer(peer)
    }
}
