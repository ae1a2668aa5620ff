//! Kernels for mixed-precision training: fused matrix products, loss-scaled optimizer steps and
//! bucketed gradient reduction.
//!
//! | module | what it does |
//! |---|---|
//! | [`gemm`] | `D = act(α·A·B + β·C + bias) + residual`, and the two products of the backward pass |
//! | [`optim`] | AdamW, Adam, SGD, Adagrad, LAMB, Lion on bf16, f16 or f32, with loss scaling |
//! | [`reduce`] | averages of gradients over ranks, overlapped with the backward pass |
//!
//! Work is enqueued on a [`Stream`] of a [`Device`]. Operands are whatever implements [`Read`] or
//! [`Write`]: slices, a [`Buffer`], or a framework's memory through [`Raw`]. Each op checks its
//! arguments in a plan before anything is written; an [`Error`] names the operation, the argument,
//! what was expected and what was found.
//!
//! **Numerics.** Storage is bf16, f16 or f32 ([`Storage`]); arithmetic is f32; sums that decide
//! something are f64. `optim` and `reduce` give the same bits on every device (but for sums whose order is a communicator's
//! library's: [`reduce::Sum::Communicator`]). `gemm` gives the same bits on every CPU, unless AMX is asked for, and on
//! GPUs keeps a documented [error bound](gemm::bound()); with f32 storage they give the CPU's bits too.
//!
//! **Order.** Operations enqueue only: they allocate nothing and do not wait. Reading a result is a
//! call of its own. On the CPU each piece of work has run when its call returns.
//!
//! ```
//! # fn main() -> halfstep::Result<()> {
//! use halfstep::gemm::{Gemm, Operands};
//! let device = halfstep::Device::cpu();
//! let stream = device.stream()?;
//! let (a, b) = (vec![1.0f32, 2.0, 3.0, 4.0], vec![1.0f32, 0.0, 0.0, 1.0]);
//! let mut d = vec![0.0f32; 4];
//! let plan = Gemm::new(2, 2, 2).plan::<f32, f32>(&device)?;
//! plan.run(&stream, Operands::new(&a, &b, &mut d))?;
//! assert_eq!(d, a);
//! # Ok(())
//! # }
//! ```
//!
//! **Further.** [`DataGrad`](gemm::DataGrad) and [`WeightGrad`](gemm::WeightGrad) are the backward pass,
//! [`Optimizer`](optim::Optimizer) makes steps, [`Reducer`](reduce::Reducer) averages gradients, and
//! [`Sharded`](reduce::Sharded) does both with a part of the state on each rank. The repository's `examples` have a short
//! program for each, and a training loop of all three (`train_mnist/rank.rs`).
//!
//! **Devices and features.** On a GPU, `Device::cuda(0)` or `Device::hip(0)` takes [`Device::cpu`]'s place, and operands
//! lie in its memory: a [`Buffer`] ([`Device::upload`], [`Device::zeros`]), or a framework's.
//!
//! | feature | what it adds |
//! |---|---|
//! | `safetensors` (default) | state of optimizers as files; the outer step between files |
//! | `cuda` | `Device::cuda`: NVIDIA GPUs, by kernels that nvcc compiles; cudarc's contexts, streams and slices |
//! | `hip` | `Device::hip`: AMD GPUs, by kernels that hipcc or clang compiles |
//! | `nccl`, `rccl` | `reduce::NcclComm`: ranks on NVIDIA's and AMD's GPUs |
//! | `tcp`, `mpi` | `reduce::TcpComm`, `reduce::Mpi`: ranks that are processes |
//! | `cli` | the `halfstep` program |

mod backend;
mod buffer;
mod device;
mod dtype;
mod environment;
mod error;
mod grad_stats;
mod kernel;
mod lend;
mod peak;
mod roof;
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
pub use kernel::image::{Image, device_symbols, images};
pub use lend::{Lent, LentMut, Raw, Read, Write};
pub use peak::Peak;
pub use roof::Rates;
pub use stream::{Event, Graph, Stream};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
