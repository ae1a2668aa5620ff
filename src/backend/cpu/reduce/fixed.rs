//! Sums in fixed point: blocks of integers that share an exponent.

use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::super::threads::Threads;
use super::super::wide::{Work, vector};
use super::strips::{Make, Making};
use super::{TASK, large_shard, task};
use crate::Storage;
use crate::kernel::params::reduce::{Block, FIXED_BLOCK, Fixed, Sum};
use crate::reduce::reference;

/// `measure`, `encode` or `decode`.
///
/// # Safety
/// See [`run`](super::run).
pub(super) unsafe fn run<G: Storage>(threads: &Threads, row: &Block, block: &Fixed) {
    let len = block.len as usize;
    let Fixed { factor, headroom, .. } = *block;
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        for start in (start..start + len).step_by(FIXED_BLOCK) {
            let len = FIXED_BLOCK.min(block.len as usize - start);
            let exponent = (block.exponents as *mut u8).wrapping_add(start / FIXED_BLOCK);
            let values = (block.values as *mut G).wrapping_add(start);
            let sums = (block.sums as *mut i32).wrapping_add(start);
            // SAFETY: the caller's promise; tasks are whole blocks, and do not overlap.
            unsafe {
                match row {
                    Block::Measure(_) => {
                        let values = from_raw_parts(values, len);
                        *exponent = vector(Measuring { values, factor });
                    }
                    Block::Encode(_) => {
                        let (values, to) =
                            (from_raw_parts(values, len), from_raw_parts_mut(sums, len));
                        let point = Point::new(*exponent, headroom);
                        vector(Encoding { values, to, factor, point });
                    }
                    _ => {
                        let (to, sums) =
                            (from_raw_parts_mut(values, len), from_raw_parts(sums, len));
                        let point = Point::new(*exponent, headroom);
                        vector(Decoding { sums, to, factor, point });
                    }
                }
            }
        }
    });
}

/// Sums of parts whose blocks are those of the bucket.
///
/// # Safety
/// See [`run`](super::run).
pub(super) unsafe fn run_sum<V: Storage, T: Storage>(threads: &Threads, block: &Sum) {
    let (len, ranks) = (block.len as usize, block.ranks as usize);
    // SAFETY: the caller's promise.
    let (parts, weights) = unsafe {
        (
            from_raw_parts(block.parts as *const u64, ranks),
            from_raw_parts(block.weights as *const f32, ranks),
        )
    };
    let (factor, past) = (block.factor, large_shard::<T>(block.len));
    threads.run(len.div_ceil(TASK), |i| {
        let (start, some) = task(i, len);
        // SAFETY: the caller's promise; tasks do not overlap.
        let to = unsafe { from_raw_parts_mut((block.to as *mut T).add(start), some) };
        let maker = Sums::<V>::new(parts, weights, (start, len), factor);
        vector(Making { maker, to, past });
    });
}

/// No integer is larger.
const LARGEST: f32 = (1 << 30) as f32;

/// Where the point of a block's integers is.
#[derive(Clone, Copy)]
pub(super) struct Point {
    exponent: u8,
    headroom: u32,
    /// What f32 products are multiplied by, and sums, where that is exact but for what rounding to an integer, or of one,
    /// does: where both powers of two, and what comes of the smallest integer, are normal numbers.
    powers: Option<(f32, f32)>,
}

impl Point {
    #[inline(always)]
    pub fn new(exponent: u8, headroom: u32) -> Self {
        let shift = reference::shift(exponent, headroom);
        let powers = match exponent < 255 && (-126..=126).contains(&shift) {
            true => Some((reference::power(shift) as f32, reference::power(-shift) as f32)),
            false => None,
        };
        Self { exponent, headroom, powers }
    }

    /// Adds [`reference::encode`] of values to integers, of a block at most, whose exponent is no larger than this one.
    #[inline(always)]
    pub fn add<G: Storage>(self, values: &[G], integers: &mut [i32], factor: f32) {
        let Some((up, _)) = self.powers else {
            let mut room = [0; FIXED_BLOCK];
            let room = &mut room[..values.len()];
            reference::encode(values, self.exponent, room, factor, self.headroom);
            for (integer, more) in integers.iter_mut().zip(room) {
                *integer = integer.wrapping_add(*more);
            }
            return;
        };
        for (integer, value) in integers.iter_mut().zip(values) {
            let scaled = (factor * value.widen() * up).round_ties_even();
            // No further off than this; said so that the compiler makes one instruction of what follows.
            let scaled = if scaled < LARGEST { scaled } else { LARGEST };
            let scaled = if scaled > -LARGEST { scaled } else { -LARGEST };
            // SAFETY: a number, and in the range of i32.
            *integer = integer.wrapping_add(unsafe { scaled.to_int_unchecked::<i32>() });
        }
    }

