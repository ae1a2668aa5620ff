//! 32×32 tiles of bf16 by AMX: 16×16 sums and 32 steps of `k` an instruction, sixteen times the multiply-adds of AVX-512.
//!
//! `tdpbf16ps` adds products of even steps and of odd steps apart, and both sums to the tile at the end (Intel SDM,
//! volume 2, TDPBF16PS): not the chain over `k` that the other forms compute. Its roundings are to nearest even and no
//! more than theirs, so the error bound is the same, but bits are this form's own: it is for who asks for it. Subnormals
//! it takes and gives as zero: tiles in which something might be are computed as chains, from the same panels.
//!
//! A step of the loop: 16 words of `k`, each of two steps. A's panel has 32 rows of 16 words, B's 16 rows of 32 words;
//! four tiles of 1 KiB are loaded (8 cycles each) for four products (16 cycles each).

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

use super::avx512::Avx512;
use super::form::{Form, Rows};
use super::lanes;
use super::pack::{LANES, Source};
use super::pairs::{element, turned, word, words};

/// AMX in 32×32 tiles; the loops around them as [`Avx512`].
pub(super) struct Amx;

/// Words of a row of a tile register.
const WORDS: usize = 16;
/// Rows of a tile register.
const ROWS: usize = 16;

/// What `ldtilecfg` reads (Intel SDM, volume 1, 18.3): all eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = {
    let (mut bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        bytes[tile] = 64;
        rows[tile] = ROWS as u8;
        tile += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows }
};

/// Rows of A: a panel's, or where they lie. Bytes from row to row, and from 16 words of a row to the next.
#[derive(Clone, Copy)]
struct A {
    start: *const u8,
    row: usize,
    block: usize,
}

