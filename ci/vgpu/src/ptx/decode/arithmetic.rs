//! Arithmetic, conversions and comparisons.

use super::{Decoder, Take};
use crate::number::Rounding;
use crate::ptx::Result;
use crate::ptx::isa::*;
use crate::ptx::lexer::Literal;
use crate::ptx::syntax::Argument;

/// Comparisons by name.
pub(super) const COMPARISONS: [(&str, Compare); 18] = [
    ("eq", Compare::Eq),
    ("ne", Compare::Ne),
    ("lt", Compare::Lt),
    ("le", Compare::Le),
    ("gt", Compare::Gt),
    ("ge", Compare::Ge),
    ("lo", Compare::Lt),
    ("ls", Compare::Le),
    ("hi", Compare::Gt),
    ("hs", Compare::Ge),
    ("equ", Compare::EqU),
    ("neu", Compare::NeU),
    ("ltu", Compare::LtU),
    ("leu", Compare::LeU),
    ("gtu", Compare::GtU),
    ("geu", Compare::GeU),
    ("num", Compare::Num),
    ("nan", Compare::Nan),
];

impl Decoder<'_> {
    pub(super) fn arithmetic(&self, name: &str, m: Take) -> Result<Op> {
        use IntegerOp as I;
        let ty = match name {
            "bfind" => {
                let shift = m.flag("shiftamt");
                let (ty, src) = (m.ty()?, 1..2);
                let op = if shift { I::BfindShift } else { I::Bfind };
                return Ok(Op::Integer { op, ty, dst: self.dst(0)?, src: self.sources(src, ty)? });
            }
            "prmt" => return self.permute(m),
            _ => m.ty()?,
        };
        if !matches!(ty, Type::U(_) | Type::S(_) | Type::Pred) {
            return self.float(name, ty, m);
        }
        let half = |m: Take, lo, hi, wide| m.one_of(&[("lo", lo), ("hi", hi), ("wide", wide)]);
        let (op, sources) = match name {
            "add" if m.flag("sat") => (I::AddSat, 2),
            "sub" if m.flag("sat") => (I::SubSat, 2),
            "add" => (I::Add, 2),
            "sub" => (I::Sub, 2),
            "mul" => match half(m, I::MulLo, I::MulHi, I::MulWide) {
                Some(op) => (op, 2),
                None => return self.error("neither .lo, .hi nor .wide"),
            },
            "mad" => match half(m, I::MadLo, I::MadHi, I::MadWide) {
                Some(op) => (op, 3),
                None => return self.error("neither .lo, .hi nor .wide"),
            },
            "sad" => (I::Sad, 3),
            "div" => (I::Div, 2),
            "rem" => (I::Rem, 2),
            "min" => (I::Min, 2),
            "max" => (I::Max, 2),
            "abs" => (I::Abs, 1),
            "neg" => (I::Neg, 1),
            "and" => (I::And, 2),
            "or" => (I::Or, 2),
            "xor" => (I::Xor, 2),
            "not" => (I::Not, 1),
            "cnot" => (I::Cnot, 1),
            "shl" => (I::Shl, 2),
            "shr" => (I::Shr, 2),
            "popc" => (I::Popc, 1),
            "clz" => (I::Clz, 1),
            "brev" => (I::Brev, 1),
            "bfe" => (I::Bfe, 3),
            "bfi" => (I::Bfi, 4),
            "lop3" => {
                let Argument::Number(Literal::Integer(table)) = self.arg(4)? else {
                    return self.error("a table that is not a number");
                };
                self.count(5)?;
                let src = (1..4).map(|i| self.src(i, ty)).collect::<Result<_>>()?;
                return Ok(Op::Integer { op: I::Lop3(*table as u8), ty, dst: self.dst(0)?, src });
            }
            "shf" => {
                let left = m.must(&[("l", true), ("r", false)])?;
                let wrap = m.must(&[("wrap", true), ("clamp", false)])?;
                let op = match (left, wrap) {
                    (true, true) => I::ShiftLeftWrap,
                    (true, false) => I::ShiftLeftClamp,
                    (false, true) => I::ShiftRightWrap,
                    (false, false) => I::ShiftRightClamp,
                };
                (op, 3)
            }
            _ => return self.error("on integers"),
        };
        self.count(sources + 1)?;
        // Shift amounts and bit positions are u32, whatever is shifted.
        let src = (1..=sources).map(|i| {
            let amount = match op {
                I::Shl | I::Shr => i == 2,
                I::Bfe => i > 1,
                I::Bfi => i > 2,
                _ => false,
            };
            self.src(i, if amount { Type::U(4) } else { ty })
        });
        Ok(Op::Integer { op, ty, dst: self.dst(0)?, src: src.collect::<Result<_>>()? })
    }

    pub(super) fn permute(&self, m: Take) -> Result<Op> {
        use Permute::*;
        let choices = [
            ("f4e", Forward4),
            ("b4e", Backward4),
            ("rc8", Replicate8),
            ("ecl", EdgeClampLeft),
            ("ecr", EdgeClampRight),
            ("rc16", Replicate16),
        ];
        let mode = m.one_of(&choices).unwrap_or(Generic);
        let ty = m.ty()?;
        Ok(Op::Integer {
            op: IntegerOp::Prmt(mode),
            ty,
            dst: self.dst(0)?,
            src: self.sources(1..4, ty)?,
        })
    }

    pub(super) fn float(&self, name: &str, ty: Type, m: Take) -> Result<Op> {
        use FloatOp as F;
        let approx = m.flag("approx") | m.flag("full");
        let rounding = m.rounding();
        let (op, sources) = match name {
            "add" => (F::Add, 2),
            "sub" => (F::Sub, 2),
            "mul" => (F::Mul, 2),
            "fma" | "mad" => (F::Fma, 3),
            "div" if approx => (F::DivApprox, 2),
            "div" => (F::Div, 2),
            "min" => (F::Min, 2),
            "max" => (F::Max, 2),
            "abs" => (F::Abs, 1),
            "neg" => (F::Neg, 1),
            "copysign" => (F::CopySign, 2),
            "sqrt" if approx => (F::SqrtApprox, 1),
            "sqrt" => (F::Sqrt, 1),
            "rsqrt" => (F::Rsqrt, 1),
            "rcp" if approx => (F::RcpApprox, 1),
            "rcp" => (F::Rcp, 1),
            "ex2" => (F::Exp2, 1),
            "lg2" => (F::Log2, 1),
            "sin" => (F::Sin, 1),
            "cos" => (F::Cos, 1),
            "tanh" => (F::Tanh, 1),
            _ => return self.error("on floating-point numbers"),
        };
        let approximate = matches!(
            op,
            F::DivApprox
                | F::SqrtApprox
                | F::Rsqrt
                | F::RcpApprox
                | F::Exp2
                | F::Log2
                | F::Sin
                | F::Cos
                | F::Tanh
        );
        if approx != approximate {
            return self.error(if approx { ".approx of this" } else { "without .approx" });
        }
        if matches!(op, F::Div | F::Sqrt | F::Rcp | F::Fma) && rounding.is_none() {
            return self.error("without a rounding");
        }
        let rounding = rounding.unwrap_or(Rounding::Nearest);
        let plain = matches!(op, F::Add | F::Sub | F::Mul | F::Fma);
        if rounding != Rounding::Nearest && !(plain && ty == Type::F32) {
            return self.error("in this rounding and type");
        }
        if approximate && op != F::Rsqrt && ty == Type::F64 {
            return self.error("of f64");
        }
        let mode = FloatMode {
            rounding,
            flush: m.flag("ftz"),
            saturate: m.flag("sat"),
            relu: m.flag("relu"),
            nan: m.flag("NaN"),
        };
        if m.flag("xorsign") || m.flag("abs") {
            return self.error("unknown modifier .xorsign.abs");
        }
        let src = self.sources(1..sources + 1, ty)?;
        Ok(Op::Float { op, ty, mode, dst: self.dst(0)?, src })
    }

    pub(super) fn convert(&self, m: Take) -> Result<Op> {
        let from = m.ty()?;
        let to = m.ty()?;
        let integral = m.integral_rounding();
        let rounding = m.rounding();
        let float = FloatMode {
            rounding: integral.or(rounding).unwrap_or(Rounding::Nearest),
            flush: m.flag("ftz"),
            saturate: m.flag("sat"),
            relu: m.flag("relu"),
            nan: false,
        };
        let packed = matches!(to, Type::F16x2 | Type::Bf16x2);
        if packed && from != Type::F32 || matches!(from, Type::F16x2 | Type::Bf16x2 | Type::Pred) {
            return self.error("between these types");
        }
        let mode = ConvertMode { float, integral: integral.is_some() };
        let src = self.sources(1..if packed { 3 } else { 2 }, from)?;
        Ok(Op::Convert { to, from, mode, dst: self.dst(0)?, src })
    }

    pub(super) fn setp(&self, m: Take) -> Result<Op> {
        let combine =
            m.one_of(&[("and", Combine::And), ("or", Combine::Or), ("xor", Combine::Xor)]);
        let ty = m.ty()?;
        let cmp = m.must(&COMPARISONS)?;
        let flush = m.flag("ftz");
        let (dst, other) = match self.arg(0)? {
            Argument::Pair(a, b) => {
                (self.sink(&Argument::Name(a.clone()))?, self.sink(&Argument::Name(b.clone()))?)
            }
            single => (self.sink(single)?, None),
        };
        let combine = match combine {
            Some(how) => {
                let (predicate, negated) = self.predicate(3)?;
                Some((how, predicate, negated))
            }
            None => None,
        };
        self.count(if combine.is_some() { 4 } else { 3 })?;
        let (a, b) = (self.src(1, ty)?, self.src(2, ty)?);
        Ok(Op::SetPredicate { cmp, ty, flush, dst, other, a, b, combine })
    }
}
