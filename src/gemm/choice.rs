//! Which kernels compute a product on a GPU: a pure function of the parameter block and the device.
#![forbid(unsafe_code)]

use super::cost;
use crate::kernel::launch;
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::{Block, Product};
use crate::kernel::table::gemm::{LARGE_TILE, SMALL_TILE};
use crate::{Device, DeviceInfo, DeviceKind, Dtype, Error, Result};

/// A way of computing a product, and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Rows and columns of a tile.
    pub tile: u32,
    /// Parts of k.
    pub splits: u32,
    /// In words.
    pub why: &'static str,
}

/// Parts of k, at most.
const MOST_SPLITS: u32 = 64;
/// Steps of k that a part has at least, unless the caller pins more parts.
const LEAST_STEPS: u64 = 8;

/// Chooses tile and parts of k, or says why what the caller has pinned (`block.tile`, `block.splits`) cannot be.
/// Addresses that are not known yet are 0, and count as aligned.
pub(super) fn choose(
    block: &Product,
    info: &DeviceInfo,
) -> std::result::Result<Choice, &'static str> {
    let obstacle = obstacle(block, info);
    match (block.tile, obstacle) {
        (0 | SMALL_TILE | LARGE_TILE, None) | (0 | SMALL_TILE, Some(_)) => {}
        (LARGE_TILE, Some(why)) => return Err(why),
        _ => return Err("tiles are 64 or 128"),
    }
    let splits: Vec<u32> = match (block.splits, whole(block)) {
        (0, Some(_)) => vec![1],
        (0, None) => {
            let most = block.k.div_ceil(32) / LEAST_STEPS;
            (1..=MOST_SPLITS).filter(|n| *n == 1 || u64::from(*n) <= most).collect()
        }
        (1, _) => vec![1],
        (2..=MOST_SPLITS, None) => vec![block.splits],
        (2..=MOST_SPLITS, Some(why)) => return Err(why),
        _ => return Err("1 to 64 parts of k"),
    };
    let why = match (block.tile, obstacle) {
        (1.., _) => "pinned by the caller",
        (0, Some(why)) => why,
        (0, None) => "",
    };
    let tiles: &[u32] = match (block.tile, obstacle) {
        (0, None) => &[LARGE_TILE, SMALL_TILE],
        (0, Some(_)) | (SMALL_TILE, _) => &[SMALL_TILE],
        _ => &[LARGE_TILE],
    };
    let ways = tiles.iter().flat_map(|&tile| splits.iter().map(move |&splits| (tile, splits)));
    let cost = |&(tile, splits): &(u32, u32)| {
        cost::cycles(&Product { tile, splits, ..*block }, info.kind, info.units)
    };
    let best = ways.min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let (tile, splits) = best.expect("one way at least");
    let why = match (why, tile) {
        ("", LARGE_TILE) => "aligned operands, and enough tiles for all units",
        ("", _) => "large ones would leave units of the device idle",
        _ => why,
    };
    Ok(Choice { tile, splits, why })
}

/// Why k cannot be split, if so.
fn whole(block: &Product) -> Option<&'static str> {
    if block.input == Dtype::F32 as u32 {
        return Some("f32 products are one sum, with the CPU's bits");
    }
    if block.groups > 0 || block.batch != 1 {
        return Some("k is split of single products only");
    }
    None
}