/// A function of a tile; which of its quarters there are, as tiles of sums (0 to 3), loads, and products.
macro_rules! tile {
    ($name:ident: $(sums $sum:literal $c:literal),+; $(load $load:literal),+; $(product $product:literal),+) => {
        /// # Safety
        /// As for [`Form::tile`], with blocks of 16 words of `k`; inside [`Form::begin`] and [`Form::end`].
        unsafe fn $name(blocks: usize, a: A, b: *const f32, c: *mut f32, ldc: usize, add: bool) {
            // SAFETY: reads 32 rows of 16 words of A and 16 rows of 32 words of B for each block, reads and writes
            // rows of C that are `ldc` floats apart: the caller's promise. All registers used are declared.
            unsafe {
                asm!(
                    "/* {a_low}, {c_low}: of 32 rows */",
                    $(concat!("tilezero ", $sum),)+
                    "test {add:e}, {add:e}",
                    "jz 2f",
                    $(concat!("tileloadd ", $sum, ", [", $c, " + {ldc}*1]"),)+
                    "2:",
                    $(concat!("tileloadd ", $load),)+
                    $(concat!("tdpbf16ps ", $product),)+
                    "add {a}, {a_block}",
                    "add {a_low}, {a_block}",
                    "add {b}, 2048",
                    "dec {blocks}",
                    "jnz 2b",
                    $(concat!("tilestored [", $c, " + {ldc}*1], ", $sum),)+
                    blocks = inout(reg) blocks => _,
                    a = inout(reg) a.start => _,
                    a_low = inout(reg) a.start.wrapping_add(ROWS * a.row) => _,
                    a_row = in(reg) a.row,
                    a_block = in(reg) a.block,
                    b = inout(reg) b => _,
                    c = in(reg) c,
                    c_low = in(reg) c.wrapping_add(ROWS * ldc),
                    ldc = in(reg) ldc * 4,
                    add = in(reg) u32::from(add),
                    b_row = in(reg) 128usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            }
        }
    };
}

tile!(tile_32x32:
    sums "tmm0" "{c}", sums "tmm1" "{c} + 64", sums "tmm2" "{c_low}", sums "tmm3" "{c_low} + 64";
    load "tmm4, [{a} + {a_row}*1]", load "tmm6, [{b} + {b_row}*1]",
    load "tmm7, [{b} + {b_row}*1 + 64]", load "tmm5, [{a_low} + {a_row}*1]";
    product "tmm0, tmm4, tmm6", product "tmm1, tmm4, tmm7",
    product "tmm2, tmm5, tmm6", product "tmm3, tmm5, tmm7");
tile!(tile_32x16:
    sums "tmm0" "{c}", sums "tmm2" "{c_low}";
    load "tmm4, [{a} + {a_row}*1]", load "tmm6, [{b} + {b_row}*1]", load "tmm5, [{a_low} + {a_row}*1]";
    product "tmm0, tmm4, tmm6", product "tmm2, tmm5, tmm6");
tile!(tile_16x32:
    sums "tmm0" "{c}", sums "tmm1" "{c} + 64";
    load "tmm4, [{a} + {a_row}*1]", load "tmm6, [{b} + {b_row}*1]", load "tmm7, [{b} + {b_row}*1 + 64]";
    product "tmm0, tmm4, tmm6", product "tmm1, tmm4, tmm7");
tile!(tile_16x16:
    sums "tmm0" "{c}";
    load "tmm4, [{a} + {a_row}*1]", load "tmm6, [{b} + {b_row}*1]";
    product "tmm0, tmm4, tmm6");

impl Form for Amx {
    type Around = Avx512;
    const MR: usize = 2 * ROWS;
    const NR: usize = 2 * WORDS;
    const VECTOR: bool = true;
    #[cfg(halfstep_avx512)]
    const WIDE: bool = true;
    const WORD_STEPS: usize = 2;
    const LANE_WORDS: usize = WORDS;
    const LOW_FIRST: bool = true;
    // What is least in rows where they lie is found by what newer compilers have.
    const IN_PLACE: bool = cfg!(halfstep_avx512);

    #[inline(always)]
    unsafe fn begin() {
        // SAFETY: the processor has AMX, and the system lets this process use it; reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly)) };
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

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
        let blocks = k.div_ceil(WORDS);
        let panel = A { start: a.cast(), row: 64, block: 64 * Self::MR };
        // SAFETY: the caller's promise; panels end with whole blocks.
        unsafe {
            match (normal, rows > ROWS, cols > WORDS) {
                (true, true, true) => tile_32x32(blocks, panel, b, c, ldc, add),
                (true, true, false) => tile_32x16(blocks, panel, b, c, ldc, add),
                (true, false, true) => tile_16x32(blocks, panel, b, c, ldc, add),
                (true, false, false) => tile_16x16(blocks, panel, b, c, ldc, add),
                (false, ..) => Self::vectorized(
                    #[inline(always)]
                    || chains(panel, rows, blocks, b, c, ldc, add),
                ),
            }
        }
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
        normal: bool,
    ) {
        let rows = A { start: a.start, row: a.apart, block: 64 };
        // SAFETY: the caller's promise.
        unsafe {
            match (normal, cols > WORDS) {
                (true, true) => tile_32x32(k / WORDS, rows, b, c, ldc, add),
                (true, false) => tile_32x16(k / WORDS, rows, b, c, ldc, add),
                (false, _) => Self::vectorized(
                    #[inline(always)]
                    || chains(rows, Self::MR, k / WORDS, b, c, ldc, add),
                ),
            }
        }
    }

    #[inline(always)]
    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe { Avx512::vectorized(f) }
    }
}

