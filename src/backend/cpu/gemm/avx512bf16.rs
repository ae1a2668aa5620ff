//! The 8×48 tile by `vdpbf16ps`, which takes two steps of `k` at once: twice the multiply-adds of f32.
//!
//! The instruction adds the product of the high halves, rounds to nearest even, adds that of the low halves, rounds
//! again (Intel SDM, volume 2, VDPBF16PS): the chain over `k` that every form computes, as long as nothing is
//! subnormal, which it takes and gives as zero. Tiles in which something might be are computed by f32 multiply-adds
//! from the same panels. [`is_a_chain`] asks the processor at hand.

use std::time::{Duration, Instant};

use super::avx512::Avx512;
use super::form::Form;
use super::tile512::{row, tile, tiles};

/// bf16 dot products in 512 bits; the loops around them as [`Avx512`].
pub(super) struct Avx512Bf16;

/// Both steps of a word by one instruction for each vector of sums.
macro_rules! dot {
    ($vectors:tt: $([$a:literal $x:literal $y:literal $z:literal])+) => {
        concat!($("vpbroadcastd zmm3, dword ptr [", $a, "]\n", dot!(row $vectors, $x $y $z), "\n",)+)
    };
    (row 1, $x:literal $y:literal $z:literal) => { concat!("vdpbf16ps ", $x, ", zmm3, zmm0") };
    (row 2, $x:literal $y:literal $z:literal) => {
        concat!(dot!(row 1, $x $y $z), "\nvdpbf16ps ", $y, ", zmm3, zmm1")
    };
    (row 3, $x:literal $y:literal $z:literal) => {
        concat!(dot!(row 2, $x $y $z), "\nvdpbf16ps ", $z, ", zmm3, zmm2")
    };
}

/// The first step, from the high halves, then the second: B in zmm4 to zmm6, A in zmm3.
macro_rules! widened {
    ($vectors:tt: $([$a:literal $x:literal $y:literal $z:literal])+) => {
        concat!(
            widened!(high $vectors),
            $(
                "vpbroadcastd zmm3, dword ptr [", $a, "]\n",
                "vpsrld zmm3, zmm3, 16\nvpslld zmm3, zmm3, 16\n",
                widened!(row $vectors, $x $y $z), "\n",
            )+
            widened!(low $vectors),
            $(
                "vpbroadcastd zmm3, dword ptr [", $a, "]\nvpslld zmm3, zmm3, 16\n",
                widened!(row $vectors, $x $y $z), "\n",
            )+
        )
    };
    (row 1, $x:literal $y:literal $z:literal) => { concat!("vfmadd231ps ", $x, ", zmm3, zmm4") };
    (row 2, $x:literal $y:literal $z:literal) => {
        concat!(widened!(row 1, $x $y $z), "\nvfmadd231ps ", $y, ", zmm3, zmm5")
    };
    (row 3, $x:literal $y:literal $z:literal) => {
        concat!(widened!(row 2, $x $y $z), "\nvfmadd231ps ", $z, ", zmm3, zmm6")
    };
    (high 1) => { "vpsrld zmm4, zmm0, 16\nvpslld zmm4, zmm4, 16\n" };
    (high 2) => { concat!(widened!(high 1), "vpsrld zmm5, zmm1, 16\nvpslld zmm5, zmm5, 16\n") };
    (high 3) => { concat!(widened!(high 2), "vpsrld zmm6, zmm2, 16\nvpslld zmm6, zmm6, 16\n") };
    (low 1) => { "vpslld zmm4, zmm0, 16\n" };
    (low 2) => { concat!(widened!(low 1), "vpslld zmm5, zmm1, 16\n") };
    (low 3) => { concat!(widened!(low 2), "vpslld zmm6, zmm2, 16\n") };
}

tiles!(1 dot: dot_1x16 dot_4x16 dot_8x16);
tiles!(2 dot: dot_1x32 dot_4x32 dot_8x32);
tiles!(3 dot: dot_1x48 dot_4x48 dot_8x48);
tiles!(1 widened: widened_1x16 widened_4x16 widened_8x16);
tiles!(2 widened: widened_1x32 widened_4x32 widened_8x32);
tiles!(3 widened: widened_1x48 widened_4x48 widened_8x48);

impl Form for Avx512Bf16 {
    type Around = Avx512;
    const MR: usize = Avx512::MR;
    const NR: usize = Avx512::NR;
    const VECTOR: bool = true;
    #[cfg(halfstep_avx512)]
    const WIDE: bool = true;
    const WORD_STEPS: usize = 2;