/// Why the large tile's loop cannot run, if so: it copies operands as they are, 16 bytes at a time.
fn obstacle(block: &Product, info: &DeviceInfo) -> Option<&'static str> {
    let has = |flag: u32| block.flags & flag != 0;
    if block.input == Dtype::F32 as u32 {
        return Some("f32 products run on the vector unit");
    }
    if block.k == 0 {
        return Some("a sum of 0");
    }
    if block.role == params::ROLE_FUSED_A {
        return Some("A is multiplied by a derivative on its way, unless that is stored too");
    }
    let hip = info.kind == DeviceKind::Hip; // whose matrix unit flushes by itself
    if has(params::FLAG_FLUSH) && !hip {
        return Some("subnormals are flushed on the way");
    }
    let columns = if has(params::FLAG_GATED) { 2 * block.n } else { block.n };
    let a = (block.a, block.lda, block.stride_a, !has(params::FLAG_A_TRANSPOSED), block.m);
    let b = (block.b, block.ldb, block.stride_b, has(params::FLAG_B_TRANSPOSED), columns);
    for (address, ld, stride, k_together, lanes) in [a, b] {
        // Elements that one load takes, and bytes; where the gate's columns end, up's begin.
        let (elements, bytes) = if hip && !k_together { (2, 4) } else { (8, 16) };
        if address % bytes != 0 || ld % elements != 0 || stride % elements != 0 {
            return Some("an operand's address, rows or members are not aligned");
        }
        if !k_together && has(params::FLAG_GATED) && !block.n.is_multiple_of(elements) {
            return Some("the columns of up are not aligned");
        }
        if !hip {
            continue;
        }
        if (if k_together { block.k } else { lanes }) % elements != 0 {
            return Some("an operand's rows do not end where a load does");
        }
        // What a tile reads, with room for the offset of the step behind the last.
        let rows = match (k_together, has(params::FLAG_GATED)) {
            (true, false) => LARGE_TILE.into(),
            (true, true) => block.n + u64::from(LARGE_TILE),
            (false, _) => block.k + 96,
        };
        let bytes = rows.saturating_mul(ld).saturating_add(block.k).saturating_mul(2);
        if bytes >= 1 << 31 {
            return Some("a tile's part of an operand spans 2 GiB or more");
        }
    }
    None
}

