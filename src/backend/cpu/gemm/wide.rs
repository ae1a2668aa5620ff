//! A few 256-bit vectors side by side: the chains of operations of one hide the latency of the
//! others'.

use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_andnot_ps, _mm256_blendv_ps,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_div_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32,
    _mm256_storeu_ps, _mm256_sub_ps, _mm256_xor_ps,
};
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::gemm::{MAGIC, Real};

/// How many vectors.
const VECTORS: usize = 2;

/// Made by [`load`](Self::load), whose caller promised AVX2 and FMA: all operations rely on it.
#[derive(Clone, Copy)]
pub(super) struct Wide([__m256; VECTORS]);

impl Wide {
    pub const LEN: usize = 8 * VECTORS;

    /// # Safety
    /// In code compiled for AVX2 and FMA, and so all that is done with the result.
    #[inline(always)]
    pub unsafe fn load(from: &[f32; Self::LEN]) -> Self {
        // SAFETY: the array has that many floats.
        Self(std::array::from_fn(
            #[inline(always)]
            |i| unsafe { _mm256_loadu_ps(from.as_ptr().add(8 * i)) },
        ))
    }

    #[inline(always)]
    pub fn store(self, to: &mut [f32; Self::LEN]) {
        for (i, vector) in self.0.into_iter().enumerate() {
            // SAFETY: the array has that many floats.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(8 * i), vector) };
        }
    }

    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        for i in 0..VECTORS {
            self.0[i] = f(self.0[i], other.0[i]);
        }
        self
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $intrinsic:ident;)*) => {$(
        impl $trait for Wide {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.zip(
                    other,
                    #[inline(always)]
                    |a, b| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $intrinsic(a, b) }
                    },
                )
            }
        }
    )*};
}
operators! {
    Add add _mm256_add_ps;
    Sub sub _mm256_sub_ps;
    Mul mul _mm256_mul_ps;
    Div div _mm256_div_ps;
}

impl Neg for Wide {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: promised where the value was loaded.
        self.zip(
            Self::of(-0.0),
            #[inline(always)]
            |a, sign| unsafe { _mm256_xor_ps(a, sign) },
        )
    }
}

impl Real for Wide {
    #[inline(always)]
    fn of(value: f32) -> Self {
        // SAFETY: only called by formulas on loaded values, as above.
        Self([unsafe { _mm256_set1_ps(value) }; VECTORS])
    }
    #[inline(always)]
    fn mul_add(mut self, factor: Self, addend: Self) -> Self {
        for i in 0..VECTORS {
            // SAFETY: promised where the value was loaded.
            self.0[i] = unsafe { _mm256_fmadd_ps(self.0[i], factor.0[i], addend.0[i]) };
        }
        self
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: promised where the value was loaded.
        self.zip(
            Self::of(-0.0),
            #[inline(always)]
            |a, sign| unsafe { _mm256_andnot_ps(sign, a) },
        )
    }
    #[inline(always)]
    fn if_less(mut self, limit: Self, then: Self, otherwise: Self) -> Self {
        for i in 0..VECTORS {
            // SAFETY: promised where the value was loaded.
            self.0[i] = unsafe {
                let less = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0[i], limit.0[i]);
                _mm256_blendv_ps(otherwise.0[i], then.0[i], less)
            };
        }
        self
    }
    #[inline(always)]
    fn scaled(mut self, shifted: Self) -> Self {
        for i in 0..VECTORS {
            // SAFETY: promised where the value was loaded.
            self.0[i] = unsafe {
                let bias = 127u32.wrapping_sub(MAGIC.to_bits()) as i32;
                let n = _mm256_castps_si256(shifted.0[i]);
                let n = _mm256_add_epi32(n, _mm256_set1_epi32(bias));
                _mm256_mul_ps(self.0[i], _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n)))
            };
        }
        self
    }
}
