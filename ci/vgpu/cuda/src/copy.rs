//! Copies and fills.

use std::ffi::{c_uchar, c_uint, c_ushort, c_void};

use halfstep_vgpu::driver::copy::{Way, copy, copy_in_stream, fill};
use halfstep_vgpu::driver::error::Result;

use crate::call::{driver, export, lock};

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
    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        copy(driver(), to, from, bytes as u64, Way::Find)
    }

    #[doc = "Copies to the device."]
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        copy(driver(), to, from as u64, bytes as u64, Way::Up)
    }

    #[doc = "Copies from the device."]
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        copy(driver(), to as u64, from, bytes as u64, Way::Down)
    }

    #[doc = "Copies on the device."]
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        copy(driver(), to, from, bytes as u64, Way::Across)
    }

    #[doc = "Copies between devices."]
    fn cuMemcpyPeer(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize) {
        copy(driver(), to, from, bytes as u64, Way::Across)
    }

    #[doc = "Copies in the order of a stream."]
    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64) {
        copy_async(to, from, bytes, Way::Find, stream)
    }

    #[doc = "Copies to the device in the order of a stream."]
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64) {
        copy_async(to, from as u64, bytes, Way::Up, stream)
    }

    #[doc = "Copies from the device in the order of a stream."]
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: u64) {
        copy_async(to as u64, from, bytes, Way::Down, stream)
    }

    #[doc = "Copies on the device in the order of a stream."]
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        copy_async(to, from, bytes, Way::Across, stream)
    }

    #[doc = "Copies between devices in the order of a stream."]
    fn cuMemcpyPeerAsync(
        to: u64,
        to_context: u64,
        from: u64,
        from_context: u64,
        bytes: usize,
        stream: u64,
    ) {
        copy_async(to, from, bytes, Way::Across, stream)
    }

    #[doc = "Fills with a byte."]
    fn cuMemsetD8_v2(to: u64, value: c_uchar, count: usize) {
        fill(driver(), to, &[value], count as u64)
    }

    #[doc = "Fills with two bytes."]
    fn cuMemsetD16_v2(to: u64, value: c_ushort, count: usize) {
        fill(driver(), to, &value.to_le_bytes(), count as u64)
    }

    #[doc = "Fills with four bytes."]
    fn cuMemsetD32_v2(to: u64, value: c_uint, count: usize) {
        fill(driver(), to, &value.to_le_bytes(), count as u64)
    }

    #[doc = "Fills with a byte in the order of a stream."]
    fn cuMemsetD8Async(to: u64, value: c_uchar, count: usize, stream: u64) {
        fill_async(to, &[value], count, stream)
    }

    #[doc = "Fills with two bytes in the order of a stream."]
    fn cuMemsetD16Async(to: u64, value: c_ushort, count: usize, stream: u64) {
        fill_async(to, &value.to_le_bytes(), count, stream)
    }

    #[doc = "Fills with four bytes in the order of a stream."]
    fn cuMemsetD32Async(to: u64, value: c_uint, count: usize, stream: u64) {
        fill_async(to, &value.to_le_bytes(), count, stream)
    }
}
