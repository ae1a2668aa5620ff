//! f64, to nearest and with subnormals. With another mode an instruction of f64 is an error.

use super::map::{Act, store_mask};
use super::wave::{LANES, Wave};
use crate::gfx::decode::{Instruction, Operand, Source, VCC};
use crate::gfx::isa::Type;
use crate::number::{F64, Rounding};

const NAN: u64 = 0x7ff8_0000_0000_0000;
const QUIET: u64 = 0x0008_0000_0000_0000;
const SIGN: u64 = 1 << 63;

/// `x · 2^n`, rounded once.
pub fn ldexp(x: f64, n: i32) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let bits = x.to_bits();
    let (fraction, biased) = (bits & (QUIET * 2 - 1), (bits >> 52 & 0x7ff) as i32);
    let (mantissa, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
    let exponent = exponent.saturating_add(n.clamp(-4000, 4000));
    f64::from_bits(F64.encode(x.is_sign_negative(), mantissa, exponent, Rounding::Nearest))
}

/// `dst = f(sources)`; the old result is the last if `accumulator`.
fn double<const N: usize>(
    w: &mut Wave,
    i: &Instruction,
    accumulator: bool,
    f: impl Fn([f64; N]) -> f64,
) {
    let src: [([u64; LANES], u64); N] = std::array::from_fn(|n| {
        if accumulator && n + 1 == N {
            let mut old = i.clone();
            old.src[0] = Source::new(i.dst, Type::F64);
            w.fetch64(&old, 0)
        } else {
            w.fetch64(i, n)
        }
    });
    let mut out = [0; LANES];
    for (l, out) in out.iter_mut().enumerate() {
        let x: [u64; N] = std::array::from_fn(|n| src[n].0[l]);
        let mut y = f(x.map(f64::from_bits));
        if y.is_nan() {
            let nan = x.into_iter().find(|x| f64::from_bits(*x).is_nan());
            *out = nan.map_or(NAN, |x| x | QUIET);
            if i.clamp {
                *out = 0;
            }
            continue;
        }
        match i.omod {
            1 => y *= 2.0,
            2 => y *= 4.0,
            3 => y *= 0.5,
            _ => {}
        }
        if i.clamp {
            y = if y > 0.0 { y.min(1.0) } else { 0.0 };
        }
        *out = y.to_bits();
    }
    w.store64(i, &out, src.iter().fold(0, |t, s| t | s.1));
}

fn extreme(a: f64, b: f64, largest: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { b } else { a };
    }
    let first = if a == b { a.is_sign_negative() != largest } else { (a < b) != largest };
    if first { a } else { b }
}

/// A number 2^27 to 2^28 units in the last place away from one that needs all its bits.
fn rough(exact: f64) -> f64 {
    let bits = exact.to_bits();
    if !exact.is_finite() || bits & 0xffff_ffff == 0 {
        return exact;
    }
    let by = (1 << 27) + (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37);
    f64::from_bits(bits ^ by)
}

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    Some(match name {
        "v_add_f64" => |w, i| double(w, i, false, |[a, b]| a + b),
        "v_mul_f64" => |w, i| double(w, i, false, |[a, b]| a * b),
        "v_fma_f64" => |w, i| double(w, i, false, |[a, b, c]| a.mul_add(b, c)),
        "v_fmac_f64" => |w, i| double(w, i, true, |[a, b, c]| a.mul_add(b, c)),
        "v_min_f64" => |w, i| double(w, i, false, |[a, b]| extreme(a, b, false)),
        "v_max_f64" => |w, i| double(w, i, false, |[a, b]| extreme(a, b, true)),
        "v_trunc_f64" => |w, i| double(w, i, false, |[a]| a.trunc()),
        "v_ceil_f64" => |w, i| double(w, i, false, |[a]| a.ceil()),
        "v_floor_f64" => |w, i| double(w, i, false, |[a]| a.floor()),
        "v_rndne_f64" => |w, i| double(w, i, false, |[a]| a.round_ties_even()),
        "v_fract_f64" => |w, i| {
            double(w, i, false, |[a]| (a - a.floor()).min(f64::from_bits(0x3fef_ffff_ffff_ffff)));
        },
        "v_ldexp_f64" => |w, i| double(w, i, false, |[a, n]| ldexp(a, n.to_bits() as i32)),
        // Within 2^29 units in the last place on hardware; code refines them, and must not count on more.
        "v_rcp_f64" => |w, i| double(w, i, false, |[a]| rough(1.0 / a)),
        "v_rsq_f64" => |w, i| double(w, i, false, |[a]| rough(1.0 / a.sqrt())),
        "v_sqrt_f64" => |w, i| double(w, i, false, |[a]| rough(a.sqrt())),
        "v_frexp_mant_f64" => |w, i| double(w, i, false, |[a]| frexp(a).0),
        "v_frexp_exp_i32_f64" => |w, i| {
            let (x, tainted) = w.fetch64(i, 0);
            w.store64(i, &x.map(|x| u64::from(frexp(f64::from_bits(x)).1 as u32)), tainted);
        },
        "v_div_scale_f64" => scale,
        "v_div_fmas_f64" => scaled_fma,
        "v_div_fixup_f64" => |w, i| {
            let src: [([u64; LANES], u64); 3] = std::array::from_fn(|n| w.fetch64(i, n));
            let out = std::array::from_fn(|l| fixup(src[0].0[l], src[1].0[l], src[2].0[l]));
            w.store64(i, &out, src.iter().fold(0, |t, s| t | s.1));
        },
        _ => return None,
    })
}

