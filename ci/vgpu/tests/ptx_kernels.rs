//! Whole kernels as nvcc compiles them, against plain definitions.

mod common;

use std::time::Instant;

use common::*;
use halfstep_vgpu::launch::Grid;
use halfstep_vgpu::number::{BF16, F16, Format, Rounding};

fn source(name: &str) -> std::path::PathBuf {
    root().join("ci/vgpu/tests/kernels").join(name)
}

/// A product with 16-bit inputs against f64; the bound is that of f32 sums in any order.
fn gemm(device: &mut Device, kernel: &str, format: Format, [m, n, k]: [usize; 3]) {
    let mut noise = noise(m as u64 + 3 * k as u64);
    let mut matrix = |len: usize| -> Vec<u16> {
        (0..len).map(|_| format.from_f64(noise().into(), Rounding::Nearest) as u16).collect()
    };
    let (a, b) = (matrix(m * k), matrix(k * n));
    let bias: Vec<f32> = (0..n).map(|i| i as f32 / 16.0).collect();
    let (pa, pb) = (device.upload(&a, "A"), device.upload(&b, "B"));
    let pbias = device.upload(&bias, "bias");
    let pd = device.memory.allocate(4 * (m * n) as u64, "D");
    let params = Params::default().ptr(pa).ptr(pb).ptr(pd).ptr(pbias).u32(n as u32).u32(k as u32);
    let blocks = [(n / 64) as u32, (m / 64) as u32, 1];
    let start = Instant::now();
    let report = device.launch(kernel, Grid { blocks, threads: [128, 1, 1], shared: 0 }, params);
    println!("{kernel} {m}x{n}x{k}: {:?}\n{}", start.elapsed(), report.counters);
    clean(&report);
    let d = device.download(pd, m * n, f32::from_le_bytes);
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut size) = (f64::from(bias[j]), f64::from(bias[j]));
            for x in 0..k {
                let term = format.to_f64(a[i * k + x].into()) * format.to_f64(b[x * n + j].into());
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
    let Some(ptx) = compile(&source("gemm.cu"), &[]) else { return };
    let mut device = Device::new(&ptx);
    for shape in [[64, 64, 32], [64, 128, 96], [256, 256, 256]] {
        gemm(&mut device, "gemm_bf16", BF16, shape);
        gemm(&mut device, "gemm_f16", F16, shape);
    }
}

#[test]
fn adamw_agrees_bit_for_bit() {
    let Some(ptx) = compile(&source("adamw.cu"), &[]) else { return };
    let mut device = Device::new(&ptx);
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
    let report = device.run("adamw", 108, 256, params);
    println!("adamw {len}: {:?}\n{}", start.elapsed(), report.counters);
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
        assert_eq!(
            u64::from(parameters[i]),
            BF16.from_f64(w.into(), Rounding::Nearest),
            "element {i}"
        );
    }
}

#[test]
fn calls_local_memory_constants_and_divergence() {
    let Some(ptx) = compile(&source("mixed.cu"), &[]) else { return };
    let mut device = Device::new(&ptx);
    let x: Vec<f32> = (0..8).map(|i| i as f32 * 100.0).collect();
    let (px, po) = (device.upload(&x, "x"), device.memory.allocate(256, "out"));
    let report = device.run("calls", 1, 64, Params::default().ptr(px).ptr(po).u32(3));
    clean(&report);
    assert!(report.counters.divergent > 0);
    for (t, y) in device.download(po, 64, f32::from_le_bytes).into_iter().enumerate() {
        let slot = (0..8).find(|i| i * 3 % 8 == (t + 3) % 8).unwrap();
        let sum = ((1 << (t % 5)) - 1) as f32 + (t % 4) as f32 + 1.5 + x[slot];
        let more = [t as f32, -1.0, 0.0][t % 3];
        assert_eq!(y, sum + more, "thread {t}");
    }
    let (counter, _) = device.global("counter").unwrap();
    assert_eq!(device.download(counter, 1, u32::from_le_bytes), [7 + 64]);
}

#[test]
fn votes_shuffles_matches_and_reductions() {
    let Some(ptx) = compile(&source("mixed.cu"), &[]) else { return };
    let mut device = Device::new(&ptx);
    let po = device.memory.allocate(4 * 256, "out");
    clean(&device.run("votes", 1, 32, Params::default().ptr(po)));
    let ballot = |f: &dyn Fn(u32) -> bool| (0..32).filter(|t| f(*t)).map(|t| 1 << t).sum::<u32>();
    for (t, y) in (0..32).zip(device.download(po, 256, u32::from_le_bytes).chunks(8)) {
        let square = |t: u32| t * t;
        let wanted = [
            ballot(&|t| t % 3 == 0),
            1,
            if t + 4 < 32 { t + 4 } else { t },
            square(t ^ 5),
            if t % 16 >= 3 { t - 3 } else { t },
            ballot(&|o| o % 4 == t % 4),
            496 + 31,
            t / 16 * 16 + 7,
        ];
        assert_eq!(y, wanted, "lane {t}");
    }
}

#[test]
fn atomics_of_every_type() {
    let Some(ptx) = compile(&source("mixed.cu"), &[]) else { return };
    let mut device = Device::new(&ptx);
    let u = device.upload(&[0_u32, 0, u32::MAX, 0, 0], "u");
    let (f, d) = (device.upload(&[1.0_f32], "f"), device.upload(&[1.0_f64], "d"));
    let l = device.upload(&[0_u64], "l");
    let params = [u, f, d, l].iter().fold(Params::default(), |p, a| p.ptr(*a));
    clean(&device.run("atomics", 3, 64, params));
    let threads = 0..192_u32;
    let sum: u32 = threads.clone().sum();
    assert_eq!(device.download(u, 5, u32::from_le_bytes), [sum, 63, 3, 0, 192 % 10]);
    assert_eq!(device.download(f, 1, f32::from_le_bytes), [1.0 + 96.0]);
    assert_eq!(device.download(d, 1, f64::from_le_bytes), [1.0 + 48.0]);
    assert_eq!(device.download(l, 1, u64::from_le_bytes), [191]);
}

/// Controls: a main loop that is wrong in one place gives a wrong product or a finding.
#[test]
fn a_broken_main_loop_is_noticed() {
    let Some(ptx) = compile(&source("gemm.cu"), &[]) else { return };
    let broken = |text: String, kernel: &str, format: Format| {
        assert_ne!(text, ptx);
        let run = std::panic::AssertUnwindSafe(|| {
            gemm(&mut Device::new(&text), kernel, format, [64, 64, 64])
        });
        std::panic::catch_unwind(run).is_err()
    };
    for (what, with) in [
        (".trans", ""),
        ("bf16.bf16", "f16.f16"),
        ("cp.async.wait_group 0;", ""),
        ("cp.async.wait_group 1;", "cp.async.wait_group 2;"),
        ("cp.async.commit_group;", ""),
        ("bar.sync \t0;", ""),
        ("ldmatrix.sync.aligned.m8n8.x4.shared", "ldmatrix.sync.aligned.m8n8.x4.trans.shared"),
    ] {
        assert!(broken(ptx.replace(what, with), "gemm_bf16", BF16), "{what} -> {with}");
    }
    assert!(broken(ptx.replace("f32.f16.f16", "f32.bf16.bf16"), "gemm_f16", F16));
}
