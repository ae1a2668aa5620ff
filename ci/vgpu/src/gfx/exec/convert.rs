//! Conversions.

use super::float::flush;
use super::half::round;
use super::map::{Act, map};
use super::wave::{LANES, Wave};
use crate::gfx::decode::Instruction;
use crate::number::{F16, F32, F64, Rounding, f16_to_f32, from_integer};

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    Some(match name {
        "v_cvt_f32_u32" => |w, i| {
            let mode = w.mode.round32();
            map(w, i, |[a]| from_integer(F32, false, a.into(), mode) as u32);
        },
        "v_cvt_f32_i32" => |w, i| {
            let mode = w.mode.round32();
            map(w, i, |[a]| {
                let a = a as i32;
                from_integer(F32, a < 0, a.unsigned_abs().into(), mode) as u32
            });
        },
        // To zero; what does not fit is the nearest that does, NaN is 0. As Rust has it.
        "v_cvt_u32_f32" => |w, i| map(w, i, |[a]| f32::from_bits(a) as u32),
        "v_cvt_i32_f32" => |w, i| map(w, i, |[a]| f32::from_bits(a) as i32 as u32),
        "v_cvt_rpi_i32_f32" => {
            |w, i| map(w, i, |[a]| (f32::from_bits(a) + 0.5).floor() as i32 as u32)
        }
        "v_cvt_flr_i32_f32" => |w, i| map(w, i, |[a]| f32::from_bits(a).floor() as i32 as u32),
        "v_cvt_f16_f32" => |w, i| {
            let mode = w.mode;
            map(w, i, |[a]| {
                let a = if mode.subnormals32().0 { a } else { flush(a) };
                clamp16(i, round(f32::from_bits(a).into(), mode))
            });
        },
        "v_cvt_f32_f16" => |w, i| {
            let keep = w.mode.subnormals16().0;
            map(w, i, |[a]| {
                let a = if keep || a & 0x7c00 != 0 { a } else { a & 0x8000 };
                let y = f16_to_f32(a as u16);
                // A signalling NaN becomes quiet.
                let y = if y.is_nan() { y.to_bits() | 0x40_0000 } else { y.to_bits() };
                clamp32(i, y)
            });
        },
        "v_cvt_pkrtz_f16_f32" => |w, i| {
            let mode = w.mode;
            let one = |x: u32| {
                let bits = F16.from_f64(f32::from_bits(x).into(), Rounding::Zero) as u32;
                let keep = mode.subnormals16().1 || bits & 0x7c00 != 0;
                if keep { bits } else { bits & 0x8000 }
            };
            super::map::map_bits(
                w,
                i,
                |[a, b]| one(a) | one(b) << 16,
                |_, [ua, ub]| if ua != 0 { 0xffff } else { 0 } | if ub != 0 { 0xffff << 16 } else { 0 },
            );
        },
        "v_cvt_f16_u16" => |w, i| {
            let mode = w.mode;
            map(w, i, |[a]| round((a & 0xffff).into(), mode));
        },
        "v_cvt_f16_i16" => |w, i| {
            let mode = w.mode;
            map(w, i, |[a]| round((a as i16).into(), mode));
        },
        "v_cvt_u16_f16" => |w, i| map(w, i, |[a]| (f16_to_f32(a as u16) as u16).into()),
        "v_cvt_i16_f16" => |w, i| map(w, i, |[a]| (f16_to_f32(a as u16) as i16 as u16).into()),
        "v_cvt_f32_ubyte0" => |w, i| byte(w, i, 0),
        "v_cvt_f32_ubyte1" => |w, i| byte(w, i, 8),
        "v_cvt_f32_ubyte2" => |w, i| byte(w, i, 16),
        "v_cvt_f32_ubyte3" => |w, i| byte(w, i, 24),
        "v_cvt_f32_f64" => |w, i| {
            let mode = w.mode.round32();
            let keep = w.mode.subnormals32().1;
            to32(w, i, |x| {
                let y = F32.from_f64(x, mode) as u32;
                clamp32(i, if keep { y } else { flush(y) })
            });
        },
        "v_cvt_f64_f32" => |w, i| {
            to64(w, i, |a| f64::from(f32::from_bits(a)));
        },
        "v_cvt_f64_u32" => |w, i| to64(w, i, f64::from),
        "v_cvt_f64_i32" => |w, i| to64(w, i, |a| f64::from(a as i32)),
        "v_cvt_u32_f64" => |w, i| to32(w, i, |x| x as u32),
        "v_cvt_i32_f64" => |w, i| to32(w, i, |x| x as i32 as u32),
        "v_cvt_pk_u16_u32" => |w, i| map(w, i, |[a, b]| a.min(0xffff) | b.min(0xffff) << 16),
        "v_cvt_pk_i16_i32" => |w, i| {
            let one = |x: u32| (x as i32).clamp(-0x8000, 0x7fff) as u32 & 0xffff;
            map(w, i, |[a, b]| one(a) | one(b) << 16);
        },
        "v_cvt_pk_u8_f32" => |w, i| {
            map(w, i, |[a, n, c]| {
                let (shift, byte) =
                    (8 * (n & 3), u32::from(f32::from_bits(a).round_ties_even() as u8));
                c & !(0xff << shift) | byte << shift
            });
        },
        _ => return None,
    })
}

fn clamp16(i: &Instruction, x: u32) -> u32 {
    let value = f16_to_f32(x as u16);
    match i.clamp {
        true if value.is_nan() || value <= 0.0 => 0,
        true if value > 1.0 => 0x3c00,
        _ => x,
    }
}

fn clamp32(i: &Instruction, x: u32) -> u32 {
    let value = f32::from_bits(x);
    match i.clamp {
        true if value.is_nan() || value <= 0.0 => 0,
        true if value > 1.0 => 0x3f80_0000,
        _ => x,
    }
}

fn byte(w: &mut Wave, i: &Instruction, shift: u32) {
    map(w, i, |[a]| ((a >> shift & 0xff) as f32).to_bits());
}

fn to32(w: &mut Wave, i: &Instruction, f: impl Fn(f64) -> u32) {
    let (x, tainted) = w.fetch64(i, 0);
    w.store64(i, &x.map(|x| u64::from(f(f64::from_bits(x)))), tainted);
}

fn to64(w: &mut Wave, i: &Instruction, f: impl Fn(u32) -> f64) {
    let (x, tainted) = w.fetch(i, 0);
    let out: [u64; LANES] = x.map(|x| F64.from_f64(f(x), Rounding::Nearest));
    w.store64(i, &out, tainted);
}