/// Mantissa in [½, 1) and exponent.
fn frexp(x: f64) -> (f64, i32) {
    if x == 0.0 || !x.is_finite() {
        return (x, 0);
    }
    let up = if x.is_subnormal() { 64 } else { 0 };
    let bits = ldexp(x, up).to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1022 - up;
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), exponent)
}

fn exponent(x: u64) -> i32 {
    (x >> 52 & 0x7ff) as i32
}

/// As for f32, with the limits of f64.
fn scale(w: &mut Wave, i: &Instruction) {
    let src: [([u64; LANES], u64); 3] = std::array::from_fn(|n| w.fetch64(i, n));
    let (mut out, mut scaled) = ([0; LANES], 0_u64);
    for (l, out) in out.iter_mut().enumerate() {
        let [x, d, n] = [0, 1, 2].map(|s| src[s].0[l]);
        let by = |n| ldexp(f64::from_bits(x), n).to_bits();
        let (fd, fn_) = (f64::from_bits(d), f64::from_bits(n));
        let (inverse, quotient) = ((1.0 / fd).is_subnormal(), (fn_ / fd).is_subnormal());
        let (value, flag) = if fn_ == 0.0 || fd == 0.0 {
            (NAN, false)
        } else if exponent(n) - exponent(d) >= 768 {
            (if x == d { by(128) } else { x }, true)
        } else if fd.is_subnormal() {
            (by(128), false)
        } else if inverse && quotient {
            // Only the denominator, which is huge.
            (if x == d { by(-128) } else { x }, true)
        } else if inverse {
            (by(-128), false)
        } else if quotient {
            (if x == n { by(128) } else { x }, true)
        } else if exponent(n) <= 53 {
            (by(128), false)
        } else {
            (x, false)
        };
        *out = value;
        scaled |= u64::from(flag) << l;
    }
    let tainted = src.iter().fold(0, |t, s| t | s.1);
    store_mask(w, i, scaled, tainted);
    w.store64(i, &out, tainted);
}

/// Undoes the scaling. A quotient that is subnormal is rounded twice here.
fn scaled_fma(w: &mut Wave, i: &Instruction) {
    let (scaled, undefined) = w.scalar_operand(&Source::new(Operand::Scalar(VCC), Type::Mask));
    let src: [([u64; LANES], u64); 3] = std::array::from_fn(|n| w.fetch64(i, n));
    let out = std::array::from_fn(|l| {
        let [a, b, c] = [0, 1, 2].map(|s| f64::from_bits(src[s].0[l]));
        let y = a.mul_add(b, c);
        let by = if exponent(c.to_bits()) > 1023 { 128 } else { -128 };
        if scaled >> l & 1 == 1 { ldexp(y, by).to_bits() } else { y.to_bits() }
    });
    w.store64(i, &out, src.iter().fold(undefined, |t, s| t | s.1));
}

fn fixup(q: u64, d: u64, n: u64) -> u64 {
    let sign = (d ^ n) & SIGN;
    let (fd, fn_) = (f64::from_bits(d), f64::from_bits(n));
    if fn_.is_nan() {
        n | QUIET
    } else if fd.is_nan() {
        d | QUIET
    } else if fd == 0.0 && fn_ == 0.0 || fd.is_infinite() && fn_.is_infinite() {
        NAN | SIGN
    } else if fd == 0.0 || fn_.is_infinite() {
        sign | f64::INFINITY.to_bits()
    } else if fd.is_infinite() || fn_ == 0.0 || exponent(n) - exponent(d) < -1075 {
        sign
    } else if f64::from_bits(q).is_nan() {
        sign | f64::INFINITY.to_bits()
    } else {
        sign | q & !SIGN
    }
}
