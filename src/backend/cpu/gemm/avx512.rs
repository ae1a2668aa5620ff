//! The 8×48 tile in 512-bit registers: 24 sums, three vectors of B, one broadcast of A. Per step of
//! `k` 24 multiply-adds and 11 loads: on cores with two 512-bit units the multiply-adds decide.

use super::form::{Form, Rows};
use super::tile512::{row, strided_tiles, tile, tiles};

/// 512-bit multiply-adds; the loops around them (packing, epilogue) in 256 bits, or where the compiler
/// has the intrinsics (`halfstep_avx512`, set by the build script) in 512.
pub(super) struct Avx512;

/// # Safety
/// The processor has AVX-512F, BW, VL and DQ, AVX2, FMA and F16C.
#[cfg(halfstep_avx512)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// A step: one multiply-add for each vector of sums.
macro_rules! fma {
    ($vectors:tt: $([$a:literal $x:literal $y:literal $z:literal])+) => {
        concat!($(
            "vbroadcastss zmm3, dword ptr [", $a, "]\n", fma!(row $vectors, $x $y $z), "\n",
        )+)
    };
    (row 1, $x:literal $y:literal $z:literal) => { concat!("vfmadd231ps ", $x, ", zmm3, zmm0") };
    (row 2, $x:literal $y:literal $z:literal) => {
        concat!(fma!(row 1, $x $y $z), "\nvfmadd231ps ", $y, ", zmm3, zmm1")
    };
    (row 3, $x:literal $y:literal $z:literal) => {
        concat!(fma!(row 2, $x $y $z), "\nvfmadd231ps ", $z, ", zmm3, zmm2")
    };
}

tiles!(1 fma: tile_1x16 tile_4x16 tile_8x16);
tiles!(2 fma: tile_1x32 tile_4x32 tile_8x32);
tiles!(3 fma: tile_1x48 tile_4x48 tile_8x48);
strided_tiles!(1 fma: strided_8x16 2 fma: strided_8x32 3 fma: strided_8x48);

impl Form for Avx512 {
    type Around = Self;
    const MR: usize = 8;
    const NR: usize = 48;
    const VECTOR: bool = true;
    #[cfg(halfstep_avx512)]
    const WIDE: bool = true;
    const IN_PLACE: bool = true;

    #[inline(always)]
    unsafe fn tile(
        (rows, cols): (usize, usize),
        k: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        add: bool,
        _normal: bool,
    ) {
        let tile = match (rows, cols) {
            (1, ..=16) => tile_1x16,
            (1, ..=32) => tile_1x32,
            (1, _) => tile_1x48,
            (..=4, ..=16) => tile_4x16,
            (..=4, ..=32) => tile_4x32,
            (..=4, _) => tile_4x48,
            (_, ..=16) => tile_8x16,
            (_, ..=32) => tile_8x32,
            (_, _) => tile_8x48,
        };
        // SAFETY: the caller's promise.
        unsafe { tile(k, a, b, c, ldc, add) }
    }

    #[inline(always)]
    unsafe fn tile_in_place(
        cols: usize,
        k: usize,
        a: Rows,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        add: bool,
        _normal: bool,
    ) {
        let tile = match cols {
            0..=16 => strided_8x16,
            17..=32 => strided_8x32,
            _ => strided_8x48,
        };
        // SAFETY: the caller's promise.
        unsafe { tile(k, a.start.cast(), a.apart / size_of::<f32>(), b, c, ldc, add) }
    }

    #[inline(always)]
    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
        #[cfg(not(halfstep_avx512))]
        use super::avx2::vectorized;
        // SAFETY: `Path::runs_here` asks for AVX2, FMA and F16C too.
        unsafe { vectorized(f) }
    }
}
