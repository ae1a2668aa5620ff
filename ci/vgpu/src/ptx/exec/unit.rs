//! What an A100's matrix unit makes of eight products and an accumulator.
//!
//! No manual says; it is as MMA-Sim found it, bit for bit, on the device (arXiv 2511.10909, and its code): products are
//! exact; all nine terms are aligned to the largest exponent, and what is below 2^-24 of its one is cut off; their sum is cut
//! to f32, subnormals included. A product's exponent is the sum of its factors'. 16 steps of k are two times eight.

use super::float::NAN_F32;

/// Products that are summed at once.
pub const WIDTH: usize = 8;
/// Columns of B.
const COLUMNS: usize = 8;
/// Bits behind the point of what is summed.
const FRACTION: i32 = 24;
/// The exponent of 0, which aligns nothing.
const NEVER: i32 = -1000;

/// A 16-bit factor: its value is its significand, below 2 and with a sign, times 2^exponent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Factor {
    significand: f32,
    exponent: i32,
}

impl Factor {
    /// Of the bits of a format with this many of mantissa.
    pub fn new(bits: u16, mantissa_bits: u32) -> Self {
        let largest = (1 << (15 - mantissa_bits)) - 1;
        let biased = i32::from(bits & 0x7fff) >> mantissa_bits;
        let mantissa = bits & ((1 << mantissa_bits) - 1);
        let fraction = f32::from(mantissa) * f32::from_bits((127 - mantissa_bits) << 23);
        let magnitude = match biased {
            0 => fraction,
            _ if biased == largest && mantissa != 0 => f32::NAN,
            _ if biased == largest => f32::INFINITY,
            _ => 1.0 + fraction,
        };
        let significand = if bits >> 15 == 1 { -magnitude } else { magnitude };
        let exponent = if magnitude == 0.0 { NEVER } else { biased.max(1) - largest / 2 };
        Self { significand, exponent }
    }

    /// Neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        self.significand.is_finite()
    }

    fn value(self) -> f64 {
        f64::from(self.significand) * 2f64.powi(self.exponent)
    }
}

/// Steps of k of B, its columns side by side.
#[derive(Debug, Clone, Default)]
pub struct Step {
    significand: [f32; COLUMNS],
    exponent: [i32; COLUMNS],
}

impl Step {
    /// Puts a factor in its column.
    pub fn set(&mut self, column: usize, factor: Factor) {
        self.significand[column] = factor.significand;
        self.exponent[column] = factor.exponent;
    }
}

/// Adds to a row of sums the products of eight factors of A with eight steps of B. `finite`: all factors are.
pub fn add_products(sums: &mut [f32; COLUMNS], a: &[Factor], b: &[Step], finite: bool) {
    let plain = finite && sums.iter().all(|x| x.is_finite());
    let odd = if plain { None } else { Some(without_limit(sums, a, b)) };
    let own = sums.map(|x| (x.to_bits() >> 23 & 0xff).max(1) as i32 - 127);
    let mut largest = own;
    for (a, b) in a.iter().zip(b) {
        for (largest, of_b) in largest.iter_mut().zip(b.exponent) {
            *largest = (*largest).max(a.exponent + of_b);
        }
    }
    let mut sum: [i32; COLUMNS] = std::array::from_fn(|j| {
        let bits = sums[j].to_bits();
        let magnitude = bits & 0x7f_ffff | u32::from(bits & 0x7f80_0000 != 0) << 23;
        let kept = (magnitude << (FRACTION - 23)) >> (largest[j] - own[j]).min(31);
        if bits >> 31 == 1 { -(kept as i32) } else { kept as i32 }
    });
    for (a, b) in a.iter().zip(b) {
        for (j, sum) in sum.iter_mut().enumerate() {
            // Exact: a product has 22 bits. What is far below 1 is 0 as an integer, however far.
            let up = (a.exponent + b.exponent[j] - largest[j] + FRACTION).max(-126);
            let unit = f32::from_bits(((up + 127) as u32) << 23);
            *sum = sum.wrapping_add((a.significand * b.significand[j] * unit) as i32);
        }
    }
    for j in 0..COLUMNS {
        sums[j] = cut(sum[j], largest[j] - FRACTION);
    }
    for (sum, odd) in sums.iter_mut().zip(odd.iter().flatten()) {
        if !odd.is_finite() {
            *sum = if odd.is_nan() { f32::from_bits(NAN_F32) } else { *odd as f32 };
        }
    }
}

/// The sums where nothing overflows but what is infinite.
fn without_limit(sums: &[f32; COLUMNS], a: &[Factor], b: &[Step]) -> [f64; COLUMNS] {
    std::array::from_fn(|j| {
        let b = b.iter().map(|b| Factor { significand: b.significand[j], exponent: b.exponent[j] });
        let products = a.iter().zip(b).map(|(a, b)| a.value() * b.value());
        products.sum::<f64>() + f64::from(sums[j])
    })
}

