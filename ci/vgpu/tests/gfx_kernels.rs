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

#[test]
fn calls_private_memory_constants_and_divergence() {
    for (compiler, mut device) in devices("mixed.hip") {
        println!("{compiler}");
        let x: Vec<f32> = (0..8).map(|i| i as f32 * 100.0).collect();
        let (px, po) = (device.upload(&x, "x"), device.memory.allocate(512, "out"));
        let report = device.run("calls", 1, 128, Params::default().ptr(px).ptr(po).u32(3));
        clean(&report);
        assert!(report.counters.divergent > 0);
        for (t, y) in device.download(po, 128, f32::from_le_bytes).into_iter().enumerate() {
            let slot = (0..8).find(|i| i * 3 % 8 == (t + 3) % 8).unwrap();
            let sum = ((1 << (t % 5)) - 1) as f32 + (t % 4) as f32 + 1.5 + x[slot];
            let more = [t as f32, -1.0, 0.0][t % 3];
            assert_eq!(y, sum + more, "thread {t}");
        }
        let (counter, _) = device.global("counter").unwrap();
        assert_eq!(device.download(counter, 1, u32::from_le_bytes), [7 + 128]);
    }
}

#[test]
fn votes_shuffles_and_patterns_of_lanes() {
    for (compiler, mut device) in devices("mixed.hip") {
        println!("{compiler}");
        let po = device.memory.allocate(4 * 512, "out");
        clean(&device.run("votes", 1, 64, Params::default().ptr(po)));
        let ballot = (0..64).filter(|t| t % 3 == 0).map(|t| 1_u64 << t).sum::<u64>();
        for (t, y) in (0..64_u32).zip(device.download(po, 512, u32::from_le_bytes).chunks(8)) {
            let wanted = [
                (ballot >> 32) as u32,
                1,
                if t + 4 < 64 { t + 4 } else { t },
                (t ^ 5) * (t ^ 5),
                if t % 16 >= 3 { t - 3 } else { t },
                (ballot & ((1 << t) - 1)).count_ones(),
                t ^ 1,
                if t % 16 == 0 { 0 } else { t - 1 },
            ];
            assert_eq!(y, wanted, "lane {t}");
        }
    }
}

#[test]
fn atomics_of_every_type() {
    for (compiler, mut device) in devices("mixed.hip") {
        println!("{compiler}");
        let u = device.upload(&[0_u32, 0, u32::MAX, 0, 0], "u");
        let (f, d) = (device.upload(&[1.0_f32], "f"), device.upload(&[1.0_f64], "d"));
        let l = device.upload(&[0_u64], "l");
        let params = [u, f, d, l].iter().fold(Params::default(), |p, a| p.ptr(*a));
        clean(&device.run("atomics", 3, 64, params));
        let sum: u32 = (0..192).sum();
        assert_eq!(device.download(u, 5, u32::from_le_bytes), [sum, 63, 3, 0, 192 % 10]);
        assert_eq!(device.download(f, 1, f32::from_le_bytes), [1.0 + 96.0]);
        assert_eq!(device.download(d, 1, f64::from_le_bytes), [1.0 + 48.0]);
        assert_eq!(device.download(l, 1, u64::from_le_bytes), [191]);
    }
}

#[test]
fn generic_pointers_and_dynamic_lds() {
    for (compiler, mut device) in devices("mixed.hip") {
        println!("{compiler}");
        let x: Vec<f32> = (0..128).map(|i| 0.5 + i as f32).collect();
        let px = device.upload(&x, "x");
        let grid = Grid { blocks: [1, 1, 1], threads: [64, 1, 1], shared: 256 };
        clean(&device.launch("generic", grid, Params::default().ptr(px)));
        for (t, y) in device.download(px + 256, 64, f32::from_le_bytes).into_iter().enumerate() {
            let wanted = match t % 4 {
                1 => (t ^ 1) as f32,
                3 => 2.0 * (t ^ 1) as f32,
                _ => x[t],
            };
            assert_eq!(y, wanted + 1000.0 + 640_000.0, "thread {t}");
        }
    }
}

