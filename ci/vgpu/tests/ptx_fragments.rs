//! Fragment maps of `ldmatrix` and `mma.sync`, element by element, against the tables of the PTX ISA
//! as they are written here: nothing is shared with the interpreter.

mod common;

use common::*;
use halfstep_vgpu::number::{BF16, F16, Rounding};

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// What each lane gets from `ldmatrix.xCOUNT` of matrices whose element [r][c] of matrix m is
/// 64 m + 8 r + c.
fn load(count: usize, transpose: bool) -> Vec<u16> {
    let trans = if transpose { ".trans" } else { "" };
    let registers: Vec<String> = (0..count).map(|i| format!("%r{i}")).collect();
    let stores: String =
        (0..count).map(|i| format!("st.global.u32 [%d2+{}], %r{i};", 4 * i)).collect();
    // 1,024 bytes go to shared memory as they are; row i of all matrices is at 16 i.
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out) {{ .reg .b32 %r<8>; .reg .b64 %d<8>; .reg .b32 %t;\n\
         .shared .align 16 .b8 s[512];\n\
         ld.param.u64 %d0, [in]; ld.param.u64 %d1, [out]; mov.u32 %t, %tid.x;\n\
         mul.wide.u32 %d3, %t, 16; add.s64 %d4, %d0, %d3; ld.global.v4.u32 {{%r0,%r1,%r2,%r3}}, [%d4];\n\
         shl.b32 %r4, %t, 4; mov.u32 %r5, s; add.s32 %r5, %r5, %r4; st.shared.v4.u32 [%r5], {{%r0,%r1,%r2,%r3}}; bar.warp.sync -1;\n\
         ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{}}}, [%r5];\n\
         mul.wide.u32 %d3, %t, {}; add.s64 %d2, %d1, %d3; {stores} ret; }}\n",
        registers.join(","),
        4 * count
    );
    let mut device = Device::new(&ptx);
    let elements: Vec<u16> = (0..256).collect();
    let (a, b) =
        (device.upload(&elements, "in"), device.memory.allocate(128 * count as u64, "out"));
    clean(&device.run("k", 1, 32, Params::default().ptr(a).ptr(b)));
    device.download(b, 64 * count, u16::from_le_bytes)
}

#[test]
fn ldmatrix_gives_each_lane_its_elements() {
    for count in [1, 2, 4] {
        for transpose in [false, true] {
            let got = load(count, transpose);
            for lane in 0..32 {
                for m in 0..count {
                    for half in 0..2 {
                        let (g, pair) = (lane / 4, 2 * (lane % 4) + half);
                        let (row, column) = if transpose { (pair, g) } else { (g, pair) };
                        let found = got[(lane * count + m) * 2 + half];
                        assert_eq!(
                            found as usize,
                            64 * m + 8 * row + column,
                            "x{count} lane {lane}"
                        );
                    }
                }
            }
        }
    }
}

/// Row and column of A's element i of a lane, after the ISA: for m16n8k16,
/// row = g for 0 ≤ i < 2 || 4 ≤ i < 6, else g + 8; column = 2t + (i & 1), + 8 for i ≥ 4.
fn a_element(lane: usize, i: usize, k: usize) -> (usize, usize) {
    let (g, t) = (lane >> 2, lane % 4);
    if k == 16 {
        let row = if i < 2 || (4..6).contains(&i) { g } else { g + 8 };
        (row, t * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
    } else {
        (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))
    }
}

/// row = 2t + (i & 1), + 8 for i ≥ 2; column = g.
fn b_element(lane: usize, i: usize) -> (usize, usize) {
    ((lane % 4) * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, lane >> 2)
}

/// row = g for i < 2, else g + 8; column = 2t + (i & 1).
fn c_element(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 2 + (i & 1))
}

/// One product of fragments that are given and taken lane by lane.
struct Product {
    device: Device,
    k: usize,
}

impl Product {
    fn new(k: usize, ty: &str) -> Self {
        let (a, b) = (k / 4, k / 8); // registers
        let list = |from: usize, n: usize| {
            (from..from + n).map(|i| format!("%r{i}")).collect::<Vec<_>>().join(",")
        };
        let load = |from: usize, n: usize, base: &str| -> String {
            let loads = (0..n).map(|i| format!("ld.global.u32 %r{}, [%d9+{}];", from + i, 4 * i));
            format!("mul.wide.u32 %d9, %t, {}; add.s64 %d9, %d9, {base};", 4 * n)
                + &loads.collect::<String>()
        };
        let ptx = format!(
            "{HEAD}.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {{ .reg .b32 %r<16>; .reg .b64 %d<10>; .reg .b32 %t;\n\
             ld.param.u64 %d0, [a]; ld.param.u64 %d1, [b]; ld.param.u64 %d2, [c]; ld.param.u64 %d3, [d]; mov.u32 %t, %tid.x;\n\
             {}{}{}\n\
             mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};\n\
             mul.wide.u32 %d9, %t, 16; add.s64 %d9, %d9, %d3; st.global.v4.b32 [%d9], {{{}}}; ret; }}\n",
            load(0, a, "%d0"),
            load(4, b, "%d1"),
            load(6, 4, "%d2"),
            list(10, 4),
            list(0, a),
            list(4, b),
            list(6, 4),
            list(10, 4)
        );
        Self { device: Device::new(&ptx), k }
    }

