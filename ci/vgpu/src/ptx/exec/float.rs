//! f32 and f64 arithmetic.

use super::narrow;
use super::warp::Warp;
use crate::number::{Rounding, add_f32, fma_f32, mul_f32};
use crate::ptx::isa::{FloatMode, FloatOp, Reg, Type};

/// The NaN that f32 operations give.
pub const NAN_F32: u32 = 0x7fff_ffff;

/// A subnormal becomes a zero of its sign.
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// A result of arithmetic as its bits, after the modifiers.
#[inline]
pub fn finish(x: f32, mode: FloatMode) -> u64 {
    let mut x = x;
    if mode.flush {
        x = flush(x);
    }
    if mode.saturate {
        // NaN and −0 become +0.
        x = if x > 0.0 { x.min(1.0) } else { 0.0 };
    }
    if mode.relu && x <= 0.0 {
        x = 0.0;
    }
    (if x.is_nan() { NAN_F32 } else { x.to_bits() }).into()
}

impl Warp {
    /// Runs a floating-point operation. False if there is none for the type.
    pub fn float(
        &mut self,
        mask: u32,
        op: FloatOp,
        ty: Type,
        mode: FloatMode,
        dst: Reg,
        src: &[Reg],
    ) -> bool {
        match ty {
            Type::F32 => self.single(mask, op, mode, dst, src),
            Type::F64 => return self.double(mask, op, mode, dst, src),
            _ => return narrow::arithmetic(self, mask, op, ty, mode, dst, src),
        }
        true
    }

    fn single(&mut self, mask: u32, op: FloatOp, mode: FloatMode, dst: Reg, src: &[Reg]) {
        use FloatOp as F;
        let rounding = mode.rounding;
        let x = |bits: u64| {
            let x = f32::from_bits(bits as u32);
            if mode.flush { flush(x) } else { x }
        };
        let done = |x: f32| finish(x, mode);
        let wide = |x: f64| finish(x as f32, mode);
        match op {
            F::Add if rounding == Rounding::Nearest => {
                self.map(mask, dst, src, |[a, b]| done(x(a) + x(b)))
            }
            F::Mul if rounding == Rounding::Nearest => {
                self.map(mask, dst, src, |[a, b]| done(x(a) * x(b)))
            }
            F::Sub if rounding == Rounding::Nearest => {
                self.map(mask, dst, src, |[a, b]| done(x(a) - x(b)))
            }
            F::Add => self.map(mask, dst, src, |[a, b]| done(add_f32(x(a), x(b), rounding))),
            F::Sub => self.map(mask, dst, src, |[a, b]| done(add_f32(x(a), -x(b), rounding))),
            F::Mul => self.map(mask, dst, src, |[a, b]| done(mul_f32(x(a), x(b), rounding))),
            F::Fma => {
                self.map(mask, dst, src, |[a, b, c]| done(fma_f32(x(a), x(b), x(c), rounding)))
            }
            F::Div | F::DivApprox => self.map(mask, dst, src, |[a, b]| done(x(a) / x(b))),
            F::Min => self.map(mask, dst, src, |[a, b]| done(least(x(a), x(b), mode.nan))),
            F::Max => self.map(mask, dst, src, |[a, b]| done(-least(-x(a), -x(b), mode.nan))),
            // The sign bit alone: a NaN keeps its payload.
            F::Abs => self.map(mask, dst, src, |[a]| x(a).abs().to_bits().into()),
            F::Neg => self.map(mask, dst, src, |[a]| (-x(a)).to_bits().into()),
            F::CopySign => self.map(mask, dst, src, |[a, b]| (b & 0x7fff_ffff) | (a & 0x8000_0000)),
            F::Sqrt | F::SqrtApprox => self.map(mask, dst, src, |[a]| done(x(a).sqrt())),
            F::Rsqrt => self.map(mask, dst, src, |[a]| wide(1.0 / f64::from(x(a)).sqrt())),
            F::Rcp | F::RcpApprox => self.map(mask, dst, src, |[a]| done(1.0 / x(a))),
            F::Exp2 => self.map(mask, dst, src, |[a]| wide(f64::from(x(a)).exp2())),
            F::Log2 => self.map(mask, dst, src, |[a]| wide(f64::from(x(a)).log2())),
            F::Sin => self.map(mask, dst, src, |[a]| wide(f64::from(x(a)).sin())),
            F::Cos => self.map(mask, dst, src, |[a]| wide(f64::from(x(a)).cos())),
            F::Tanh => self.map(mask, dst, src, |[a]| wide(f64::from(x(a)).tanh())),
        }
    }

    fn double(&mut self, mask: u32, op: FloatOp, mode: FloatMode, dst: Reg, src: &[Reg]) -> bool {
        use FloatOp as F;
        if mode.flush || mode.saturate || mode.relu {
            return false;
        }
        let x = f64::from_bits;
        match op {
            F::Add => self.map(mask, dst, src, |[a, b]| (x(a) + x(b)).to_bits()),
            F::Sub => self.map(mask, dst, src, |[a, b]| (x(a) - x(b)).to_bits()),
            F::Mul => self.map(mask, dst, src, |[a, b]| (x(a) * x(b)).to_bits()),
            F::Fma => self.map(mask, dst, src, |[a, b, c]| x(a).mul_add(x(b), x(c)).to_bits()),
            F::Div => self.map(mask, dst, src, |[a, b]| (x(a) / x(b)).to_bits()),
            F::Min => self.map(mask, dst, src, |[a, b]| least64(x(a), x(b)).to_bits()),
            F::Max => self.map(mask, dst, src, |[a, b]| (-least64(-x(a), -x(b))).to_bits()),
            F::Abs => self.map(mask, dst, src, |[a]| x(a).abs().to_bits()),
            F::Neg => self.map(mask, dst, src, |[a]| (-x(a)).to_bits()),
            F::CopySign => self.map(mask, dst, src, |[a, b]| x(b).copysign(x(a)).to_bits()),
            F::Sqrt => self.map(mask, dst, src, |[a]| x(a).sqrt().to_bits()),
            F::Rcp => self.map(mask, dst, src, |[a]| (1.0 / x(a)).to_bits()),
            F::Rsqrt => self.map(mask, dst, src, |[a]| (1.0 / x(a).sqrt()).to_bits()),
            _ => return false,
        }
        true
    }
}

/// The lesser: −0 before +0; a NaN only if both are, or if `nan` and one is.
pub fn least(a: f32, b: f32, nan: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        return if nan || a.is_nan() && b.is_nan() {
            f32::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    if a == b {
        return if a.is_sign_negative() { a } else { b };
    }
    if a < b { a } else { b }
}

fn least64(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
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
