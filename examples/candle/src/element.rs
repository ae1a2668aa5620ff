//! The types that both candle and halfstep store.

use candle_core::{CpuStorage, WithDType};
use halfstep::{bf16, f16};

/// bf16, f16 or f32. candle's types are halfstep's: both are of the crate `half`.
pub trait Element: halfstep::Storage + WithDType {
    /// The elements of a storage of this type, to write. (candle itself lends them to read only.)
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! element {
    ($($type:ty, $storage:ident;)*) => {$(
        impl Element for $type {
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$storage(elements) => Some(elements),
                    _ => None,
                }
            }
        }
    )*};
}
element! {
    bf16, BF16;
    f16, F16;
    f32, F32;
}

/// `len` zeros. What halfstep writes has to be initialized memory, so an output is filled once more than is needed.
pub(crate) fn zeros<T: Element>(len: usize) -> Vec<T> {
    vec![T::narrow(0.0); len]
}
