//! Comparisons, one bit a lane.

use std::cmp::Ordering;

use super::map::{Act, store_mask};
use super::wave::{EXEC, LANES, Wave};
use crate::gfx::decode::Instruction;
use crate::number::f16_to_f32;

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    let rest = name.strip_prefix("v_cmpx_").or_else(|| name.strip_prefix("v_cmp_"))?;
    let (condition, ty) = rest.split_once('_')?;
    if condition == "class" {
        return Some(match ty {
            "f16" => |w, i| class(w, i, 10, 5),
            "f32" => |w, i| class(w, i, 23, 8),
            _ => |w, i| class(w, i, 52, 11),
        });
    }
    Some(match ty {
        "f16" => |w, i| compare(w, i, |x| f16_to_f32(x as u16), |a, b| a.partial_cmp(b)),
        "f32" => |w, i| {
            let keep = w.mode.subnormals32().0;
            let value = |x: u64| {
                f32::from_bits(if keep { x as u32 } else { super::float::flush(x as u32) })
            };
            compare(w, i, value, |a, b| a.partial_cmp(b));
        },
        "f64" => |w, i| compare(w, i, f64::from_bits, |a, b| a.partial_cmp(b)),
        "i16" => |w, i| compare(w, i, |x| x as i16, |a, b| Some(a.cmp(b))),
        "u16" => |w, i| compare(w, i, |x| x as u16, |a, b| Some(a.cmp(b))),
        "i32" => |w, i| compare(w, i, |x| x as i32, |a, b| Some(a.cmp(b))),
        "u32" => |w, i| compare(w, i, |x| x as u32, |a, b| Some(a.cmp(b))),
        "i64" => |w, i| compare(w, i, |x| x as i64, |a, b| Some(a.cmp(b))),
        _ => |w, i| compare(w, i, |x| x, |a, b| Some(a.cmp(b))),
    })
}

/// Whether a condition holds of an order; none is unordered.
fn holds(condition: &str, order: Option<Ordering>) -> bool {
    use Ordering::{Equal, Greater, Less};
    match condition {
        "f" => false,
        "t" | "tru" => true,
        "o" => order.is_some(),
        "u" => order.is_none(),
        "lt" => order == Some(Less),
        "eq" => order == Some(Equal),
        "le" => matches!(order, Some(Less | Equal)),
        "gt" => order == Some(Greater),
        "ge" => matches!(order, Some(Greater | Equal)),
        "lg" => matches!(order, Some(Less | Greater)),
        "ne" => order != Some(Equal),
        // With an n in front: the opposite, so that it holds of what is unordered.
        _ => !holds(&condition[1..], order),
    }
}

fn compare<T>(
    w: &mut Wave,
    i: &Instruction,
    value: impl Fn(u64) -> T,
    order: impl Fn(&T, &T) -> Option<Ordering>,
) {
    let rest = i.name.trim_start_matches("v_cmpx_").trim_start_matches("v_cmp_");
    let condition = rest.split('_').next().unwrap_or_default();
    // What the condition says of each order, decided once.
    let table = [Some(Ordering::Less), Some(Ordering::Equal), Some(Ordering::Greater), None]
        .map(|order| holds(condition, order));
    let ((a, ta), (b, tb)) = (w.fetch64(i, 0), w.fetch64(i, 1));
    let mut mask = 0;
    for l in 0..LANES {
        let at = match order(&value(a[l]), &value(b[l])) {
            Some(Ordering::Less) => 0,
            Some(Ordering::Equal) => 1,
            Some(Ordering::Greater) => 2,
            None => 3,
        };
        mask |= u64::from(table[at]) << l;
    }
    finish(w, i, mask, ta | tb);
}

fn finish(w: &mut Wave, i: &Instruction, mask: u64, tainted: u64) {
    let exec = w.enabled(i);
    store_mask(w, i, mask, tainted);
    if i.name.starts_with("v_cmpx") {
        w.set64(EXEC, mask & exec, tainted & exec);
    }
}

/// Which of ten classes a number is in, against a mask of them.
fn class(w: &mut Wave, i: &Instruction, mantissa: u32, exponent: u32) {
    let ((x, tx), (wanted, tw)) = (w.fetch64(i, 0), w.fetch64(i, 1));
    let mut mask = 0;
    for l in 0..LANES {
        let negative = x[l] >> (mantissa + exponent) & 1 == 1;
        let (fraction, e) =
            (x[l] & ((1 << mantissa) - 1), x[l] >> mantissa & ((1 << exponent) - 1));
        let number = match (e, fraction) {
            (e, f) if e == (1 << exponent) - 1 && f != 0 => f >> (mantissa - 1) & 1,
            (e, _) if e == (1 << exponent) - 1 => {
                if negative {
                    2
                } else {
                    9
                }
            }
            (0, 0) => {
                if negative {
                    5
                } else {
                    6
                }
            }
            (0, _) => {
                if negative {
                    4
                } else {
                    7
                }
            }
            _ => {
                if negative {
                    3
                } else {
                    8
                }
            }
        };
        mask |= (wanted[l] >> number & 1) << l;
    }
    finish(w, i, mask, tx | tw);
}
