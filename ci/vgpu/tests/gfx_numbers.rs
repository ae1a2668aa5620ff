//! Conversions over every 16-bit number, multiply-adds and modes, against definitions.

mod common;

use common::gfx::{assemble, kernel};
use common::*;
use halfstep_vgpu::number::{F16, F32, Rounding, add_f32, f16_to_f32, fma_f32};

/// A kernel that does `body` with `v2` to `v5`, four words of the thread, and stores `v8` to `v11`.
fn device(body: &str) -> Option<Device> {
    let text = format!(
        "s_load_dwordx4 s[4:7], s[0:1], 0x0
v_lshlrev_b32_e32 v0, 4, v0
s_lshl_b32 s2, s2, 12
v_add_u32_e32 v0, s2, v0
s_waitcnt lgkmcnt(0)
global_load_dwordx4 v[2:5], v0, s[4:5]
v_mov_b32_e32 v8, 0
v_mov_b32_e32 v9, 0
v_mov_b32_e32 v10, 0
v_mov_b32_e32 v11, 0
s_waitcnt vmcnt(0)
{body}
global_store_dwordx4 v0, v[8:11], s[6:7]
"
    );
    Some(Device::gfx(&assemble(&kernel(&text, 0))?))
}

fn run(body: &str, words: &[[u32; 4]]) -> Option<Vec<[u32; 4]>> {
    let mut device = device(body)?;
    let count = words.len().next_multiple_of(256);
    let mut all = words.to_vec();
    all.resize(count, [0; 4]);
    let from = device.upload(&all, "in");
    let to = device.memory.allocate(16 * count as u64, "out");
    clean(&device.run("k", (count / 256) as u32, 256, Params::default().ptr(from).ptr(to)));
    let found = device.download(to, 4 * count, u32::from_le_bytes);
    Some(found.chunks(4).take(words.len()).map(|c| c.try_into().unwrap()).collect())
}

/// MODE's rounding of f32 and of f16, and its subnormals.
fn mode(round32: u32, round16: u32, subnormals: u32) -> String {
    let mode = round32 | round16 << 2 | subnormals << 4;
    format!("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 8), {mode}\n")
}

/// In the order of MODE's numbers.
const MODES: [Rounding; 4] = [Rounding::Nearest, Rounding::Up, Rounding::Down, Rounding::Zero];

#[test]
fn every_f16_widens_exactly_and_comes_back_in_every_rounding() {
    // The number, and three f32 between it and the next.
    let words: Vec<[u32; 4]> = (0..=u16::MAX)
        .map(|h| {
            let (a, b) = (f16_to_f32(h), f16_to_f32(h.wrapping_add(1)));
            let middle = (a + b) / 2.0;
            let below = f32::from_bits(middle.to_bits().wrapping_sub(1));
            let above = f32::from_bits(middle.to_bits().wrapping_add(1));
            [h.into(), middle.to_bits(), below.to_bits(), above.to_bits()]
        })
        .collect();
    for (number, rounding) in MODES.into_iter().enumerate() {
        let body = "v_cvt_f32_f16_e32 v8, v2\nv_cvt_f16_f32_e32 v9, v3\nv_cvt_f16_f32_e32 v10, v4\nv_cvt_f16_f32_e32 v11, v5";
        let Some(found) = run(&(mode(0, number as u32, 15) + body), &words) else { return };
        for (word, out) in words.iter().zip(found) {
            let wide = f16_to_f32(word[0] as u16);
            assert!(out[0] == wide.to_bits() || wide.is_nan() && f32::from_bits(out[0]).is_nan());
            for n in 1..4 {
                let x = f32::from_bits(word[n]);
                let wanted = F16.from_f64(x.into(), rounding) as u32;
                let nan = x.is_nan() && out[n] & 0x7fff > 0x7c00;
                assert!(
                    out[n] == wanted || nan,
                    "{x:e} {rounding:?}: {:#x}, not {wanted:#x}",
                    out[n]
                );
            }
        }
    }
}

