//! Comparisons.

use super::float::flush;
use super::warp::Warp;
use crate::number::{BF16, F16};
use crate::ptx::isa::{Combine, Compare, Op, Reg, Type};

/// What a comparison says of two values that are less, equal, greater and unordered: a bit each.
fn truth(cmp: Compare) -> u64 {
    match cmp {
        Compare::Lt => 0b0001,
        Compare::Eq => 0b0010,
        Compare::Le => 0b0011,
        Compare::Gt => 0b0100,
        Compare::Ne => 0b0101,
        Compare::Ge => 0b0110,
        Compare::Num => 0b0111,
        Compare::Nan => 0b1000,
        Compare::LtU => 0b1001,
        Compare::EqU => 0b1010,
        Compare::LeU => 0b1011,
        Compare::GtU => 0b1100,
        Compare::NeU => 0b1101,
        Compare::GeU => 0b1110,
    }
}

/// How two values compare: the number of the bit above.
#[inline(always)]
fn relation<T: PartialOrd>(a: T, b: T) -> u64 {
    // Without branches: NaN is neither of the three.
    let (less, equal, greater) = (u64::from(a < b), u64::from(a == b), u64::from(a > b));
    3 - 3 * less - 2 * equal - greater
}

impl Warp {
    /// Runs `setp` or `set`.
    pub fn compare(&mut self, mask: u32, op: &Op) {
        match op {
            Op::SetPredicate { cmp, ty, flush, dst, other, a, b, combine } => {
                // The other predicate's value and negation; and the results for a comparison that
                // does not hold or holds, with the predicate false and true.
                let (with, negated, logic) = match combine {
                    None => (*a, false, 0b1100_u64),
                    Some((Combine::And, p, negated)) => (*p, *negated, 0b1000),
                    Some((Combine::Or, p, negated)) => (*p, *negated, 0b1110),
                    Some((Combine::Xor, p, negated)) => (*p, *negated, 0b0110),
                };
                let negated = u64::from(negated);
                // A result may be the predicate that the other is made of, so the inverse goes to
                // the register that nobody reads first.
                for (dst, inverse) in [(other.map(|_| 0), true), (*dst, false)] {
                    let Some(dst) = dst else { continue };
                    let truth = if inverse { !truth(*cmp) } else { truth(*cmp) };
                    self.relate(mask, dst, [*a, *b, with], *ty, *flush, |relation, p| {
                        logic >> (2 * (truth >> relation & 1) + ((p & 1) ^ negated)) & 1
                    });
                }
                if let Some(other) = other {
                    let inverse = self.registers[0];
                    self.write(*other, mask, &inverse);
                }
            }
            Op::Set { cmp, ty, flush, float_result, dst, a, b } => {
                let yes = if *float_result { 1.0_f32.to_bits() } else { u32::MAX };
                let truth = truth(*cmp);
                self.relate(mask, *dst, [*a, *b, *a], *ty, *flush, |relation, _| {
                    u64::from(yes) * (truth >> relation & 1)
                });
            }
            _ => unreachable!("comparisons only"),
        }
    }

    /// `dst = f(how the first two sources compare, the third)`.
    #[inline(always)]
    fn relate(
        &mut self,
        mask: u32,
        dst: Reg,
        src: [Reg; 3],
        ty: Type,
        ftz: bool,
        f: impl Fn(u64, u64) -> u64,
    ) {
        macro_rules! by {
            ($value:expr) => {{
                let value = $value;
                self.map(mask, dst, &src, |[a, b, p]| f(relation(value(a), value(b)), p))
            }};
        }
        match ty {
            Type::U(1) | Type::Pred => by!(|x| x as u8),
            Type::U(2) => by!(|x| x as u16),
            Type::U(4) => by!(|x| x as u32),
            Type::U(_) => by!(|x: u64| x),
            Type::S(1) => by!(|x| x as i8),
            Type::S(2) => by!(|x| x as i16),
            Type::S(4) => by!(|x| x as i32),
            Type::S(_) => by!(|x| x as i64),
            Type::F32 if ftz => by!(|x| flush(f32::from_bits(x as u32))),
            Type::F32 => by!(|x| f32::from_bits(x as u32)),
            Type::F64 => by!(f64::from_bits),
            Type::F16 | Type::F16x2 => by!(|x| F16.to_f64(x & 0xffff)),
            Type::Bf16 | Type::Bf16x2 => by!(|x| BF16.to_f64(x & 0xffff)),
        }
    }
}
