//! Rounding to every storage type, in every direction, exactly.
//!
//! Sums and products that f64 cannot hold are first rounded to odd in f64; what is rounded to odd
//! with two bits to spare can be rounded again, to anything narrower, as if it were exact.

/// A binary floating-point format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    exponent_bits: u32,
    mantissa_bits: u32,
}

/// bfloat16.
pub const BF16: Format = Format { exponent_bits: 8, mantissa_bits: 7 };
/// IEEE binary16.
pub const F16: Format = Format { exponent_bits: 5, mantissa_bits: 10 };
/// IEEE binary32.
pub const F32: Format = Format { exponent_bits: 8, mantissa_bits: 23 };
/// IEEE binary64.
pub const F64: Format = Format { exponent_bits: 11, mantissa_bits: 52 };

/// A direction of rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// To zero.
    Zero,
    /// To −∞.
    Down,
    /// To +∞.
    Up,
}

impl Format {
    fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.mantissa_bits
    }

    fn sign(self) -> u64 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// The bits of ±`mantissa`·2^`exponent`, rounded.
    pub fn encode(self, negative: bool, mantissa: u64, exponent: i32, mode: Rounding) -> u64 {
        let sign = if negative { self.sign() } else { 0 };
        if mantissa == 0 {
            return sign;
        }
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let zeros = mantissa.leading_zeros();
        let mantissa = u128::from(mantissa << zeros);
        let top = exponent + 63 - zeros as i32; // value in [2^top, 2^(top + 1))
        let scale = top.max(1 - bias);
        let drop = (scale - top + 63 - self.mantissa_bits as i32).min(100);
        let kept = (mantissa >> drop) as u64;
        let rest = mantissa & ((1 << drop) - 1);
        let half = 1_u128 << (drop - 1);
        let up = match mode {
            Rounding::Nearest => rest > half || rest == half && kept & 1 == 1,
            Rounding::Zero => false,
            Rounding::Down => negative && rest > 0,
            Rounding::Up => !negative && rest > 0,
        };
        // `kept` has the implicit bit, which adds one to the exponent.
        let biased = ((scale + bias - 1) as u64) << self.mantissa_bits;
        let bits = biased + kept + u64::from(up);
        if bits < self.infinity() {
            return sign | bits;
        }
        let to_infinity = match mode {
            Rounding::Nearest => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        sign | (self.infinity() - u64::from(!to_infinity))
    }

    /// `x` rounded to the format. NaN becomes the format's quiet NaN with sign and payload's top.
    pub fn from_f64(self, x: f64, mode: Rounding) -> u64 {
        let sign = if x.is_sign_negative() { self.sign() } else { 0 };
        if x.is_nan() {
            let payload = (x.to_bits() & ((1 << 52) - 1)) >> (52 - self.mantissa_bits);
            return sign | self.infinity() | 1 << (self.mantissa_bits - 1) | payload;
        }
        if x.is_infinite() {
            return sign | self.infinity();
        }
        let (mantissa, exponent) = parts(x);
        self.encode(x.is_sign_negative(), mantissa, exponent, mode)
    }

    /// The value of `bits`, exact.
    pub fn to_f64(self, bits: u64) -> f64 {
        if self == F64 {
            return f64::from_bits(bits);
        }
        let negative = bits & self.sign() != 0;
        let mantissa = bits & ((1 << self.mantissa_bits) - 1);
        let biased = (bits >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1);
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        if biased == (1 << self.exponent_bits) - 1 {
            let payload = mantissa << (52 - self.mantissa_bits);
            return f64::from_bits(u64::from(negative) << 63 | 0x7ff << 52 | payload);
        }
        let (whole, exponent) = match biased {
            0 => (mantissa, 1 - bias),
            _ => (mantissa | 1 << self.mantissa_bits, biased as i32 - bias),
        };
        let exponent = exponent - self.mantissa_bits as i32;
        f64::from_bits(F64.encode(negative, whole, exponent, Rounding::Nearest))
    }
}

/// The mantissa as an integer, and its exponent, of a finite number.
fn parts(x: f64) -> (u64, i32) {
    let bits = x.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    match (bits >> 52) as i32 & 0x7ff {
        0 => (fraction, -1074),
        biased => (fraction | 1 << 52, biased - 1075),
    }
}

/// An integer rounded to a format.
pub fn from_integer(format: Format, negative: bool, magnitude: u64, mode: Rounding) -> u64 {
    format.encode(negative, magnitude, 0, mode)
}

