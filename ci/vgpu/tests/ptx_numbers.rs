//! Conversions over all 16-bit inputs and edges of f32, and arithmetic against exact definitions.

mod common;

use common::*;

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// Applies instructions to many inputs: `%a`, `%b`, `%c` (or `%h`, the lower half of `%a`) to `%o`.
fn apply(body: &str, a: &[u32], b: &[u32], c: &[u32]) -> Vec<u32> {
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 o, .param .u32 n) {{\n\
         .reg .b32 %a, %b, %c, %o, %i, %n, %t, %x, %y; .reg .b16 %h, %g, %q; .reg .b64 %d<10>, %w, %v; .reg .pred %p, %z;\n\
         ld.param.u64 %d0, [a]; ld.param.u64 %d1, [b]; ld.param.u64 %d2, [c]; ld.param.u64 %d3, [o]; ld.param.u32 %n, [n];\n\
         mov.u32 %x, %ctaid.x; mov.u32 %y, %ntid.x; mov.u32 %t, %tid.x; mad.lo.s32 %i, %x, %y, %t;\n\
         setp.ge.u32 %p, %i, %n; @%p ret;\n\
         mul.wide.u32 %d4, %i, 4; add.s64 %d5, %d0, %d4; add.s64 %d6, %d1, %d4; add.s64 %d7, %d2, %d4; add.s64 %d8, %d3, %d4;\n\
         ld.global.u32 %a, [%d5]; ld.global.u32 %b, [%d6]; ld.global.u32 %c, [%d7]; mov.b32 {{%h, %g}}, %a;\n\
         {body}\n st.global.u32 [%d8], %o; ret; }}\n"
    );
    let n = a.len();
    let fill = |v: &[u32]| if v.is_empty() { vec![0; n] } else { v.to_vec() };
    let mut device = Device::new(&ptx);
    let at = [a.to_vec(), fill(b), fill(c)].map(|v| device.upload(&v, "input"));
    let out = device.memory.allocate(4 * n as u64, "out");
    let params = at.iter().chain([&out]).fold(Params::default(), |p, a| p.ptr(*a)).u32(n as u32);
    clean(&device.run("k", n.div_ceil(256) as u32, 256, params));
    device.download(out, n, u32::from_le_bytes)
}

fn all16() -> Vec<u32> {
    (0..=0xffff).collect()
}

/// f32 values near every kind of edge: ties, neighbours of ties, limits, subnormals, NaN.
fn edges() -> Vec<u32> {
    let mut list = Vec::new();
    for exponent in 0..=255_u32 {
        for mantissa in [
            0, 1, 0x7f_ffff, 0x40_0000, 0x7fff, 0x8000, 0x8001, 0x1_8000, 0x0fff, 0x1000, 0x1001,
            0x3000, 0x7f_f000, 0x7f_8000, 0x7f_efff,
        ] {
            for sign in [0, 1] {
                list.push(sign << 31 | exponent << 23 | mantissa);
            }
        }
    }
    list
}

fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// Equal bits, or both NaN.
fn same(found: u32, wanted: f32) -> bool {
    found == wanted.to_bits() || f(found).is_nan() && wanted.is_nan()
}

/// f32 of a 16-bit float, by the definition of the format.
fn decode(bits: u32, exponent_bits: u32) -> f64 {
    let mantissa_bits = 15 - exponent_bits;
    let (sign, rest) = (if bits >> 15 == 1 { -1.0 } else { 1.0 }, bits & 0x7fff);
    let (exponent, mantissa) =
        ((rest >> mantissa_bits) as i32, f64::from(rest & ((1 << mantissa_bits) - 1)));
    let (top, bias) = ((1 << exponent_bits) - 1, (1 << (exponent_bits - 1)) - 1);
    let scale = 2.0_f64.powi(-(mantissa_bits as i32));
    sign * match exponent {
        e if e == top && mantissa == 0.0 => f64::INFINITY,
        e if e == top => f64::NAN,
        0 => mantissa * scale * 2.0_f64.powi(1 - bias),
        e => (1.0 + mantissa * scale) * 2.0_f64.powi(e - bias),
    }
}

