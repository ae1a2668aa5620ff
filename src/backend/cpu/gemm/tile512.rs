//! 8×48 tiles in 512-bit registers, whatever a step of `k` does: 24 sums in zmm8 to zmm31, three vectors of B in zmm0 to
//! zmm2, A in zmm3; zmm4 to zmm6 are free.
//!
//! In assembly, since the oldest compiler we support has no intrinsics for it.

/// What is done with one row of sums before and after the loop, and the loads of B; for 1, 2 or 3 vectors of B.
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
    (b 1) => { "vmovups zmm0, [{b}]" };
    (b 2) => { "vmovups zmm0, [{b}]\nvmovups zmm1, [{b} + 64]" };
    (b 3) => { "vmovups zmm0, [{b}]\nvmovups zmm1, [{b} + 64]\nvmovups zmm2, [{b} + 128]" };
}

/// A function of a tile of so many rows and vectors of B; the macro `$step` has what is done for one word of `k`, `$advance`
/// takes A to the next, by registers that `$register` declares.
macro_rules! tile {
    (
        $name:ident, ($a:ident $(, $lda:ident)?), $vectors:tt $step:ident,
        $advance:literal, {$($register:tt)*}: $([$row:literal $x:literal $y:literal $z:literal])+
    ) => {
        /// # Safety
        /// As for [`Form::tile`](super::form::Form::tile), or for tiles of strided rows
        /// [`Form::tile_in_place`](super::form::Form::tile_in_place); the processor has the instructions.
        unsafe fn $name(
            k: usize,
            $a: *const f32,
            $($lda: usize,)?
            b: *const f32,
            c: *mut f32,
            ldc: usize,
            add: bool,
        ) {
            // SAFETY: reads a word of A for each row and 48 of B for each of `k ≥ 1`, reads and writes rows of
            // C that are `ldc` floats apart: the caller's promise. All registers used are declared.
            unsafe {
                std::arch::asm!(
                    $(row!(zero $vectors, $x $y $z),)+
                    "test {add:e}, {add:e}",
                    "jz 2f",
                    "mov {row}, {c}",
                    $(row!(load $vectors, $x $y $z), "add {row}, {ldc}",)+
                    "2:",
                    row!(b $vectors),
                    $step!($vectors: $([$row $x $y $z])+),
                    $advance,
                    "add {b}, 192",
                    "dec {k}",
                    "jnz 2b",
                    "mov {row}, {c}",
                    $(row!(store $vectors, $x $y $z), "add {row}, {ldc}",)+
                    k = inout(reg) k => _,
                    a = inout(reg) $a => _,
                    $($register)*
                    b = inout(reg) b => _,
                    c = in(reg) c,
                    ldc = in(reg) ldc * 4,
                    add = in(reg) u32::from(add),
                    row = out(reg) _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                    out("zmm4") _, out("zmm5") _, out("zmm6") _,
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
    // Eight words of rows side by side. A panel comes from the third cache, further ahead than AMD's processors ask for it
    // by themselves: with what comes 96 steps later asked for, tiles are 1.08 to 1.12 times as fast there.
    (beside $name:ident, $vectors:tt $step:ident: $($rows:tt)+) => {
        tile!($name, (a), $vectors $step, "prefetcht0 [{a} + 3072]\nadd {a}, 32", {}: $($rows)+);
    };
    // Eight rows, `lda` floats apart.
    (strided $name:ident, $vectors:tt $step:ident: $($rows:tt)+) => {
        tile!($name, (a, lda), $vectors $step, "add {a}, 4\nadd {fifth}, 4", {
            fifth = inout(reg) a.wrapping_add(4 * lda) => _,
            lda = in(reg) lda * 4,
            three = in(reg) lda * 12,
        }: $($rows)+);
    };
}

/// The tiles of 1, 4 and 8 rows with so many vectors of B.
macro_rules! tiles {
    ($vectors:tt $step:ident: $one:ident $four:ident $eight:ident) => {
        tile!(beside $one, $vectors $step: ["{a}" "zmm8" "zmm9" "zmm10"]);
        tile!(beside $four, $vectors $step:
            ["{a}" "zmm8" "zmm9" "zmm10"] ["{a} + 4" "zmm11" "zmm12" "zmm13"]
            ["{a} + 8" "zmm14" "zmm15" "zmm16"] ["{a} + 12" "zmm17" "zmm18" "zmm19"]);
        tile!(beside $eight, $vectors $step:
            ["{a}" "zmm8" "zmm9" "zmm10"] ["{a} + 4" "zmm11" "zmm12" "zmm13"]
            ["{a} + 8" "zmm14" "zmm15" "zmm16"] ["{a} + 12" "zmm17" "zmm18" "zmm19"]
            ["{a} + 16" "zmm20" "zmm21" "zmm22"] ["{a} + 20" "zmm23" "zmm24" "zmm25"]
            ["{a} + 24" "zmm26" "zmm27" "zmm28"] ["{a} + 28" "zmm29" "zmm30" "zmm31"]);
    };
}

/// The tiles of 8 strided rows with so many vectors of B.
macro_rules! strided_tiles {
    ($($vectors:tt $step:ident: $name:ident)+) => {$(
        tile!(strided $name, $vectors $step:
            ["{a}" "zmm8" "zmm9" "zmm10"] ["{a} + {lda}" "zmm11" "zmm12" "zmm13"]
            ["{a} + 2*{lda}" "zmm14" "zmm15" "zmm16"] ["{a} + {three}" "zmm17" "zmm18" "zmm19"]
            ["{fifth}" "zmm20" "zmm21" "zmm22"] ["{fifth} + {lda}" "zmm23" "zmm24" "zmm25"]
            ["{fifth} + 2*{lda}" "zmm26" "zmm27" "zmm28"]
            ["{fifth} + {three}" "zmm29" "zmm30" "zmm31"]);
    )+};
}

pub(super) use {row, strided_tiles, tile, tiles};
