//! Kernels for mixed-precision training: fused matrix products, loss-scaled optimizer steps and
//! bucketed gradient reduction.

mod backend;
mod buffer;
mod device;
mod dtype;
mod error;
mod grad_stats;
mod kernel;
mod lend;
mod stream;

pub mod gemm;
pub mod optim;
pub mod reduce;

pub use buffer::{Buffer, View, ViewMut};
pub use device::{Device, DeviceInfo, DeviceKind};
pub use dtype::{Dtype, Element, Storage};
pub use error::{Arg, Error, Result};
pub use grad_stats::{GradStats, Summary};
pub use half::{bf16, f16};
pub use lend::{Lent, LentMut, Raw, Read, Write};
pub use stream::{Event, Stream};
