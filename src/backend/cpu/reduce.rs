//! The kernels of `reduce` on the CPU: `reduce::reference`, cut into tasks and compiled for the
//! processor's vector units.

use super::threads::Threads;
use crate::kernel::params::PARTIAL_CHUNK;
use crate::kernel::params::reduce::{Accumulate, Block, FIXED_BLOCK, Fixed, INT8};
use crate::reduce::reference;
use crate::{Dtype, Storage, bf16, f16};
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Elements of one task: as for partials, small enough for the first-level cache.
const TASK: usize = PARTIAL_CHUNK;

/// Calls `$body` with `$G` and `$W` as the types that the two codes stand for.
macro_rules! with_types {
    ($g:expr, $w:expr, |$G:ident, $W:ident| $body:expr) => {
        with_type!($g, |$G| with_type!($w, |$W| $body))
    };
}
macro_rules! with_type {
    ($code:expr, |$T:ident| $body:expr) => {{
        const BF16: u32 = Dtype::Bf16 as u32;
        const F16: u32 = Dtype::F16 as u32;
        const F32: u32 = Dtype::F32 as u32;
        match $code {
            BF16 => {
                type $T = bf16;
                $body
            }
            F16 => {
                type $T = f16;
                $body
            }
            F32 => {
                type $T = f32;
                $body
            }
            code => unreachable!("storage type {code} in a parameter block"),
        }
    }};
}

mod in_place;
mod int8;
mod pack;
mod strips;
mod sum;
#[cfg(test)]
mod tests;
mod unpack;

/// Compiles a call of an `#[inline(always)]` reference loop for AVX2 where the processor has it.
/// The loops' arithmetic is explicit, so vector code gives the same bits.
macro_rules! vectorized {
    ($($visibility:vis fn $name:ident<$($T:ident),*>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)?;)*) => {$(
        $visibility fn $name<$($T: Storage),*>($($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<$($T: Storage),*>($($arg: $type),*) $(-> $ret)? {
                    reference::$name($($arg),*)
                }
                if crate::backend::cpu::has_avx2() {
                    // SAFETY: the processor has the features, checked just now.
                    return unsafe { avx2($($arg),*) };
                }
            }
            reference::$name($($arg),*)
        }
    )*};
}

vectorized! {
    fn accumulate<G>(g: &[G], accumulated: &mut [f32]);
    fn measure<G>(values: &[G], factor: f32) -> u8;
    fn encode<G>(values: &[G], exponent: u8, to: &mut [i32], factor: f32, headroom: u32);
    fn decode<G>(sums: &[i32], exponent: u8, to: &mut [G], factor: f32, headroom: u32);
}

// What MPI adds with.
#[cfg(feature = "mpi")]
vectorized! {
    pub(crate) fn add<T>(from: &[T], to: &mut [T]);
}

/// Runs one kernel.
///
/// # Safety
/// The addresses in the block are valid for the lengths it gives, and outputs are not touched by
/// anything else meanwhile.
pub(super) unsafe fn run(threads: &Threads, block: &Block) {
    // SAFETY (all): the caller's promise, passed on unchanged.
    match block {
        Block::Pack(b) => with_types!(b.gradient_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            pack::run::<G, W>(threads, b)
        }),
        Block::Accumulate(b) => with_type!(b.gradient_type, |G| unsafe {
            // SAFETY: as above.
            run_accumulate::<G>(threads, b)
        }),
        Block::Sum(b) if b.from_type == INT8 => unsafe {
            // SAFETY: as above.
            int8::run_sum(threads, b)
        },
        Block::Sum(b) => with_types!(b.from_type, b.to_type, |W, T| unsafe {
            // SAFETY: as above.
            sum::run::<W, T>(threads, b)
        }),
        Block::Unpack(b) if b.wire == INT8 => with_type!(b.gradient_type, |G| unsafe {
            // SAFETY: as above.
            unpack::run::<G, int8::Blocks>(threads, b)
        }),
        Block::Unpack(b) => with_types!(b.gradient_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            unpack::run::<G, unpack::Elements<W>>(threads, b)
        }),
        Block::Quantize(b) => unsafe {
            // SAFETY: as above.
            int8::run_quantize(threads, b)
        },
        Block::InPlace(b) => with_types!(b.value_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            in_place::run::<G, W>(threads, b)
        }),
        Block::Measure(b) | Block::Encode(b) | Block::Decode(b) => {
            with_type!(b.value_type, |G| unsafe {
                // SAFETY: as above.
                run_fixed::<G>(threads, block, b)
            })
        }
    }
}

/// `measure`, `encode` or `decode`.
///
/// # Safety
/// See [`run`].
unsafe fn run_fixed<G: Storage>(threads: &Threads, row: &Block, block: &Fixed) {
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
                        *exponent = measure(from_raw_parts(values, len), factor);
                    }
                    Block::Encode(_) => {
                        let (values, sums) =
                            (from_raw_parts(values, len), from_raw_parts_mut(sums, len));
                        encode(values, *exponent, sums, factor, headroom);
                    }
                    _ => {
                        let (values, sums) =
                            (from_raw_parts_mut(values, len), from_raw_parts(sums, len));
                        decode(sums, *exponent, values, factor, headroom);
                    }
                }
            }
        }
    });
}

/// Whether shards of so many elements are too long for the caches, with those of other ranks beside them.
fn large_shard<W>(len: u64) -> bool {
    len * size_of::<W>() as u64 >= 1 << 20
}

/// `[start, start + len)` of task `i`.
fn task(i: usize, len: usize) -> (usize, usize) {
    let start = i * TASK;
    (start, TASK.min(len - start))
}

/// # Safety
/// See [`run`].
unsafe fn run_accumulate<G: Storage>(threads: &Threads, block: &Accumulate) {
    let len = block.len as usize;
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        // SAFETY: the caller's promise; tasks do not overlap.
        let (g, sum) = unsafe {
            (
                from_raw_parts((block.gradient as *const G).add(start), len),
                from_raw_parts_mut((block.accumulated as *mut f32).add(start), len),
            )
        };
        accumulate(g, sum);
    });
}
