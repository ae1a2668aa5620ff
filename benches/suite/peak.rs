//! What this machine can do at best, measured next to what is compared with it.

use std::hint::black_box;
use std::time::Instant;

/// GFLOP/s of one thread by the bf16 dot products that products of bf16 are made of here; none where they are made of
/// f32 multiply-adds.
pub fn bf16_gflops() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if halfstep::Device::cpu().info().arch == "avx512bf16" {
        let steps = 400_000;
        let start = Instant::now();
        // SAFETY: the processor has AVX512_BF16, or the device would be another.
        unsafe { dots_avx512(black_box(steps)) };
        return Some((steps * 24 * 32 * 2) as f64 / start.elapsed().as_secs_f64() * 1e-9);
    }
    None
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
