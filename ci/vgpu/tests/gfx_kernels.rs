//! Whole kernels as clang compiles them for gfx90a, against plain definitions.

mod common;

use std::time::Instant;

use common::gfx::{COMPILERS, compile};
use common::*;
use halfstep_vgpu::launch::Grid;
use halfstep_vgpu::number::{BF16, F16, Format, Rounding};

/// A device with a source's kernels, one for each compiler that is there.
fn devices(name: &str) -> impl Iterator<Item = (&'static str, Device)> {
    let source = root().join("ci/vgpu/tests/kernels").join(name);
    COMPILERS.into_iter().filter_map(move |compiler| {
        Some((compiler, Device::gfx(&compile(compiler, &source, &[])?)))
    })
}

/// A product with 16-bit inputs against f64; the bound is that of f32 sums in any order.
fn gemm(device: &mut Device, kernel: &str, format: Format, [m, n, k]: [usize; 3]) {
    let mut noise = noise(m as u64 + 3 * k as u64);
    let mut matrix = |len: usize| -> Vec<u16> {
        (0..len).map(|_| format.from_f64(noise().into(), Rounding::Nearest) as u16).collect()
    };
    let (a, b) = (matrix(m * k), matrix(n * k));
    let (pa, pb) = (device.upload(&a, "A"), device.upload(&b, "B"));
    let pd = device.memory.allocate(4 * (m * n) as u64, "D");
    let params = Params::default().ptr(pa).ptr(pb).ptr(pd);
    let params = params.u32(m as u32).u32(n as u32).u32(k as u32);
    let blocks = [n.div_ceil(128) as u32, m.div_ceil(128) as u32, 1];
    let start = Instant::now();
    let report = device.launch(kernel, Grid { blocks, threads: [256, 1, 1], shared: 0 }, params);
    println!("{kernel} {m}x{n}x{k}: {:?}\n{}", start.elapsed(), report.counters);
    clean(&report);
    assert_eq!(report.counters.bank_conflicts, 0);
    let d = device.download(pd, m * n, f32::from_le_bytes);
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut size) = (0.0, 0.0);
            for x in 0..k {
                let term = format.to_f64(a[i * k + x].into()) * format.to_f64(b[j * k + x].into());
                sum += term;
                size += term.abs();
            }
            let bound = (k + 1) as f64 * 2.0_f64.powi(-24) * size;
            let off = (f64::from(d[i * n + j]) - sum).abs();
            assert!(off <= bound, "{kernel} [{i}, {j}]: {off:e} > {bound:e}");
        }
    }
}

#[test]
fn products_agree_with_f64() {
    for (compiler, mut device) in devices("gemm.hip") {
        println!("{compiler}");
        for shape in [[128, 128, 32], [100, 200, 96], [256, 256, 256]] {
            gemm(&mut device, "gemm_bf16", BF16, shape);
            gemm(&mut device, "gemm_f16", F16, shape);
        }
    }
}

#[test]
fn adamw_agrees_bit_for_bit() {
    for (compiler, mut device) in devices("adamw.hip") {
        adamw(compiler, &mut device);
    }
}

fn adamw(compiler: &str, device: &mut Device) {
    let len = 1_000_000;
    let mut noise = noise(7);
    let mut values = |scale: f32| -> Vec<f32> { (0..len).map(|_| scale * noise()).collect() };
    let gradient: Vec<u16> = values(1.0).iter().map(|x| (x.to_bits() >> 16) as u16).collect();
    let (m, w) = (values(0.1), values(2.0));
    let v: Vec<f32> = values(0.1).iter().map(|x| x * x).collect();
    let at = [
        device.upload(&gradient, "gradient"),
        device.upload(&m, "first"),
        device.upload(&v, "second"),
        device.upload(&w, "master"),
        device.memory.allocate(2 * len as u64, "parameter"),
    ];
    let [lr, beta1, beta2, eps, decay, c1, c2, scale] =
        [1e-3_f32, 0.9, 0.999, 1e-8, 0.01, 1.0 / (1.0 - 0.9), 1.0 / (1.0 - 0.999), 0.5];
    let mut params = at.iter().fold(Params::default(), |p, a| p.ptr(*a)).ptr(len as u64);
    for x in [lr, beta1, beta2, eps, decay, c1, c2, scale] {
        params = params.f32(x);
    }
    let start = Instant::now();
    let report = device.run("adamw", 110, 256, params);
    println!("{compiler} adamw {len}: {:?}\n{}", start.elapsed(), report.counters);
    clean(&report);
    let masters = device.download(at[3], len, f32::from_le_bytes);
    let parameters = device.download(at[4], len, u16::from_le_bytes);
    for i in 0..len {
        let g = scale * f32::from_bits(u32::from(gradient[i]) << 16);
        let m = beta1.mul_add(m[i], (1.0 - beta1) * g);
        let v = beta2.mul_add(v[i], (1.0 - beta2) * (g * g));
        let update = (m * c1) / ((v * c2).sqrt() + eps) + decay * w[i];
        let w = w[i] - lr * update;
        assert_eq!(masters[i].to_bits(), w.to_bits(), "element {i}");
        let wanted = BF16.from_f64(w.into(), Rounding::Nearest);
        assert_eq!(u64::from(parameters[i]), wanted, "element {i}");
    }
}
