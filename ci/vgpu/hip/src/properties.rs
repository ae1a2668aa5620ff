//! The blocks of a device's properties, in the two layouts that callers were compiled for. What is
//! not set is zero.

use std::ffi::{c_char, c_int, c_void};

use halfstep_vgpu::driver::model::Model;

use crate::call::put_text;

/// What the compiler calls the device.
pub const ARCHITECTURE: &str = "gfx90a:sramecc+:xnack-";

/// Up to ROCm 5.7.
#[repr(C)]
pub struct Old {
    name: [c_char; 256],
    memory: usize,
    shared: usize,
    registers: c_int,
    wave: c_int,
    threads: c_int,
    block: [c_int; 3],
    grid: [c_int; 3],
    clock: c_int,
    memory_clock: c_int,
    bus: c_int,
    constant: usize,
    major: c_int,
    minor: c_int,
    units: c_int,
    l2: c_int,
    unit_threads: c_int,
    compute_mode: c_int,
    instruction_clock: c_int,
    features: u32,
    concurrent_kernels: c_int,
    pci: [c_int; 3], // domain, bus, device
    unit_shared: usize,
    multi_board: c_int,
    can_map: c_int,
    old_architecture: c_int,
    architecture: [c_char; 256],
    rest: [c_int; 10], // integrated, cooperative, textures
    flush: [*mut c_void; 2],
    pitch: usize,
    alignment: [usize; 2],
    flags: [c_int; 14],
}

/// From ROCm 6.0 on (R0600).
#[repr(C)]
pub struct New {
    name: [c_char; 256],
    uuid: [u8; 16],
    luid: [u8; 8],
    luid_mask: u32,
    memory: usize,
    shared: usize,
    registers: c_int,
    wave: c_int,
    pitch: usize,
    threads: c_int,
    block: [c_int; 3],
    grid: [c_int; 3],
    clock: c_int,
    constant: usize,
    major: c_int,
    minor: c_int,
    alignment: [usize; 2],
    overlap: c_int,
    units: c_int,
    timeout_integrated: [c_int; 2],
    can_map: c_int,
    compute_mode: c_int,
    textures: [c_int; 26],
    surfaces: [c_int; 14],
    surface_alignment: usize,
    concurrent_kernels: c_int,
    ecc: c_int,
    pci: [c_int; 3], // bus, device, domain
    tcc: c_int,
    copy_engines: c_int,
    one_space: c_int,
    memory_clock: c_int,
    bus: c_int,
    l2: c_int,
    l2_persisting: c_int,
    unit_threads: c_int,
    caches: [c_int; 3],
    unit_shared: usize,
    unit_registers: c_int,
    flags: [c_int; 11],
    shared_optin: usize,
    page_tables: [c_int; 2],
    unit_blocks: c_int,
    window: c_int,
    reserved_shared: usize,
    more: [c_int; 13],
    reserved: [c_int; 63],
    hip_reserved: [c_int; 32],
    architecture: [c_char; 256],
    unit_shared_again: usize,
    instruction_clock: c_int,
    features: u32,
    flush: [*mut c_void; 2],
    unmatched: [c_int; 4],
    large_bar: c_int,
    revision: c_int,
}

// The places that callers were compiled for.
const _: () = {
    assert!(std::mem::offset_of!(Old, architecture) == 396);
    assert!(std::mem::size_of::<Old>() == 792);
    assert!(std::mem::offset_of!(New, architecture) == 1160);
    assert!(std::mem::size_of::<New>() == 1472);
};

const THREADS: c_int = 1024;
const BLOCK: [c_int; 3] = [THREADS; 3];
const GRID: [c_int; 3] = [c_int::MAX, 65535, 65535];

impl Old {
    /// Of a device.
    pub fn of(model: &Model, device: u32) -> Self {
        // SAFETY: numbers and pointers, for all of which zero is a value.
        let mut p: Self = unsafe { std::mem::zeroed() };
        let _ = put_text(p.name.as_mut_ptr(), p.name.len(), model.name);
        let _ = put_text(p.architecture.as_mut_ptr(), p.architecture.len(), ARCHITECTURE);
        (p.memory, p.shared) = (model.memory as usize, model.block_shared as usize);
        (p.registers, p.wave) = (model.unit_registers as c_int, model.wave as c_int);
        (p.threads, p.block, p.grid) = (THREADS, BLOCK, GRID);
        (p.clock, p.memory_clock) = (model.clock as c_int, model.memory_clock as c_int);
        (p.bus, p.l2) = (model.bus as c_int, model.l2 as c_int);
        (p.constant, p.pitch) = (i32::MAX as usize, i32::MAX as usize);
        (p.major, p.minor, p.old_architecture) = (9, 0, 910);
        (p.units, p.unit_threads) = (model.units as c_int, model.unit_threads as c_int);
        (p.concurrent_kernels, p.can_map) = (1, 1);
        (p.pci, p.unit_shared) = ([0, device as c_int + 1, 0], model.unit_shared as usize);
        (p.instruction_clock, p.alignment) = (100_000, [256; 2]);
        p
    }
}

impl New {
    /// Of a device.
    pub fn of(model: &Model, device: u32) -> Self {
        // SAFETY: numbers and pointers, for all of which zero is a value.
        let mut p: Self = unsafe { std::mem::zeroed() };
        let _ = put_text(p.name.as_mut_ptr(), p.name.len(), model.name);
        let _ = put_text(p.architecture.as_mut_ptr(), p.architecture.len(), ARCHITECTURE);
        p.uuid = uuid_of(device);
        (p.memory, p.shared) = (model.memory as usize, model.block_shared as usize);
        (p.registers, p.wave) = (model.unit_registers as c_int, model.wave as c_int);
        (p.threads, p.block, p.grid) = (THREADS, BLOCK, GRID);
        (p.clock, p.memory_clock) = (model.clock as c_int, model.memory_clock as c_int);
        (p.bus, p.l2) = (model.bus as c_int, model.l2 as c_int);
        (p.constant, p.pitch) = (i32::MAX as usize, i32::MAX as usize);
        (p.major, p.minor) = (9, 0);
        (p.units, p.unit_threads) = (model.units as c_int, model.unit_threads as c_int);
        (p.concurrent_kernels, p.can_map, p.one_space, p.large_bar) = (1, 1, 1, 1);
        (p.pci, p.copy_engines) = ([device as c_int + 1, 0, 0], 2);
        (p.unit_shared, p.unit_shared_again) =
            (model.unit_shared as usize, model.unit_shared as usize);
        (p.shared_optin, p.unit_blocks) =
            (model.block_shared_optin as usize, model.unit_blocks as c_int);
        (p.unit_registers, p.alignment) = (model.unit_registers as c_int, [256; 2]);
        p.instruction_clock = 100_000;
        p
    }
}

/// Different for each device.
pub fn uuid_of(device: u32) -> [u8; 16] {
    let mut uuid = *b"halfstep vgpu \0\0";
    uuid[15] = device as u8;
    uuid
}
