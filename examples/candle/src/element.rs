//! The types that both candle and halfstep store.

use candle_core::{CpuStorage, WithDType};
use halfstep::gemm::Copy;
use halfstep::{bf16, f16};

/// bf16, f16 or f32. candle's types are halfstep's: both are of the crate `half`.
pub trait Element: halfstep::Storage + WithDType {
    /// The elements of a storage of this type, to write. (candle itself lends them to read only.)
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;

    /// How a weight gradient is asked for its copy in this type. f32 needs none: the gradient is made in f32.
    fn copy(to: &mut Vec<Self>) -> Option<Copy<'_>>;
}

macro_rules! element {
    ($($type:ty, $storage:ident, $to:ident => $copy:expr;)*) => {$(
        impl Element for $type {
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$storage(elements) => Some(elements),
                    _ => None,
                }
            }
            fn copy($to: &mut Vec<Self>) -> Option<Copy<'_>> {
                $copy
            }
        }
    )*};
}
element! {
    bf16, BF16, to => Some(Copy::Bf16(to));
    f16, F16, to => Some(Copy::F16(to));
    f32, F32, _to => None;
}

/// `len` zeros. What halfstep writes has to be initialized memory, so an output is filled once more than is needed.
pub(crate) fn zeros<T: Element>(len: usize) -> Vec<T> {
    vec![T::narrow(0.0); len]
}