#[test]
fn packed_conversions_integers_and_flushed_halves() {
    let mut noise = noise(5);
    let words: Vec<[u32; 4]> = (0..4096)
        .map(|i| {
            let scale = 2.0_f32.powi(i % 60 - 30);
            [
                (noise() * scale).to_bits(),
                (noise() * scale * 3.0).to_bits(),
                i as u32 * 1_048_583,
                0,
            ]
        })
        .collect();
    let body = "v_cvt_pkrtz_f16_f32 v8, v2, v3\nv_cvt_f32_u32_e32 v9, v4\nv_cvt_i32_f32_e32 v10, v3\nv_cvt_u32_f32_e32 v11, v2";
    let Some(found) = run(body, &words) else { return };
    for (word, out) in words.iter().zip(found) {
        let (a, b) = (f32::from_bits(word[0]), f32::from_bits(word[1]));
        let half = |x: f32| F16.from_f64(x.into(), Rounding::Zero) as u32;
        let wanted =
            [half(a) | half(b) << 16, (word[2] as f32).to_bits(), b as i32 as u32, a as u32];
        assert_eq!(out, wanted, "{a:e} {b:e}");
    }
    // Without subnormals of f16: they are 0 on the way in and out.
    let body = mode(0, 0, 3) + "v_cvt_f32_f16_e32 v8, v2\nv_cvt_f16_f32_e32 v9, v3";
    let words = [[0x83ff, 6e-6_f32.to_bits(), 0, 0], [0x0400, 6.2e-5_f32.to_bits(), 0, 0]];
    let found = run(&body, &words).unwrap();
    assert_eq!(found[0][..2], [0x8000_0000, 0]);
    assert_eq!(
        found[1][..2],
        [f16_to_f32(0x400).to_bits(), F16.from_f64(6.2e-5_f32.into(), Rounding::Nearest) as u32]
    );
}

#[test]
fn multiply_adds_round_once_in_every_direction() {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as u32 & 0xbfff_ffff | 0x2000_0000
    };
    let words: Vec<[u32; 4]> = (0..8192).map(|_| [next(), next(), next(), 0]).collect();
    for (number, rounding) in MODES.into_iter().enumerate() {
        let body = "v_fma_f32 v8, v2, v3, v4\nv_add_f32_e32 v9, v2, v4\nv_fma_f32 v10, -v2, |v3|, v4\nv_mov_b32_e32 v11, v4\nv_fmac_f32_e32 v11, v2, v3";
        let Some(found) = run(&(mode(number as u32, 0, 15) + body), &words) else { return };
        for (word, out) in words.iter().zip(found) {
            let [a, b, c] = [0, 1, 2].map(|n| f32::from_bits(word[n]));
            // Exact: the product in f64, its sum in f64 with what is lost made to show.
            let wanted = [
                fma_f32(a, b, c, rounding),
                add_f32(a, c, rounding),
                fma_f32(-a, b.abs(), c, rounding),
                fma_f32(a, b, c, rounding),
            ];
            assert_eq!(out.map(f32::from_bits), wanted, "{a:e} {b:e} {c:e} {rounding:?}");
        }
    }
}

/// 24-bit integers: products and sums that are exact in integers say what the rounded one must be.
#[test]
fn multiply_adds_agree_with_integers() {
    let mut state = 3_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as i64 - (1 << 23)
    };
    let numbers: Vec<[i64; 3]> = (0..8192).map(|_| [next(), next(), next()]).collect();
    let words: Vec<[u32; 4]> = numbers
        .iter()
        .map(|[a, b, c]| [*a as f32, *b as f32, *c as f32, 0.0].map(f32::to_bits))
        .collect();
    let Some(found) = run("v_fma_f32 v8, v2, v3, v4", &words) else { return };
    for ([a, b, c], out) in numbers.into_iter().zip(found) {
        assert_eq!(f32::from_bits(out[0]), (a * b + c) as f32, "{a} {b} {c}");
    }
}