/// Quotients and roots are correctly rounded as libraries compute them, with the scaling that
/// hardware's approximations need.
#[test]
fn quotients_roots_and_conversions() {
    let edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        3.0,
        1e-45,
        -1e-45,
        1e-39,
        1.2e-38,
        3.4e38,
        1e38,
        1e-38,
        0.1,
        65504.0,
        65520.0,
        6e-8,
        7.5e-8,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        123_456.79,
        1e10,
        -7e12,
    ];
    let mut noise = noise(3);
    let mut pairs: Vec<(f32, f32)> =
        edges.iter().flat_map(|a| edges.iter().map(|b| (*a, *b))).collect();
    pairs.extend((0..4000).map(|i| {
        let scale = |n: i32| 2.0_f32.powi(n % 250 - 125);
        (noise() * scale(i * 7), noise() * scale(i * 11))
    }));
    let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
    let n = pairs.len();
    for (compiler, mut device) in devices("mixed.hip") {
        println!("{compiler}");
        let (pa, pb) = (device.upload(&a, "a"), device.upload(&b, "b"));
        let po = device.memory.allocate(20 * n as u64, "out");
        let pw = device.memory.allocate(16 * n as u64, "wide");
        let params = Params::default().ptr(pa).ptr(pb).ptr(po).ptr(pw).u32(n as u32);
        clean(&device.run("numbers", n.div_ceil(256) as u32, 256, params));
        let out = device.download(po, 5 * n, f32::from_le_bytes);
        let wide = device.download(pw, 2 * n, f64::from_le_bytes);
        for (i, (x, y)) in pairs.iter().enumerate() {
            let half = F16.from_f64((*x).into(), Rounding::Nearest);
            let wanted = [
                x / y,
                x.abs().sqrt(),
                x.mul_add(*y, *x),
                F16.to_f64(half) as f32,
                *x as i64 as f32,
            ];
            for (j, wanted) in wanted.into_iter().enumerate() {
                let found = out[5 * i + j];
                // Integers from what does not fit are nobody's promise.
                if j == 4 && (x.is_nan() || x.abs() >= 9e18) {
                    continue;
                }
                let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
                assert!(same, "{x:e} {y:e} [{j}]: {found:e}, not {wanted:e}");
            }
            let (x, y) = (f64::from(*x), f64::from(*y));
            for (j, wanted) in [x / y, x.abs().sqrt()].into_iter().enumerate() {
                let found = wide[2 * i + j];
                let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
                assert!(same, "{x:e} {y:e} wide [{j}]: {found:e}, not {wanted:e}");
            }
        }
    }
}

/// Controls: a main loop that is wrong in one place gives a wrong product or a finding. The code is
/// patched: bit patterns of instructions are replaced.
#[test]
fn a_broken_main_loop_is_noticed() {
    for (compiler, _) in devices("gemm.hip") {
        let source = root().join("ci/vgpu/tests/kernels/gemm.hip");
        let Some(object) = compile(compiler, &source, &[]) else { return };
        let broken = |what: &str, from: &dyn Fn(u32) -> Option<u32>| {
            let start = object.windows(6).position(|w| w == b"\x7fELF\x02\x01").unwrap();
            let mut patched = object.clone();
            let mut count = 0;
            for at in (start..object.len() - 4).step_by(4) {
                let word = u32::from_le_bytes(object[at..at + 4].try_into().unwrap());
                if let Some(with) = from(word) {
                    patched[at..at + 4].copy_from_slice(&with.to_le_bytes());
                    count += 1;
                }
            }
            assert!(count > 0, "{what}: nothing to break");
            let run = std::panic::AssertUnwindSafe(|| {
                gemm(&mut Device::gfx(&patched), "gemm_bf16", BF16, [128, 128, 96]);
            });
            assert!(std::panic::catch_unwind(run).is_err(), "{compiler}: {what} passes");
        };
        const NOP: u32 = 0xbf80_0000;
        let matrix = |w: u32| w >> 16 == 0xd3e6;
        broken("no barrier", &|w| (w == 0xbf8a_0000).then_some(NOP));
        broken("no wait", &|w| (w >> 16 == 0xbf8c).then_some(NOP));
        broken("f16 for bf16", &|w| matrix(w).then_some(w & 0xff80_ffff | 0x4c << 16));
    }
}

#[test]
fn arguments_are_preloaded_in_registers() {
    // The first 256 bytes would load them, and here would fail; s[2:5] are the two pointers, s6 the block.
    let body = "s_trap 2\n.fill 63, 4, 0xbf800000\nv_lshlrev_b32_e32 v1, 2, v0\n\
                global_load_dword v2, v1, s[2:3]\ns_waitcnt vmcnt(0)\nglobal_store_dword v1, v2, s[4:5]";
    let text = common::gfx::kernel(body, 0).replace(
        "  .amdhsa_next_free_vgpr",
        "  .amdhsa_user_sgpr_kernarg_preload_length 4\n  .amdhsa_next_free_vgpr",
    );
    let Some(object) = common::gfx::assemble(&text) else { return };
    let mut device = Device::gfx(&object);
    let input: Vec<u32> = (5..69).collect();
    let (a, b) = (device.upload(&input, "in"), device.memory.allocate(256, "out"));
    clean(&device.run("k", 1, 64, Params::default().ptr(a).ptr(b)));
    assert_eq!(device.download(b, 64, u32::from_le_bytes), input);
}