    /// [`reference::decode`] in f32, without a factor.
    #[inline(always)]
    pub fn widen(self, integers: &[i32], to: &mut [f32]) {
        let Some((_, down)) = self.powers else {
            return reference::decode(integers, self.exponent, to, 1.0, self.headroom);
        };
        for (to, integer) in to.iter_mut().zip(integers) {
            *to = *integer as f32 * down;
        }
    }
}

/// [`reference::measure`].
#[inline(always)]
fn measure<G: Storage>(values: &[G], factor: f32) -> u8 {
    let mut largest = 0;
    for value in values {
        largest = largest.max((factor * value.widen()).to_bits() & 0x7fff_ffff);
    }
    (largest >> 23) as u8
}

/// A block whose exponent is wanted.
pub(super) struct Measuring<'a, G> {
    pub values: &'a [G],
    pub factor: f32,
}

impl<G: Storage> Work for Measuring<'_, G> {
    type Output = u8;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> u8 {
        measure(self.values, self.factor)
    }
}

/// A block that becomes integers.
pub(super) struct Encoding<'a, G> {
    pub values: &'a [G],
    pub to: &'a mut [i32],
    pub factor: f32,
    pub point: Point,
}

impl<G: Storage> Work for Encoding<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { values, to, factor, point } = self;
        if measure(values, factor) > point.exponent {
            // Somebody else's exponent.
            return reference::encode(values, point.exponent, to, factor, point.headroom);
        }
        to.fill(0);
        point.add(values, to, factor);
    }
}

/// Integers that become a block.
pub(super) struct Decoding<'a, G> {
    pub sums: &'a [i32],
    pub to: &'a mut [G],
    pub factor: f32,
    pub point: Point,
}

impl<G: Storage> Work for Decoding<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let mut sums = [0.0f32; FIXED_BLOCK];
        let sums = &mut sums[..self.to.len()];
        self.point.widen(self.sums, sums);
        reference::round_mean::<G, G>(sums, self.to, self.factor);
    }
}

/// What is summed: elements from `start` on of parts of `len`, of which each block is measured, made integers and
/// read again while it is in the cache.
pub(super) struct Sums<'a, V> {
    /// Addresses of parts that are valid for `len` values.
    parts: &'a [u64],
    weights: &'a [f32],
    start: usize,
    len: usize,
    factor: f32,
    values: PhantomData<V>,
}

impl<'a, V: Storage> Sums<'a, V> {
    pub fn new(
        parts: &'a [u64],
        weights: &'a [f32],
        (start, len): (usize, usize),
        factor: f32,
    ) -> Self {
        Self { parts, weights, start, len, factor, values: PhantomData }
    }

    /// Elements of a part.
    #[inline(always)]
    fn values(&self, part: u64, at: usize, end: usize) -> &[V] {
        debug_assert!(at <= end && end <= self.len);
        // SAFETY: inside the part.
        unsafe { from_raw_parts((part as *const V).add(at), end - at) }
    }
}

impl<V: Storage, T: Storage> Make<T> for Sums<'_, V> {
    #[inline(always)]
    fn make(&mut self, at: usize, to: &mut [T]) {
        let headroom = reference::headroom(self.parts.len());
        let mut done = 0;
        while done < to.len() {
            let at = self.start + at + done;
            let block = at / FIXED_BLOCK * FIXED_BLOCK;
            let end = self.len.min(block + FIXED_BLOCK);
            let some = (end - at).min(to.len() - done);
            let mut exponent = 0;
            for (&part, &weight) in self.parts.iter().zip(self.weights) {
                exponent = exponent.max(measure(self.values(part, block, end), weight));
            }
            let point = Point::new(exponent, headroom);
            let (mut integers, mut sums) = ([0; FIXED_BLOCK], [0.0; FIXED_BLOCK]);
            let (integers, sums) = (&mut integers[..some], &mut sums[..some]);
            for (&part, &weight) in self.parts.iter().zip(self.weights) {
                point.add(self.values(part, at, at + some), integers, weight);
            }
            point.widen(integers, sums);
            reference::round_mean::<T, T>(sums, &mut to[done..done + some], self.factor);
            done += some;
        }
    }
}
