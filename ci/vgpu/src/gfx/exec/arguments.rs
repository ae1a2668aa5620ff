//! The block of arguments as the runtime makes it, with what it fills in unasked, and the packet
//! that starts the kernel.

use crate::gfx::program::Program;
use crate::gfx::{GfxError, Result};
use crate::launch::Grid;
use crate::memory::Bytes;

/// Arguments and behind them the packet, and where that is.
pub fn block(program: &Program, grid: Grid, params: &[u8]) -> Result<(Bytes, u64)> {
    let size = u64::from(program.descriptor.kernarg_bytes).max(program.parameter_bytes());
    // The scalar unit may read a cache line to its end.
    let packet = size.next_multiple_of(64);
    let mut bytes = Bytes::undefined(packet as usize + 64);
    bytes.write(0, &params[..program.parameter_bytes() as usize]);
    for hidden in &program.hidden {
        let Some(value) = value(&hidden.kind, grid)? else { continue };
        let data = value.to_le_bytes();
        bytes.write(hidden.offset as usize, &data[..(hidden.size as usize).min(8)]);
    }
    bytes.write(packet as usize, &self::packet(program, grid));
    Ok((bytes, packet))
}

/// What a hidden argument is; none if the runtime leaves it as it was.
fn value(kind: &str, grid: Grid) -> Result<Option<u64>> {
    let axis = |name: &str| match kind.strip_prefix(name)? {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some(axis) = axis("hidden_block_count_") {
        return Ok(Some(grid.blocks[axis].into()));
    }
    if let Some(axis) = axis("hidden_group_size_") {
        return Ok(Some(grid.threads[axis].into()));
    }
    // HIP's grids are whole blocks: nothing is left over, and they start at 0.
    if axis("hidden_remainder_").is_some() || axis("hidden_global_offset_").is_some() {
        return Ok(Some(0));
    }
    match kind {
        // HIP's launches always have three.
        "hidden_grid_dims" => Ok(Some(3)),
        "hidden_dynamic_lds_size" => Ok(Some(grid.shared.into())),
        "hidden_none" => Ok(Some(0)),
        "hidden_private_base" => Ok(Some(super::memory::PRIVATE_APERTURE >> 32)),
        "hidden_shared_base" => Ok(Some(super::memory::SHARED_APERTURE >> 32)),
        // Services of the host. There are none, and a kernel that uses one is told so by reading
        // what is undefined.
        "hidden_printf_buffer"
        | "hidden_hostcall_buffer"
        | "hidden_multigrid_sync_arg"
        | "hidden_heap_v1"
        | "hidden_default_queue"
        | "hidden_completion_action"
        | "hidden_queue_ptr" => Ok(None),
        _ => Err(GfxError::new(format!("unknown kind of argument {kind}"))),
    }
}

fn packet(program: &Program, grid: Grid) -> [u8; 64] {
    let mut packet = [0; 64];
    let mut put = |at: usize, data: &[u8]| packet[at..at + data.len()].copy_from_slice(data);
    let dimensions = 3_u16;
    put(2, &dimensions.to_le_bytes());
    for axis in 0..3 {
        put(4 + 2 * axis, &(grid.threads[axis] as u16).to_le_bytes());
        put(12 + 4 * axis, &(grid.threads[axis] * grid.blocks[axis]).to_le_bytes());
    }
    put(24, &program.private.to_le_bytes());
    put(28, &(program.shared as u32 + grid.shared).to_le_bytes());
    put(40, &super::memory::ARGUMENTS.to_le_bytes());
    packet
}
