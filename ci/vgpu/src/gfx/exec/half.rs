//! f16, alone, in pairs and mixed with f32: exact in f64, rounded once.

use super::map::{Act, map};
use super::wave::{LANES, Mode, Vector, Wave};
use crate::gfx::decode::Instruction;
use crate::number::{F16, add_f32, add_to_odd, f16_to_f32, fma_f32};

/// Whether bits are a NaN's.
fn is_nan(x: u32) -> bool {
    x & 0x7fff > 0x7c00
}

fn input(x: u32, mode: Mode) -> u32 {
    let subnormal = x & 0x7c00 == 0;
    if subnormal && !mode.subnormals16().0 { x & 0x8000 } else { x }
}

fn value(x: u32) -> f64 {
    f16_to_f32(x as u16).into()
}

/// An f16 of the mode's rounding from a value that is exact, or rounded to odd.
pub fn round(x: f64, mode: Mode) -> u32 {
    let bits = F16.from_f64(x, mode.round16()) as u32;
    let subnormal = bits & 0x7c00 == 0;
    if subnormal && !mode.subnormals16().1 { bits & 0x8000 } else { bits }
}

/// One result, its NaN and clamping included.
fn one<const N: usize>(
    x: [u32; N],
    mode: Mode,
    clamp: bool,
    omod: u8,
    f: impl Fn([f64; N]) -> f64,
) -> u32 {
    let x = x.map(|x| input(x & 0xffff, mode));
    let y = f(x.map(value));
    if y.is_nan() {
        let nan = x.into_iter().find(|x| is_nan(*x)).map_or(0x7e00, |x| x | 0x200);
        return if clamp && mode.dx10() { 0 } else { nan };
    }
    let y = round(y, mode);
    let y = match omod {
        1 => round(value(y) * 2.0, mode),
        2 => round(value(y) * 4.0, mode),
        3 => round(value(y) * 0.5, mode),
        _ => y,
    };
    if clamp { round(value(y).clamp(0.0, 1.0), mode) & 0x7fff } else { y }
}

fn half<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([f64; N]) -> f64) {
    let mode = w.mode;
    map(w, i, |x| one(x, mode, i.clamp, i.omod, &f));
}

/// Products of f16 are exact in f64; a sum may not be.
fn fma([a, b, c]: [f64; 3]) -> f64 {
    add_to_odd(a * b, c)
}

fn min([a, b]: [f64; 2]) -> f64 {
    f64::from(super::float::extreme(a as f32, b as f32, false))
}

fn max([a, b]: [f64; 2]) -> f64 {
    f64::from(super::float::extreme(a as f32, b as f32, true))
}

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    single(name).or_else(|| packed(name)).or_else(|| mixed(name))
}

fn single(name: &str) -> Option<Act> {
    Some(match name {
        "v_add_f16" => |w, i| half(w, i, |[a, b]| a + b),
        "v_sub_f16" => |w, i| half(w, i, |[a, b]| a - b),
        "v_subrev_f16" => |w, i| half(w, i, |[a, b]| b - a),
        "v_mul_f16" => |w, i| half(w, i, |[a, b]| a * b),
        "v_fma_f16" | "v_fma_legacy_f16" => |w, i| half(w, i, fma),
        "v_min_f16" => |w, i| half(w, i, min),
        "v_max_f16" => |w, i| half(w, i, max),
        "v_min3_f16" => |w, i| half(w, i, |[a, b, c]| min([min([a, b]), c])),
        "v_max3_f16" => |w, i| half(w, i, |[a, b, c]| max([max([a, b]), c])),
        "v_med3_f16" => |w, i| {
            half(w, i, |[a, b, c]| max([min([a, b]), min([max([a, b]), c])]));
        },
        "v_trunc_f16" => |w, i| half(w, i, |[a]| a.trunc()),
        "v_ceil_f16" => |w, i| half(w, i, |[a]| a.ceil()),
        "v_floor_f16" => |w, i| half(w, i, |[a]| a.floor()),
        "v_rndne_f16" => |w, i| half(w, i, |[a]| a.round_ties_even()),
        "v_rcp_f16" => |w, i| half(w, i, |[a]| 1.0 / a),
        "v_sqrt_f16" => |w, i| half(w, i, |[a]| a.sqrt()),
        "v_rsq_f16" => |w, i| half(w, i, |[a]| 1.0 / a.sqrt()),
        "v_exp_f16" => |w, i| half(w, i, |[a]| a.exp2()),
        "v_log_f16" => |w, i| half(w, i, |[a]| a.log2()),
        "v_ldexp_f16" => |w, i| {
            let mode = w.mode;
            map(w, i, |[a, n]| {
                let n = i32::from(n as i16).clamp(-100, 100);
                one([a], mode, i.clamp, i.omod, |[a]| a * 2.0_f64.powi(n))
            });
        },
        _ => return None,
    })
}

/// A half of a packed source.
pub fn part(i: &Instruction, n: usize, x: u32, high: bool) -> u32 {
    let chosen = if high { i.op_sel_hi } else { i.op_sel } >> n & 1 == 1;
    x >> if chosen { 16 } else { 0 } & 0xffff
}