#[test]
fn widening_of_all_16_bit_values() {
    for (ty, exponent_bits) in [("f16", 5), ("bf16", 8)] {
        let out = apply(&format!("cvt.f32.{ty} %o, %h;"), &all16(), &[], &[]);
        for (i, o) in out.iter().enumerate() {
            assert!(same(*o, decode(i as u32, exponent_bits) as f32), "{ty} {i:#x}: {o:#x}");
        }
    }
}

/// The neighbours of x among all finite values and infinities of a format, found by search.
fn narrow(table: &[(f64, u32)], x: f64, mode: &str) -> u32 {
    let below = table.partition_point(|(v, _)| *v <= x);
    let (low, high) = (table[below.saturating_sub(1)], table[below.min(table.len() - 1)]);
    if low.0 == x {
        return low.1;
    }
    match mode {
        "rm" => low.1,
        "rp" => high.1,
        "rz" => {
            if x > 0.0 {
                low.1
            } else {
                high.1
            }
        }
        _ => {
            let (l, h) = (low.0, high.0);
            // An infinity is as far as the next number would be.
            if l.is_infinite() || h.is_infinite() {
                let edge = if h.is_infinite() { l.abs() } else { h.abs() };
                let step = edge - table[table.len() - 3].0;
                let over = x.abs() >= edge + step / 2.0;
                return if h.is_infinite() == over { high.1 } else { low.1 };
            }
            let (to_low, to_high) = (x - l, h - x);
            if to_low < to_high || to_low == to_high && low.1 & 1 == 0 { low.1 } else { high.1 }
        }
    }
}

#[test]
fn narrowing_of_edges_in_every_direction() {
    for (ty, exponent_bits, modes) in [("f16", 5, &["rn", "rz"][..]), ("bf16", 8, &["rn", "rz"])] {
        // Ascending values; zeros once.
        let mut table: Vec<(f64, u32)> = all16()
            .iter()
            .map(|b| (decode(*b, exponent_bits), *b))
            .filter(|(v, b)| !v.is_nan() && *b != 0x8000)
            .collect();
        table.sort_by(|a, b| a.0.total_cmp(&b.0));
        for mode in modes {
            let body = format!("cvt.{mode}.{ty}.f32 %h, %a; mov.b32 %o, {{%h, 0}};");
            let out = apply(&body, &edges(), &[], &[]);
            for (i, o) in edges().iter().zip(out) {
                let x = f64::from(f(*i));
                if x.is_nan() {
                    assert_eq!(o, 0x7fff);
                    continue;
                }
                let wanted = narrow(&table, x, mode);
                // A zero keeps the sign.
                let wanted = if wanted == 0 { i >> 16 & 0x8000 } else { wanted };
                assert_eq!(o, wanted, "{ty} {mode} {i:#x}");
            }
        }
    }
}

#[test]
fn packing_puts_the_first_operand_on_top() {
    let out = apply("cvt.rn.bf16x2.f32 %o, %a, %b;", &[0x3f80_0000], &[0x4000_0000], &[]);
    assert_eq!(out, [0x3f80_4000]);
    let out = apply("cvt.rn.relu.f16x2.f32 %o, %a, %b;", &[0xbf80_0000], &[0x4000_0000], &[]);
    assert_eq!(out, [0x0000_4000]);
}

