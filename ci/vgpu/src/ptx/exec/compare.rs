//! Comparisons.

use std::cmp::Ordering;

use super::float::flush;
use super::warp::Warp;
use crate::number::{BF16, F16};
use crate::ptx::isa::{Combine, Compare, Op, Operand, Type};

impl Warp {
    /// Runs `setp` or `set`.
    pub fn compare(&mut self, mask: u32, op: &Op) {
        match op {
            Op::SetPredicate { cmp, ty, flush, dst, other, a, b, combine } => {
                let (with, negated) = match combine {
                    Some((_, predicate, negated)) => (*predicate, *negated),
                    None => (Operand::Constant(0), false),
                };
                // A result may be the predicate that the other is made of, so the inverse goes to
                // the register that nobody reads first.
                for (dst, inverse) in [(other.map(|_| 0), true), (*dst, false)] {
                    let Some(dst) = dst else { continue };
                    self.map(mask, dst, &[*a, *b, with], |[a, b, p]| {
                        let holds = holds(*cmp, a, b, *ty, *flush) != inverse;
                        let p = (p & 1 == 1) != negated;
                        u64::from(match combine {
                            None => holds,
                            Some((Combine::And, ..)) => holds && p,
                            Some((Combine::Or, ..)) => holds || p,
                            Some((Combine::Xor, ..)) => holds != p,
                        })
                    });
                }
                if let Some(other) = other {
                    let inverse = self.registers[0];
                    self.write(*other, mask, &inverse);
                }
            }
            Op::Set { cmp, ty, flush, float_result, dst, a, b } => {
                let yes = if *float_result { 1.0_f32.to_bits() } else { u32::MAX };
                self.map(mask, *dst, &[*a, *b], |[a, b]| {
                    if holds(*cmp, a, b, *ty, *flush) { yes.into() } else { 0 }
                });
            }
            _ => unreachable!("comparisons only"),
        }
    }
}

/// Whether a comparison of two values of a type holds.
#[inline]
fn holds(cmp: Compare, a: u64, b: u64, ty: Type, ftz: bool) -> bool {
    let single = |bits: u64| {
        let x = f32::from_bits(bits as u32);
        f64::from(if ftz { flush(x) } else { x })
    };
    let order = match ty {
        Type::U(1) | Type::Pred => (a as u8).partial_cmp(&(b as u8)),
        Type::U(2) => (a as u16).partial_cmp(&(b as u16)),
        Type::U(4) => (a as u32).partial_cmp(&(b as u32)),
        Type::U(_) => a.partial_cmp(&b),
        Type::S(1) => (a as i8).partial_cmp(&(b as i8)),
        Type::S(2) => (a as i16).partial_cmp(&(b as i16)),
        Type::S(4) => (a as i32).partial_cmp(&(b as i32)),
        Type::S(_) => (a as i64).partial_cmp(&(b as i64)),
        Type::F32 => single(a).partial_cmp(&single(b)),
        Type::F64 => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Type::F16 | Type::F16x2 => F16.to_f64(a & 0xffff).partial_cmp(&F16.to_f64(b & 0xffff)),
        Type::Bf16 | Type::Bf16x2 => BF16.to_f64(a & 0xffff).partial_cmp(&BF16.to_f64(b & 0xffff)),
    };
    let Some(order) = order else {
        use Compare::*;
        return matches!(cmp, EqU | NeU | LtU | LeU | GtU | GeU | Nan);
    };
    match cmp {
        Compare::Eq | Compare::EqU => order == Ordering::Equal,
        Compare::Ne | Compare::NeU => order != Ordering::Equal,
        Compare::Lt | Compare::LtU => order == Ordering::Less,
        Compare::Le | Compare::LeU => order != Ordering::Greater,
        Compare::Gt | Compare::GtU => order == Ordering::Greater,
        Compare::Ge | Compare::GeU => order != Ordering::Less,
        Compare::Num => true,
        Compare::Nan => false,
    }
}
