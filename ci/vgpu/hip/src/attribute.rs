//! A device's attributes by number.

use halfstep_vgpu::driver::model::Model;

/// The value of an attribute; none for a number that does not exist. What a device does not have is
/// zero.
pub fn attribute(model: &Model, number: u32, device: u32) -> Option<i32> {
    let value = match number {
        2 => 2,                     // copy engines
        3 | 8 | 12 => 1,            // mapped memory, concurrent kernels, overlap
        5 => model.clock,           // kHz
        19 => model.l2,             // bytes
        23 => 9,                    // gfx90a
        25 => model.unit_blocks,    // blocks of a unit
        26..=28 | 55 | 56 => 1024,  // threads of a block
        29 => i32::MAX as u32,      // grid x
        30 | 31 => 65535,           // grid y, z
        57 => model.unit_threads,   // threads of a unit
        58 | 83 => i32::MAX as u32, // pitch, constant memory
        59 => model.bus,            // bits
        60 => model.memory_clock,   // kHz
        61 => 0,
        63 | 10015 => model.units,       // compute units
        67 => device + 1,                // PCI bus
        71 | 72 => model.unit_registers, // registers
        74 | 75 => model.block_shared,   // LDS of a block
        76 | 10002 => model.unit_shared, // LDS of a unit
        78 | 85 | 88 => 1,               // priorities, one address space, memory pools
        81 | 82 => 256,                  // alignments
        84 => i32::MAX as u32,           // memory: more than the number holds
        87 => model.wave,                // lanes of a wave
        10003 => 910,                    // the old number of the architecture
        10011 | 10016 => 1,              // large BAR, fine grain
        10017 => 100_000,                // wall clock, kHz
        _ if matches!(number, 0..=120 | 10000..=10050) => 0,
        _ => return None,
    };
    Some(value as i32)
}