#[test]
fn floats_to_integers_clamp_and_integers_to_floats_round() {
    for (mode, whole) in [
        ("rni", f32::round_ties_even as fn(f32) -> f32),
        ("rzi", f32::trunc),
        ("rmi", f32::floor),
        ("rpi", f32::ceil),
    ] {
        for (i, o) in
            edges().iter().zip(apply(&format!("cvt.{mode}.s32.f32 %o, %a;"), &edges(), &[], &[]))
        {
            assert_eq!(o as i32, whole(f(*i)) as i32, "{mode} {i:#x}");
        }
        for (i, o) in
            edges().iter().zip(apply(&format!("cvt.{mode}.u32.f32 %o, %a;"), &edges(), &[], &[]))
        {
            assert_eq!(o, whole(f(*i)) as u32, "{mode} {i:#x}");
        }
        for (i, o) in
            edges().iter().zip(apply(&format!("cvt.{mode}.f32.f32 %o, %a;"), &edges(), &[], &[]))
        {
            assert!(same(o, whole(f(*i))), "{mode} {i:#x}");
        }
    }
    for (i, o) in edges().iter().zip(apply("cvt.rn.f32.s32 %o, %a;", &edges(), &[], &[])) {
        assert_eq!(o, (*i as i32 as f32).to_bits());
    }
    for (i, o) in edges().iter().zip(apply("cvt.rn.f32.u32 %o, %a;", &edges(), &[], &[])) {
        assert_eq!(o, (*i as f32).to_bits());
    }
    let narrow =
        apply("cvt.sat.s8.s32 %o, %a; and.b32 %o, %o, 255;", &[200, 0xffff_ff00, 5], &[], &[]);
    assert_eq!(narrow, [127, 128, 5]);
    assert_eq!(apply("cvt.s32.s8 %o, %a;", &[0x1ff, 0x7f], &[], &[]), [u32::MAX, 0x7f]);
}

/// PTX ISA 9.0, `cvt`: 0, unless the source or the result has 64 bits.
#[test]
fn nan_to_integers() {
    let nan = [f32::NAN.to_bits(), 0xffff_ffff];
    for ty in ["s32", "u32", "s16", "u16"] {
        let body = format!("cvt.rzi.{ty}.f32 %o, %a;");
        assert_eq!(apply(&body, &nan, &[], &[]), [0; 2], "{ty}");
    }
    let of_f64 =
        |to: &str| apply(&format!("cvt.f64.f32 %w, %a; cvt.rni.{to}.f64 %o, %w;"), &nan, &[], &[]);
    assert_eq!((of_f64("s32"), of_f64("u32")), (vec![1 << 31; 2], vec![1 << 31; 2]));
    let high = "shr.u64 %w, %w, 32; cvt.u32.u64 %o, %w;";
    for body in ["cvt.rzi.s64.f32 %w, %a;", "cvt.rzi.u64.f32 %w, %a;"] {
        assert_eq!(apply(&format!("{body} {high}"), &nan, &[], &[]), [1 << 31; 2], "{body}");
        assert_eq!(apply(&format!("{body} cvt.u32.u64 %o, %w;"), &nan, &[], &[]), [0; 2], "{body}");
    }
}

/// Three lists of edges against each other, shifted so that all sorts meet.
fn triples() -> [Vec<u32>; 3] {
    let edges = edges();
    let n = edges.len();
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    for (i, a) in edges.iter().enumerate() {
        for step in [0, 1, 997, 3331, 7001] {
            lists[0].push(*a);
            lists[1].push(edges[(i * 31 + step) % n]);
            lists[2].push(edges[(i * 17 + 5 * step) % n]);
        }
    }
    lists
}

