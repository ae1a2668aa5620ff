//! Blocks of 8-bit integers: made, added up, unpacked.

use super::{Shard, TASK, task, unpack};
use crate::Storage;
use crate::backend::cpu::threads::Threads;
use crate::kernel::params::reduce::{INT8_BLOCK, INT8_BYTES, Quantize, Sum};
use crate::reduce::reference;
use std::slice::{from_raw_parts, from_raw_parts_mut};

vectorized! {
    fn quantize<>(values: &mut [f32], carried: &[f32], codes: &mut [i8]) -> f32;
    fn dequantize<>(codes: &[i8], scale: f32, to: &mut [f32]);
}

/// # Safety
/// See [`run`](super::run).
pub(super) unsafe fn run_quantize(threads: &Threads, block: &Quantize) {
    let (len, shard) = (block.len as usize, block.blocks as usize * INT8_BLOCK);
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        for at in (start..start + len).step_by(INT8_BLOCK) {
            let to = block.to as usize
                + at / shard * block.stride as usize
                + at % shard / INT8_BLOCK * INT8_BYTES;
            // SAFETY: the caller's promise; tasks are whole blocks, and do not overlap. Scales lie at
            // multiples of 4 bytes, as shards and strides do.
            unsafe {
                let values = from_raw_parts_mut((block.values as *mut f32).add(at), INT8_BLOCK);
                let carried = from_raw_parts((block.carried as *const f32).add(at), INT8_BLOCK);
                let codes = from_raw_parts_mut(to as *mut i8, INT8_BLOCK);
                *((to + INT8_BLOCK) as *mut f32) = quantize(values, carried, codes);
            }
        }
    });
}

/// The values of elements `at..` of a shard, at most up to the end of a block; how many they are.
///
/// # Safety
/// The shard is valid for as many elements.
unsafe fn values(shard: u64, at: usize, to: &mut [f32]) -> usize {
    let block = shard as usize + at / INT8_BLOCK * INT8_BYTES;
    let within = at % INT8_BLOCK;
    let len = to.len().min(INT8_BLOCK - within);
    // SAFETY: the caller's promise.
    let (codes, scale) = unsafe {
        let codes = from_raw_parts((block as *const i8).add(within), len);
        (codes, *((block + INT8_BLOCK) as *const f32))
    };
    dequantize(codes, scale, &mut to[..len]);
    len
}

/// Of parts in blocks, in f32.
///
/// # Safety
/// See [`run`](super::run).
pub(super) unsafe fn run_sum(threads: &Threads, block: &Sum) {
    let (len, ranks) = (block.len as usize, block.ranks as usize);
    // SAFETY: the caller's promise.
    let (parts, weights) = unsafe {
        (
            from_raw_parts(block.parts as *const u64, ranks),
            from_raw_parts(block.weights as *const f32, ranks),
        )
    };
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        // SAFETY: the caller's promise; tasks do not overlap.
        let to = unsafe { from_raw_parts_mut((block.to as *mut f32).add(start), len) };
        let mut room = vec![0.0f32; INT8_BLOCK * ranks];
        for (index, to) in to.chunks_mut(INT8_BLOCK).enumerate() {
            let at = start + index * INT8_BLOCK;
            for (part, room) in parts.iter().zip(room.chunks_mut(INT8_BLOCK)) {
                // SAFETY: as above; tasks start at a block's start.
                unsafe { values(*part, at, &mut room[..to.len()]) };
            }
            let all: Vec<&[f32]> = room.chunks(INT8_BLOCK).map(|part| &part[..to.len()]).collect();
            super::sum(&all, weights, to, block.factor);
        }
    });
}

/// Shards in blocks of 8-bit integers.
pub(super) struct Blocks;

impl Shard for Blocks {
    unsafe fn unpack<G: Storage>(
        shard: u64,
        at: usize,
        to: &mut [G],
        products: &mut [f32],
        factor: f32,
    ) {
        let mut room = [0.0f32; INT8_BLOCK];
        let mut done = 0;
        while done < to.len() {
            let wanted = INT8_BLOCK.min(to.len() - done);
            // SAFETY: the caller's promise.
            let len = unsafe { values(shard, at + done, &mut room[..wanted]) };
            let (to, products) = (&mut to[done..done + len], &mut products[done..done + len]);
            unpack(&room[..len], to, products, factor);
            done += len;
        }
    }
}
