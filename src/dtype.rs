//! Storage types: what a tensor's elements are in memory. Arithmetic is always f32 (sums that
//! decide something: f64); see [`Storage`] for the two conversions.

use half::{bf16, f16};

/// A storage type as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(any(feature = "mpi", feature = "tcp"), derive(serde::Serialize, serde::Deserialize))]
#[repr(u32)]
#[allow(missing_docs)] // the names say it all
pub enum Dtype {
    Bf16 = 0,
    F16 = 1,
    F32 = 2,
}

impl Dtype {
    /// Every storage type.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::F16, Self::F32];

    /// Bytes of one element.
    ///
    /// ```
    /// assert_eq!(halfstep::Dtype::Bf16.bytes(), 2);
    /// ```
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// The name used in errors, symbols and files: `bf16`, `f16`, `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// The largest relative error of rounding a normal number to this type: half an ulp.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            Self::Bf16 => 1.0 / 256.0,
            Self::F16 => 1.0 / 2048.0,
            Self::F32 => 1.0 / 16_777_216.0,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A type whose values may live in a [`Buffer`](crate::Buffer): every bit pattern is valid, so
/// device bytes can become one without a check. Sealed.
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug + sealed::Sealed {}

macro_rules! element {
    ($($type:ty),* $(,)?) => {$(
        impl crate::dtype::sealed::Sealed for $type {}
        impl crate::Element for $type {}
    )*};
}
pub(crate) use element;
element!(bf16, f16, f32, f64, u8, u16, u32, u64, i32, i64);

/// A storage type of tensors: [`bf16`](struct@bf16), [`f16`](struct@f16) or `f32`.
///
/// | type | exponent | fraction | largest | smallest normal | half an ulp |
/// |---|---|---|---|---|---|
/// | bf16 | 8 bits | 7 bits | 3.39e38 | 1.18e-38 | 2⁻⁸ relative |
/// | f16 | 5 bits | 10 bits | 65504 | 6.10e-5 | 2⁻¹¹ relative |
/// | f32 | 8 bits | 23 bits | 3.40e38 | 1.18e-38 | 2⁻²⁴ relative |
pub trait Storage: Element + PartialEq {
    /// The type as data.
    const DTYPE: Dtype;

    /// The exact f32 value (NaN stays NaN).
    fn widen(self) -> f32;
    /// The nearest value of this type, ties to even. Overflow gives ±Inf, NaN stays NaN,
    /// subnormals are kept.
    ///
    /// ```
    /// use halfstep::{bf16, f16, Storage};
    /// assert_eq!(f16::narrow(65520.0), f16::INFINITY);
    /// assert_eq!(bf16::narrow(1.00390625).widen(), 1.0); // a tie goes to the even neighbour
    /// ```
    fn narrow(value: f32) -> Self;
}

impl Storage for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Storage for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    // Branch-free, so that loops over it become vector code.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let chosen = if value.is_nan() { bits | 0x40_0000 } else { rounded };
        bf16::from_bits((chosen >> 16) as u16)
    }
}

impl Storage for f16 {
    const DTYPE: Dtype = Dtype::F16;

    // Both in integer steps and one exact f32 operation, without branches: `half`'s own conversions
    // look up the processor's features at every call, which keeps loops from becoming vector code.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        // Times 2¹¹² moves the exponent's zero and makes subnormals normal, exactly.
        let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
        let quiet = if bits & 0x3ff == 0 { 0 } else { 0x40_0000 };
        let special = magnitude | 0x7f80_0000 | quiet;
        let magnitude = if bits & 0x7c00 == 0x7c00 { special } else { finite };
        f32::from_bits((bits & 0x8000) << 16 | magnitude)
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let sign = (bits >> 16) as u16 & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        let even = 0xfff + (magnitude >> 13 & 1);
        let normal = (magnitude.wrapping_add(even) >> 13).wrapping_sub(112 << 10);
        // Adding ½ leaves units of 2⁻²⁴, rounded to nearest even by the addition itself.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let nan = 0x7e00 | magnitude >> 13 & 0x3ff;
        let special = if magnitude > 0x7f80_0000 { nan } else { 0x7c00 };
        let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
        let rounded = if magnitude >= 0x4780_0000 { special } else { finite };
        f16::from_bits(sign | rounded as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_agrees_with_half_on_every_high_half_and_its_ties() {
        for high in 0..=u16::MAX {
            for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits((u32::from(high) << 16) | low);
                let (ours, theirs) = (bf16::narrow(value), bf16::from_f32(value));
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{:#x}", value.to_bits());
            }
            let stored = bf16::from_bits(high);
            assert_eq!(stored.widen().to_bits(), u32::from(high) << 16);
        }
    }

    #[test]
    fn f16_agrees_with_half_on_every_value_and_around_every_tie() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let wide = value.widen();
            assert_eq!(wide.to_bits(), value.to_f32().to_bits(), "{bits:#x}");
            for low in [0u32, 1, 0xfff, 0x1000, 0x1001, 0x1fff] {
                let near = f32::from_bits(wide.to_bits() ^ low);
                let (ours, theirs) = (f16::narrow(near), f16::from_f32(near));
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{near:e}");
            }
        }
        for bits in (0..=u32::MAX).step_by(1021) {
            let value = f32::from_bits(bits);
            assert_eq!(f16::narrow(value).to_bits(), f16::from_f32(value).to_bits(), "{bits:#x}");
            assert_eq!(bf16::narrow(value).to_bits(), bf16::from_f32(value).to_bits(), "{bits:#x}");
        }
    }
}
