//! The kernels of `reduce` on the CPU: `reduce::reference`, cut into tasks and compiled for the
//! processor's vector units.

use super::fold;
use super::threads::Threads;
use crate::kernel::params::reduce::{
    Accumulate, Block, FIXED_BLOCK, Fixed, INT8, Pack, Piece, Sum, Target, Unpack,
};
use crate::kernel::params::{PARTIAL_CHUNK, Partial};
use crate::reduce::reference;
use crate::{Dtype, Storage, bf16, f16};
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::atomic::{AtomicU64, Ordering};

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
mod int8;

vectorized! {
    fn pack<G, W>(g: &[G], accumulated: Option<&mut [f32]>, to: &mut [W], scale: f32) -> u64;
    fn accumulate<G>(g: &[G], accumulated: &mut [f32]);
    fn sum<W, T>(parts: &[&[W]], weights: &[f32], to: &mut [T], factor: f32);
    fn unpack<G, W>(from: &[W], to: &mut [G], products: &mut [f32], factor: f32);
}

// What MPI adds with.
#[cfg(feature = "mpi")]
vectorized! {
    pub(crate) fn add<T>(from: &[T], to: &mut [T]);
}

/// The partial of one chunk's products.
fn partial(tensor: u32, products: &[f32]) -> Partial {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(tensor: u32, products: &[f32]) -> Partial {
            fold::partial::<_, true>(tensor, products, 1.0)
        }
        if super::has_avx2() {
            // SAFETY: the processor has the features, checked just now.
            return unsafe { avx2(tensor, products) };
        }
    }
    fold::partial::<_, false>(tensor, products, 1.0)
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
            run_pack::<G, W>(threads, b)
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
            run_sum::<W, T>(threads, b)
        }),
        Block::Unpack(b) if b.wire == INT8 => with_type!(b.gradient_type, |G| unsafe {
            // SAFETY: as above.
            run_unpack::<G, int8::Blocks>(threads, b)
        }),
        Block::Unpack(b) => with_types!(b.gradient_type, b.wire, |G, W| unsafe {
            // SAFETY: as above.
            run_unpack::<G, Elements<W>>(threads, b)
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
                        *exponent = reference::measure(from_raw_parts(values, len), factor);
                    }
                    Block::Encode(_) => {
                        let (values, sums) =
                            (from_raw_parts(values, len), from_raw_parts_mut(sums, len));
                        reference::encode(values, *exponent, sums, factor, headroom);
                    }
                    _ => {
                        let (values, sums) =
                            (from_raw_parts_mut(values, len), from_raw_parts(sums, len));
                        reference::decode(sums, *exponent, values, factor, headroom);
                    }
                }
            }
        }
    });
}

/// `[start, start + len)` of task `i`.
fn task(i: usize, len: usize) -> (usize, usize) {
    let start = i * TASK;
    (start, TASK.min(len - start))
}

/// # Safety
/// See [`run`].
unsafe fn run_pack<G: Storage, W: Storage>(threads: &Threads, block: &Pack) {
    let (len, shard) = (block.len as usize, block.shard as usize);
    let bad = AtomicU64::new(0);
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        let mut done = 0;
        // The bucket is cut in shards; so is a task that crosses from one into the next.
        while done < len {
            let at = block.offset as usize + start + done;
            let piece = (shard - at % shard).min(len - done);
            let to = block.bucket as usize + at / shard * block.stride as usize;
            // SAFETY: the caller's promise; tasks do not overlap.
            let found = unsafe {
                let to = from_raw_parts_mut((to as *mut W).add(at % shard), piece);
                pack_some::<G, W>(block, start + done, to)
            };
            bad.fetch_add(found, Ordering::Relaxed);
            done += piece;
        }
    });
    // SAFETY: one aligned u64, by the caller's promise; all tasks have ended.
    unsafe { *(block.non_finite as *mut u64) += bad.into_inner() }
}

