//! f32, in the rounding and with the subnormals that the MODE register asks for.

use super::map::{Act, map, store_mask};
use super::wave::{LANES, Mode, Vector, Wave};
use crate::gfx::decode::{Instruction, Operand};
use crate::number::{F32, Rounding, add_f32, add_to_odd, fma_f32, mul_f32};

/// The NaN that hardware makes.
const NAN: u32 = 0x7fc0_0000;
const QUIET: u32 = 0x0040_0000;

/// Whether bits are a NaN's.
#[inline(always)]
pub fn is_nan(x: u32) -> bool {
    x & 0x7fff_ffff > 0x7f80_0000
}

/// 0 in place of a subnormal, with its sign.
#[inline(always)]
pub fn flush(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 { x & 0x8000_0000 } else { x }
}

/// `x · 2^n`, rounded once.
pub fn ldexp(x: f32, n: i32, mode: Rounding) -> f32 {
    // Two exact steps: an f64 holds any f32 scaled by as much as matters.
    let scale = |n: i32| f64::from_bits(((n + 1023) as u64) << 52);
    let n = n.clamp(-600, 600);
    f32::from_bits(F32.from_f64(f64::from(x) * scale(n), mode) as u32)
}

/// Doubling, halving and clamping of a result.
fn output(i: &Instruction, mode: Mode, x: u32) -> u32 {
    let mut y = f32::from_bits(x);
    match i.omod {
        1 => y *= 2.0,
        2 => y *= 4.0,
        3 => y *= 0.5,
        _ => {}
    }
    if i.clamp {
        if y.is_nan() {
            return if mode.dx10() { 0 } else { y.to_bits() };
        }
        y = if y > 0.0 { y.min(1.0) } else { 0.0 };
    }
    y.to_bits()
}

/// `dst = f(sources)` with the mode's rounding. `accumulator` is the old result.
#[inline(always)]
fn float<const N: usize>(
    w: &mut Wave,
    i: &Instruction,
    accumulator: bool,
    f: impl Fn([f32; N], Rounding) -> f32,
) {
    let src: [(Vector, u64); N] = std::array::from_fn(|n| {
        if accumulator && n + 1 == N { w.raw(i.dst, 0) } else { w.fetch(i, n) }
    });
    let tainted = src.iter().fold(0, |t, s| t | s.1);
    let mode = w.mode;
    let mut out = [0; LANES];
    if mode.plain32() {
        for (l, out) in out.iter_mut().enumerate() {
            let x = std::array::from_fn(|n| f32::from_bits(src[n].0[l]));
            *out = f(x, Rounding::Nearest).to_bits();
        }
    } else {
        let (inputs, results) = mode.subnormals32();
        for (l, out) in out.iter_mut().enumerate() {
            let x = std::array::from_fn(|n| {
                let x = src[n].0[l];
                f32::from_bits(if inputs { x } else { flush(x) })
            });
            *out = f(x, mode.round32()).to_bits();
            if !results {
                *out = flush(*out);
            }
        }
    }
    if out.iter().any(|x| is_nan(*x)) {
        for (l, out) in out.iter_mut().enumerate().filter(|(_, x)| is_nan(**x)) {
            let nan = src.iter().map(|s| s.0[l]).find(|x| is_nan(*x));
            *out = nan.map_or(NAN, |x| x | QUIET);
        }
    }
    if i.clamp || i.omod != 0 {
        out.iter_mut().for_each(|x| *x = output(i, mode, *x));
    }
    w.store(i, &out);
    if tainted != 0 {
        w.store_undefined(i, tainted, &[u32::MAX; LANES]);
    }
}

/// The smaller or the larger: a number wins against a NaN, and −0 is below +0.
pub fn extreme(a: f32, b: f32, largest: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { b } else { a };
    }
    let first = if a == b { a.is_sign_negative() != largest } else { (a < b) != largest };
    if first { a } else { b }
}

fn min(a: f32, b: f32) -> f32 {
    extreme(a, b, false)
}

fn max(a: f32, b: f32) -> f32 {
    extreme(a, b, true)
}

