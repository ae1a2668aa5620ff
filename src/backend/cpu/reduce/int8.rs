//! Blocks of 8-bit integers: made, added up, unpacked.

use super::super::threads::Threads;
use super::super::wide::{Work, vector};
use super::strips::{Make, Making};
use super::unpack::Shard;
use super::{TASK, large_shard, task};
use crate::kernel::params::reduce::{INT8_BLOCK, INT8_BYTES, Quantize, Sum};
use crate::reduce::reference;
use std::slice::{from_raw_parts, from_raw_parts_mut};

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
                let values = &mut *(block.values as *mut [f32; INT8_BLOCK]).byte_add(4 * at);
                let carried = &*(block.carried as *const [f32; INT8_BLOCK]).byte_add(4 * at);
                let codes = &mut *(to as *mut [i8; INT8_BLOCK]);
                *((to + INT8_BLOCK) as *mut f32) = vector(Rounding { values, carried, codes });
            }
        }
    });
}

/// A block to be rounded.
pub(super) struct Rounding<'a> {
    pub values: &'a mut [f32; INT8_BLOCK],
    pub carried: &'a [f32; INT8_BLOCK],
    pub codes: &'a mut [i8; INT8_BLOCK],
}

impl Work for Rounding<'_> {
    type Output = f32;

    /// [`reference::quantize`]. What is neither tiny nor huge is rounded by adding, and taking away again, a
    /// number whose last bit is worth 1.
    #[inline(always)]
    fn run<const FUSED: bool>(self) -> f32 {
        const ONES: f32 = 12_582_912.0; // 1.5·2²³
        let Self { values, carried, codes } = self;
        let mut all = [0.0f32; INT8_BLOCK];
        let mut largest = 0;
        for ((all, value), carried) in all.iter_mut().zip(values.iter()).zip(carried) {
            *all = *value + *carried;
            largest = largest.max(all.to_bits() & 0x7fff_ffff);
        }
        if !(reference::TINY..reference::HUGE).contains(&largest) {
            return reference::quantize(values, carried, codes);
        }
        let largest = f32::from_bits(largest);
        let (scale, inverse) = (largest * (1.0 / 127.0), 127.0 / largest);
        for ((all, value), code) in all.iter().zip(values).zip(codes) {
            let shifted = *all * inverse + ONES;
            *code = shifted.to_bits() as i8;
            *value = *all - scale * (shifted - ONES);
        }
        scale
    }
}

/// Elements `at..` of a shard, at most up to the end of a block: the codes, and what they are multiplied by.
///
/// # Safety
/// The shard is valid for as many elements.
#[inline(always)]
unsafe fn codes<'a>(shard: u64, at: usize, len: usize) -> (&'a [i8], f32) {
    let block = shard as usize + at / INT8_BLOCK * INT8_BYTES;
    let within = at % INT8_BLOCK;
    let len = len.min(INT8_BLOCK - within);
    // SAFETY: the caller's promise.
    unsafe {
        let codes = from_raw_parts((block as *const i8).add(within), len);
        (codes, *((block + INT8_BLOCK) as *const f32))
    }
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
    let (factor, past) = (block.factor, large_shard::<f32>(block.len));
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        // SAFETY: the caller's promise; tasks do not overlap.
        let to = unsafe { from_raw_parts_mut((block.to as *mut f32).add(start), len) };
        vector(Making { maker: Sums { parts, weights, start, factor }, to, past });
    });
}

/// What is summed: elements from `start` on of all parts, which are valid for those of the launch.
pub(super) struct Sums<'a> {
    pub parts: &'a [u64],
    pub weights: &'a [f32],
    pub start: usize,
    pub factor: f32,
}

impl Make<f32> for Sums<'_> {
    #[inline(always)]
    fn make(&mut self, at: usize, to: &mut [f32]) {
        let mut done = 0;
        while done < to.len() {
            let (mut values, mut sums) = ([0.0f32; INT8_BLOCK], [0.0f32; INT8_BLOCK]);
            let mut len = 0;
            for (rank, (&part, &weight)) in self.parts.iter().zip(self.weights).enumerate() {
                // SAFETY: inside the part, as the launch says.
                let (codes, scale) =
                    unsafe { codes(part, self.start + at + done, to.len() - done) };
                len = codes.len();
                let (values, sums) = (&mut values[..len], &mut sums[..len]);
                reference::dequantize(codes, scale, values);
                reference::add_weighted::<f32, f32>(values, sums, weight, 1.0, rank == 0);
            }
            let to = &mut to[done..done + len];
            reference::round_mean::<f32, f32>(&sums[..len], to, self.factor);
            done += len;
        }
    }
}

/// Shards in blocks of 8-bit integers.
pub(super) struct Blocks;

impl Shard for Blocks {
    type Value = f32;

    unsafe fn lent<'a>(_: u64, _: usize, _: usize) -> Option<&'a [f32]> {
        None
    }

    unsafe fn read(shard: u64, at: usize, to: &mut [f32]) {
        let mut done = 0;
        while done < to.len() {
            // SAFETY: the caller's promise.
            let (codes, scale) = unsafe { codes(shard, at + done, to.len() - done) };
            vector(Widening { codes, scale, to: &mut to[done..done + codes.len()] });
            done += codes.len();
        }
    }
}

/// Codes as values.
struct Widening<'a> {
    codes: &'a [i8],
    scale: f32,
    to: &'a mut [f32],
}

impl Work for Widening<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        reference::dequantize(self.codes, self.scale, self.to);
    }
}
