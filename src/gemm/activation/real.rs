//! One number or many: each formula is written once, and gives the same bits for both.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// f32, or a block of them on which every operation acts side by side. The formulas use nothing else,
/// so a backend that gives these operations on its vectors has all activations, to the bit.
pub(crate) trait Real:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The same number everywhere.
    fn of(value: f32) -> Self;
    /// `self·factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `|self|`.
    fn abs(self) -> Self;
    /// `then` where `self < limit`, else `otherwise`; so for NaN.
    fn if_less(self, limit: Self, then: Self, otherwise: Self) -> Self;
    /// `self·2ⁿ`, with `n` the low bits of `shifted` less those of `1.5·2²³`, and `2ⁿ` normal.
    fn scaled(self, shifted: Self) -> Self;

    /// One step of Horner's rule: `self·x + coefficient`, rounded once.
    #[inline(always)]
    fn horner(self, x: Self, coefficient: f32) -> Self {
        self.mul_add(x, Self::of(coefficient))
    }

    /// `low` where `self < low`; NaN passes.
    #[inline(always)]
    fn at_least(self, low: f32) -> Self {
        self.if_less(Self::of(low), Self::of(low), self)
    }

    /// `high` where `self > high`; NaN passes.
    #[inline(always)]
    fn at_most(self, high: f32) -> Self {
        Self::of(high).if_less(self, Self::of(high), self)
    }
}

/// Adding 1.5·2²³ leaves the nearest integer in the low bits.
pub(crate) const MAGIC: f32 = 12_582_912.0;

impl Real for f32 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        f32::mul_add(self, factor, addend)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }
    #[inline(always)]
    fn if_less(self, limit: Self, then: Self, otherwise: Self) -> Self {
        if self < limit { then } else { otherwise }
    }
    #[inline(always)]
    fn scaled(self, shifted: Self) -> Self {
        let n = shifted.to_bits().wrapping_sub(MAGIC.to_bits());
        self * f32::from_bits(n.wrapping_add(127) << 23)
    }
}
