//! `cvt`: between all scalar types, and pairs of f32 to packed 16-bit ones.

use super::float::NAN_F32;
use super::narrow;
use super::warp::Warp;
use crate::number::{BF16, F16, F32, F64, Format, from_integer};
use crate::ptx::isa::{ConvertMode, Reg, Type};

fn format(ty: Type) -> Option<Format> {
    match ty {
        Type::F16 | Type::F16x2 => Some(F16),
        Type::Bf16 | Type::Bf16x2 => Some(BF16),
        Type::F32 => Some(F32),
        Type::F64 => Some(F64),
        _ => None,
    }
}

impl Warp {
    /// Runs a conversion. False if there is none between the types.
    pub fn convert(
        &mut self,
        mask: u32,
        to: Type,
        from: Type,
        mode: ConvertMode,
        dst: Reg,
        src: &[Reg],
    ) -> bool {
        match (format(to), format(from)) {
            (None, None) => self.integers(mask, to, from, mode.float.saturate, dst, src),
            (Some(out), None) => {
                let (bytes, signed) = (from.bytes(), matches!(from, Type::S(_)));
                self.map(mask, dst, src, |[a]| {
                    let value = extend(a, bytes, signed);
                    let (negative, magnitude) = (value < 0, value.unsigned_abs() as u64);
                    let bits = from_integer(out, negative, magnitude, mode.float.rounding);
                    if mode.float.saturate {
                        // A whole number clamped to [0, 1] is one of the two.
                        return if value > 0 {
                            from_integer(out, false, 1, mode.float.rounding)
                        } else {
                            0
                        };
                    }
                    bits
                });
            }
            (None, Some(input)) => {
                self.map(mask, dst, src, |[a]| to_integer(source(a, input, mode), input, to, mode))
            }
            (Some(_), Some(input)) if matches!(to, Type::F16x2 | Type::Bf16x2) => {
                // The first operand goes to the upper half.
                self.map(mask, dst, src, |[a, b]| {
                    let one = |x| to_float(source(x, input, mode), to, mode);
                    one(a) << 16 | one(b)
                });
            }
            (Some(_), Some(input)) => {
                self.map(mask, dst, src, |[a]| to_float(source(a, input, mode), to, mode))
            }
        }
        true
    }

    fn integers(&mut self, mask: u32, to: Type, from: Type, saturate: bool, dst: Reg, src: &[Reg]) {
        let (bytes, signed) = (from.bytes(), matches!(from, Type::S(_)));
        let used = u64::MAX >> (64 - 8 * to.bytes());
        if saturate {
            return self.map(mask, dst, src, |[a]| {
                let (least, most) = limits(to);
                extend(a, bytes, signed).clamp(least, most) as u64 & used
            });
        }
        let widens_sign = signed && to.bytes() > bytes;
        let outside = |bytes: u32| !((1_u16 << bytes) - 1) as u8;
        self.map_tainted(
            mask,
            dst,
            src,
            |[a]| extend(a, bytes, signed) as u64 & used,
            |[a]| {
                let defined = a.defined | outside(bytes.min(to.bytes()));
                if widens_sign && defined != 0xff { 0 } else { defined }
            },
        );
    }
}

/// The value of an integer's lower bytes.
fn extend(a: u64, bytes: u32, signed: bool) -> i128 {
    let unused = 64 - 8 * bytes;
    if signed { ((a << unused) as i64 >> unused).into() } else { (a << unused >> unused).into() }
}

fn limits(ty: Type) -> (i128, i128) {
    let width = 8 * ty.bytes();
    match ty {
        Type::S(_) => (-(1 << (width - 1)), (1 << (width - 1)) - 1),
        _ => (0, (1 << width) - 1),
    }
}

/// The source's value, a subnormal f32 flushed if that is asked for.
fn source(bits: u64, format: Format, mode: ConvertMode) -> f64 {
    let x = format.to_f64(bits & if format == F64 { u64::MAX } else { 0xffff_ffff });
    if mode.float.flush && format == F32 && x.abs() < f64::from(f32::MIN_POSITIVE) {
        return 0.0_f64.copysign(x);
    }
    x
}

/// To an integer: clamped to its range. NaN is 0, or where one of the two has 64 bits the highest bit alone.
fn to_integer(x: f64, from: Format, to: Type, mode: ConvertMode) -> u64 {
    if x.is_nan() {
        let wide = from == F64 || to.bytes() == 8;
        return if wide { 1 << (8 * to.bytes() - 1) } else { 0 };
    }
    let (least, most) = limits(to);
    // Beyond i128 the cast itself clamps.
    let whole = narrow::whole(x, mode.float.rounding) as i128;
    whole.clamp(least, most) as u64 & u64::MAX >> (64 - 8 * to.bytes())
}

fn to_float(x: f64, to: Type, mode: ConvertMode) -> u64 {
    let float = mode.float;
    let x = if mode.integral { narrow::whole(x, float.rounding) } else { x };
    match to {
        Type::F64 => {
            if float.saturate {
                return (if x > 0.0 { x.min(1.0) } else { 0.0 }).to_bits();
            }
            x.to_bits()
        }
        Type::F32 => {
            if x.is_nan() && !float.saturate {
                return NAN_F32.into();
            }
            let rounded = F32.from_f64(x, float.rounding);
            super::float::finish(f32::from_bits(rounded as u32), float)
        }
        Type::F16 | Type::F16x2 => narrow::finish(x, F16, without_flush(mode)),
        _ => narrow::finish(x, BF16, without_flush(mode)),
    }
}

/// `.ftz` of a conversion is about f32 alone.
fn without_flush(mode: ConvertMode) -> crate::ptx::isa::FloatMode {
    crate::ptx::isa::FloatMode { flush: false, ..mode.float }
}