fn med(a: f32, b: f32, c: f32) -> f32 {
    if a.is_nan() || b.is_nan() || c.is_nan() {
        return min(min(a, b), c);
    }
    max(min(a, b), min(max(a, b), c))
}

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    Some(match name {
        "v_add_f32" => |w, i| float(w, i, false, |[a, b], m| add_f32(a, b, m)),
        "v_sub_f32" => |w, i| float(w, i, false, |[a, b], m| add_f32(a, -b, m)),
        "v_subrev_f32" => |w, i| float(w, i, false, |[a, b], m| add_f32(b, -a, m)),
        "v_mul_f32" => |w, i| float(w, i, false, |[a, b], m| mul_f32(a, b, m)),
        // Whatever times 0 is 0.
        "v_mul_legacy_f32" => |w, i| {
            float(
                w,
                i,
                false,
                |[a, b], m| {
                    if a == 0.0 || b == 0.0 { 0.0 } else { mul_f32(a, b, m) }
                },
            );
        },
        "v_fma_f32" => |w, i| float(w, i, false, |[a, b, c], m| fma_f32(a, b, c, m)),
        "v_fmac_f32" => |w, i| float(w, i, true, |[a, b, c], m| fma_f32(a, b, c, m)),
        "v_mad_f32" | "v_madmk_f32" | "v_madak_f32" => |w, i| float(w, i, false, mad),
        "v_mac_f32" => |w, i| float(w, i, true, mad),
        "v_min_f32" => |w, i| float(w, i, false, |[a, b], _| min(a, b)),
        "v_max_f32" => |w, i| float(w, i, false, |[a, b], _| max(a, b)),
        "v_min3_f32" => |w, i| float(w, i, false, |[a, b, c], _| min(min(a, b), c)),
        "v_max3_f32" => |w, i| float(w, i, false, |[a, b, c], _| max(max(a, b), c)),
        "v_med3_f32" => |w, i| float(w, i, false, |[a, b, c], _| med(a, b, c)),
        "v_trunc_f32" => |w, i| float(w, i, false, |[a], _| a.trunc()),
        "v_ceil_f32" => |w, i| float(w, i, false, |[a], _| a.ceil()),
        "v_floor_f32" => |w, i| float(w, i, false, |[a], _| a.floor()),
        "v_rndne_f32" => |w, i| float(w, i, false, |[a], _| a.round_ties_even()),
        // Below 1 even where the difference rounds to it.
        "v_fract_f32" => {
            |w, i| float(w, i, false, |[a], _| (a - a.floor()).min(f32::from_bits(0x3f7f_ffff)))
        }
        "v_ldexp_f32" => |w, i| {
            float(w, i, false, |[a, n], m| ldexp(a, n.to_bits() as i32, m));
        },
        "v_frexp_mant_f32" => |w, i| map(w, i, |[a]| frexp(a).0),
        "v_frexp_exp_i32_f32" => |w, i| map(w, i, |[a]| frexp(a).1 as u32),
        // Approximate functions, within the documented unit in the last place and hardly ever nearer than
        // they need to be: what code refines it must not count on. They know no subnormals, whatever the mode.
        "v_rcp_f32" | "v_rcp_iflag_f32" => |w, i| approximate(w, i, |x| 1.0 / x),
        "v_rsq_f32" => |w, i| approximate(w, i, |x| 1.0 / x.sqrt()),
        "v_sqrt_f32" => |w, i| approximate(w, i, f64::sqrt),
        "v_exp_f32" | "v_exp_legacy_f32" => |w, i| approximate(w, i, f64::exp2),
        "v_log_f32" | "v_log_legacy_f32" => |w, i| approximate(w, i, f64::log2),
        // Arguments count whole turns.
        "v_sin_f32" => |w, i| approximate(w, i, |x| (x.fract() * std::f64::consts::TAU).sin()),
        "v_cos_f32" => |w, i| approximate(w, i, |x| (x.fract() * std::f64::consts::TAU).cos()),
        "v_div_scale_f32" => scale,
        "v_div_fmas_f32" => scaled_fma,
        "v_div_fixup_f32" => |w, i| map(w, i, |[q, d, n]| fixup(q, d, n)),
        _ => return None,
    })
}

/// Product and sum each rounded; subnormals are flushed whatever the mode.
fn mad([a, b, c]: [f32; 3], m: Rounding) -> f32 {
    let z = |x: f32| f32::from_bits(flush(x.to_bits()));
    z(add_f32(z(mul_f32(z(a), z(b), m)), z(c), m))
}

/// One of the two neighbours of an exact result: which one, the argument says.
fn near(x: f32, exact: f64) -> f32 {
    let nearest = exact as f32;
    let wide = f64::from(nearest);
    // What a float can say is said: powers of two, 0, infinities, NaN.
    if wide == exact || !nearest.is_finite() || nearest == 0.0 {
        return nearest;
    }
    let up = x.to_bits().wrapping_mul(0x9e37_79b9) >> 31 == 1;
    match (up, wide < exact) {
        (true, true) => nearest.next_up(),
        (false, false) => nearest.next_down(),
        _ => nearest,
    }
}

fn approximate(w: &mut Wave, i: &Instruction, f: impl Fn(f64) -> f64) {
    float(w, i, false, |[a], _| {
        let x = f32::from_bits(flush(a.to_bits()));
        f32::from_bits(flush(near(a, f(x.into())).to_bits()))
    });
}

