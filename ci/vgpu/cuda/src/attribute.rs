//! A device's attributes by number.

use halfstep_vgpu::driver::model::Model;

/// The value of an attribute; none for a number that does not exist. What a device does not have is
/// zero.
pub fn attribute(model: &Model, number: u32, device: u32) -> Option<i32> {
    let value = match number {
        1 => 1024,                       // threads of a block
        2 | 3 => 1024,                   // block x, y
        4 => 64,                         // block z
        5 => i32::MAX as u32,            // grid x
        6 | 7 => 65535,                  // grid y, z
        8 => model.block_shared,         // shared memory of a block
        9 => 64 << 10,                   // constant memory
        10 => model.wave,                // lanes of a warp
        11 => i32::MAX as u32,           // pitch
        12 | 82 => model.unit_registers, // registers of a block, of a multiprocessor
        13 => model.clock,               // kHz
        14 => 512,                       // texture alignment
        15 | 19 | 31 | 32 | 41 => 1, // overlap, mapped memory, concurrent kernels, ECC, one address space
        16 => model.units,           // multiprocessors
        33 => device + 1,            // PCI bus
        36 => model.memory_clock,    // kHz
        37 => model.bus,             // bits
        38 => model.l2,              // bytes
        39 => model.unit_threads,    // threads of a multiprocessor
        40 => 3,                     // copy engines
        75 => 8,                     // compute capability
        76 => 0,
        78..=80 => 1,                       // priorities, caches
        81 => model.unit_shared,            // shared memory of a multiprocessor
        87 => 2,                            // f32 to f64 rate
        90 | 91 | 99 => 1, // preemption, pointers of registered memory, registering
        97 => model.block_shared_optin, // shared memory of a block that asks
        106 => model.unit_blocks, // blocks of a multiprocessor
        111 => model.block_shared_reserved, // shared memory that each block costs
        115 => 1,          // memory pools
        _ if number <= 150 => 0,
        _ => return None,
    };
    Some(value as i32)
}
