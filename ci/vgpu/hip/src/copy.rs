//! Copies and fills.

use std::ffi::{c_int, c_uchar, c_uint, c_ushort, c_void};

use halfstep_vgpu::driver::copy::{Way, copy, copy_in_stream, fill};
use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::wait;

use crate::call::{driver, export, lock};

/// hipMemcpyKind. That both ends are the host's is seen from the addresses.
fn way(kind: c_uint) -> Result<Way> {
    match kind {
        1 => Ok(Way::Up),
        2 => Ok(Way::Down),
        3 => Ok(Way::Across),
        0 | 4 => Ok(Way::Find),
        _ => Err(Error::InvalidValue),
    }
}

fn copy_async(to: u64, from: u64, bytes: usize, way: Way, stream: u64) -> Result {
    copy_in_stream(driver(), to, from, bytes as u64, way, stream)
}

fn fill_async(to: u64, pattern: &[u8], count: usize, stream: u64) -> Result {
    let mut d = lock();
    let stream = d.stream(stream)?;
    d.fill_async(to, pattern, count as u64, stream)
}

export! {
    #[doc = "Copies, from and to wherever the addresses are."]
    fn hipMemcpy(to: u64, from: u64, bytes: usize, kind: c_uint) {
        copy(driver(), to, from, bytes as u64, way(kind)?)
    }

    #[doc = "Copies in a stream, and waits for it."]
    fn hipMemcpyWithStream(to: u64, from: u64, bytes: usize, kind: c_uint, stream: u64) {
        copy_async(to, from, bytes, way(kind)?, stream)?;
        let (context, mark) = {
            let mut d = lock();
            let stream = d.stream(stream)?;
            d.to_wait_for(stream)?
        };
        wait(driver(), context, &mark)
    }

    #[doc = "Fills with a byte."]
    fn hipMemset(to: u64, value: c_int, bytes: usize) {
        fill(driver(), to, &[value as u8], bytes as u64)
    }

    #[doc = "Fills with a byte in the order of a stream."]
    fn hipMemsetAsync(to: u64, value: c_int, bytes: usize, stream: u64) {
        fill_async(to, &[value as u8], bytes, stream)
    }

    #[doc = "Copies to the device."]
    fn hipMemcpyHtoD(to: u64, from: *const c_void, bytes: usize) {
        copy(driver(), to, from as u64, bytes as u64, Way::Up)
    }

    #[doc = "Copies from the device."]
    fn hipMemcpyDtoH(to: *mut c_void, from: u64, bytes: usize) {
        copy(driver(), to as u64, from, bytes as u64, Way::Down)
    }

    #[doc = "Copies on the device."]
    fn hipMemcpyDtoD(to: u64, from: u64, bytes: usize) {
        copy(driver(), to, from, bytes as u64, Way::Across)
    }

    #[doc = "Copies between devices."]
    fn hipMemcpyPeer(to: u64, to_device: c_int, from: u64, from_device: c_int, bytes: usize) {
        copy(driver(), to, from, bytes as u64, Way::Across)
    }

    #[doc = "Copies in the order of a stream."]
    fn hipMemcpyAsync(to: u64, from: u64, bytes: usize, kind: c_uint, stream: u64) {
        copy_async(to, from, bytes, way(kind)?, stream)
    }

    #[doc = "Copies to the device in the order of a stream."]
    fn hipMemcpyHtoDAsync(to: u64, from: *const c_void, bytes: usize, stream: u64) {
        copy_async(to, from as u64, bytes, Way::Up, stream)
    }

    #[doc = "Copies from the device in the order of a stream."]
    fn hipMemcpyDtoHAsync(to: *mut c_void, from: u64, bytes: usize, stream: u64) {
        copy_async(to as u64, from, bytes, Way::Down, stream)
    }

    #[doc = "Copies on the device in the order of a stream."]
    fn hipMemcpyDtoDAsync(to: u64, from: u64, bytes: usize, stream: u64) {
        copy_async(to, from, bytes, Way::Across, stream)
    }

    #[doc = "Copies between devices in the order of a stream."]
    fn hipMemcpyPeerAsync(
        to: u64,
        to_device: c_int,
        from: u64,
        from_device: c_int,
        bytes: usize,
        stream: u64,
    ) {
        copy_async(to, from, bytes, Way::Across, stream)
    }

    #[doc = "Fills with a byte."]
    fn hipMemsetD8(to: u64, value: c_uchar, count: usize) {
        fill(driver(), to, &[value], count as u64)
    }

    #[doc = "Fills with two bytes."]
    fn hipMemsetD16(to: u64, value: c_ushort, count: usize) {
        fill(driver(), to, &value.to_le_bytes(), count as u64)
    }

    #[doc = "Fills with four bytes."]
    fn hipMemsetD32(to: u64, value: c_uint, count: usize) {
        fill(driver(), to, &value.to_le_bytes(), count as u64)
    }

    #[doc = "Fills with a byte in the order of a stream."]
    fn hipMemsetD8Async(to: u64, value: c_uchar, count: usize, stream: u64) {
        fill_async(to, &[value], count, stream)
    }

    #[doc = "Fills with two bytes in the order of a stream."]
    fn hipMemsetD16Async(to: u64, value: c_ushort, count: usize, stream: u64) {
        fill_async(to, &value.to_le_bytes(), count, stream)
    }

    #[doc = "Fills with four bytes in the order of a stream."]
    fn hipMemsetD32Async(to: u64, value: c_uint, count: usize, stream: u64) {
        fill_async(to, &value.to_le_bytes(), count, stream)
    }
}