#[test]
fn f32_arithmetic_is_ieee() {
    let [a, b, c] = triples();
    let check = |body: &str, wanted: &dyn Fn(f32, f32, f32) -> f32| {
        for (i, o) in apply(body, &a, &b, &c).into_iter().enumerate() {
            let wanted = wanted(f(a[i]), f(b[i]), f(c[i]));
            assert!(
                same(o, wanted),
                "{body} {:#x} {:#x} {:#x}: {o:#x}, not {:#x}",
                a[i],
                b[i],
                c[i],
                wanted.to_bits()
            );
        }
    };
    let flush = |x: f32| if x.is_subnormal() { 0.0_f32.copysign(x) } else { x };
    let clamp = |x: f32| if x > 0.0 { x.min(1.0) } else { 0.0 };
    check("add.rn.f32 %o, %a, %b;", &|a, b, _| a + b);
    check("sub.f32 %o, %a, %b;", &|a, b, _| a - b);
    check("mul.rn.f32 %o, %a, %b;", &|a, b, _| a * b);
    check("div.rn.f32 %o, %a, %b;", &|a, b, _| a / b);
    check("sqrt.rn.f32 %o, %a;", &|a, _, _| a.sqrt());
    check("rcp.rn.f32 %o, %a;", &|a, _, _| 1.0 / a);
    check("fma.rn.f32 %o, %a, %b, %c;", &|a, b, c| a.mul_add(b, c));
    check("add.ftz.f32 %o, %a, %b;", &|a, b, _| flush(flush(a) + flush(b)));
    check("mul.ftz.f32 %o, %a, %b;", &|a, b, _| flush(flush(a) * flush(b)));
    check("add.sat.f32 %o, %a, %b;", &|a, b, _| clamp(a + b));
    check("fma.rn.ftz.sat.f32 %o, %a, %b, %c;", &|a, b, c| {
        clamp(flush(flush(a).mul_add(flush(b), flush(c))))
    });
    check("neg.f32 %o, %a;", &|a, _, _| -a);
    check("abs.f32 %o, %a;", &|a, _, _| a.abs());
}

#[test]
fn fma_agrees_with_exact_arithmetic() {
    // Integers scaled by powers of two, so that i128 holds a·b + c exactly.
    let mut noise = noise(99);
    let mut inputs = [Vec::new(), Vec::new(), Vec::new()];
    let mut exact = Vec::new();
    for i in 0..4000 {
        let mut mantissa = || (noise() * (1 << 24) as f32) as i64;
        let (a, b, c) = (mantissa(), mantissa(), mantissa());
        let shift = (i % 60) - 6; // c's exponent against a·b's
        let sum = (i128::from(a) * i128::from(b)) * 64 + (i128::from(c) << (shift + 6));
        exact.push(sum);
        for (list, (m, e)) in inputs.iter_mut().zip([(a, 0), (b, 0), (c, shift)]) {
            list.push((m as f32 * 2.0_f32.powi(e)).to_bits());
        }
    }
    let [a, b, c] = &inputs;
    for (mode, pick) in [("rn", 0), ("rz", 1), ("rm", 2), ("rp", 3)] {
        let out = apply(&format!("fma.{mode}.f32 %o, %a, %b, %c;"), a, b, c);
        for (i, o) in out.into_iter().enumerate() {
            // The sum, which is 64 times too large, cut to 24 bits by hand.
            let (negative, magnitude) = (exact[i] < 0, exact[i].unsigned_abs());
            let drop = (128 - magnitude.leading_zeros()).saturating_sub(24);
            let (kept, rest) = (magnitude >> drop, magnitude & ((1 << drop) - 1));
            let half = if drop == 0 { 1 } else { 1 << (drop - 1) };
            let up = match pick {
                0 => rest > half || rest == half && drop > 0 && kept & 1 == 1,
                1 => false,
                2 => negative && rest > 0,
                _ => !negative && rest > 0,
            };
            let value = (kept + u128::from(up)) as f64 * 2.0_f64.powi(drop as i32 - 6);
            let wanted = (if negative { -value } else { value }) as f32;
            assert_eq!(f(o), wanted, "{mode} {i}");
        }
    }
}

