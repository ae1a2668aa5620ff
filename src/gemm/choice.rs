//! Which kernels compute a product on a GPU: a pure function of the parameter block and the device.
#![forbid(unsafe_code)]

use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::{Block, Product};
use crate::kernel::{launch, table};
use crate::{Device, DeviceInfo, DeviceKind, Error, Result};

/// A tile, and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Rows and columns.
    pub tile: u32,
    /// In words.
    pub why: &'static str,
}

/// Chooses the tile. Addresses that are not known yet are 0, and count as aligned.
pub(super) fn choose(_block: &Product, _info: &DeviceInfo) -> Choice {
    Choice { tile: table::gemm::SMALL_TILE, why: "the path that takes every product" }
}

/// The launches of one product, in order.
///
/// The CPU does everything in one. A GPU's product kernel reads A and writes D: what else is asked of A
/// is prepared before it, what is asked of the finished D is computed after it.
pub(super) fn launches(block: &Product, info: &DeviceInfo) -> [Option<Block>; 3] {
    if info.kind == DeviceKind::Cpu {
        return [None, Some(Block::Product(*block)), None];
    }
    let prepare = block.fused_a != 0 || block.a_sums != 0;
    let finish = block.copy != 0 || block.partials != 0 || block.a_sums_partials != 0;
    let mut product = *block;
    if block.fused_a != 0 {
        // The derivative has been applied, and subnormals are flushed.
        (product.a, product.lda) = (block.fused_a, block.ldf);
        if block.role == params::ROLE_FUSED_A {
            (product.role, product.z) = (params::ROLE_FORWARD, 0);
            product.activation = crate::gemm::Activation::None as u32;
        }
    }
    product.tile = choose(&product, info).tile;
    [
        prepare.then_some(Block::Prepare(*block)),
        (block.n > 0).then_some(Block::Product(product)),
        finish.then_some(Block::Finish(*block)),
    ]
}

/// A launch counts tiles in 32 bits.
pub(super) fn check(op: &'static str, block: &Product, device: &Device) -> Result<()> {
    if device.info().kind == DeviceKind::Cpu {
        return Ok(());
    }
    let tile = table::gemm::SMALL_TILE;
    let tiles = launch::tiles(&Product { tile, ..*block });
    if tiles <= u64::from(u32::MAX / 2) {
        return Ok(());
    }
    let reason = format!("{tiles} tiles of {tile}×{tile}; at most {} on a GPU", u32::MAX / 2);
    Err(Error::unsupported(op, reason))
}