#[test]
fn subnormals_are_flushed_where_the_mode_says() {
    let tiny = f32::MIN_POSITIVE.to_bits();
    let words = [[tiny - 1, 1.0_f32.to_bits(), tiny, 0.5_f32.to_bits()]];
    let body = "v_mul_f32_e32 v8, v2, v3\nv_mul_f32_e32 v9, v4, v5\nv_max_f32_e32 v10, v2, v2\nv_add_f32_e32 v11, v2, v3";
    let kept = run(&(mode(0, 0, 15) + body), &words);
    let Some(kept) = kept else { return };
    assert_eq!(kept[0][..3], [tiny - 1, tiny / 2, tiny - 1]);
    let flushed = run(&(mode(0, 0, 12) + body), &words).unwrap();
    assert_eq!(flushed[0], [0, 0, 0, 1.0_f32.to_bits()]);
    let inputs_kept = run(&(mode(0, 0, 13) + body), &words).unwrap();
    assert_eq!(inputs_kept[0][..2], [0, 0]);
}

/// Bytes, halves and lanes: what SDWA, DPP and selectors take and leave.
#[test]
fn parts_of_registers_and_other_lanes() {
    let words: Vec<[u32; 4]> =
        (0..256).map(|i| [0x8182_8384 + i, 0x1122_3344, i, 0xaabb_ccdd]).collect();
    let body = "s_mov_b32 s9, 0x07060302
v_mov_b32_e32 v8, v5
v_add_u32_sdwa v8, v2, v3 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_0 src1_sel:WORD_1
v_mov_b32_sdwa v9, sext(v2) dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_3
v_mov_b32_e32 v10, v4
s_nop 4
v_add_u32_dpp v10, v4, v4 row_shr:1 row_mask:0xf bank_mask:0xf
v_perm_b32 v11, v2, v3, s9";
    let Some(found) = run(body, &words) else { return };
    for (i, (word, out)) in words.iter().zip(found).enumerate() {
        let low = word[0] & 0xff;
        let wanted = [
            0xaabb_00dd | ((low + 0x1122) & 0xff) << 8,
            (word[0] as i32 >> 24) as u32,
            if i % 16 == 0 { i as u32 } else { 2 * i as u32 - 1 },
            word[0] & 0xffff_0000 | word[1] >> 16,
        ];
        assert_eq!(out, wanted, "thread {i}");
    }
}

/// Approximate functions lie within their documented errors.
#[test]
fn approximate_functions() {
    let mut noise = noise(11);
    let words: Vec<[u32; 4]> = (0..4096)
        .map(|i| {
            let x = (noise() * 2.0_f32.powi(i % 40 - 20)).to_bits();
            [x, x & 0x7fff_ffff, x & 0x7fff_ffff, (noise() * 20.0).to_bits()]
        })
        .collect();
    let body =
        "v_rcp_f32_e32 v8, v2\nv_rsq_f32_e32 v9, v3\nv_log_f32_e32 v10, v4\nv_exp_f32_e32 v11, v5";
    let Some(found) = run(body, &words) else { return };
    for (word, out) in words.iter().zip(found) {
        let x = word.map(|x| f64::from(f32::from_bits(x)));
        let exact = [1.0 / x[0], 1.0 / x[1].sqrt(), x[2].log2(), x[3].exp2()];
        for (found, exact) in out.map(f32::from_bits).into_iter().zip(exact) {
            let unit = F32.from_f64(exact.abs(), Rounding::Zero) as u32;
            let ulp = f64::from(f32::from_bits(unit + 1)) - f64::from(f32::from_bits(unit));
            assert!((f64::from(found) - exact).abs() <= ulp, "{word:x?}: {found:e}, not {exact:e}");
        }
    }
}

/// "v_rcp_f32 and v_rsq_f32 do not support denormals" (LLVM, which scales what it divides by): neither in nor out,
/// whatever the mode.
#[test]
fn approximate_functions_know_no_subnormals() {
    let tiny = f32::from_bits(0x007f_ffff);
    let words = [[tiny, -tiny, 2f32.powi(127), 2f32.powi(126)].map(f32::to_bits)];
    let body = "v_rcp_f32_e32 v8, v2\nv_rcp_iflag_f32_e32 v9, v3\nv_rcp_f32_e32 v10, v4\nv_rcp_f32_e32 v11, v5";
    let Some(found) = run(&(mode(0, 0, 15) + body), &words) else { return };
    let wanted = [f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::MIN_POSITIVE];
    assert_eq!(found[0].map(f32::from_bits), wanted);
}
