//! Which kernels compute a product on a GPU: a pure function of the parameter block and the device.
#![forbid(unsafe_code)]

use super::cost;
use crate::kernel::launch;
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::{Block, Product};
use crate::kernel::table::gemm::{self as rows, SMALL_TILE, Tile, WIDE_TILE};
use crate::kernel::table::{CUDA, HIP};
use crate::{Device, DeviceInfo, DeviceKind, Dtype, Error, Result};

/// A way of computing a product, and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// What a block computes at a time.
    pub tile: Tile,
    /// Parts of k.
    pub splits: u32,
    /// Whether A and B can be copied as they are, 16 bytes at a time or 4.
    pub aligned: bool,
    /// Bytes that A's and B's addresses, rows and members are multiples of: 16, 4, or an element's.
    pub bytes: u64,
    /// Whether different columns start k at different steps.
    pub rotated: bool,
    /// In words.
    pub why: &'static str,
}

/// Parts of k, at most.
const MOST_SPLITS: u32 = 64;
/// Rows or columns that a tile has at most.
const MOST_LANES: u64 = WIDE_TILE.columns as u64;
/// Steps of k that a part has at least, unless the caller pins more parts.
const LEAST_STEPS: u64 = 8;
/// Bytes from row to row, or a multiple, that make sums be rotated.
const ROTATED_ROWS: u64 = 4096;
/// Columns of D whose sums start at one step of k: as many as the widest tile has.
pub(super) const ROTATED_COLUMNS: u64 = 256;

/// Chooses tile and parts of k, or says why what the caller has pinned (`block.tile`, `block.splits`) cannot be.
/// Addresses that are not known yet are 0, and count as aligned.
pub(super) fn choose(block: &Product, info: &DeviceInfo) -> std::result::Result<Choice, String> {
    let obstacle = obstacle(block, info);
    let block = &with_flag(block, params::FLAG_ALIGNED, obstacle.is_none());
    let pinned = (block.tile != 0).then(|| Tile::from_code(block.tile));
    let there = tiles(block, info.kind);
    let tiles = match (pinned, obstacle) {
        (None, None) => there,
        (None, Some(_)) => vec![SMALL_TILE],
        (Some(tile), _) if !there.contains(&tile) => {
            let list: Vec<String> = there.iter().map(Tile::to_string).collect();
            return Err(format!(
                "what there is for these types and layouts is {}",
                list.join(", ")
            ));
        }
        // A sum of 0 has no order, and the same bits in every tile.
        (Some(_), _) if block.k == 0 => vec![SMALL_TILE],
        (Some(tile), Some(why)) if tile != SMALL_TILE => return Err(why.into()),
        (Some(tile), _) => vec![tile],
    };
    let splits: Vec<u32> = match (block.splits, whole(block)) {
        (0, Some(_)) => vec![1],
        (0, None) => {
            let most = block.k.div_ceil(32) / LEAST_STEPS;
            (1..=MOST_SPLITS).filter(|n| *n == 1 || u64::from(*n) <= most).collect()
        }
        (1, _) => vec![1],
        (2..=MOST_SPLITS, None) => vec![block.splits],
        (2..=MOST_SPLITS, Some(why)) => return Err(why.into()),
        _ => return Err(too_many()),
    };
    let only_small = tiles == [SMALL_TILE];
    let ways = tiles.iter().flat_map(|&tile| splits.iter().map(move |&splits| (tile, splits)));
    let cost = |&(tile, splits): &(Tile, u32)| {
        cost::cycles(&Product { tile: tile.code(), splits, ..*block }, info.kind, info.units)
    };
    let best = ways.min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let (tile, splits) = best.expect("one way at least");
    let why = match (pinned, obstacle) {
        (Some(pinned), _) if pinned == tile => "pinned by the caller",
        (_, Some(why)) => why,
        (_, None) if only_small => "the only ones for an A and a B that are both stored transposed",
        (_, None) if tile == SMALL_TILE => "large ones would leave units of the device idle",
        (_, None) => "aligned operands, and the least time by the cost model",
    };
    let rotated = rotates(&Product { splits, ..*block }, info);
    let bytes = alignment(block);
    Ok(Choice { tile, splits, aligned: obstacle.is_none(), bytes, rotated, why })
}

