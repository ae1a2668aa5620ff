//! Activations over rows of values.

use super::form::Form;
use crate::Storage;
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

/// `round(dy·act'(z))` for each of so many elements.
///
/// # Safety
/// They are valid for reads, and for writes at `to`, which is neither of the two. The processor has the form's instructions.
#[inline(never)]
pub(super) unsafe fn times_derivative<F: Form, T: Storage>(
    activation: Activation,
    of: (*const T, *const T),
    to: *mut T,
    len: usize,
) {
    for_activation!(activation, |ACT| {
        // SAFETY: the caller's promise.
        unsafe {
            F::vectorized(
                #[inline(always)]
                || {
                    #[cfg(halfstep_avx512)]
                    if F::WIDE {
                        return products::<super::wide::Wide512, T>(ACT, of, to, len);
                    }
                    #[cfg(target_arch = "x86_64")]
                    if F::VECTOR {
                        return products::<super::wide::Wide256, T>(ACT, of, to, len);
                    }
                    products::<f32, T>(ACT, of, to, len)
                },
            )
        }
    });
}

/// # Safety
/// As for [`times_derivative`], in code compiled for the instructions of `V`.
#[inline(always)]
unsafe fn products<V: Vector, T: Storage>(
    activation: Activation,
    (dy, z): (*const T, *const T),
    to: *mut T,
    len: usize,
) {
    let whole = len / V::LEN * V::LEN;
    for i in (0..whole).step_by(V::LEN) {
        // SAFETY: elements `i..i + V::LEN`.
        unsafe { product::<V, T>(activation, (dy.add(i), z.add(i)), to.add(i)) };
    }
    let rest = len - whole;
    if rest > 0 {
        let mut few = [[T::zeroed(); MOST]; 3];
        let [few_dy, few_z, few_to] = &mut few;
        // SAFETY: what is left of each, fewer than `MOST`.
        unsafe {
            std::ptr::copy_nonoverlapping(dy.add(whole), few_dy.as_mut_ptr(), rest);
            std::ptr::copy_nonoverlapping(z.add(whole), few_z.as_mut_ptr(), rest);
            product::<V, T>(activation, (few_dy.as_ptr(), few_z.as_ptr()), few_to.as_mut_ptr());
            std::ptr::copy_nonoverlapping(few_to.as_ptr(), to.add(whole), rest);
        }
    }
}

/// [`products`] of one vector.
///
/// # Safety
/// As for it.
#[inline(always)]
unsafe fn product<V: Vector, T: Storage>(
    activation: Activation,
    (dy, z): (*const T, *const T),
    to: *mut T,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let slope = activation.derivative_of(V::widened(z));
        (slope * V::widened(dy)).narrowed(to);
    }
}

/// Elements of the widest [`Vector`].
pub(super) const MOST: usize = 32;

/// One number, or as many as some vectors hold, of elements that lie side by side.
pub(super) trait Vector: Real {
    /// At most [`MOST`].
    const LEN: usize;
    /// Rows of sums, with one of them each, that there are registers for; at least 4, since 8 are taken in two parts.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // products of few rows are packed there
    const ROWS: usize;

    /// # Safety
    /// `from` is valid for reads of so many. In code compiled for the instructions, and so all that is done with the result.
    unsafe fn widened<T: Storage>(from: *const T) -> Self;

    /// Rounds them to elements.
    ///
    /// # Safety
    /// `to` is valid for writes of so many.
    unsafe fn narrowed<T: Storage>(self, to: *mut T);
}

impl Vector for f32 {
    const LEN: usize = 1;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn widened<T: Storage>(from: *const T) -> Self {
        // SAFETY: the caller's promise.
        unsafe { (*from).widen() }
    }

    #[inline(always)]
    unsafe fn narrowed<T: Storage>(self, to: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { to.write(T::narrow(self)) }
    }
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
