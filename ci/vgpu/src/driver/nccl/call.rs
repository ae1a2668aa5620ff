//! Calls of a group, and how values are added.

use super::INVALID_ARGUMENT;
use crate::driver::error::Result;
use crate::number::{BF16, F16, F32, Rounding};

/// One call of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Bytes to a rank.
    Send {
        /// Where they are.
        from: u64,
        /// How many.
        bytes: u64,
        /// Whose they will be.
        peer: usize,
    },
    /// Bytes from a rank.
    Receive {
        /// Where they go.
        to: u64,
        /// How many.
        bytes: u64,
        /// Whose they are.
        peer: usize,
    },
    /// Every rank's bytes, one after the other.
    AllGather {
        /// This rank's.
        from: u64,
        /// All.
        to: u64,
        /// How many each has.
        bytes: u64,
    },
    /// The sum, or the maximum, of every rank's values.
    AllReduce {
        /// This rank's.
        from: u64,
        /// The result.
        to: u64,
        /// How many.
        count: u64,
        /// Of which type.
        kind: Value,
        /// Whether the maximum is wanted.
        max: bool,
    },
}

/// Types of values, as far as they are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Value {
    U8,
    I32,
    F16,
    F32,
    Bf16,
}

impl Value {
    /// A type by the library's number.
    pub fn new(number: u32) -> Result<Self> {
        match number {
            1 => Ok(Self::U8),
            2 => Ok(Self::I32),
            6 => Ok(Self::F16),
            7 => Ok(Self::F32),
            9 => Ok(Self::Bf16),
            _ => Err(INVALID_ARGUMENT),
        }
    }

    /// Bytes of a value.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::F32 => 4,
        }
    }

    /// `a + b`, or the larger, rounded to the type: as a ring does at every hop.
    pub(super) fn join(self, a: &[u8], b: &[u8], max: bool) -> Vec<u8> {
        let bits = |x: &[u8]| x.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        let (a, b) = (bits(a), bits(b));
        let format = match self {
            Self::U8 => {
                return vec![if max { a.max(b) as u8 } else { (a as u8).wrapping_add(b as u8) }];
            }
            Self::I32 => {
                let (a, b) = (a as u32 as i32, b as u32 as i32);
                return if max { a.max(b) } else { a.wrapping_add(b) }.to_le_bytes().to_vec();
            }
            Self::F16 => F16,
            Self::F32 => F32,
            Self::Bf16 => BF16,
        };
        let (a, b) = (format.to_f64(a), format.to_f64(b));
        // The sum of two such values, rounded to f64 and then to the type, is rounded right: f64 has more
        // than twice the bits and two more.
        let joined = if max { a.max(b) } else { a + b };
        let bits = format.from_f64(joined, Rounding::Nearest);
        bits.to_le_bytes()[..self.bytes() as usize].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_added_in_their_own_type() {
        let bf16 = |x: f32| ((x.to_bits() >> 16) as u16).to_le_bytes();
        // 256 + 1 has no bf16 of its own: a ring that adds in bf16 loses the 1.
        assert_eq!(Value::Bf16.join(&bf16(256.0), &bf16(1.0), false), bf16(256.0));
        assert_eq!(Value::Bf16.join(&bf16(256.0), &bf16(3.0), false), bf16(260.0));
        let f32s = (1.5f32.to_le_bytes(), (-4.25f32).to_le_bytes());
        assert_eq!(Value::F32.join(&f32s.0, &f32s.1, false), (-2.75f32).to_le_bytes());
        assert_eq!(Value::F32.join(&f32s.0, &f32s.1, true), f32s.0);
        let i32s = (i32::MAX.to_le_bytes(), 1i32.to_le_bytes());
        assert_eq!(Value::I32.join(&i32s.0, &i32s.1, false), i32::MIN.to_le_bytes());
        assert_eq!(Value::U8.join(&[250], &[10], false), [4]);
        assert_eq!(Value::U8.join(&[250], &[10], true), [250]);
    }
}
