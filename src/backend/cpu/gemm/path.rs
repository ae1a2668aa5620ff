//! The forms of the matrix kernel, and which of them this machine can run. All but `Amx` give the same bits.

use crate::Dtype;

#[cfg(target_arch = "x86_64")]
use super::super::{has_avx2, has_avx512};
#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

/// A form of the matrix kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// 32×32 tiles in AMX's registers, of bf16, in an order of its own; other types as `Avx512`.
    Amx,
    /// 8×48 tiles in 512-bit registers, of bf16 by its dot products; other types as `Avx512`.
    Avx512Bf16,
    /// 8×48 tiles in 512-bit registers. With AVX-512BW, VL and DQ, as all have but Xeon Phi.
    Avx512,
    /// 6×16 tiles in 256-bit registers.
    Avx2,
    /// 4×16 tiles in whatever the compiler makes of them. Without fused multiply-add in hardware
    /// every product is a call of the C library: right, and about a hundred times slower.
    Portable,
    /// One element at a time, by the definition. For tests.
    Reference,
}

impl Path {
    pub(crate) const ALL: [Self; 6] =
        [Self::Amx, Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Portable, Self::Reference];

    /// The fastest, of those whose bits are the reference's, that this machine can run.
    pub(crate) fn detect() -> Self {
        let mut all = Self::ALL.into_iter().filter(|path| *path != Self::Amx);
        all.find(|path| path.runs_here() && path.is_faster()).unwrap_or(Self::Portable)
    }

    /// Whether it is faster than the next of [`ALL`](Self::ALL), as most are; it runs here.
    fn is_faster(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512Bf16 {
            static FASTER: LazyLock<bool> = LazyLock::new(|| {
                // SAFETY: the features are there.
                unsafe { super::avx512bf16::is_faster() }
            });
            return *FASTER;
        }
        true
    }

    /// Whether this machine has the instructions.
    pub(crate) fn runs_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => {
                static HERE: LazyLock<bool> = LazyLock::new(super::amx::is_here);
                Path::Avx512.runs_here() && *HERE
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                static CHAIN: LazyLock<bool> = LazyLock::new(|| {
                    // SAFETY: the features are there.
                    let chain = || unsafe { super::avx512bf16::is_a_chain() };
                    is_x86_feature_detected!("avx512bf16") && Path::Avx512.runs_here() && chain()
                });
                *CHAIN
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => has_avx2(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 | Self::Avx2 => false,
            Self::Portable | Self::Reference => true,
        }
    }

    /// The form for products of a type: some are for bf16 alone.
    #[inline(always)]
    pub(super) const fn of(self, input: Dtype) -> Self {
        match (self, input) {
            (Self::Amx | Self::Avx512Bf16, Dtype::F16 | Dtype::F32) => Self::Avx512,
            _ => self,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx-bf16",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx512 => "avx512f",
            Self::Avx2 => "avx2+fma",
            Self::Portable => "portable",
            Self::Reference => "reference",
        }
    }
}