#[test]
fn packed_halves_round_once() {
    for (ty, exponent_bits) in [("f16", 5), ("bf16", 8)] {
        let mut table: Vec<(f64, u32)> = all16()
            .iter()
            .map(|b| (decode(*b, exponent_bits), *b))
            .filter(|(v, b)| !v.is_nan() && *b != 0x8000)
            .collect();
        table.sort_by(|a, b| a.0.total_cmp(&b.0));
        let a = all16();
        let b: Vec<u32> = a.iter().map(|x| x.wrapping_mul(40503) & 0xffff).collect();
        let pack = |v: &[u32]| -> Vec<u32> { v.iter().map(|x| x << 16 | (x ^ 0x8000)).collect() };
        for (op, f) in [("add", (|x, y| x + y) as fn(f64, f64) -> f64), ("mul", |x, y| x * y)] {
            let out = apply(&format!("{op}.rn.{ty}x2 %o, %a, %b;"), &pack(&a), &pack(&b), &[]);
            for (i, o) in out.into_iter().enumerate() {
                let (x, y) = (decode(a[i], exponent_bits), decode(b[i], exponent_bits));
                let exact = f(x, y);
                // bf16 sums of very different sizes are not exact in f64; those are tested as fma.
                let inexact = op == "add" && (exact - x != y || exact - y != x);
                if inexact {
                    continue;
                }
                let wanted = if exact.is_nan() { 0x7fff } else { narrow(&table, exact, "rn") };
                assert_eq!(
                    o >> 16 & if wanted == 0 { 0x7fff } else { 0xffff },
                    wanted,
                    "{op} {ty} {:#x} {:#x}",
                    a[i],
                    b[i]
                );
            }
        }
    }
}

#[test]
fn min_max_and_comparisons_with_nan_and_zeros() {
    let (nan, one) = (0x7fc0_0000, 1.0_f32.to_bits());
    let (a, b) = ([nan, one, nan, 0, 0x8000_0000], [one, nan, nan, 0x8000_0000, 0]);
    assert_eq!(
        apply("min.f32 %o, %a, %b;", &a, &b, &[]),
        [one, one, 0x7fff_ffff, 0x8000_0000, 0x8000_0000]
    );
    assert_eq!(apply("max.f32 %o, %a, %b;", &a, &b, &[]), [one, one, 0x7fff_ffff, 0, 0]);
    assert_eq!(apply("max.NaN.f32 %o, %a, %b;", &a, &b, &[])[..2], [0x7fff_ffff; 2]);
    for (cmp, wanted) in [
        ("eq", [0, 0, 0, 1, 1]),
        ("ne", [0; 5]),
        ("neu", [1, 1, 1, 0, 0]),
        ("ltu", [1, 1, 1, 0, 0]),
        ("ge", [0, 0, 0, 1, 1]),
        ("nan", [1, 1, 1, 0, 0]),
        ("num", [0, 0, 0, 1, 1]),
    ] {
        let out = apply(&format!("setp.{cmp}.f32 %z, %a, %b; selp.u32 %o, 1, 0, %z;"), &a, &b, &[]);
        assert_eq!(out, wanted, "{cmp}");
    }
}

