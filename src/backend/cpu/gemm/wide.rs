//! A few vectors side by side: the chains of operations of one hide the latency of the others'.

// What needs a newer compiler than the oldest we support is behind `halfstep_avx512`.
#![allow(clippy::incompatible_msrv)]

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::super::{nearest, widen};
use super::map::Vector;
use crate::gemm::{MAGIC, Real};
use crate::{Dtype, Storage};

/// How many vectors.
const VECTORS: usize = 2;

/// Declares a block of `VECTORS` vectors of `$lanes` floats, and its operations by intrinsics.
macro_rules! wide {
    (
        $(#[$meta:meta])*
        $name:ident: $vector:ty, $lanes:literal lanes,
        load $load:ident, store $store:ident, of $of:ident, fma $fma:ident,
        add $add:ident, sub $sub:ident, mul $mul:ident, div $div:ident,
        max $max:ident, min $min:ident, neg |$na:ident| $neg:expr, abs |$aa:ident| $abs:expr,
        if_less |$la:ident, $limit:ident, $then:ident, $otherwise:ident| $if_less:expr,
        scaled |$sa:ident, $shifted:ident| $scaled:expr,
    ) => {
        $(#[$meta])*
        ///
        /// Made by [`load`](Self::load), whose caller promised the instructions: all operations rely
        /// on it.
        #[derive(Clone, Copy)]
        pub(super) struct $name([$vector; VECTORS]);

        impl $name {
            pub const LEN: usize = $lanes * VECTORS;

            /// # Safety
            /// In code compiled for the instructions, and so all that is done with the result.
            #[inline(always)]
            pub unsafe fn load(from: &[f32; Self::LEN]) -> Self {
                Self(std::array::from_fn(
                    #[inline(always)]
                    |i| {
                        // SAFETY: the array has that many floats.
                        unsafe { $load(from.as_ptr().add($lanes * i)) }
                    },
                ))
            }

            #[inline(always)]
            pub fn store(self, to: &mut [f32; Self::LEN]) {
                for (i, vector) in self.0.into_iter().enumerate() {
                    // SAFETY: the array has that many floats.
                    unsafe { $store(to.as_mut_ptr().add($lanes * i), vector) };
                }
            }

            #[inline(always)]
            fn zip(mut self, other: Self, f: impl Fn($vector, $vector) -> $vector) -> Self {
                for i in 0..VECTORS {
                    self.0[i] = f(self.0[i], other.0[i]);
                }
                self
            }

            #[inline(always)]
            fn choose(
                mut self,
                limit: Self,
                then: Self,
                otherwise: Self,
                f: impl Fn($vector, $vector, $vector, $vector) -> $vector,
            ) -> Self {
                for i in 0..VECTORS {
                    self.0[i] = f(self.0[i], limit.0[i], then.0[i], otherwise.0[i]);
                }
                self
            }

            #[inline(always)]
            fn each(mut self, f: impl Fn($vector) -> $vector) -> Self {
                for i in 0..VECTORS {
                    self.0[i] = f(self.0[i]);
                }
                self
            }
        }

        wide!(operators $name: Add add $add, Sub sub $sub, Mul mul $mul, Div div $div);

        impl Neg for $name {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.each(
                    #[inline(always)]
                    |$na| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $neg }
                    },
                )
            }
        }

        impl Real for $name {
            #[inline(always)]
            fn of(value: f32) -> Self {
                // SAFETY: only called by formulas on loaded values, as above.
                Self([unsafe { $of(value) }; VECTORS])
            }
            #[inline(always)]
            fn mul_add(mut self, factor: Self, addend: Self) -> Self {
                for i in 0..VECTORS {
                    // SAFETY: promised where the value was loaded.
                    self.0[i] = unsafe { $fma(self.0[i], factor.0[i], addend.0[i]) };
                }
                self
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.each(
                    #[inline(always)]
                    |$aa| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $abs }
                    },
                )
            }
            #[inline(always)]
            fn if_less(self, limit: Self, then: Self, otherwise: Self) -> Self {
                self.choose(
                    limit,
                    then,
                    otherwise,
                    #[inline(always)]
                    |$la, $limit, $then, $otherwise| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $if_less }
                    },
                )
            }
            // One instruction each: where a value is NaN, or both are zeros, they give the second, as `if_less` does.
            #[inline(always)]
            fn at_least(self, low: f32) -> Self {
                Self::of(low).zip(
                    self,
                    #[inline(always)]
                    |low, value| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $max(low, value) }
                    },
                )
            }
            #[inline(always)]
            fn at_most(self, high: f32) -> Self {
                Self::of(high).zip(
                    self,
                    #[inline(always)]
                    |high, value| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $min(high, value) }
                    },
                )
            }
            #[inline(always)]
            fn scaled(self, shifted: Self) -> Self {
                self.zip(
                    shifted,
                    #[inline(always)]
                    |$sa, $shifted| {
                        // SAFETY: promised where the value was loaded.
                        unsafe { $scaled }
                    },
                )
            }
        }
    };
    (operators $name:ident: $($trait:ident $method:ident $intrinsic:ident),*) => {$(
        impl $trait for $name {
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

/// From the bits of a shifted integer to an exponent.
const BIAS: i32 = 127u32.wrapping_sub(MAGIC.to_bits()) as i32;

wide! {
    /// 256-bit vectors.
    Wide256: __m256, 8 lanes,
    load _mm256_loadu_ps, store _mm256_storeu_ps, of _mm256_set1_ps, fma _mm256_fmadd_ps,
    add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, div _mm256_div_ps,
    max _mm256_max_ps, min _mm256_min_ps,
    neg |a| _mm256_xor_ps(a, _mm256_set1_ps(-0.0)),
    abs |a| _mm256_andnot_ps(_mm256_set1_ps(-0.0), a),
    if_less |a, limit, then, otherwise| {
        _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, limit))
    },
    scaled |a, shifted| {
        let n = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(BIAS));
        _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n)))
    },
}

