//! The products of tests/kernels/gemm.cu and gemm.hip.

use super::{BF16_TYPE, Builder, Case, F16_TYPE, F32_TYPE, arguments};

pub fn cases(kernel: &str, ptx: bool) -> Vec<Case> {
    let ty =
        if kernel.ends_with("f16") && !kernel.ends_with("bf16") { F16_TYPE } else { BF16_TYPE };
    if ptx {
        // More stages than buffers, and more than one tile each way.
        return vec![product(ty, [64, 128, 128]), product(ty, [128, 64, 32])];
    }
    vec![product_hip(ty, [140, 133, 96]), product_hip(ty, [128, 128, 32])]
}

fn product(ty: u32, [m, n, k]: [usize; 3]) -> Case {
    let mut b = Builder::default();
    let (x, y, z) = (b.noise(m * k, false), b.noise(k * n, false), b.noise(n, false));
    let (x, y, z) = (b.values(&x, ty, 0), b.values(&y, ty, 0), b.values(&z, F32_TYPE, 0));
    let d = b.room(4 * (m * n) as u64);
    let params = arguments(&[&x, &y, &d, &z, &(n as u32), &(k as u32)]);
    b.launch([n as u32 / 64, m as u32 / 64, 1], 128, params)
}

fn product_hip(ty: u32, [m, n, k]: [usize; 3]) -> Case {
    let mut b = Builder::default();
    let (x, y) = (b.noise(m * k, false), b.noise(n * k, false));
    let (x, y) = (b.values(&x, ty, 0), b.values(&y, ty, 0));
    let d = b.room(4 * (m * n) as u64);
    let params = arguments(&[&x, &y, &d, &(m as u32), &(n as u32), &(k as u32)]);
    b.launch([n.div_ceil(128) as u32, m.div_ceil(128) as u32, 1], 256, params)
}
