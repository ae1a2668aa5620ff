//! Arithmetic lane by lane, and what becomes of undefined bits.

use super::wave::{LANES, Vector, Wave};
use crate::gfx::decode::{Instruction, Operand};

/// What a vector instruction does to its wave.
pub type Act = fn(&mut Wave, &Instruction);

/// `dst = f(sources)`; a lane's result is undefined where any bit of a source is.
#[inline(always)]
pub fn map<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([u32; N]) -> u32) {
    let src: [(Vector, u64); N] = std::array::from_fn(|n| w.fetch(i, n));
    let mut out = [0; LANES];
    for (l, out) in out.iter_mut().enumerate() {
        *out = f(std::array::from_fn(|n| src[n].0[l]));
    }
    let tainted = src.iter().fold(0, |t, s| t | s.1);
    w.store(i, &out);
    if tainted != 0 {
        w.store_undefined(i, tainted, &[u32::MAX; LANES]);
    }
}

/// The same, with the old result as one more argument.
#[inline(always)]
pub fn accumulate<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([u32; N], u32) -> u32) {
    let src: [(Vector, u64); N] = std::array::from_fn(|n| w.fetch(i, n));
    let (old, old_tainted) = w.raw(i.dst, 0);
    let mut out = [0; LANES];
    for (l, out) in out.iter_mut().enumerate() {
        *out = f(std::array::from_fn(|n| src[n].0[l]), old[l]);
    }
    let tainted = src.iter().fold(old_tainted, |t, s| t | s.1);
    w.store(i, &out);
    if tainted != 0 {
        w.store_undefined(i, tainted, &[u32::MAX; LANES]);
    }
}

/// `dst = f(sources)`, where `undefined` says which bits of a result are undefined, from the
/// sources' values and undefined bits.
#[inline(always)]
pub fn map_bits<const N: usize>(
    w: &mut Wave,
    i: &Instruction,
    f: impl Fn([u32; N]) -> u32,
    undefined: impl Fn([u32; N], [u32; N]) -> u32,
) {
    let src: [(Vector, u64); N] = std::array::from_fn(|n| w.fetch(i, n));
    let tainted = src.iter().fold(0, |t, s| t | s.1);
    let bits = (tainted != 0).then(|| {
        let parts: [Vector; N] = std::array::from_fn(|n| w.fetch_undefined(i, n));
        let one = |l: usize| {
            undefined(std::array::from_fn(|n| src[n].0[l]), std::array::from_fn(|n| parts[n][l]))
        };
        std::array::from_fn(one)
    });
    let mut out = [0; LANES];
    for (l, out) in out.iter_mut().enumerate() {
        *out = f(std::array::from_fn(|n| src[n].0[l]));
    }
    w.store(i, &out);
    if let Some(bits) = bits {
        w.store_undefined(i, tainted, &bits);
    }
}

/// Writes a lane mask: what lanes that do not run have is 0.
pub fn store_mask(w: &mut Wave, i: &Instruction, mask: u64, tainted: u64) {
    let exec = w.enabled(i);
    let Operand::Scalar(n) = i.mask else { return };
    w.set64(n, mask & exec, tainted & exec);
}

/// A lane mask among the sources: value and undefined bits.
pub fn fetch_mask(w: &Wave, i: &Instruction, n: usize) -> (u64, u64) {
    w.scalar_operand(&i.src[n])
}