/// Mantissa in [½, 1) and exponent.
fn frexp(bits: u32) -> (u32, i32) {
    let x = f32::from_bits(bits);
    if x == 0.0 || !x.is_finite() {
        return (if is_nan(bits) { bits | QUIET } else { bits }, 0);
    }
    let wide = f64::from(x).to_bits();
    let exponent = (wide >> 52 & 0x7ff) as i32 - 1022;
    let mantissa = f64::from_bits(wide & !(0x7ff << 52) | 1022 << 52) as f32;
    (mantissa.to_bits(), exponent)
}

/// The biased exponent.
fn exponent(x: u32) -> i32 {
    (x >> 23 & 0xff) as i32
}

/// First step of a division: scales what would overflow or underflow on the way.
fn scale(w: &mut Wave, i: &Instruction) {
    let src: [(Vector, u64); 3] = std::array::from_fn(|n| w.fetch(i, n));
    let (mut out, mut scaled) = ([0; LANES], 0_u64);
    for (l, out) in out.iter_mut().enumerate() {
        let [x, d, n] = [0, 1, 2].map(|s| src[s].0[l]);
        let by = |n| ldexp(f32::from_bits(x), n, Rounding::Nearest).to_bits();
        let (fd, fn_) = (f32::from_bits(d), f32::from_bits(n));
        let subnormal = |x: f64| x != 0.0 && x.abs() < f64::from(f32::MIN_POSITIVE);
        let inverse = subnormal(1.0 / f64::from(fd));
        let quotient = subnormal(f64::from(fn_) / f64::from(fd));
        let (value, flag) = if fn_ == 0.0 || fd == 0.0 {
            (NAN, false)
        } else if exponent(n) - exponent(d) >= 96 {
            (if x == d { by(64) } else { x }, true)
        } else if fd.is_subnormal() {
            (by(64), false)
        } else if inverse && quotient {
            // Only the denominator, which is huge.
            (if x == d { by(-64) } else { x }, true)
        } else if inverse {
            (by(-64), false)
        } else if quotient {
            (if x == n { by(64) } else { x }, true)
        } else if exponent(n) <= 23 {
            (by(64), false)
        } else {
            (x, false)
        };
        *out = value;
        scaled |= u64::from(flag) << l;
    }
    let tainted = src.iter().fold(0, |t, s| t | s.1);
    store_mask(w, i, scaled, tainted);
    w.store(i, &out);
    w.store_undefined(i, tainted, &[u32::MAX; LANES]);
}

/// The step before the last: undoes the scaling with the same rounding.
fn scaled_fma(w: &mut Wave, i: &Instruction) {
    let mask = crate::gfx::decode::Source::new(
        Operand::Scalar(crate::gfx::decode::VCC),
        crate::gfx::isa::Type::Mask,
    );
    let (scaled, undefined) = w.scalar_operand(&mask);
    let src: [(Vector, u64); 3] = std::array::from_fn(|n| w.fetch(i, n));
    let mode = w.mode.round32();
    let mut out = [0; LANES];
    for (l, out) in out.iter_mut().enumerate() {
        let [a, b, c] = [0, 1, 2].map(|s| f32::from_bits(src[s].0[l]));
        *out = if scaled >> l & 1 == 1 {
            let by = if exponent(c.to_bits()) > 127 { 64 } else { -64 };
            let exact = add_to_odd(f64::from(a) * f64::from(b), c.into());
            F32.from_f64(exact * 2.0_f64.powi(by), mode) as u32
        } else {
            fma_f32(a, b, c, mode).to_bits()
        };
        if is_nan(*out) {
            let nan = [a, b, c].map(f32::to_bits).into_iter().find(|x| is_nan(*x));
            *out = nan.map_or(NAN, |x| x | QUIET);
        }
    }
    if i.clamp || i.omod != 0 {
        out.iter_mut().for_each(|x| *x = output(i, w.mode, *x));
    }
    w.store(i, &out);
    w.store_undefined(i, src.iter().fold(undefined, |t, s| t | s.1), &[u32::MAX; LANES]);
}

/// The last step of a division: what is not finite, and zeros.
fn fixup(q: u32, d: u32, n: u32) -> u32 {
    let sign = (d ^ n) & 0x8000_0000;
    let (fd, fn_) = (f32::from_bits(d), f32::from_bits(n));
    if is_nan(n) {
        n | QUIET
    } else if is_nan(d) {
        d | QUIET
    } else if fd == 0.0 && fn_ == 0.0 || fd.is_infinite() && fn_.is_infinite() {
        0xffc0_0000
    } else if fd == 0.0 || fn_.is_infinite() {
        sign | 0x7f80_0000
    } else if fd.is_infinite() || fn_ == 0.0 || exponent(n) - exponent(d) < -150 {
        sign
    } else if is_nan(q) {
        // The quotient overflowed on the way.
        sign | 0x7f80_0000
    } else {
        sign | q & 0x7fff_ffff
    }
}
