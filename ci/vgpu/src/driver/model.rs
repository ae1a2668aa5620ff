//! The devices that are imitated.

/// Which vendor's code a device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// PTX.
    Nvidia,
    /// gfx90a code objects.
    Amd,
}

/// What a device is like.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Whose code it runs.
    pub vendor: Vendor,
    /// Its name; that it is virtual can be seen.
    pub name: &'static str,
    /// Bytes of memory.
    pub memory: u64,
    /// Multiprocessors or compute units.
    pub units: u32,
    /// Lanes of a wave.
    pub wave: u32,
    /// Threads that a unit holds.
    pub unit_threads: u32,
    /// Blocks that a unit holds.
    pub unit_blocks: u32,
    /// Registers of a unit.
    pub unit_registers: u32,
    /// Bytes of shared memory of a unit.
    pub unit_shared: u32,
    /// Bytes of shared memory that a block gets without asking.
    pub block_shared: u32,
    /// Bytes of shared memory that a block gets if it asks.
    pub block_shared_optin: u32,
    /// Bytes of shared memory that each block costs beside its own.
    pub block_shared_reserved: u32,
    /// Clock, kHz.
    pub clock: u32,
    /// Memory clock, kHz.
    pub memory_clock: u32,
    /// Bits of the memory bus.
    pub bus: u32,
    /// Bytes of the last cache.
    pub l2: u32,
}

/// An A100-SXM4-40GB.
pub const A100: Model = Model {
    vendor: Vendor::Nvidia,
    name: "NVIDIA A100-SXM4-40GB (virtual)",
    memory: 42_505_273_344,
    units: 108,
    wave: 32,
    unit_threads: 2048,
    unit_blocks: 32,
    unit_registers: 65536,
    unit_shared: 164 << 10,
    block_shared: 48 << 10,
    block_shared_optin: 163 << 10,
    block_shared_reserved: 1 << 10,
    clock: 1_410_000,
    memory_clock: 1_215_000,
    bus: 5120,
    l2: 40 << 20,
};

/// One of the two dies of an MI250X.
pub const MI250X: Model = Model {
    vendor: Vendor::Amd,
    name: "AMD Instinct MI250X (virtual)",
    memory: 64 << 30,
    units: 110,
    wave: 64,
    unit_threads: 2048,
    unit_blocks: 32,
    unit_registers: 65536,
    unit_shared: 64 << 10,
    block_shared: 64 << 10,
    block_shared_optin: 64 << 10,
    block_shared_reserved: 0,
    clock: 1_700_000,
    memory_clock: 1_600_000,
    bus: 4096,
    l2: 8 << 20,
};
