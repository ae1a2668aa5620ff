//! The update of a few hundred elements, as loops that become vector code.
#![allow(clippy::needless_range_loop)] // one index into many arrays of one length

use half::bf16;

use crate::kernel::params::optim::Scalars;
use crate::optim::Apply;
use crate::optim::random::{BLOCK, Key};
use crate::optim::round::Lane;

/// Elements of a tensor taken at a time: their f32 forms stay in the first-level cache. (With 128, memory has less to
/// do between two tiles: AdamW took a sixth longer. Nor does it help to ask for what comes next: a processor that
/// prefetches by itself does better undisturbed.)
pub(super) const TILE: usize = 512;

/// f32 values of one tile.
pub(super) type Values = [f32; TILE];
/// Random bits of one tile.
pub(super) type Bits = [[u64; 2]; TILE / BLOCK];

/// `to = factor · from`.
#[inline(always)]
pub(super) fn widen<T: Lane>(to: &mut [f32], from: &[T], factor: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.widen() * factor;
    }
}

/// `to = nearest(from)`.
#[inline(always)]
pub(super) fn narrow<T: Lane>(to: &mut [T], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::narrow(*from);
    }
}

/// `to = from`, rounded up or down at random.
#[inline(always)]
pub(super) fn scatter<T: Lane>(to: &mut [T], from: &[f32], random: &Bits) {
    let random: &[u16] = bytemuck::cast_slice(random);
    for ((to, from), random) in to.iter_mut().zip(from).zip(random) {
        *to = T::stochastic(*from, *random);
    }
}

/// The random bits of elements `start ..`; `start` is a multiple of the tile.
#[inline(always)]
pub(super) fn fill(key: &Key, start: u64, to: &mut Bits) {
    key.blocks(start / BLOCK as u64, to);
    if cfg!(target_endian = "big") {
        // 16 bits for each element, in order.
        for pair in to.as_flattened_mut() {
            *pair = pair.rotate_left(32);
            *pair = (*pair & 0xffff_0000_ffff_0000) >> 16 | (*pair & 0x0000_ffff_0000_ffff) << 16;
        }
    }
}

/// One rule over part of a chunk whose state and master are f32, straight from the gradient.
#[inline(always)]
pub(super) fn apply<const N: usize, R: Apply<N>, G: Lane>(
    scalars: &Scalars,
    factor: f32,
    g: &[G],
    p: &mut [f32],
    slots: [&mut [f32]; N],
) {
    let mut slots = slots.into_iter();
    let mut next = || slots.next().unwrap_or(&mut []);
    sweep::<N, R, G>(scalars, factor, g, p, next(), next(), next());
}

/// The loop. State arrays are arguments of their own: the compiler then knows that they are apart,
/// which it cannot see through an array of slices.
#[inline(always)]
fn sweep<const N: usize, R: Apply<N>, G: Lane>(
    scalars: &Scalars,
    factor: f32,
    g: &[G],
    p: &mut [f32],
    a: &mut [f32],
    b: &mut [f32],
    c: &mut [f32],
) {
    let one = |g: &G, p: &mut f32, old: [f32; N]| {
        let (new, state) = R::apply(scalars, g.widen() * factor, *p, old);
        *p = new;
        state
    };
    // Iterators, since an index leaves bounds checks in the loop, and those its last round scalar.
    let pairs = g.iter().zip(p);
    match N {
        0 => pairs.for_each(|(g, p)| {
            one(g, p, [0.0; N]);
        }),
        1 => pairs.zip(a).for_each(|((g, p), a)| {
            let state = one(g, p, [*a; N]);
            *a = state[0];
        }),
        2 => pairs.zip(a.iter_mut().zip(b)).for_each(|((g, p), (a, b))| {
            let old = [*a, *b];
            let state = one(g, p, std::array::from_fn(|n| old[n]));
            (*a, *b) = (state[0], state[1]);
        }),
        _ => pairs.zip(a.iter_mut().zip(b)).zip(c).for_each(|(((g, p), (a, b)), c)| {
            let old = [*a, *b, *c];
            let state = one(g, p, std::array::from_fn(|n| old[n]));
            (*a, *b, *c) = (state[0], state[1], state[2]);
        }),
    }
}

/// Parameters and remainders become f32.
#[inline(always)]
pub(super) fn join(to: &mut [f32], high: &[bf16], low: &[u16]) {
    for ((to, high), low) in to.iter_mut().zip(high).zip(low) {
        *to = crate::optim::round::join(*high, *low);
    }
}

/// f32 becomes parameters and remainders.
#[inline(always)]
pub(super) fn split(high: &mut [bf16], low: &mut [u16], from: &[f32]) {
    for ((high, low), from) in high.iter_mut().zip(low).zip(from) {
        (*high, *low) = crate::optim::round::split(*from);
    }
}
