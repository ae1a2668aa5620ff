//! f16 and bf16 arithmetic, one or two in a register. Operands are exact in f64, and what f64 cannot
//! hold is rounded to odd there, so each result is rounded once.

use super::warp::Warp;
use crate::number::{BF16, F16, Format, Rounding, add_to_odd};
use crate::ptx::isa::{FloatMode, FloatOp, Reg, Type};

/// The NaN that operations on 16-bit types give.
const NAN: u64 = 0x7fff;

/// Runs an operation. False if there is none for the type.
pub fn arithmetic(
    warp: &mut Warp,
    mask: u32,
    op: FloatOp,
    ty: Type,
    mode: FloatMode,
    dst: Reg,
    src: &[Reg],
) -> bool {
    let (format, packed) = match ty {
        Type::F16 => (F16, false),
        Type::F16x2 => (F16, true),
        Type::Bf16 => (BF16, false),
        Type::Bf16x2 => (BF16, true),
        _ => return false,
    };
    use FloatOp as F;
    match op {
        F::Add | F::Sub | F::Mul | F::Min | F::Max => {
            warp.map(mask, dst, src, |[a, b]| {
                each([a, b, 0], packed, |v| one(op, format, mode, v))
            });
        }
        F::Fma => warp.map(mask, dst, src, |v| each(v, packed, |v| one(op, format, mode, v))),
        F::Abs => warp.map(mask, dst, src, |[a]| each([a, 0, 0], packed, |[a, ..]| a & 0x7fff)),
        F::Neg => warp.map(mask, dst, src, |[a]| each([a, 0, 0], packed, |[a, ..]| a ^ 0x8000)),
        F::Exp2 | F::Tanh => {
            warp.map(mask, dst, src, |[a]| each([a, 0, 0], packed, |v| one(op, format, mode, v)));
        }
        _ => return false,
    }
    true
}

/// Does a thing to the lower 16 bits, and to the upper too where two are packed.
fn each(v: [u64; 3], packed: bool, f: impl Fn([u64; 3]) -> u64) -> u64 {
    let low = f(v.map(|x| x & 0xffff));
    if packed { low | f(v.map(|x| x >> 16 & 0xffff)) << 16 } else { low }
}

fn one(op: FloatOp, format: Format, mode: FloatMode, v: [u64; 3]) -> u64 {
    let least_normal = if format == F16 { 2.0_f64.powi(-14) } else { 2.0_f64.powi(-126) };
    let flush = |x: f64| if mode.flush && x.abs() < least_normal { 0.0_f64.copysign(x) } else { x };
    let [a, b, c] = v.map(|bits| flush(format.to_f64(bits)));
    let exact = match op {
        FloatOp::Add => add_to_odd(a, b),
        FloatOp::Sub => add_to_odd(a, -b),
        FloatOp::Mul => a * b,
        FloatOp::Fma => add_to_odd(a * b, c),
        FloatOp::Min => least(a, b, mode.nan),
        FloatOp::Max => -least(-a, -b, mode.nan),
        FloatOp::Exp2 => a.exp2(),
        _ => a.tanh(),
    };
    finish(exact, format, mode)
}

/// Rounds to the format, with the modifiers.
pub fn finish(x: f64, format: Format, mode: FloatMode) -> u64 {
    if mode.saturate && (x.is_nan() || x <= 0.0) {
        return 0;
    }
    if x.is_nan() {
        return NAN;
    }
    let x = if mode.saturate { x.min(1.0) } else { x };
    if mode.relu && x <= 0.0 {
        return 0;
    }
    let bits = format.from_f64(x, mode.rounding);
    let exponent = if format == F16 { 0x7c00 } else { 0x7f80 };
    if mode.flush && bits & exponent == 0 { bits & 0x8000 } else { bits }
}

fn least(a: f64, b: f64, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => a,
        (true, false) => {
            if nan {
                a
            } else {
                b
            }
        }
        (false, true) => {
            if nan {
                b
            } else {
                a
            }
        }
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

/// `x` as a whole number of the same value range, in a direction.
pub fn whole(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}
