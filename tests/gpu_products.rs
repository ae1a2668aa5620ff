//! What the main loops of products do to shared memory, counted by the virtual GPU: no access of a wave waits for
//! another, for any layout, on either vendor's banks.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::gemm_case::{Case, Data, LARGE, run};
use common::vgpu::Door;
use halfstep::gemm::{Layout, Tile};
use halfstep::{Device, Storage, bf16, f16};

/// Bank conflicts of one product of a tile's size and `k`.
fn conflicts<T: Storage>(
    device: &Device,
    door: &Door,
    (layout, tile): (Layout, Tile),
    k: usize,
) -> u64 {
    let size = Case::new(tile.rows.into(), tile.columns.into(), k);
    let case = Case { layout, tile: Some(tile), splits: 1, ..size }.on::<T>(device);
    door.launches();
    run(&case, &Data::<T, f32>::new(&case), device);
    let launches = door.launches();
    let products = launches.iter().filter(|launch| launch.kernel.contains("_product_"));
    let [product] = products.collect::<Vec<_>>()[..] else { panic!("one product: {launches:?}") };
    product.bank_conflicts
}

/// The epilogue's come once a tile, the loop's would grow with k.
#[test]
fn main_loops_have_no_bank_conflicts() {
    for device in common::gpus() {
        let Some(door) = Door::of(&device) else { continue };
        let large = |tile| [conflicts::<bf16>, conflicts::<f16>].map(|of| (tile, of));
        for (tile, of) in LARGE.into_iter().flat_map(large) {
            for layout in Layout::ALL {
                let [short, long] = [128, 320].map(|k| of(&device, &door, (layout, tile), k));
                println!(
                    "{}, {layout:?}, {tile}: {} in the loop, {short} once a tile",
                    device.info(),
                    long - short
                );
                assert_eq!(short, long, "{layout:?}, {tile} on {}", device.info());
            }
        }
    }
}