    /// D of A [16][k], B [k][8], C [16][8], all row-major; the inputs as bits.
    fn run(&mut self, a: &[u16], b: &[u16], c: &[f32]) -> Vec<f32> {
        let k = self.k;
        let each = |n: usize, f: &dyn Fn(usize, usize) -> u16| -> Vec<u16> {
            (0..32).flat_map(|lane| (0..n).map(move |i| (lane, i))).map(|(l, i)| f(l, i)).collect()
        };
        let fa = each(k / 2, &|l, i| {
            let (r, x) = a_element(l, i, k);
            a[r * k + x]
        });
        let fb = each(k / 4, &|l, i| {
            let (r, x) = b_element(l, i);
            b[r * 8 + x]
        });
        let place = |l, i| {
            let (r, x) = c_element(l, i);
            r * 8 + x
        };
        let fc: Vec<f32> = (0..128).map(|i| c[place(i / 4, i % 4)]).collect();
        let device = &mut self.device;
        let [pa, pb, pc] =
            [device.upload(&fa, "a"), device.upload(&fb, "b"), device.upload(&fc, "c")];
        let pd = device.memory.allocate(512, "d");
        clean(&device.run("k", 1, 32, Params::default().ptr(pa).ptr(pb).ptr(pc).ptr(pd)));
        let fd = device.download(pd, 128, f32::from_le_bytes);
        let mut d = vec![0.0; 128];
        for (i, x) in fd.into_iter().enumerate() {
            d[place(i / 4, i % 4)] = x;
        }
        d
    }
}

#[test]
fn mma_multiplies_every_pair_of_elements_and_no_other() {
    for (ty, format) in [("bf16", BF16), ("f16", F16)] {
        for k in [8, 16] {
            let mut product = Product::new(k, ty);
            let one = format.from_f64(1.0, Rounding::Nearest) as u16;
            // One element of A at a time; B's elements are all different, small integers.
            let number = |r: usize, c: usize| (8 * r + c) as f64;
            let b: Vec<u16> = (0..k * 8)
                .map(|i| format.from_f64(number(i / 8, i % 8), Rounding::Nearest) as u16)
                .collect();
            let c: Vec<f32> = (0..128).map(|i| i as f32 * 1024.0).collect();
            for at in 0..16 * k {
                let mut a = vec![0; 16 * k];
                a[at] = one;
                let d = product.run(&a, &b, &c);
                for i in 0..128 {
                    let term = if i / 8 == at / k { number(at % k, i % 8) as f32 } else { 0.0 };
                    assert_eq!(
                        d[i],
                        c[i] + term,
                        "{ty} k{k} A[{}][{}] D[{}][{}]",
                        at / k,
                        at % k,
                        i / 8,
                        i % 8
                    );
                }
            }
        }
    }
}

#[test]
fn mma_of_random_values_is_exact_where_f32_is() {
    for (ty, format) in [("bf16", BF16), ("f16", F16)] {
        for k in [8, 16] {
            let mut product = Product::new(k, ty);
            let mut noise = noise(k as u64);
            // Integers up to 32: every sum is exact in any order.
            let mut whole = |n: usize| -> Vec<f64> {
                (0..n).map(|_| f64::from((noise() * 32.0).trunc())).collect()
            };
            let (a, b, c) = (whole(16 * k), whole(8 * k), whole(128));
            let bits = |v: &[f64]| -> Vec<u16> {
                v.iter().map(|x| format.from_f64(*x, Rounding::Nearest) as u16).collect()
            };
            let start: Vec<f32> = c.iter().map(|x| *x as f32).collect();
            let d = product.run(&bits(&a), &bits(&b), &start);
            for i in 0..128 {
                let sum: f64 = (0..k).map(|x| a[i / 8 * k + x] * b[x * 8 + i % 8]).sum();
                assert_eq!(f64::from(d[i]), c[i] + sum, "{ty} k{k} [{i}]");
            }
        }
    }
}

/// What MMA-Sim found an A100's unit to do (arXiv 2511.10909): eight products and the accumulator are added at once, cut
/// off 24 bits below the largest, and their sum is cut to f32.
#[test]
fn mma_aligns_nine_terms_and_cuts() {
    for (ty, format) in [("bf16", BF16), ("f16", F16)] {
        for k in [8, 16] {
            let mut product = Product::new(k, ty);
            let bits = |x: f64| format.from_f64(x, Rounding::Nearest) as u16;
            // Row 0: what eight times half of the last place of 1 is; row 1: its last bit is cut off, not rounded.
            let small = 2f64.powi(-24);
            let mut a = vec![0; 16 * k];
            a[..k].fill(bits(small));
            (a[k], a[k + 1], a[k + 2]) = (bits(2.0 * small), bits(small), bits(small / 2.0));
            let d = product.run(&a, &vec![bits(1.0); 8 * k], &[1.0; 128]);
            assert_eq!(d[0], 1.0 + k as f32 * 2f32.powi(-24), "{ty} k{k}");
            assert_eq!(d[8], 1.0 + 2f32.powi(-23), "{ty} k{k}");
            assert_eq!(d[16], 1.0, "{ty} k{k}");
        }
    }
}
