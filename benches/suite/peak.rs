//! What this machine can do at best, measured next to what is compared with it.

use std::hint::black_box;
use std::time::Instant;

/// GFLOP/s of one thread by AVX-512's dot products of bf16; 0 where the processor has none.
pub fn dot_gflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") {
        let steps = 400_000;
        let start = Instant::now();
        // SAFETY: the processor has AVX512_BF16.
        unsafe { dots_avx512(black_box(steps)) };
        return (steps * 24 * 32 * 2) as f64 / start.elapsed().as_secs_f64() * 1e-9;
    }
    0.0
}

/// GFLOP/s of one thread by AMX's products of bf16; 0 where the processor has none, or the system does not let us.
pub fn amx_gflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if halfstep::Device::cpu_with_arch(std::num::NonZeroUsize::MIN, "amx-bf16").is_ok() {
        let steps = 100_000;
        let start = Instant::now();
        // SAFETY: the library has found AMX, and asked the system for it.
        unsafe { products_amx(black_box(steps)) };
        return (steps * 4 * 16 * 16 * 32 * 2) as f64 / start.elapsed().as_secs_f64() * 1e-9;
    }
    0.0
}

/// f32 GFLOP/s of one thread: independent chains of the widest fused multiply-adds there are, in
/// registers, for a few milliseconds.
pub fn fma_gflops() -> f64 {
    let steps = 400_000;
    let start = Instant::now();
    let flops = black_box(chains(black_box(steps)));
    flops / start.elapsed().as_secs_f64() * 1e-9
}

/// Runs the loop, returns how many floating-point operations that was.
fn chains(steps: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            unsafe { chains_avx512(steps) };
            return (steps * 24 * 16 * 2) as f64;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            unsafe { chains_avx2(steps) };
            return (steps * 12 * 8 * 2) as f64;
        }
    }
    let mut sums = [1.0f32; 32];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = sum.mul_add(0.999, 1e-9);
        }
    }
    black_box(sums);
    (steps * 32 * 2) as f64
}

/// A loop of 24 independent chains of an instruction on 512-bit registers, all of which are 0: what was left in them
/// could be subnormal, for which some processors take a hundred times as long.
#[cfg(target_arch = "x86_64")]
macro_rules! chains_512 {
    ($name:ident, $instruction:literal: $($sum:literal)+) => {
        /// # Safety
        /// The processor has the instruction.
        unsafe fn $name(steps: usize) {
            // SAFETY: registers only.
            unsafe {
                std::arch::asm!(
                    "vpxord zmm0, zmm0, zmm0",
                    "vpxord zmm1, zmm1, zmm1",
                    $(concat!("vpxord zmm", $sum, ", zmm", $sum, ", zmm", $sum),)+
                    "2:",
                    $(concat!($instruction, " zmm", $sum, ", zmm0, zmm1"),)+
                    "dec {steps}",
                    "jnz 2b",
                    steps = inout(reg) steps => _,
                    out("zmm0") _, out("zmm1") _,
                    out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                    out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                    out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                    out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
                    out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
                    options(nomem, nostack),
                );
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
chains_512!(chains_avx512, "vfmadd231ps":
    8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
#[cfg(target_arch = "x86_64")]
chains_512!(dots_avx512, "vdpbf16ps":
    8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);

/// A loop of four products of 16×32 by 32×16 elements of zeros (as many as a 32×32 tile's sums take), each added to sums
/// of its own.
///
/// # Safety
/// The processor has AMX for bf16, and the system lets this process use it.
#[cfg(target_arch = "x86_64")]
unsafe fn products_amx(steps: usize) {
    /// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    let mut configuration = Configuration([0; 64]);
    configuration.0[0] = 1; // the palette
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64;
        configuration.0[48 + tile] = 16;
    }
    // SAFETY: reads the configuration, then registers only; all are declared.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [{configuration}]",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            "tilerelease",
            configuration = in(reg) &configuration,
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        );
    }
}

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn chains_avx2(steps: usize) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm256_storeu_ps};
    let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-9)));
    let mut sums = [_mm256_set1_ps(1.0); 12];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, x, y);
        }
    }
    for sum in sums {
        let mut values = [0.0f32; 8];
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), sum) };
        black_box(values);
    }
}