/// `x`·2^`exponent` as an f32 that is not larger.
fn cut(x: i32, exponent: i32) -> f32 {
    let magnitude = x.unsigned_abs();
    if magnitude == 0 {
        return 0.0;
    }
    let sign = u32::from(x < 0) << 31;
    let top = 31 - magnitude.leading_zeros() as i32;
    // Of the last bit that is kept: that of a number with 24 bits, or of a subnormal.
    let last = (exponent + top - 23).max(-149);
    let drop = last - exponent;
    let kept = if drop >= 0 { magnitude >> drop.min(31) } else { magnitude << -drop };
    // The first of 24 bits adds one to the exponent.
    let bits = (((last + 149) as u32) << 23) + kept;
    f32::from_bits(sign | bits.min(f32::INFINITY.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bits: u16, mantissa_bits: u32) -> Factor {
        Factor::new(bits, mantissa_bits)
    }

    fn bf16(x: f32) -> Factor {
        assert_eq!(x.to_bits() & 0xffff, 0);
        of((x.to_bits() >> 16) as u16, 7)
    }

    /// Products of a row and a column, which all columns are.
    fn products(start: f32, a: [Factor; WIDTH], b: [Factor; WIDTH]) -> f32 {
        let steps = b.map(|b| {
            let mut step = Step::default();
            (0..COLUMNS).for_each(|column| step.set(column, b));
            step
        });
        let mut sums = [start; COLUMNS];
        let finite = a.iter().chain(&b).all(|x| x.is_finite());
        add_products(&mut sums, &a, &steps, finite);
        assert!(sums.iter().all(|x| x.to_bits() == sums[0].to_bits()));
        sums[0]
    }

    fn sum(start: f32, terms: [f32; WIDTH]) -> f32 {
        products(start, terms.map(bf16), [bf16(1.0); WIDTH])
    }

    /// With zeros behind.
    fn some<const N: usize>(terms: [f32; N]) -> [f32; WIDTH] {
        std::array::from_fn(|i| terms.get(i).copied().unwrap_or(0.0))
    }

    #[test]
    fn terms_are_cut_where_the_largest_says_and_so_is_the_sum() {
        let e = |n: i32| 2f32.powi(n);
        // A bit below the last of an f32 counts, and is cut off with the sum; eight of them are three bits more.
        assert_eq!(sum(1.0, some([e(-24)])), 1.0);
        assert_eq!(sum(1.0, [e(-24); WIDTH]), 1.0 + e(-21));
        assert_eq!(sum(1.0, [e(-25); WIDTH]), 1.0);
        assert_eq!(sum(1.0, [-e(-25); WIDTH]), 1.0);
        assert_eq!(sum(1.0, some([-e(-24)])), 1.0 - e(-24));
        // The accumulator is a term like others.
        assert_eq!(sum(e(-25), some([1.0, -1.0])), 0.0);
        assert_eq!(sum(-3.0 * e(-25), some([1.0, -1.0])), -e(-24));
        // No step of a sum overflows that does not itself.
        assert_eq!(sum(f32::MAX, some([e(127), -e(127)])), f32::MAX);
        assert_eq!(sum(e(127), some([e(127)])), f32::INFINITY);
        assert_eq!(sum(-e(127), [-e(127); WIDTH]), f32::NEG_INFINITY);
    }

    #[test]
    fn exponents_are_those_of_the_factors_and_subnormals_count() {
        // 1.5 · 1.5 is aligned as a number in [1, 2).
        let least = 2f32.powi(-24);
        assert_eq!(products(least, [bf16(1.5); WIDTH], some([1.5, -1.5]).map(bf16)), least);
        assert_eq!(products(0.0, [of(1, 10); WIDTH], [of(0x3c00, 10); WIDTH]), 8.0 * least);
        let least = f32::from_bits(3);
        assert_eq!(sum(least, [0.0; WIDTH]), least);
        assert_eq!(sum(0.0, [least.to_bits(); WIDTH].map(|x| f32::from_bits(x << 16))), {
            f32::from_bits(24 << 16)
        });
    }

    #[test]
    fn what_is_not_finite_stays_in_its_sum() {
        let infinite = [bf16(f32::INFINITY); WIDTH];
        assert_eq!(products(1.0, infinite, [bf16(-1.0); WIDTH]), f32::NEG_INFINITY);
        assert_eq!(products(1.0, infinite, [bf16(0.0); WIDTH]).to_bits(), NAN_F32);
        assert_eq!(sum(f32::NAN, [1.0; WIDTH]).to_bits(), NAN_F32);
        let mut steps = vec![Step::default(); WIDTH];
        steps[3].set(5, bf16(f32::INFINITY));
        let mut sums = [3.0; COLUMNS];
        add_products(&mut sums, &[bf16(1.0); WIDTH], &steps, false);
        assert!(
            sums.iter().enumerate().all(|(j, x)| *x == if j == 5 { f32::INFINITY } else { 3.0 })
        );
    }
}