/// The tile as chains of multiply-adds, a few rows at a time.
///
/// # Safety
/// As for [`Form::tile`]; inside `Form::vectorized`.
#[inline(always)]
unsafe fn chains(
    a: A,
    rows: usize,
    blocks: usize,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    const SIDE_BY_SIDE: usize = 4;
    for first in (0..rows).step_by(SIDE_BY_SIDE) {
        let mut sums = [[0.0f32; Amx::NR]; SIDE_BY_SIDE];
        // SAFETY: the caller's promise; panels and C have whole tiles of rows.
        unsafe {
            let c = c.add(first * ldc);
            if add {
                for (i, sums) in sums.iter_mut().enumerate() {
                    *sums = c.add(i * ldc).cast::<[f32; Amx::NR]>().read();
                }
            }
            for step in 0..blocks * WORDS {
                let b = b.add(step * Amx::NR).cast::<[f32; Amx::NR]>().read();
                for (i, sums) in sums.iter_mut().enumerate() {
                    let word = (first + i) * a.row + step / WORDS * a.block + step % WORDS * 4;
                    let a = a.start.add(word).cast::<f32>().read_unaligned();
                    for second in [false, true] {
                        let factor = element::<Amx>(a, second);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = factor.mul_add(element::<Amx>(b, second), *sum);
                        }
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                c.add(i * ldc).cast::<[f32; Amx::NR]>().write(sums);
            }
        }
    }
}

/// Where in a panel of A a lane's word is.
#[inline(always)]
pub(super) fn place(lane: usize, word: usize) -> usize {
    (word / WORDS * Amx::MR + lane) * WORDS + word % WORDS
}

/// Packs up to 8 lanes of A, from lane `first` of a panel on, as `[⌈steps/32⌉][32 lanes][16 words]`; what is missing of
/// the 8 lanes, and of the last 32 steps, becomes zeros.
///
/// # Safety
/// The elements are in the operand. `to` is valid for writes of whole panels of so many steps. Inside `Form::vectorized`.
#[inline(always)]
pub(super) unsafe fn lanes_of_a<F: Form>(
    from: Source<u16>,
    (first, lanes): (usize, usize),
    steps: usize,
    to: *mut f32,
) {
    // Words that are packed side by side.
    let whole = match from.lanes_together {
        true if lanes == LANES => steps / 16 * 8,
        true => 0,
        false => steps / 32 * WORDS,
    };
    // SAFETY: the caller's promise.
    unsafe {
        if from.lanes_together {
            // Eight words of eight lanes, from 16 rows.
            for start in (0..whole).step_by(8) {
                let rows: [[f32; 8]; 8] = std::array::from_fn(|i| {
                    let row = from.start.add(2 * (start + i) * from.ld).cast::<[u16; 8]>();
                    words::<F, 8>(
                        row.read_unaligned(),
                        row.cast::<u16>().add(from.ld).cast::<[u16; 8]>().read_unaligned(),
                    )
                });
                let columns = lanes::transpose::<F>(&rows);
                for (lane, column) in columns.into_iter().enumerate() {
                    to.add(place(first + lane, start)).cast::<[f32; 8]>().write(column);
                }
            }
        } else {
            for lane in 0..lanes {
                let row = from.start.add(lane * from.ld);
                for start in (0..whole).step_by(WORDS) {
                    let pairs = row.add(2 * start).cast::<[u32; WORDS]>().read_unaligned();
                    let words = turned::<F, WORDS>(pairs);
                    to.add(place(first + lane, start)).cast::<[f32; WORDS]>().write(words);
                }
            }
        }
        for lane in 0..LANES {
            let done = if lane < lanes { whole } else { 0 };
            for word_ in done..steps.div_ceil(2).next_multiple_of(WORDS) {
                let read = |step: usize| match lane < lanes && step < steps {
                    true => *from.at(lane, step),
                    false => 0,
                };
                to.add(place(first + lane, word_))
                    .write(word::<F>(read(2 * word_), read(2 * word_ + 1)));
            }
        }
    }
}

/// Whether the processor has AMX for bf16, with registers as they are here, and the system lets this process use it.
pub(super) fn is_here() -> bool {
    let CpuidResult { eax: leaves, .. } = __cpuid(0);
    if leaves < 0x1d {
        return false;
    }
    // Intel SDM, volume 2, CPUID: leaf 7, EDX, AMX-BF16 and AMX-TILE; leaf 1DH, palette 1.
    let has = __cpuid_count(7, 0).edx;
    let palette = __cpuid_count(0x1d, 1);
    let (row_bytes, tiles, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    has >> 22 & has >> 24 & 1 == 1 && (row_bytes, tiles, rows) == (64, 8, ROWS as u32) && allowed()
}

/// Asks the system for the state of tiles, which it gives to a process and all of its threads.
fn allowed() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::c_long;
        unsafe extern "C" {
            fn syscall(number: c_long, ...) -> c_long;
        }
        const SYS_ARCH_PRCTL: c_long = 158;
        /// Linux, `arch/x86/include/uapi/asm/prctl.h`.
        const ARCH_REQ_XCOMP_PERM: c_long = 0x1023;
        const XFEATURE_XTILEDATA: c_long = 18;
        // SAFETY: two numbers, no memory.
        unsafe { syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}