#[test]
fn integers_and_bits() {
    let a = [0_u32, 1, 0x8000_0000, u32::MAX, 0x1234_5678, 77, 0x00f0_0000];
    let b = [3_u32, 31, 32, 40, 0, 7, 5];
    let check = |body: &str, wanted: &dyn Fn(u32, u32) -> u32| {
        for (i, o) in apply(body, &a, &b, &[]).into_iter().enumerate() {
            assert_eq!(o, wanted(a[i], b[i]), "{body} {:#x} {:#x}", a[i], b[i]);
        }
    };
    check("add.s32 %o, %a, %b;", &u32::wrapping_add);
    check("sub.s32 %o, %a, %b;", &u32::wrapping_sub);
    check("mul.lo.s32 %o, %a, %b;", &u32::wrapping_mul);
    check("mul.hi.u32 %o, %a, %b;", &|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check("mul.hi.s32 %o, %a, %b;", &|a, b| {
        ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32
    });
    check("mad.lo.s32 %o, %a, %b, %a;", &|a, b| a.wrapping_mul(b).wrapping_add(a));
    check("mad.wide.u32 %w, %a, %b, 5; cvt.u32.u64 %o, %w;", &|a, b| {
        a.wrapping_mul(b).wrapping_add(5)
    });
    check("shl.b32 %o, %a, %b;", &|a, b| a.checked_shl(b).unwrap_or(0));
    check("shr.u32 %o, %a, %b;", &|a, b| a.checked_shr(b).unwrap_or(0));
    check("shr.s32 %o, %a, %b;", &|a, b| (a as i32 >> b.min(31)) as u32);
    check("popc.b32 %o, %a;", &|a, _| a.count_ones());
    check("clz.b32 %o, %a;", &|a, _| a.leading_zeros());
    check("brev.b32 %o, %a;", &|a, _| a.reverse_bits());
    check("bfind.u32 %o, %a;", &|a, _| a.checked_ilog2().unwrap_or(u32::MAX));
    check("not.b32 %o, %a;", &|a, _| !a);
    check("min.s32 %o, %a, %b;", &|a, b| (a as i32).min(b as i32) as u32);
    check("abs.s32 %o, %a;", &|a, _| (a as i32).wrapping_abs() as u32);
    check("lop3.b32 %o, %a, %b, 255, 0xe8;", &|a, b| (a & b) | (a & 255) | (b & 255));
    check("lop3.b32 %o, %a, %b, 0, 0x3c;", &|a, b| a ^ b);
    check("prmt.b32 %o, %a, %b, 0x3210;", &|a, _| a);
    check("prmt.b32 %o, %a, %b, 0x0123;", &|a, _| a.swap_bytes());
    check("prmt.b32 %o, %a, %b, 0x7610;", &|a, b| a & 0xffff | b & 0xffff_0000);
    check("prmt.b32 %o, %a, %b, 0xbbbb;", &|a, _| ((a as i32) >> 31) as u32);
    check("bfe.u32 %o, %a, 4, 8;", &|a, _| a >> 4 & 255);
    check("bfe.s32 %o, %a, 20, 12;", &|a, _| (a as i32 >> 20) as u32);
    check("bfi.b32 %o, %a, %b, 8, 16;", &|a, b| b & 0xff00_00ff | (a & 0xffff) << 8);
    check("shf.l.wrap.b32 %o, %a, %a, %b;", &|a, b| a.rotate_left(b));
    check("shf.r.clamp.b32 %o, %a, 0, %b;", &|a, b| a.checked_shr(b).unwrap_or(0));
    check("div.u32 %o, %a, 7;", &|a, _| a / 7);
    check("rem.s32 %o, %a, 7;", &|a, _| (a as i32 % 7) as u32);
    check("sad.u32 %o, %a, %b, 1;", &|a, b| a.abs_diff(b).wrapping_add(1));
    check("mov.b64 %w, {%a, %b}; mov.b64 {%x, %o}, %w;", &|_, b| b);
}

#[test]
fn approximations_are_within_their_documented_error() {
    let mut noise = noise(5);
    let x: Vec<u32> = (0..4096).map(|_| (noise() * 8.0).to_bits()).collect();
    let check = |body: &str, wanted: &dyn Fn(f64) -> f64, relative: f64| {
        for (i, o) in x.iter().zip(apply(body, &x, &[], &[])) {
            let wanted = wanted(f64::from(f(*i)));
            let off = (f64::from(f(o)) - wanted).abs();
            assert!(
                wanted.is_nan() && f(o).is_nan() || off <= relative * wanted.abs(),
                "{body} {i:#x}"
            );
        }
    };
    check("ex2.approx.ftz.f32 %o, %a;", &f64::exp2, 2.0_f64.powi(-22));
    check("tanh.approx.f32 %o, %a;", &f64::tanh, 2.0_f64.powf(-10.987));
    check(
        "abs.f32 %a, %a; rsqrt.approx.f32 %o, %a;",
        &|x| 1.0 / x.abs().sqrt(),
        2.0_f64.powf(-22.9),
    );
    check("rcp.approx.ftz.f32 %o, %a;", &|x| 1.0 / x, 2.0_f64.powi(-23));
    check("abs.f32 %a, %a; lg2.approx.f32 %o, %a;", &|x| x.abs().log2(), 2.0_f64.powi(-22));
}
