//! What a machine's work is limited by, and how much of it threads can do.

use super::peak;
use super::together::together;

/// How memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Much is read, little written.
    Read,
    /// One array is read, another written.
    Copy,
    /// An array is read and written in place.
    Update,
}

impl Traffic {
    pub const ALL: [Self; 3] = [Self::Read, Self::Copy, Self::Update];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Copy => "copy",
            Self::Update => "in-place update",
        }
    }
}

/// What arithmetic is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 multiply-adds.
    F32,
    /// Products of bf16: where the processor has instructions for it, by those.
    Bf16,
    /// Products of f16, which processors multiply as f32.
    F16,
}

impl Arithmetic {
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];
}

/// What of a device does arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// f32 multiply-adds, in the widest vectors there are.
    Fma,
    /// AVX-512's dot products of bf16.
    Dot,
    /// AMX's products of bf16 tiles.
    Amx,
    /// A GPU's products of 16 bits.
    Matrix,
}

impl Unit {
    /// By which a form of the CPU's products (`DeviceInfo::arch`) does it.
    pub fn of(arithmetic: Arithmetic, form: &str) -> Self {
        match (arithmetic, form) {
            (Arithmetic::Bf16, "avx512bf16") => Self::Dot,
            (Arithmetic::Bf16, "amx-bf16") => Self::Amx,
            _ => Self::Fma,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Fma => "FMA",
            Self::Dot => "dot",
            Self::Amx => "AMX",
            Self::Matrix => "matrix",
        }
    }
}

/// FLOP/s of so many threads at once; 0 by what the processor does not have.
pub fn peak_flops(threads: usize, unit: Unit) -> f64 {
    let one = || match unit {
        Unit::Fma => peak::fma_gflops(),
        Unit::Dot => peak::dot_gflops(),
        Unit::Amx => peak::amx_gflops(),
        Unit::Matrix => 0.0,
    };
    1e9 * together(0..threads, &|_| one()).0.into_iter().sum::<f64>()
}
