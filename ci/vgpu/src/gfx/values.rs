//! What comparisons with constants leave a scalar register to be.
//!
//! Between constants that a register is compared with, all numbers compare alike: one of each kind stands for them.

use std::collections::BTreeMap;

use super::path::Comparison;

/// A register, or a pair of them.
type Place = (u8, bool);

/// Numbers that stand for all, by what is compared: at most 64.
#[derive(Debug, Default)]
pub struct Kinds(BTreeMap<Place, Vec<u64>>);

impl Kinds {
    /// Of the comparisons of a program. A place that is compared once has nothing to tell.
    pub fn of(comparisons: impl Iterator<Item = Comparison>) -> Self {
        let mut constants = BTreeMap::<Place, Vec<u64>>::new();
        for comparison in comparisons.filter(|c| holds(c, 0).is_some()) {
            constants.entry(place(&comparison)).or_default().push(mask(&comparison, comparison.2));
        }
        constants.retain(|_, list| list.len() > 1);
        for ((_, wide), list) in &mut constants {
            let all = if *wide { u64::MAX } else { u32::MAX.into() };
            let around = |n: &u64| [n.wrapping_sub(1) & all, *n, n.wrapping_add(1) & all];
            let mut kinds: Vec<u64> = list.iter().flat_map(around).collect();
            kinds.extend([0, all, all >> 1, (all >> 1) + 1]);
            kinds.sort_unstable();
            kinds.dedup();
            *list = kinds;
        }
        constants.retain(|_, list| list.len() <= 64);
        Self(constants)
    }
}

/// Kinds that a place can still be of, a bit each; places of which nothing is known are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Values(BTreeMap<Place, u64>);

impl Values {
    /// Registers have other values now.
    pub fn forget(&mut self, written: impl Fn(u8) -> bool) {
        self.0
            .retain(|(register, wide), _| !(written(*register) || *wide && written(*register + 1)));
    }

    /// A comparison has come out so: whether it can. None if it is not one of numbers, or the only one of its place.
    pub fn told(&mut self, comparison: &Comparison, truth: bool, kinds: &Kinds) -> Option<bool> {
        holds(comparison, 0)?;
        let list = kinds.0.get(&place(comparison))?;
        let fits = |n: &u64| holds(comparison, *n) == Some(truth);
        let fitting =
            list.iter().enumerate().filter(|(_, n)| fits(n)).fold(0, |s, (i, _)| s | 1_u64 << i);
        let left = self.0.entry(place(comparison)).or_insert(u64::MAX);
        *left &= fitting;
        Some(*left != 0)
    }
}

/// Whether it is of a pair of registers.
fn wide(comparison: &Comparison) -> bool {
    comparison.0.ends_with("u64")
}

/// Whether what is compared has another value once these registers are written.
pub fn changes(comparison: &Comparison, written: impl Fn(u8) -> bool) -> bool {
    written(comparison.1) || wide(comparison) && written(comparison.1 + 1)
}

fn place(comparison: &Comparison) -> Place {
    (comparison.1, wide(comparison))
}

fn mask(comparison: &Comparison, n: u64) -> u64 {
    if wide(comparison) { n } else { n & u64::from(u32::MAX) }
}

/// Whether a number compares so; none for other instructions than comparisons of numbers.
fn holds(comparison: &Comparison, n: u64) -> Option<bool> {
    let (how, ty) = comparison.0.strip_prefix("s_cmp_")?.split_once('_')?;
    let signed = |n: u64| i64::from(n as u32 as i32);
    let constant = mask(comparison, comparison.2);
    let order = match ty {
        "i32" => signed(n).cmp(&signed(constant)),
        "u32" | "u64" => n.cmp(&constant),
        _ => return None,
    };
    match how {
        "eq" => Some(order.is_eq()),
        "lg" => Some(order.is_ne()),
        "gt" => Some(order.is_gt()),
        "ge" => Some(order.is_ge()),
        "lt" => Some(order.is_lt()),
        "le" => Some(order.is_le()),
        _ => None,
    }
}
