//! The main loops of products. What they do to shared memory, counted by the virtual GPU: no access of a wave waits
//! for another, for any layout, on either vendor's banks. And which runs where, with which bits.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use std::sync::{Mutex, PoisonError};

use common::data::Distribution;
use common::gemm_case::{Case, Data, Role, SMALL, Written, large, run};
use common::vgpu::{Door, Launched};
use halfstep::gemm::{Activation, Layout, Tile};
use halfstep::{Device, DeviceKind, Storage, bf16, f16};

/// Tests take turns: the door has one list of launches.
static TURN: Mutex<()> = Mutex::new(());

/// What a case writes, and what its product did.
fn observed<T: Storage>(case: &Case, device: &Device, door: &Door) -> (Written<T, f32>, Launched) {
    let case = &case.on::<T>(device);
    door.launches();
    let written = run(case, &Data::new(case), device);
    let mut products = door.launches();
    products.retain(|launch| launch.kernel.contains("_product_"));
    assert_eq!(products.len(), 1, "{products:?}");
    (written, products.remove(0))
}

/// Bank conflicts of one product of a tile's size and `k`, operands aligned to 16 bytes or, `pairs`, to 4.
fn conflicts<T: Storage>(
    device: &Device,
    door: &Door,
    (layout, tile, pairs): (Layout, Tile, bool),
    k: usize,
) -> u64 {
    let size = Case::new(tile.rows.into(), tile.columns.into(), k);
    let shift = if pairs { 2 } else { 0 };
    let case = Case { layout, tile: Some(tile), splits: 1, pairs, shift, ..size };
    observed::<T>(&case, device, door).1.bank_conflicts
}

/// The epilogue's come once a tile, the loop's would grow with k.
#[test]
fn main_loops_have_no_bank_conflicts() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in common::gpus() {
        let Some(door) = Door::of(&device) else { continue };
        for of in [conflicts::<bf16>, conflicts::<f16>] {
            let tiles = |layout| large(layout, &device).into_iter().chain([SMALL]);
            let ways = Layout::ALL.into_iter().flat_map(|l| tiles(l).map(move |tile| (l, tile)));
            for (layout, tile, pairs) in ways.flat_map(|(l, t)| [(l, t, false), (l, t, true)]) {
                let [short, long] =
                    [128, 320].map(|k| of(&device, &door, (layout, tile, pairs), k));
                println!(
                    "{}, {layout:?}, {tile}, aligned to {}: {} in the loop, {short} once a tile",
                    device.info(),
                    if pairs { 4 } else { 16 },
                    long - short
                );
                assert_eq!(short, long, "{layout:?}, {tile} on {}", device.info());
            }
        }
        // f32 products are the matrix unit's on one vendor only.
        for layout in Layout::ALL.into_iter().filter(|_| device.info().kind == DeviceKind::Hip) {
            let [short, long] =
                [128, 320].map(|k| conflicts::<f32>(&device, &door, (layout, SMALL, false), k));
            println!("{}, {layout:?}, f32: {} in the loop", device.info(), long - short);
            assert_eq!(short, long, "{layout:?}, f32 on {}", device.info());
        }
    }
}

/// The smallest tile takes aligned operands by copies in the background where the device has that loop (CUDA), and all
/// others through registers: sums have one order, so both give the same bits.
#[test]
fn both_loops_of_the_smallest_tile_have_the_same_bits() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in common::gpus() {
        let Some(door) = Door::of(&device) else { continue };
        let cuda = device.info().kind == DeviceKind::Cuda;
        let mut copied = 0;
        for (layout, data) in
            Layout::ALL.into_iter().flat_map(|l| Distribution::REAL.map(|data| (l, data)))
        {
            for (role, k) in [(Role::Forward, 300), (Role::Derivative, 33), (Role::Gated, 231)] {
                let activation = Activation::Relu;
                let case =
                    Case { layout, data, role, activation, bias: true, ..Case::new(70, 88, k) };
                let case = Case { tile: Some(SMALL), splits: 1, aligned: true, ..case };
                let (here, fast) = observed::<bf16>(&case, &device, &door);
                let (there, slow) = observed::<bf16>(&Case { shift: 1, ..case }, &device, &door);
                assert!(here.bits() == there.bits(), "{case:?} on {}", device.info());
                // Operands that are aligned to 4 bytes are copied by as many.
                let pairs = Case { shift: 2, aligned: false, pairs: true, ..case };
                let (between, paired) = observed::<bf16>(&pairs, &device, &door);
                assert!(here.bits() == between.bits(), "{pairs:?} on {}", device.info());
                if cuda {
                    assert!(fast.copies > 0 && slow.copies == 0, "{fast:?} {slow:?}");
                    assert!(paired.copies > 2 * fast.copies, "{paired:?} {fast:?}");
                    copied += 1;
                }
            }
        }
        println!("{}: {copied} products copied in the background", device.info());
        let case = Case { tile: Some(SMALL), ..Case::new(64, 64, 64) };
        let explained = |gap| {
            let plan = Case { gap, ..case }.on::<bf16>(&device).gemm().plan::<bf16, f32>(&device);
            plan.unwrap().explain()
        };
        assert_eq!(explained(0).contains("copied in the background"), cuda, "{}", explained(0));
        assert_eq!(explained(1).contains("through registers"), cuda, "{}", explained(1));
        for (gap, bytes) in [(0, 16), (2, 4), (1, 2)] {
            let (said, of) = (explained(gap), format!("aligned to {bytes} bytes"));
            assert!(said.contains(&of), "{said}");
        }
        // What changes on its way cannot be copied.
        let flush = Case { flush: true, aligned: true, ..case };
        let (_, product) = observed::<f16>(&flush, &device, &door);
        assert!(!cuda || product.copies == 0, "{product:?}");
    }
}
