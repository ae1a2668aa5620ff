//! Conversions of large arrays between f32 and 16 bits. They are bound by memory: what does not fit into the caches is
//! stored past them, since a line that is written whole need not be read first.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::super::nearest::bf16_by_16;
#[cfg(halfstep_avx512)]
use super::super::nearest::by_32;
use super::super::past::{LARGE, drain};
#[cfg(target_arch = "x86_64")]
use super::super::widen::by_8;
use super::tile;
#[cfg(target_arch = "x86_64")]
use crate::Dtype;
use crate::optim::round::Lane;

/// `to = from`, a part of an array of `total` elements.
pub(super) fn widen<T: Lane>(to: &mut [f32], from: &[T], total: u64) {
    #[cfg(target_arch = "x86_64")]
    if super::super::has_avx2() && T::DTYPE != Dtype::F32 {
        // SAFETY: the processor has the features.
        return unsafe { widen_avx2(to, from, total >= LARGE) };
    }
    let _ = total;
    tile::widen(to, from, 1.0);
}

/// `to = nearest(from)`, a part of an array of `total` elements.
pub(super) fn narrow<T: Lane>(to: &mut [T], from: &[f32], total: u64) {
    let past = total >= LARGE;
    narrow_piece(to, from, past);
    if past {
        drain();
    }
}

/// `to = nearest(from)`, where that is wanted `past` the caches: then [`drain`] before another thread reads it.
#[inline]
pub(super) fn narrow_piece<T: Lane>(to: &mut [T], from: &[f32], past: bool) {
    #[cfg(target_arch = "x86_64")]
    if super::super::has_avx2() && T::DTYPE != Dtype::F32 {
        #[cfg(halfstep_avx512)]
        if super::super::has_avx512() {
            // SAFETY: the processor has the features.
            return unsafe { narrow_avx512(to, from, past) };
        }
        // SAFETY: the processor has the features.
        return unsafe { narrow_avx2(to, from, past) };
    }
    let _ = past;
    tile::narrow(to, from);
}

/// # Safety
/// The processor has the features; `T` has 16 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen_avx2<T: Lane>(to: &mut [f32], from: &[T], past: bool) {
    let len = to.len().min(from.len());
    let head = to.as_ptr().align_offset(32).min(len);
    let whole = head + (len - head) / 8 * 8;
    tile::widen(&mut to[..head], &from[..head], 1.0);
    for i in (head..whole).step_by(8) {
        // SAFETY: eight elements of both, the target's aligned to a vector.
        unsafe {
            let values = by_8(from.as_ptr().add(i));
            let to = to.as_mut_ptr().add(i);
            if past { _mm256_stream_ps(to, values) } else { _mm256_store_ps(to, values) }
        }
    }
    tile::widen(&mut to[whole..len], &from[whole..len], 1.0);
    drain();
}

/// # Safety
/// The processor has the features; `T` has 16 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn narrow_avx2<T: Lane>(to: &mut [T], from: &[f32], past: bool) {
    let len = to.len().min(from.len());
    let head = to.as_ptr().align_offset(32).min(len);
    let whole = head + (len - head) / 16 * 16;
    tile::narrow(&mut to[..head], &from[..head]);
    for i in (head..whole).step_by(16) {
        // SAFETY: 16 elements of both, the target's aligned to a vector.
        unsafe {
            let [low, high] = [i, i + 8].map(|i| _mm256_loadu_ps(from.as_ptr().add(i)));
            let both = match T::DTYPE {
                Dtype::F16 => {
                    let [low, high] = [low, high]
                        .map(|values| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values));
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
                }
                _ => bf16_by_16(low, high),
            };
            let to = to.as_mut_ptr().add(i).cast();
            if past { _mm256_stream_si256(to, both) } else { _mm256_store_si256(to, both) }
        }
    }
    tile::narrow(&mut to[whole..len], &from[whole..len]);
}

