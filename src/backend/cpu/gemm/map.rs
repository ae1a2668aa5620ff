//! Activations over rows of values.

use super::form::Form;
use crate::gemm::{Activation, Real};

/// `act(v)` for each value. (Compiled once for each instruction set, not for each type and kind of product.)
///
/// # Safety
/// The processor has the form's instructions.
#[inline(never)]
pub(super) unsafe fn apply<F: Form>(activation: Activation, values: &mut [f32]) {
    for_activation!(activation, |ACT| {
        // SAFETY: the caller's promise.
        unsafe { each::<F>(values, Apply(ACT)) }
    });
}

/// `act'(v)` for each value.
///
/// # Safety
/// As for [`apply`].
#[inline(never)]
pub(super) unsafe fn derivative<F: Form>(activation: Activation, values: &mut [f32]) {
    for_activation!(activation, |ACT| {
        // SAFETY: the caller's promise.
        unsafe { each::<F>(values, Derivative(ACT)) }
    });
}

/// # Safety
/// As for [`apply`].
unsafe fn each<F: Form>(values: &mut [f32], formula: impl Map) {
    // SAFETY: the caller's promise.
    unsafe {
        F::vectorized(
            #[inline(always)]
            || map::<F>(values, formula),
        );
    }
}

/// A formula for one number or many.
trait Map {
    fn of<R: Real>(&self, values: R) -> R;
}

/// An activation.
struct Apply(Activation);

impl Map for Apply {
    #[inline(always)]
    fn of<R: Real>(&self, values: R) -> R {
        self.0.apply_to(values)
    }
}

/// Its derivative.
struct Derivative(Activation);

impl Map for Derivative {
    #[inline(always)]
    fn of<R: Real>(&self, values: R) -> R {
        self.0.derivative_of(values)
    }
}

/// Applies the map to whole blocks of values, where the form has the instructions; gives back the
/// rest.
#[cfg(target_arch = "x86_64")]
macro_rules! blocks {
    ($wide:ident if $has:expr, $values:ident, $map:ident) => {
        if $has {
            use super::wide::$wide;
            let (blocks, rest) = $values.as_chunks_mut::<{ $wide::LEN }>();
            for block in blocks {
                // SAFETY: inside `F::vectorized`, as the caller of `map` promised.
                unsafe { $map.of($wide::load(block)).store(block) };
            }
            rest
        } else {
            $values
        }
    };
}

/// Applies the map to each value.
///
/// # Safety
/// Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
unsafe fn map<F: Form>(values: &mut [f32], map: impl Map) {
    #[cfg(target_arch = "x86_64")]
    let values = {
        #[cfg(halfstep_avx512)]
        let values = blocks!(Wide512 if F::WIDE, values, map);
        blocks!(Wide256 if F::VECTOR, values, map)
    };
    for value in values {
        *value = map.of(*value);
    }
}