    #[inline(always)]
    unsafe fn tile(
        (rows, cols): (usize, usize),
        k: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        add: bool,
        normal: bool,
    ) {
        let tile = match (normal, rows, cols) {
            (true, 1, ..=16) => dot_1x16,
            (true, 1, ..=32) => dot_1x32,
            (true, 1, _) => dot_1x48,
            (true, ..=4, ..=16) => dot_4x16,
            (true, ..=4, ..=32) => dot_4x32,
            (true, ..=4, _) => dot_4x48,
            (true, _, ..=16) => dot_8x16,
            (true, _, ..=32) => dot_8x32,
            (true, _, _) => dot_8x48,
            (false, 1, ..=16) => widened_1x16,
            (false, 1, ..=32) => widened_1x32,
            (false, 1, _) => widened_1x48,
            (false, ..=4, ..=16) => widened_4x16,
            (false, ..=4, ..=32) => widened_4x32,
            (false, ..=4, _) => widened_4x48,
            (false, _, ..=16) => widened_8x16,
            (false, _, ..=32) => widened_8x32,
            (false, _, _) => widened_8x48,
        };
        // SAFETY: the caller's promise.
        unsafe { tile(k, a, b, c, ldc, add) }
    }

    #[inline(always)]
    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe { Avx512::vectorized(f) }
    }
}

/// Whether this processor's instruction is the chain that it is documented to be: asked with sums in which the order,
/// and the rounding between, make a difference.
///
/// # Safety
/// The processor has AVX-512F and AVX512_BF16.
pub(super) unsafe fn is_a_chain() -> bool {
    // 2⁻²⁴ is half an ulp of 1 and 3·2⁻²⁴ an ulp and a half: ties that are decided one after the other, or together.
    let small = 2f32.powi(-24);
    // Of bf16: nothing in the low halves.
    let values =
        [0.0, 1.0, -1.0, small, -small, 3.0 * small, 2f32.powi(-16), 1.0 + 2f32.powi(-7), -3.0];
    let word = |first: f32, second: f32| f32::from_bits(first.to_bits() | second.to_bits() >> 16);
    for start in [0.0, 1.0, 1.0 + 2f32.powi(-23), -1.0, 1e-30] {
        for first in values {
            for second in values {
                let (mut a, mut b) = ([0.0f32; 8], [0.0f32; 48]);
                let scale = 1.0 + 2f32.powi(-6);
                a[0] = word(first, second);
                b.fill(word(scale, scale));
                let mut c = [start; 16];
                // SAFETY: one word of panels and a row of 16 sums.
                unsafe { dot_1x16(1, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), 16, true) };
                let chain = second.mul_add(scale, first.mul_add(scale, start));
                if c != [chain; 16] {
                    return false;
                }
            }
        }
    }
    true
}

/// Whether the tile is computed in less time by dot products than by f32 multiply-adds here: it is in half of it where
/// an instruction takes as long as a multiply-add (AMD), and in twice as much where it takes four times as long (Intel).
///
/// # Safety
/// The processor has AVX-512F and AVX512_BF16.
pub(super) unsafe fn is_faster() -> bool {
    const WORDS: usize = 64;
    let (a, b) = ([0.0f32; 2 * WORDS * 8], [0.0f32; 2 * WORDS * 48]);
    let mut c = [0.0f32; 8 * 48];
    let mut time = |tile: &mut dyn FnMut(*mut f32)| {
        let start = Instant::now();
        (0..4).for_each(|_| tile(c.as_mut_ptr()));
        start.elapsed()
    };
    let mut best = [Duration::MAX; 2];
    for _ in 0..8 {
        // SAFETY: panels of so many words of pairs, and of twice as many of f32; C has 8 rows of 48 floats; the
        // processor has the instructions.
        let times = unsafe {
            [
                time(&mut |c| dot_8x48(WORDS, a.as_ptr(), b.as_ptr(), c, 48, false)),
                time(&mut |c| {
                    let size = (8, 48);
                    Avx512::tile(size, 2 * WORDS, a.as_ptr(), b.as_ptr(), c, 48, false, true);
                }),
            ]
        };
        best = [best[0].min(times[0]), best[1].min(times[1])];
    }
    best[0] < best[1]
}

#[cfg(test)]
mod tests {
    use crate::backend::cpu::gemm::Path;

    #[test]
    fn the_instruction_is_a_chain_where_the_processor_has_it() {
        if !is_x86_feature_detected!("avx512bf16") {
            println!("skipped: no AVX512_BF16");
            return;
        }
        assert!(Path::Avx512Bf16.runs_here());
    }
}
