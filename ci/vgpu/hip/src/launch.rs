//! Launches, and how many blocks fit.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::error::Result;
use halfstep_vgpu::driver::front;
use halfstep_vgpu::launch::Grid;

use crate::call::{export, lock, put, put_if};

/// HIP_LAUNCH_PARAM_END.
const END: usize = 3;

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
    fn hipModuleLaunchKernel(
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

    #[doc = "Blocks of a kernel that a compute unit holds."]
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: u64,
        threads: c_int,
        shared: usize,
    ) {
        put(blocks, lock().occupancy(function, threads as u32, shared as u64)? as c_int)
    }

    #[doc = "The same."]
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int,
        function: u64,
        threads: c_int,
        shared: usize,
        flags: c_uint,
    ) {
        put(blocks, lock().occupancy(function, threads as u32, shared as u64)? as c_int)
    }

    #[doc = "The block that fills the device best."]
    fn hipModuleOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        threads: *mut c_int,
        function: u64,
        shared: usize,
        limit: c_int,
    ) {
        let (blocks, best) = front::best_block(&lock(), function, shared as u64, limit)?;
        put_if(grid, blocks as c_int);
        put(threads, best as c_int)
    }
}