/// The launches of one product, in order.
///
/// The CPU does everything in one. A GPU's product kernel reads A and writes D: what else is asked of A
/// is prepared before it, what is asked of the finished D is computed after it.
pub(super) fn launches(
    op: &'static str,
    block: &Product,
    info: &DeviceInfo,
) -> Result<[Option<Block>; 4]> {
    if info.kind == DeviceKind::Cpu {
        return Ok([None, Some(Block::Product(*block)), None, None]);
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
    // The parts of k are the plan's: an address may ask for other tiles, not for a larger workspace.
    product.tile = choose(&product, info).map_err(|why| refused(op, &product, why))?.tile;
    Ok([
        prepare.then_some(Block::Prepare(*block)),
        (block.n > 0).then_some(Block::Product(product)),
        (block.n > 0 && block.workspace != 0).then_some(Block::Combine(product)),
        finish.then_some(Block::Finish(*block)),
    ])
}

fn refused(op: &'static str, block: &Product, why: &'static str) -> Error {
    let Product { tile, splits, .. } = block;
    let pinned = match (tile, splits) {
        (tile, 0) => format!("tiles of {tile}×{tile}"),
        (0, splits) => format!("k in {splits} parts"),
        (tile, splits) => format!("tiles of {tile}×{tile}, k in {splits} parts"),
    };
    Error::unsupported(op, format!("{pinned}: {why}"))
}

/// What was pinned can be, as far as sizes say, and a launch counts tiles in 32 bits. Returns the parts of k.
pub(super) fn check(op: &'static str, block: &Product, device: &Device) -> Result<u32> {
    if device.info().kind == DeviceKind::Cpu {
        return Ok(1);
    }
    let choice = choose(block, device.info()).map_err(|why| refused(op, block, why))?;
    let tile = SMALL_TILE; // of which there are the most
    let tiles = launch::tiles(&Product { tile, splits: choice.splits, ..*block });
    if tiles <= u64::from(u32::MAX / 2) {
        return Ok(choice.splits);
    }
    let reason = format!("{tiles} tiles of {tile}×{tile}; at most {} on a GPU", u32::MAX / 2);
    Err(Error::unsupported(op, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::Layout;

    fn device(kind: DeviceKind, units: usize) -> DeviceInfo {
        let (name, arch) = (String::new(), String::new());
        let flushes_subnormals = kind == DeviceKind::Hip;
        DeviceInfo { kind, index: 0, name, arch, units, flushes_subnormals, peak: None }
    }

    fn product(layout: Layout, m: u64, n: u64, k: u64) -> Product {
        let (at, bt) = (layout.a_transposed(), layout.b_transposed());
        let flag = |set, flag| if set { flag } else { 0 };
        Product {
            lda: if at { m } else { k },
            ldb: if bt { k } else { n },
            m,
            n,
            k,
            batch: 1,
            flags: flag(at, params::FLAG_A_TRANSPOSED) | flag(bt, params::FLAG_B_TRANSPOSED),
            ..bytemuck::Zeroable::zeroed()
        }
    }

    /// The layers of Wave2Vec2-base and their gradients, with 8,000 rows (10 utterances of 16 s): forward, data
    /// gradient, weight gradient of 768 × 768, 3072 × 768 and 768 × 3072.
    #[test]
    fn training_shapes_fill_the_device() {
        for info in [device(DeviceKind::Cuda, 108), device(DeviceKind::Hip, 110)] {
            let way = |layout, m, n, k| {
                let choice = choose(&product(layout, m, n, k), &info).unwrap();
                (choice.tile, choice.splits)
            };
            assert_eq!(way(Layout::NT, 8000, 3072, 768), (128, 1));
            assert_eq!(way(Layout::NN, 8000, 768, 3072), (128, 1));
            // 36 tiles of 128 for 108 units: in three parts all have work.
            let (tile, splits) = way(Layout::TN, 768, 768, 8000);
            assert!(tile == 128 && (3..=16).contains(&splits), "{tile} {splits}");
            let (tile, splits) = way(Layout::TN, 512, 512, 8000);
            assert!(tile == 128 && (4..=32).contains(&splits), "{tile} {splits}");
            // Enough tiles, or too short a sum: one part.
            assert_eq!(way(Layout::TN, 4096, 4096, 8000).1, 1);
            assert_eq!(way(Layout::NT, 256, 256, 64).1, 1);
            let f32s = Product { input: Dtype::F32 as u32, ..product(Layout::TN, 512, 512, 8000) };
            assert_eq!(choose(&f32s, &info).unwrap().splits, 1);
            let batch = Product { batch: 2, ..product(Layout::TN, 512, 512, 8000) };
            assert_eq!(choose(&batch, &info).unwrap().splits, 1);
            assert!(choose(&Product { splits: 2, ..batch }, &info).is_err());
        }
    }

    #[test]
    fn what_the_large_tile_cannot_do_is_said() {
        let cuda = device(DeviceKind::Cuda, 1);
        let hip = device(DeviceKind::Hip, 1);
        let fine = product(Layout::NN, 512, 512, 512);
        for info in [&cuda, &hip] {
            assert_eq!(choose(&fine, info).unwrap().tile, 128);
            for bad in [
                Product { a: 2, ..fine },
                Product { lda: 513, ..fine },
                Product { stride_b: 511, batch: 2, ..fine },
                Product { input: Dtype::F32 as u32, ..fine },
                Product { role: params::ROLE_FUSED_A, ..fine },
                Product { k: 0, ..fine },
            ] {
                assert_eq!(choose(&bad, info).unwrap().tile, 64);
                assert!(choose(&Product { tile: 128, ..bad }, info).is_err());
                assert_eq!(choose(&Product { tile: 64, ..bad }, info).unwrap().tile, 64);
            }
            assert!(choose(&Product { tile: 96, ..fine }, info).is_err());
        }
        // Only one of the two takes these.
        let flush = Product { flags: params::FLAG_FLUSH, ..fine };
        let tail = Product { k: 509, ..fine };
        let pairs = Product { ldb: 514, n: 514, ..fine };
        assert_eq!([&cuda, &hip].map(|info| choose(&flush, info).unwrap().tile), [64, 128]);
        assert_eq!([&cuda, &hip].map(|info| choose(&tail, info).unwrap().tile), [128, 64]);
        assert_eq!([&cuda, &hip].map(|info| choose(&pairs, info).unwrap().tile), [64, 128]);
    }
}
