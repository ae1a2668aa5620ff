//! Test data from a seed. Shapes come from proptest, values from here: failures then shrink on
//! what matters.

use halfstep::Storage;

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, and every seed is good.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        (self.next() % below as u64) as usize
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// What values are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in [-1, 1].
    Uniform,
    /// Standard normal.
    Normal,
    /// Uniform in [0, 1]: sums grow, and truncating units drift.
    Positive,
    /// Magnitudes 2^±12, either sign.
    LogWide,
    /// Normal with one value in a hundred 256 times as large.
    Outliers,
    /// Nine zeros in ten.
    Sparse,
    /// The same value everywhere.
    Constant,
    /// Non-zero integers up to this magnitude: products and short sums are exact.
    Integer(u32),
}

impl Distribution {
    /// The seven that error bounds are tried on.
    pub const REAL: [Self; 7] = [
        Self::Uniform,
        Self::Normal,
        Self::Positive,
        Self::LogWide,
        Self::Outliers,
        Self::Sparse,
        Self::Constant,
    ];

    /// Whether positive and negative values cancel on average.
    pub fn zero_mean(self) -> bool {
        matches!(self, Self::Uniform | Self::Normal)
    }

    fn draw(self, rng: &mut Rng) -> f64 {
        let sign = if rng.next() & 1 == 0 { 1.0 } else { -1.0 };
        match self {
            Self::Uniform => sign * rng.unit(),
            Self::Normal => rng.normal(),
            Self::Positive => rng.unit(),
            Self::LogWide => sign * (rng.unit() * 24.0 - 12.0).exp2(),
            Self::Outliers => rng.normal() * if rng.below(100) == 0 { 256.0 } else { 1.0 },
            Self::Sparse => {
                if rng.below(10) == 0 {
                    rng.normal()
                } else {
                    0.0
                }
            }
            Self::Constant => 0.6875,
            Self::Integer(max) => sign * (1 + rng.below(max as usize)) as f64,
        }
    }

    /// `len` values, rounded to `T`.
    pub fn fill<T: Storage>(self, rng: &mut Rng, len: usize) -> Vec<T> {
        (0..len).map(|_| T::narrow(self.draw(rng) as f32)).collect()
    }
}
