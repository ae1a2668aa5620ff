//! What the main loops of products do to shared memory, counted by the virtual GPU: no access of a wave waits for
//! another, for any layout, on either vendor's banks.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::gemm_case::{Case, Data, run};
use common::vgpu::Door;
use halfstep::gemm::Layout;
use halfstep::{Device, Storage, bf16, f16};

/// Bank conflicts of one product of 128×128×`k`.
fn conflicts<T: Storage>(device: &Device, door: &Door, layout: Layout, k: usize) -> u64 {
    let case = Case { layout, tile: 128, splits: 1, ..Case::new(128, 128, k) }.on::<T>(device);
    door.launches();
    run(&case, &Data::<T, f32>::new(&case), device);
    let launches = door.launches();
    let products = launches.iter().filter(|launch| launch.kernel.ends_with("_128"));
    let [product] = products.collect::<Vec<_>>()[..] else { panic!("one product: {launches:?}") };
    product.bank_conflicts
}

/// The epilogue's come once a tile, the loop's would grow with k.
#[test]
fn main_loops_have_no_bank_conflicts() {
    for device in common::gpus() {
        let Some(door) = Door::of(&device) else { continue };
        for layout in Layout::ALL {
            for of in [conflicts::<bf16>, conflicts::<f16>] {
                let [short, long] = [128, 320].map(|k| of(&device, &door, layout, k));
                println!(
                    "{}, {layout:?}: {} in the loop, {short} once a tile",
                    device.info(),
                    long - short
                );
                assert_eq!(short, long, "{layout:?} on {}", device.info());
            }
        }
    }
}