/// The tiles that there are for a block's types and layout.
fn tiles(block: &Product, kind: DeviceKind) -> Vec<Tile> {
    let has = |flag: u32| block.flags & flag != 0;
    let (a, b) = (has(params::FLAG_A_TRANSPOSED), has(params::FLAG_B_TRANSPOSED));
    let target = match kind {
        DeviceKind::Cuda => CUDA,
        DeviceKind::Hip => HIP,
        DeviceKind::Cpu => "", // has tiles of its own; these are for words
    };
    rows::tiles(block.multiplied(), a, b, target)
}

fn with_flag(block: &Product, flag: u32, set: bool) -> Product {
    Product { flags: block.flags & !flag | if set { flag } else { 0 }, ..*block }
}

/// Whether different columns start k at different steps, which the caller has not forbidden: where rows that hold k side
/// by side lie a multiple of 4 KiB apart, and an MI250X would read the same steps of all of them from the same channels
/// of memory. (Tensile's StaggerU; NVIDIA's addresses are hashed.) Neither the tile nor an address decides, so that an
/// element's order of summation does not depend on them; nor do rows.
fn rotates(block: &Product, info: &DeviceInfo) -> bool {
    let has = |flag: u32| block.flags & flag != 0;
    let apart = |ld: u64| ld.is_multiple_of(ROTATED_ROWS / 2);
    let a = !has(params::FLAG_A_TRANSPOSED) && apart(block.lda);
    let b = has(params::FLAG_B_TRANSPOSED) && apart(block.ldb);
    info.kind == DeviceKind::Hip
        && has(params::FLAG_ROTATED)
        && block.input != Dtype::F32 as u32
        && (a || b)
        && block.n > ROTATED_COLUMNS
        && block.k.div_ceil(32) / u64::from(block.splits.max(1)) >= LEAST_STEPS
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

/// Where A and B lie: address, leading dimension, stride, whether k is side by side, and lanes.
fn operands(block: &Product) -> [(u64, u64, u64, bool, u64); 2] {
    let has = |flag: u32| block.flags & flag != 0;
    let columns = if has(params::FLAG_GATED) { 2 * block.n } else { block.n };
    [
        (block.a, block.lda, block.stride_a, !has(params::FLAG_A_TRANSPOSED), block.m),
        (block.b, block.ldb, block.stride_b, has(params::FLAG_B_TRANSPOSED), columns),
    ]
}

/// Bytes that addresses, rows and members of A and B are multiples of: 16, 4, or an element's. Where the gate's columns
/// end, up's begin.
fn alignment(block: &Product) -> u64 {
    let element = if block.input == Dtype::F32 as u32 { 4 } else { 2 };
    let gated = block.flags & params::FLAG_GATED != 0;
    let fits = |bytes: u64| {
        let elements = bytes / element;
        operands(block).iter().all(|&(address, ld, stride, k_together, _)| {
            let columns = if gated && !k_together { block.n } else { 0 };
            address.is_multiple_of(bytes)
                && [ld, stride, columns].iter().all(|size| size.is_multiple_of(elements))
        })
    };
    [16, 4].into_iter().find(|&bytes| fits(bytes)).unwrap_or(element)
}

/// Why the loop of the larger tiles cannot run, nor on CUDA the faster one of the smallest, if so: it copies operands
/// as they are, 16 bytes at a time or 4.
fn obstacle(block: &Product, info: &DeviceInfo) -> Option<&'static str> {
    let has = |flag: u32| block.flags & flag != 0;
    if block.input == Dtype::F32 as u32 {
        return Some("f32 products have tiles of 64×64");
    }
    if block.k == 0 {
        return Some("a sum of 0");
    }
    if block.role == params::ROLE_FUSED_A {
        return Some("A is multiplied by a derivative on its way, unless that is stored too");
    }
    if has(params::FLAG_THROUGH_BF16) {
        return Some("f16 operands become bf16 on their way");
    }
    let hip = info.kind == DeviceKind::Hip; // whose matrix unit flushes by itself
    if has(params::FLAG_FLUSH) && !hip {
        return Some("subnormals are flushed on the way");
    }
    if alignment(block) < 4 {
        return Some("an operand's address, rows or members are not aligned");
    }
    for (_, ld, _, k_together, lanes) in operands(block) {
        if !hip {
            continue;
        }
        // Elements that one load takes.
        let (side_by_side, elements) = if k_together { (block.k, 8) } else { (lanes, 2) };
        if side_by_side % elements != 0 {
            return Some("an operand's rows do not end where a load does");
        }
        // What a tile reads, with room for the offset of the step behind the last.
        let rows = match (k_together, has(params::FLAG_GATED)) {
            (true, false) => MOST_LANES,
            (true, true) => block.n + MOST_LANES,
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
/// The CPU does everything in one. Of a GPU's, what is multiplied by a derivative and wanted by itself is prepared before
/// the product, parts of k are added after it. Statistics are the affair of whichever launch stores what they are of.
pub(super) fn launches(
    op: &'static str,
    block: &Product,
    info: &DeviceInfo,
) -> Result<[Option<Block>; 3]> {
    if info.kind == DeviceKind::Cpu {
        return Ok([None, Some(Block::Product(*block)), None]);
    }
    // Sums of an A that is multiplied as it is are taken beside the product.
    let beside = block.fused_a == 0 && block.role != params::ROLE_FUSED_A && block.n > 0;
    let prepare = block.fused_a != 0 || block.a_sums != 0 && !beside;
    let mut product = Product { a_sums: if beside { block.a_sums } else { 0 }, ..*block };
    if block.fused_a != 0 {
        // The derivative has been applied, and subnormals are flushed.
        (product.a, product.lda) = (block.fused_a, block.ldf);
        if block.role == params::ROLE_FUSED_A {
            (product.role, product.z) = (params::ROLE_FORWARD, 0);
            product.activation = crate::gemm::Activation::None as u32;
        }
    }
    // The parts of k are the plan's: an address may ask for other tiles, not for a larger workspace.
    let Choice { tile, aligned, bytes, rotated, .. } =
        choose(&product, info).map_err(|why| refused(op, &product, why))?;
    product = with_flag(&product, params::FLAG_ALIGNED, aligned);
    product = with_flag(&product, params::FLAG_PAIRS, aligned && bytes == 4);
    product = Product { tile: tile.code(), ..with_flag(&product, params::FLAG_ROTATED, rotated) };
    Ok([
        prepare.then_some(Block::Prepare(*block)),
        (block.n > 0).then_some(Block::Product(product)),
        (block.n > 0 && block.workspace != 0).then_some(Block::Combine(product)),
    ])
}

fn too_many() -> String {
    format!("1 to {MOST_SPLITS} parts of k")
}

fn refused(op: &'static str, block: &Product, why: String) -> Error {
    let Product { tile: code, splits, .. } = *block;
    let tile = Tile::from_code(code);
    let pinned = match (code, splits) {
        (_, 0) => format!("tiles of {tile}"),
        (0, splits) => format!("k in {splits} parts"),
        (_, splits) => format!("tiles of {tile}, k in {splits} parts"),
    };
    Error::unsupported(op, format!("{pinned}: {why}"))
}

/// What was pinned can be, as far as sizes say, and a launch counts tiles in 32 bits. Returns the parts of k.
pub(super) fn check(op: &'static str, block: &Product, device: &Device) -> Result<u32> {
    if block.splits > MOST_SPLITS {
        return Err(refused(op, block, too_many()));
    }
    if device.info().kind == DeviceKind::Cpu {
        return Ok(1);
    }
    // Whether the product of A and a derivative is stored, and multiplied as it is, an address will say.
    let as_stored = block.tile != 0 && block.role == params::ROLE_FUSED_A;
    let role = if as_stored { params::ROLE_FORWARD } else { block.role };
    let choice = choose(&Product { role, ..*block }, device.info());
    let choice = choice.map_err(|why| refused(op, block, why))?;
    let tile = SMALL_TILE; // of which there are the most
    let tiles = launch::tiles(&Product { tile: tile.code(), splits: choice.splits, ..*block });
    if tiles <= u64::from(u32::MAX / 2) {
        return Ok(choice.splits);
    }
    let reason = format!("{tiles} tiles of {tile}; at most {} on a GPU", u32::MAX / 2);
    Err(Error::unsupported(op, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::Layout;
    use crate::kernel::table::gemm::{LARGE_TILE, LARGEST_TILE, MEDIUM_TILE, TALL_TILE};

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
            let cuda = info.kind == DeviceKind::Cuda;
            // 756 lying tiles are seven turns of 108 units to the last, 768 standing ones are eight; of 110, seven each.
            let wide = if cuda { WIDE_TILE } else { TALL_TILE };
            // 96 tiles of 256×256 are one turn, 192 of 256×128 two.
            let tall = if cuda { TALL_TILE } else { LARGEST_TILE };
            for layout in [Layout::NT, Layout::NN] {
                assert_eq!(way(layout, 8000, 3072, 768), (wide, 1));
                assert_eq!(way(layout, 8000, 768, 3072), (tall, 1));
                assert_eq!(way(layout, 8000, 768, 768), (tall, 1));
            }
            // 36 tiles of 128×128: in three parts all units have work. So they have with 72 of 256×128 or 36 of 256×256.
            assert_eq!(way(Layout::TN, 768, 768, 8000), (LARGE_TILE, 3));
            assert_eq!(way(Layout::TN, 3072, 768, 8000), (tall, 3));
            assert_eq!(way(Layout::TN, 768, 3072, 8000), (tall, 3));
            // As many blocks as with 16 tiles of 128×128 in six parts, and half the sums to add.
            let few = if cuda { (MEDIUM_TILE, 3) } else { (LARGE_TILE, 6) };
            assert_eq!(way(Layout::TN, 512, 512, 8000), few);
            assert_eq!(way(Layout::NT, 512, 512, 512), (SMALL_TILE, 1));
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

    /// By 16 bytes, by 4 and by 2: what the address, the rows, the members and the columns of up are all multiples of.
    #[test]
    fn operands_are_read_by_what_they_are_aligned_to() {
        for info in [device(DeviceKind::Cuda, 1), device(DeviceKind::Hip, 1)] {
            let way = |block: Product| {
                let choice = choose(&block, &info).unwrap();
                (choice.bytes, choice.aligned)
            };
            let fine = product(Layout::NN, 512, 512, 512);
            let gated = Product { flags: fine.flags | params::FLAG_GATED, ldb: 1024, ..fine };
            for (block, bytes) in [
                (fine, 16),
                (Product { ldb: 520, ..fine }, 16),
                (Product { a: 32, b: 4, ..fine }, 4),
                (Product { lda: 514, ..fine }, 4),
                (Product { ldb: 518, n: 518, ..fine }, 4),
                (Product { batch: 2, stride_b: 512 * 512 + 2, ..fine }, 4),
                (Product { a: 4, ldb: 513, ..fine }, 2),
                (Product { b: 2, ..fine }, 2),
                (gated, 16),
                (Product { n: 510, ..gated }, 4),
                (Product { n: 509, ..gated }, 2),
            ] {
                assert_eq!(way(block), (bytes, bytes > 2), "{block:?}");
            }
            let f32s = Product { input: Dtype::F32 as u32, ..fine };
            assert_eq!(way(f32s), (16, false));
            assert_eq!(way(Product { lda: 513, ..f32s }), (4, false));
            let pairs = Product { lda: 514, ..fine };
            let [_, Some(Block::Product(launched)), ..] = launches("gemm", &pairs, &info).unwrap()
            else {
                panic!("no product")
            };
            let both = params::FLAG_PAIRS | params::FLAG_ALIGNED;
            assert_eq!(launched.flags & both, both);
        }
    }

    /// Rows of 4 KiB: an operand that holds k side by side, 16 bits, AMD's memory, enough columns and steps.
    #[test]
    fn sums_are_rotated_where_rows_share_channels() {
        let [cuda, hip] = [DeviceKind::Cuda, DeviceKind::Hip].map(|kind| device(kind, 110));
        let product = |layout, m, n, k| {
            let block = product(layout, m, n, k);
            Product { flags: block.flags | params::FLAG_ROTATED, ..block }
        };
        let rotated = |block: &Product, info| choose(block, info).unwrap().rotated;
        let fine = product(Layout::NT, 512, 512, 2048);
        assert!(rotated(&fine, &hip) && !rotated(&fine, &cuda));
        for layout in Layout::ALL {
            // Of a weight gradient, both operands hold rows or columns side by side.
            assert_eq!(rotated(&product(layout, 512, 512, 2048), &hip), layout != Layout::TN);
        }
        // Whatever the number of rows, the tile and the address.
        for same in [
            Product { m: 1, ..fine },
            Product { m: 100_000, ..fine },
            Product { a: 2, ..fine },
            Product { tile: LARGE_TILE.code(), ..fine },
            Product { tile: SMALL_TILE.code(), ..fine },
            Product { lda: 2056, ..fine },
            Product { ldb: 2056, ..fine },
            Product { splits: 8, ..fine },
        ] {
            assert!(rotated(&same, &hip), "{same:?}");
        }
        for not in [
            Product { flags: fine.flags & !params::FLAG_ROTATED, ..fine },
            Product { input: Dtype::F32 as u32, ..fine },
            Product { n: 256, ..fine },
            Product { k: 224, ..fine },
            Product { splits: 9, ..fine },
            Product { lda: 2056, ldb: 2056, ..fine },
            product(Layout::NT, 512, 512, 768),
            product(Layout::NT, 512, 512, 3072),
        ] {
            assert!(!rotated(&not, &hip), "{not:?}");
        }
    }

    #[test]
    fn what_the_large_tile_cannot_do_is_said() {
        let cuda = device(DeviceKind::Cuda, 1);
        let hip = device(DeviceKind::Hip, 1);
        let fine = product(Layout::NN, 512, 512, 512);
        for info in [&cuda, &hip] {
            assert_eq!(
                choose(&Product { tile: LARGE_TILE.code(), ..fine }, info).unwrap().tile,
                LARGE_TILE
            );
            let small = Product { tile: SMALL_TILE.code(), ..fine };
            assert!(choose(&small, info).unwrap().aligned);
            for bad in [
                Product { a: 2, ..fine },
                Product { lda: 513, ..fine },
                Product { stride_b: 511, batch: 2, ..fine },
                Product { input: Dtype::F32 as u32, ..fine },
                Product { role: params::ROLE_FUSED_A, ..fine },
                Product { input: Dtype::F16 as u32, flags: params::FLAG_THROUGH_BF16, ..fine },
            ] {
                let way = choose(&bad, info).unwrap();
                assert_eq!((way.tile, way.aligned), (SMALL_TILE, false));
                for tile in tiles(&bad, info.kind) {
                    let way = choose(&Product { tile: tile.code(), ..bad }, info);
                    assert_eq!(way.map(|way| way.tile).ok(), (tile == SMALL_TILE).then_some(tile));
                }
            }
            let empty = Product { k: 0, tile: LARGE_TILE.code(), ..fine };
            let way = choose(&empty, info).unwrap();
            assert_eq!((way.tile, way.aligned, way.why), (SMALL_TILE, false, "a sum of 0"));
            // Each has one tile of its own, and both have the smallest alone where A and B are both transposed.
            let [own, other] = match info.kind {
                DeviceKind::Cuda => [MEDIUM_TILE, LARGEST_TILE],
                _ => [LARGEST_TILE, MEDIUM_TILE],
            };
            let both = product(Layout::TT, 512, 512, 512);
            for tile in Tile::ALL {
                let pinned = |block| choose(&Product { tile: tile.code(), ..block }, info);
                match pinned(fine) {
                    Ok(way) => assert_eq!((way.tile, way.why), (tile, "pinned by the caller")),
                    Err(why) => {
                        assert!(tile == other && why.contains(&own.to_string()), "{why}");
                    }
                }
                match pinned(both) {
                    Ok(way) => assert!(way.tile == SMALL_TILE && way.aligned),
                    Err(why) => assert!(tile != SMALL_TILE && why.ends_with(" 64×64"), "{why}"),
                }
            }
            assert!(choose(&both, info).unwrap().why.contains("both stored transposed"));
            let none = Tile::new(64, 128).code();
            assert!(choose(&Product { tile: none, ..fine }, info).unwrap_err().contains("256×128"));
        }
        // Only one of the two takes these.
        let flush = Product { flags: params::FLAG_FLUSH, ..fine };
        let tail = Product { k: 509, ..fine };
        for (product, large) in [(flush, [false, true]), (tail, [true, false])] {
            let tiles = [&cuda, &hip].map(|info| choose(&product, info).unwrap().tile);
            assert_eq!(tiles.map(|tile| tile != SMALL_TILE), large, "{tiles:?}");
        }
    }
}