#[cfg(halfstep_avx512)]
wide! {
    /// 512-bit vectors, by AVX-512F alone.
    Wide512: __m512, 16 lanes,
    load _mm512_loadu_ps, store _mm512_storeu_ps, of _mm512_set1_ps, fma _mm512_fmadd_ps,
    add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, div _mm512_div_ps,
    max _mm512_max_ps, min _mm512_min_ps,
    neg |a| {
        let sign = _mm512_set1_epi32(i32::MIN);
        _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), sign))
    },
    abs |a| _mm512_abs_ps(a),
    if_less |a, limit, then, otherwise| {
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, limit), otherwise, then)
    },
    scaled |a, shifted| {
        let n = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(BIAS));
        _mm512_mul_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
    },
}

impl Vector for Wide256 {
    const LEN: usize = Self::LEN;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn widened<T: Storage>(from: *const T) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match T::DTYPE {
                Dtype::F32 => Self::load(&*from.cast()),
                _ => Self([widen::by_8(from), widen::by_8(from.add(8))]),
            }
        }
    }

    #[inline(always)]
    unsafe fn narrowed<T: Storage>(self, to: *mut T) {
        let [low, high] = self.0;
        // SAFETY: the caller's promise.
        unsafe {
            match T::DTYPE {
                Dtype::F32 => self.store(&mut *to.cast()),
                Dtype::Bf16 => _mm256_storeu_si256(to.cast(), nearest::bf16_by_16(low, high)),
                Dtype::F16 => {
                    let [low, high] =
                        [low, high].map(|half| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(half));
                    _mm256_storeu_si256(to.cast(), _mm256_set_m128i(high, low));
                }
            }
        }
    }
}

#[cfg(halfstep_avx512)]
impl Vector for Wide512 {
    const LEN: usize = Self::LEN;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn widened<T: Storage>(from: *const T) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match T::DTYPE {
                Dtype::F32 => Self::load(&*from.cast()),
                _ => Self([widen::by_16(from), widen::by_16(from.add(16))]),
            }
        }
    }

    #[inline(always)]
    unsafe fn narrowed<T: Storage>(self, to: *mut T) {
        let [low, high] = self.0;
        // SAFETY: the caller's promise.
        unsafe {
            match T::DTYPE {
                Dtype::F32 => self.store(&mut *to.cast()),
                _ => _mm512_storeu_si512(to.cast(), nearest::by_32::<T>(low, high)),
            }
        }
    }
}
