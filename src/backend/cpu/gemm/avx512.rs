//! The 8×48 tile in 512-bit registers: 24 sums, three vectors of B, one broadcast of A. Per step of
//! `k` 24 multiply-adds and 11 loads: on cores with two 512-bit units the multiply-adds decide.
//!
//! In assembly, since the oldest compiler we support has no intrinsics for it.

use std::arch::asm;

use super::form::Form;

/// 512-bit multiply-adds; the loops around them (packing, epilogue) in 256 bits, or where the compiler
/// has the intrinsics (`halfstep_avx512`, set by the build script) in 512.
pub(super) struct Avx512;

/// # Safety
/// The processor has AVX-512F, AVX2, FMA and F16C.
#[cfg(halfstep_avx512)]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// The instructions of one row of the tile, for 1, 2 or 3 vectors of B.
macro_rules! row {
    (zero 1, $x:literal $y:literal $z:literal) => { concat!("vpxord ", $x, ", ", $x, ", ", $x) };
    (zero 2, $x:literal $y:literal $z:literal) => {
        concat!(row!(zero 1, $x $y $z), "\n", row!(zero 1, $y $y $y))
    };
    (zero 3, $x:literal $y:literal $z:literal) => {
        concat!(row!(zero 2, $x $y $z), "\n", row!(zero 1, $z $z $z))
    };
    (load 1, $x:literal $y:literal $z:literal) => { concat!("vmovups ", $x, ", [{row}]") };
    (load 2, $x:literal $y:literal $z:literal) => {
        concat!(row!(load 1, $x $y $z), "\nvmovups ", $y, ", [{row} + 64]")
    };
    (load 3, $x:literal $y:literal $z:literal) => {
        concat!(row!(load 2, $x $y $z), "\nvmovups ", $z, ", [{row} + 128]")
    };
    (store 1, $x:literal $y:literal $z:literal) => { concat!("vmovups [{row}], ", $x) };
    (store 2, $x:literal $y:literal $z:literal) => {
        concat!(row!(store 1, $x $y $z), "\nvmovups [{row} + 64], ", $y)
    };
    (store 3, $x:literal $y:literal $z:literal) => {
        concat!(row!(store 2, $x $y $z), "\nvmovups [{row} + 128], ", $z)
    };
    (fma 1, $x:literal $y:literal $z:literal) => { concat!("vfmadd231ps ", $x, ", zmm3, zmm0") };
    (fma 2, $x:literal $y:literal $z:literal) => {
        concat!(row!(fma 1, $x $y $z), "\nvfmadd231ps ", $y, ", zmm3, zmm1")
    };
    (fma 3, $x:literal $y:literal $z:literal) => {
        concat!(row!(fma 2, $x $y $z), "\nvfmadd231ps ", $z, ", zmm3, zmm2")
    };
    (b 1) => { "vmovups zmm0, [{b}]" };
    (b 2) => { "vmovups zmm0, [{b}]\nvmovups zmm1, [{b} + 64]" };
    (b 3) => { "vmovups zmm0, [{b}]\nvmovups zmm1, [{b} + 64]\nvmovups zmm2, [{b} + 128]" };
}

macro_rules! tile {
    ($name:ident, $vectors:tt: $([$a:literal $x:literal $y:literal $z:literal])+) => {
        /// # Safety
        /// As for [`Form::tile`]; the processor has AVX-512F.
        unsafe fn $name(k: usize, a: *const f32, b: *const f32, c: *mut f32, ldc: usize, add: bool) {
            // SAFETY: reads 8 floats of A and 48 of B for each of `k ≥ 1` steps, reads and writes rows of
            // C that are `ldc` floats apart: the caller's promise. All registers used are declared.
            unsafe {
                asm!(
                    $(row!(zero $vectors, $x $y $z),)+
                    "test {add:e}, {add:e}",
                    "jz 2f",
                    "mov {row}, {c}",
                    $(row!(load $vectors, $x $y $z), "add {row}, {ldc}",)+
                    "2:",
                    row!(b $vectors),
                    $(
                        concat!("vbroadcastss zmm3, dword ptr [{a} + ", $a, "]"),
                        row!(fma $vectors, $x $y $z),
                    )+
                    "add {a}, 32",
                    "add {b}, 192",
                    "dec {k}",
                    "jnz 2b",
                    "mov {row}, {c}",
                    $(row!(store $vectors, $x $y $z), "add {row}, {ldc}",)+
                    k = inout(reg) k => _,
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    c = in(reg) c,
                    ldc = in(reg) ldc * 4,
                    add = in(reg) u32::from(add),
                    row = out(reg) _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                    out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                    out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                    out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                    out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
                    out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
                    options(nostack),
                )
            }
        }
    };
}

/// The tiles of 1, 4 and 8 rows with so many vectors of B.
macro_rules! tiles {
    ($vectors:tt: $one:ident $four:ident $eight:ident) => {
        tile!($one, $vectors: ["0" "zmm8" "zmm9" "zmm10"]);
        tile!($four, $vectors:
            ["0" "zmm8" "zmm9" "zmm10"] ["4" "zmm11" "zmm12" "zmm13"]
            ["8" "zmm14" "zmm15" "zmm16"] ["12" "zmm17" "zmm18" "zmm19"]);
        tile!($eight, $vectors:
            ["0" "zmm8" "zmm9" "zmm10"] ["4" "zmm11" "zmm12" "zmm13"]
            ["8" "zmm14" "zmm15" "zmm16"] ["12" "zmm17" "zmm18" "zmm19"]
            ["16" "zmm20" "zmm21" "zmm22"] ["20" "zmm23" "zmm24" "zmm25"]
            ["24" "zmm26" "zmm27" "zmm28"] ["28" "zmm29" "zmm30" "zmm31"]);
    };
}
pub(super) use row;

tiles!(1: tile_1x16 tile_4x16 tile_8x16);
tiles!(2: tile_1x32 tile_4x32 tile_8x32);
tiles!(3: tile_1x48 tile_4x48 tile_8x48);

impl Form for Avx512 {
    type Around = Self;
    const MR: usize = 8;
    const NR: usize = 48;
    const VECTOR: bool = true;
    #[cfg(halfstep_avx512)]
    const WIDE: bool = true;

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
    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
        #[cfg(not(halfstep_avx512))]
        use super::avx2::vectorized;
        // SAFETY: `Path::runs_here` asks for AVX2, FMA and F16C too.
        unsafe { vectorized(f) }
    }
}