/// # Safety
/// The processor has the features; `T` has 16 bits.
#[cfg(halfstep_avx512)]
#[target_feature(enable = "avx512f,avx512bw")]
#[allow(clippy::incompatible_msrv)] // only where the compiler has them
unsafe fn narrow_avx512<T: Lane>(to: &mut [T], from: &[f32], past: bool) {
    let len = to.len().min(from.len());
    let head = to.as_ptr().align_offset(64).min(len);
    let whole = head + (len - head) / 32 * 32;
    tile::narrow(&mut to[..head], &from[..head]);
    for i in (head..whole).step_by(32) {
        // SAFETY: 32 elements of both, the target's aligned to a vector.
        unsafe {
            let [low, high] = [i, i + 16].map(|i| _mm512_loadu_ps(from.as_ptr().add(i)));
            let both = by_32::<T>(low, high);
            let to = to.as_mut_ptr().add(i).cast();
            if past { _mm512_stream_si512(to, both) } else { _mm512_store_si512(to.cast(), both) }
        }
    }
    tile::narrow(&mut to[whole..len], &from[whole..len]);
}

#[cfg(test)]
mod tests {
    use super::super::super::past::LARGE;
    use super::*;
    use crate::{Storage, bf16, f16};

    type Narrow<T> = fn(&mut [T], &[f32], u64);

    /// The way that this machine takes, and the one that it would take without AVX-512.
    fn narrowings<T: Lane>() -> Vec<Narrow<T>> {
        #[allow(unused_mut)]
        let mut ways: Vec<Narrow<T>> = vec![narrow];
        #[cfg(target_arch = "x86_64")]
        if super::super::super::has_avx2() {
            // SAFETY: the processor has the features.
            ways.push(|to, from, total| unsafe { narrow_avx2(to, from, total >= LARGE) });
        }
        ways
    }

    fn every_16_bit_value<T: Storage + Lane>(of_bits: fn(u16) -> T) {
        // Odd lengths and places, in arrays that fit into the caches and in those that do not.
        for (skip, total) in [(0, 0), (1, LARGE), (3, 0), (5, LARGE)] {
            let halves: Vec<T> = (0..=u16::MAX).map(of_bits).collect();
            let halves = &halves[skip..];
            let mut wide = vec![0.5f32; halves.len() + 3];
            widen(&mut wide[3..], halves, total);
            assert_eq!(wide[..3], [0.5; 3]);
            for (wide, half) in wide[3..].iter().zip(halves) {
                let exact = half.widen();
                assert!(wide.to_bits() == exact.to_bits() || wide.is_nan() && exact.is_nan());
            }
            // Between any two of them: what is nearest, ties to even.
            let mut between: Vec<f32> = wide[3..]
                .windows(2)
                .flat_map(|pair| [pair[0], 0.5 * pair[0] + 0.5 * pair[1], pair[0] * 1.001])
                .collect();
            // NaNs of which rounding, or cutting, makes something else.
            let nans = [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff].map(f32::from_bits);
            between
                .iter_mut()
                .skip(100)
                .step_by(997)
                .zip(nans.iter().cycle())
                .for_each(|(to, nan)| *to = *nan);
            for narrow in narrowings::<T>() {
                let mut narrowed = vec![of_bits(7); between.len() + 2];
                narrow(&mut narrowed[1..=between.len()], &between, total);
                for (narrowed, value) in narrowed[1..].iter().zip(&between) {
                    let exact = T::narrow(*value).widen();
                    let narrowed = narrowed.widen();
                    let same = narrowed.to_bits() == exact.to_bits();
                    assert!(same || narrowed.is_nan() && exact.is_nan(), "{value:e}: {narrowed:e}");
                }
                let ends = [narrowed[0], narrowed[between.len() + 1]].map(|value| value.widen());
                assert_eq!(ends, [of_bits(7).widen(); 2]);
            }
        }
    }

    #[test]
    fn conversions_are_those_of_single_numbers() {
        every_16_bit_value(bf16::from_bits);
        every_16_bit_value(f16::from_bits);
    }
}