/// Both halves, each from the halves that the modifiers choose.
fn pairs<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([u32; N]) -> u32, float: bool) {
    let src: [(Vector, u64); N] = std::array::from_fn(|n| w.raw(i.src[n].operand, 0));
    let tainted = src.iter().fold(0, |t, s| t | s.1);
    let undefined: [Vector; N] = std::array::from_fn(|n| match src[n].1 {
        0 => [0; LANES],
        _ => w.raw_undefined(i.src[n].operand, 0),
    });
    let mut out = [0; LANES];
    let mut bits = [0; LANES];
    for l in 0..LANES {
        for high in [false, true] {
            let x = std::array::from_fn(|n| {
                let negative = if high { i.neg_hi >> n & 1 == 1 } else { i.src[n].neg };
                let sign = if negative && float { 0x8000 } else { 0 };
                part(i, n, src[n].0[l], high) ^ sign
            });
            let shift = if high { 16 } else { 0 };
            out[l] |= (f(x) & 0xffff) << shift;
            if (0..N).any(|n| part(i, n, undefined[n][l], high) != 0) {
                bits[l] |= 0xffff << shift;
            }
        }
    }
    w.store(i, &out);
    w.store_undefined(i, tainted, &bits);
}

fn packed(name: &str) -> Option<Act> {
    fn halves<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([f64; N]) -> f64) {
        let mode = w.mode;
        pairs(w, i, |x| one(x, mode, i.clamp, 0, &f), true);
    }
    fn s(x: u32) -> i32 {
        i32::from(x as i16)
    }
    Some(match name {
        "v_pk_add_f16" => |w, i| halves(w, i, |[a, b]| a + b),
        "v_pk_mul_f16" => |w, i| halves(w, i, |[a, b]| a * b),
        "v_pk_fma_f16" => |w, i| halves(w, i, fma),
        "v_pk_min_f16" => |w, i| halves(w, i, min),
        "v_pk_max_f16" => |w, i| halves(w, i, max),
        "v_pk_add_u16" | "v_pk_add_i16" => |w, i| pairs(w, i, |[a, b]| a.wrapping_add(b), false),
        "v_pk_sub_u16" | "v_pk_sub_i16" => |w, i| pairs(w, i, |[a, b]| a.wrapping_sub(b), false),
        "v_pk_mul_lo_u16" => |w, i| pairs(w, i, |[a, b]| a.wrapping_mul(b), false),
        "v_pk_mad_u16" | "v_pk_mad_i16" => {
            |w, i| pairs(w, i, |[a, b, c]| a.wrapping_mul(b).wrapping_add(c), false)
        }
        "v_pk_lshlrev_b16" => |w, i| pairs(w, i, |[n, a]| a << (n & 15), false),
        "v_pk_lshrrev_b16" => |w, i| pairs(w, i, |[n, a]| a >> (n & 15), false),
        "v_pk_ashrrev_i16" => |w, i| pairs(w, i, |[n, a]| (s(a) >> (n & 15)) as u32, false),
        "v_pk_max_i16" => |w, i| pairs(w, i, |[a, b]| s(a).max(s(b)) as u32, false),
        "v_pk_min_i16" => |w, i| pairs(w, i, |[a, b]| s(a).min(s(b)) as u32, false),
        "v_pk_max_u16" => |w, i| pairs(w, i, |[a, b]| a.max(b), false),
        "v_pk_min_u16" => |w, i| pairs(w, i, |[a, b]| a.min(b), false),
        _ => return None,
    })
}

fn mixed(name: &str) -> Option<Act> {
    Some(match name {
        "v_fma_mix_f32" => |w, i| mix(w, i, |y, _| y.to_bits()),
        "v_fma_mixlo_f16" | "v_fma_mixhi_f16" => |w, i| mix(w, i, |y, m| round(y.into(), m)),
        // Two products and a sum, each f32 of its own on hardware; here one after the other.
        "v_dot2_f32_f16" => |w, i| {
            map(w, i, |[a, b, c]| {
                let at = |x: u32, n: u32| f16_to_f32((x >> (16 * n)) as u16);
                let low = fma_f32(at(a, 0), at(b, 0), f32::from_bits(c), ROUND);
                fma_f32(at(a, 1), at(b, 1), low, ROUND).to_bits()
            });
        },
        "v_dot2c_f32_f16" => |w, i| {
            super::map::accumulate(w, i, |[a, b], c| {
                let at = |x: u32, n: u32| f16_to_f32((x >> (16 * n)) as u16);
                let low = fma_f32(at(a, 0), at(b, 0), f32::from_bits(c), ROUND);
                add_f32(at(a, 1) * at(b, 1), low, ROUND).to_bits()
            });
        },
        _ => return None,
    })
}

const ROUND: crate::number::Rounding = crate::number::Rounding::Nearest;

/// A multiply-add whose sources are f32, or the half of a register that holds an f16.
fn mix(w: &mut Wave, i: &Instruction, to: impl Fn(f32, Mode) -> u32) {
    let mode = w.mode;
    let src: [(Vector, u64); 3] = std::array::from_fn(|n| w.raw(i.src[n].operand, 0));
    let out = std::array::from_fn(|l| {
        let x: [f32; 3] = std::array::from_fn(|n| {
            let bits = src[n].0[l];
            let half = i.op_sel_hi >> n & 1 == 1;
            let shift = if i.op_sel >> n & 1 == 1 { 16 } else { 0 };
            let mut x =
                if half { f16_to_f32((bits >> shift) as u16) } else { f32::from_bits(bits) };
            if i.src[n].abs || i.neg_hi >> n & 1 == 1 {
                x = x.abs();
            }
            if i.src[n].neg { -x } else { x }
        });
        let mut y = fma_f32(x[0], x[1], x[2], mode.round32());
        if y.is_nan() {
            let nan = x.into_iter().find(|x| x.is_nan()).map_or(0x7fc0_0000, f32::to_bits);
            y = f32::from_bits(nan | 0x40_0000);
        }
        if i.clamp {
            y = if y > 0.0 { y.min(1.0) } else { 0.0 };
        }
        to(y, mode)
    });
    w.store(i, &out);
    w.store_undefined(i, src.iter().fold(0, |t, s| t | s.1), &[u32::MAX; LANES]);
}