/// Packs the elements from `start` on that go to `to`.
///
/// # Safety
/// See [`run`].
unsafe fn pack_some<G: Storage, W: Storage>(block: &Pack, start: usize, to: &mut [W]) -> u64 {
    let len = to.len();
    let mut accumulated = (block.accumulated != 0).then(|| {
        // SAFETY: the caller's promise; tasks do not overlap.
        unsafe { from_raw_parts_mut((block.accumulated as *mut f32).add(start), len) }
    });
    if block.gradient != 0 {
        // SAFETY: as above.
        let g = unsafe { from_raw_parts((block.gradient as *const G).add(start), len) };
        return pack(g, accumulated, to, block.scale);
    }
    let zeros = [G::narrow(0.0); 256];
    let mut found = 0;
    for (piece, to) in to.chunks_mut(zeros.len()).enumerate() {
        let from = piece * zeros.len();
        let accumulated = accumulated.as_mut().map(|a| &mut a[from..from + to.len()]);
        found += pack(&zeros[..to.len()], accumulated, to, block.scale);
    }
    found
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

/// # Safety
/// See [`run`].
unsafe fn run_sum<W: Storage, T: Storage>(threads: &Threads, block: &Sum) {
    let (len, ranks) = (block.len as usize, block.ranks as usize);
    // SAFETY: the caller's promise.
    let (addresses, weights) = unsafe {
        (
            from_raw_parts(block.parts as *const u64, ranks),
            from_raw_parts(block.weights as *const f32, ranks),
        )
    };
    // SAFETY: as above.
    let parts: Vec<&[W]> = addresses
        .iter()
        .map(|&address| {
            // SAFETY: as above.
            unsafe { from_raw_parts(address as *const W, len) }
        })
        .collect();
    threads.run(len.div_ceil(TASK), |i| {
        let (start, len) = task(i, len);
        let parts: Vec<&[W]> = parts.iter().map(|part| &part[start..start + len]).collect();
        // SAFETY: the caller's promise; tasks do not overlap.
        let to = unsafe { from_raw_parts_mut((block.to as *mut T).add(start), len) };
        sum(&parts, weights, to, block.factor);
    });
}

/// How a bucket's shards are read.
trait Shard {
    /// `to[i] = type(factor · shard[at + i])`; `products[i]` is the f32 before the rounding.
    ///
    /// # Safety
    /// The shard is valid for as many elements.
    unsafe fn unpack<G: Storage>(
        shard: u64,
        at: usize,
        to: &mut [G],
        products: &mut [f32],
        factor: f32,
    );
}

/// Shards of elements of a storage type.
struct Elements<W>(std::marker::PhantomData<W>);

impl<W: Storage> Shard for Elements<W> {
    unsafe fn unpack<G: Storage>(
        shard: u64,
        at: usize,
        to: &mut [G],
        products: &mut [f32],
        factor: f32,
    ) {
        // SAFETY: the caller's promise.
        let from = unsafe { from_raw_parts((shard as *const W).add(at), to.len()) };
        unpack(from, to, products, factor);
    }
}

/// # Safety
/// See [`run`]; and no two pieces of the list share elements.
unsafe fn run_unpack<G: Storage, W: Shard>(threads: &Threads, block: &Unpack) {
    let shard = block.shard as usize;
    threads.run(block.count as usize, |i| {
        // SAFETY: the caller's promise: so many pieces, and a target for each one's tensor.
        let (Piece { start, len, tensor }, target) = unsafe {
            let piece = *(block.pieces as *const Piece).add(i);
            (piece, *(block.targets as *const Target).add(piece.tensor as usize))
        };
        if target.to == 0 {
            return;
        }
        let (start, len) = (start as usize, len as usize);
        let within = start - target.offset as usize;
        // SAFETY: the caller's promise; pieces do not overlap.
        let to = unsafe { from_raw_parts_mut((target.to as *mut G).add(within), len) };
        let mut products = [0.0f32; PARTIAL_CHUNK];
        let mut done = 0;
        while done < len {
            let at = start + done;
            let piece = (shard - at % shard).min(len - done);
            let products = &mut products[done..done + piece];
            // SAFETY: as above: one address for each shard.
            unsafe {
                let address = *(block.shards as *const u64).add(at / shard);
                W::unpack(address, at % shard, &mut to[done..done + piece], products, block.factor);
            }
            done += piece;
        }
        let partial = partial(tensor, &products[..len]);
        let place = target.partial as usize + within / PARTIAL_CHUNK;
        // SAFETY: the caller's promise: one partial for each piece.
        unsafe { *(block.partials as *mut Partial).add(place) = partial }
    });
}
