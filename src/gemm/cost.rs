//! What a product costs a GPU, in cycles of its units: a model that is good enough to rank ways of computing it.
//!
//! `turns · (steps · step + tile) + combine`, where `turns` is how often all units are filled with blocks' work,
//! `steps` the steps of 32 of a part of k, and `combine` the launch and the traffic of adding parts. The idea, and what
//! it leaves out (clocks, caches), is that of tile and wave quantisation (NVIDIA, *Matrix Multiplication Background
//! User's Guide*, sections 4.1 and 4.2).
#![forbid(unsafe_code)]

use crate::DeviceKind;
use crate::kernel::launch;
use crate::kernel::params::gemm::{FLAG_ALIGNED, FLAG_GATED, Product};
use crate::kernel::table::gemm::{LARGE_TILE, LARGEST_TILE, MEDIUM_TILE, SMALL_TILE, Tile};

/// A unit's share of a device.
struct Unit {
    /// Multiply-adds of 16 bits a cycle.
    products: f64,
    /// Bytes of memory a cycle, of the whole device.
    bytes: f64,
    /// Cycles from one launch to the next.
    launch: f64,
}

/// An A100's multiprocessor at 1.41 GHz: 312 TFLOP/s and 1,555 GB/s by 108.
const CUDA: Unit = Unit { products: 1024.0, bytes: 1100.0, launch: 4000.0 };
/// A compute unit of an MI250X GCD at 1.7 GHz: 191.5 TFLOP/s and 1,638 GB/s by 110.
const HIP: Unit = Unit { products: 512.0, bytes: 960.0, launch: 6000.0 };

/// Cycles of a 16-bit product with `block.tile` and `block.splits`.
pub(super) fn cycles(block: &Product, kind: DeviceKind, units: usize) -> f64 {
    let unit = if kind == DeviceKind::Hip { HIP } else { CUDA };
    let tile = Tile::from_code(block.tile);
    let (elements, splits) = (f64::from(tile.elements()), f64::from(block.splits.max(1)));
    // Shares of the peak that the loops can reach, estimated: no device has been timed. The smallest tile waits for shared
    // memory (kernels/common/gemm/product.h). So does 128×64 on CUDA, whose step of 64 is 512 cycles of the matrix unit,
    // and 576 of shared memory: 24 times 512 bytes of fragments for each of four waves, and 24 KiB written. Those of 256 rows or
    // columns read three quarters of what 128×128 does of A and B for each product; 256×256 a half.
    let copied = kind == DeviceKind::Cuda && block.flags & FLAG_ALIGNED != 0;
    let share = match tile {
        SMALL_TILE if copied => 0.6,
        SMALL_TILE => 0.4,
        MEDIUM_TILE => 0.75,
        LARGE_TILE => 0.85,
        LARGEST_TILE => 0.92,
        _ => 0.9,
    };
    let step = elements * 32.0 / unit.products / share;
    let steps = (block.k.div_ceil(32) as f64 / splits).ceil();
    // Filling the pipeline, and the epilogue: about three steps, and the elements at 16 bytes a cycle.
    let ends = 3.0 * step + elements / 8.0;
    let turns = launch::tiles(block).div_ceil(units.max(1) as u64) as f64;
    let columns = if block.flags & FLAG_GATED != 0 { 2 * block.n } else { block.n };
    let combine = if block.splits > 1 {
        // Written and read once.
        unit.launch + 8.0 * splits * block.m as f64 * columns as f64 / unit.bytes
    } else {
        0.0
    };
    turns * (steps * step + ends) + combine
}