/// f16 to f32, exact.
pub fn f16_to_f32(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    match rest >> 10 {
        0 => f32::from_bits(sign | (rest as f32 * 2.0_f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | (rest & 0x3ff) << 13),
        _ => f32::from_bits(sign | ((rest << 13) + ((127 - 15) << 23))),
    }
}

/// bf16 to f32, exact.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `a + b` rounded to odd: exact, or the neighbour whose last bit is 1.
pub fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    // Knuth's two-sum: `a + b = sum + error`, exactly.
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    // `error` is not 0, so `sum` is not 0 either.
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// `a·b + c` of f32 (or narrower) values, rounded once.
pub fn fma_f32(a: f32, b: f32, c: f32, mode: Rounding) -> f32 {
    if mode == Rounding::Nearest {
        return a.mul_add(b, c);
    }
    let product = f64::from(a) * f64::from(b); // 48 bits: exact
    directed(add_to_odd(product, f64::from(c)), product, f64::from(c), mode)
}

/// `a + b`, rounded once.
pub fn add_f32(a: f32, b: f32, mode: Rounding) -> f32 {
    if mode == Rounding::Nearest {
        return a + b;
    }
    directed(add_to_odd(a.into(), b.into()), a.into(), b.into(), mode)
}

/// `a·b`, rounded once.
pub fn mul_f32(a: f32, b: f32, mode: Rounding) -> f32 {
    if mode == Rounding::Nearest {
        return a * b;
    }
    f32::from_bits(F32.from_f64(f64::from(a) * f64::from(b), mode) as u32)
}

/// A sum that is exactly 0 is −0 when rounded down, unless both terms are +0.
fn directed(sum: f64, a: f64, b: f64, mode: Rounding) -> f32 {
    if sum == 0.0 && mode == Rounding::Down && (a.is_sign_negative() || b.is_sign_negative()) {
        return -0.0;
    }
    f32::from_bits(F32.from_f64(sum, mode) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_value_goes_there_and_back_in_every_direction() {
        let modes = [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up];
        for bits in 0..=u16::MAX {
            for (format, wide) in [(F16, f16_to_f32(bits)), (BF16, bf16_to_f32(bits))] {
                let exact = format.to_f64(bits.into());
                let same = exact.to_bits() == f64::from(wide).to_bits();
                assert!(same || exact.is_nan() && wide.is_nan(), "{bits:#x}");
                for mode in modes {
                    let back = format.from_f64(exact, mode);
                    assert!(back == u64::from(bits) || exact.is_nan(), "{bits:#x} {mode:?}");
                }
            }
        }
    }

    #[test]
    fn halves_between_neighbours_round_as_they_should() {
        for (format, largest) in [(F16, 0x7bff_u64), (BF16, 0x7f7f)] {
            for low in 0..largest {
                let (a, b) = (format.to_f64(low), format.to_f64(low + 1));
                let middle = (a + b) / 2.0;
                let even = low + (low & 1);
                let bit = 1 << 15;
                assert_eq!(format.from_f64(middle, Rounding::Nearest), even);
                assert_eq!(format.from_f64(middle, Rounding::Zero), low);
                assert_eq!(format.from_f64(middle, Rounding::Up), low + 1);
                assert_eq!(format.from_f64(-middle, Rounding::Down), (low + 1) | bit);
                assert_eq!(format.from_f64(-middle, Rounding::Up), low | bit);
                let above = f64::from_bits(middle.to_bits() + 1);
                let below = f64::from_bits(middle.to_bits() - 1);
                assert_eq!(format.from_f64(above, Rounding::Nearest), low + 1);
                assert_eq!(format.from_f64(below, Rounding::Nearest), low);
            }
            assert_eq!(format.from_f64(1e300, Rounding::Nearest), largest + 1);
            assert_eq!(format.from_f64(1e300, Rounding::Zero), largest);
        }
    }

    #[test]
    fn edge_f32_values_and_integers() {
        for bits in [0, 1, 0x007f_ffff, 0x0080_0000, 0x3f80_0001, 0x7f7f_ffff, 0x8000_0001] {
            let x = f32::from_bits(bits);
            assert_eq!(F32.from_f64(x.into(), Rounding::Nearest), u64::from(bits));
        }
        for x in [0_u64, 1, (1 << 24) + 1, (1 << 53) + 1, u64::MAX, 0x8000_0080_0000_0000] {
            assert_eq!(
                from_integer(F32, false, x, Rounding::Nearest),
                u64::from((x as f32).to_bits())
            );
            assert_eq!(from_integer(F64, false, x, Rounding::Nearest), (x as f64).to_bits());
        }
    }

    #[test]
    fn directed_sums_bracket_the_exact_one() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f32::from_bits((state >> 32) as u32 & 0xbfff_ffff | 0x2000_0000)
        };
        for _ in 0..20_000 {
            let (a, b, c) = (next(), next(), next());
            let near = fma_f32(a, b, c, Rounding::Nearest);
            let (down, up) = (fma_f32(a, b, c, Rounding::Down), fma_f32(a, b, c, Rounding::Up));
            assert!(down <= near && near <= up && (near == down || near == up));
            let zero = fma_f32(a, b, c, Rounding::Zero);
            assert_eq!(zero, if near > 0.0 { down } else { up });
        }
        assert_eq!(add_f32(1.0, -1.0, Rounding::Down).to_bits(), 0x8000_0000);
        assert_eq!(add_f32(1.0, f32::MIN_POSITIVE, Rounding::Up), 1.0 + f32::EPSILON);
    }
}
