//! Launches, and how many blocks fit.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::front;
use halfstep_vgpu::launch::Grid;

use crate::call::{export, lock, put, put_if};

/// CUlaunchConfig.
#[repr(C)]
pub struct LaunchConfig {
    blocks: [c_uint; 3],
    threads: [c_uint; 3],
    shared: c_uint,
    stream: u64,
    attributes: *mut c_void,
    attribute_count: c_uint,
}

/// CU_LAUNCH_PARAM_END.
const END: usize = 0;

/// The parameters' bytes.
fn parameters(function: u64, each: *mut *mut c_void, extra: *mut *mut c_void) -> Result<Vec<u8>> {
    let facts = lock().functions.get(function)?.facts.clone();
    front::parameters(&facts, each, extra, END)
}

fn launch(function: u64, grid: Grid, stream: u64, params: Vec<u8>) -> Result {
    let mut d = lock();
    let stream = d.stream(stream)?;
    d.launch_kernel(function, grid, params, stream)
}

export! {
    #[doc = "Gives a stream a launch."]
    fn cuLaunchKernel(
        function: u64,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: u64,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) {
        let (blocks, threads) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let params = parameters(function, params, extra)?;
        launch(function, Grid { blocks, threads, shared }, stream, params)
    }

    #[doc = "The same; attributes are not provided."]
    fn cuLaunchKernelEx(
        config: *const LaunchConfig,
        function: u64,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) {
        if config.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null; the caller promised a block of this layout.
        let config = unsafe { &*config };
        if config.attribute_count > 0 {
            eprintln!("vgpu: attributes of cuLaunchKernelEx are not provided");
            return Err(Error::NotSupported);
        }
        let LaunchConfig { blocks, threads, shared, stream, .. } = *config;
        let params = parameters(function, params, extra)?;
        launch(function, Grid { blocks, threads, shared }, stream, params)
    }

    #[doc = "Blocks that wait for each other, which is not provided: blocks run one after the other."]
    fn cuLaunchCooperativeKernel(
        function: u64,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: u64,
        params: *mut *mut c_void,
    ) {
        eprintln!("vgpu: cuLaunchCooperativeKernel is not provided: blocks run one after the other");
        Err(Error::NotSupported)
    }

    #[doc = "Blocks of a kernel that a multiprocessor holds."]
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: u64,
        threads: c_int,
        shared: usize,
    ) {
        put(blocks, lock().occupancy(function, threads as u32, shared as u64)? as c_int)
    }

    #[doc = "The same."]
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int,
        function: u64,
        threads: c_int,
        shared: usize,
        flags: c_uint,
    ) {
        put(blocks, lock().occupancy(function, threads as u32, shared as u64)? as c_int)
    }

    #[doc = "Shared memory left for each of `blocks` blocks."]
    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: *mut usize,
        function: u64,
        blocks: c_int,
        threads: c_int,
    ) {
        let d = lock();
        let declared = d.functions.get(function)?.facts.shared;
        let m = d.model;
        let of_unit = (m.unit_shared / blocks.max(1) as u32).saturating_sub(m.block_shared_reserved);
        put(bytes, of_unit.min(m.block_shared_optin).saturating_sub(declared) as usize)
    }

    #[doc = "The block that fills the device best, if its shared memory does not depend on it."]
    fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        threads: *mut c_int,
        function: u64,
        shared_of: Option<extern "C" fn(c_int) -> usize>,
        shared: usize,
        limit: c_int,
    ) {
        if shared_of.is_some() {
            return Err(Error::NotSupported);
        }
        let (blocks, best) = front::best_block(&lock(), function, shared as u64, limit)?;
        put_if(grid, blocks as c_int);
        put(threads, best as c_int)
    }
}
