//! Fused matrix products for training: forward, data gradient, weight gradient.
//!
//! | product | what | formula |
//! |---|---|---|
//! | [`Gemm`] | forward, and anything else | `D = act(α·A·B + β·C + bias) + residual` |
//! | [`Gemm::swiglu`] | gated forward | `D = silu(A·Bg + bg) ∘ (A·Bu + bu)` |
//! | [`DataGrad`] | gradient of a layer's input | `dx = (dy ∘ act'(z))·W` |
//! | [`WeightGrad`] | gradients of weight and bias | `dw (+)= (dy ∘ act'(z))ᵀ·x`, `db (+)= Σ dy ∘ act'(z)` |
//! | [`SwigluGrad`] | gradient of a gate | `d_gate = dy∘up∘silu'(gate)`, `d_up = dy∘silu(gate)` |
//!
//! The gradients of batched products and of strided operands are products, too: [`Gemm`] of another [`Layout`].
//!
//! Each is described by a builder, checked and planned once for a device (`plan`), and run any
//! number of times on tensors of those shapes. Matrices are row-major. `run` allocates nothing after
//! the first call of its size (see Memory), and writes nothing when it returns an error.
//!
//! # Numerics
//!
//! Operands are bf16, f16 or f32; a product of two 16-bit numbers is exact in f32. Sums are f32:
//! for every element one chain of fused multiply-adds over `k` ascending, from 0. The epilogue is f32
//! too, in this order: `α·sum`, `fma(β, C, ·)`, `+ bias`, activation, `+ residual`; then one rounding
//! to the output type. So on the CPU a result is **defined to the bit**, whatever the instruction set,
//! the number of threads, the alignment of operands and the way the work is cut. Devices with matrix
//! units keep the error bound ([`bound()`]), one rounding at the end, and equal bits from run to run;
//! not these bits (an A100 truncates inside a block of products, for instance); so does a CPU's AMX, for those who ask
//! for it ([`Device::cpu_with_arch`](crate::Device::cpu_with_arch)). With f32 storage GPUs
//! make the same chain of fused multiply-adds, an A100 on its vector units, an MI250X on its matrix units, a step of `k`
//! at a time, and give the CPU's bits.
//!
//! `α = 0` (and `k = 0`): A and B are not read. `β = 0`: C is not read. NaN and ±Inf follow IEEE 754:
//! a NaN in row `i` of A makes row `i` of D NaN and touches no other row. Overflow of the output type
//! gives ±Inf.
//!
//! # Memory
//!
//! The CPU repacks operands into panels in a workspace: at most 47 MB for each call that runs at the
//! same time (less for small problems; of up to 8 rows or columns: those in f32), kept by the process and used
//! again; and at most 1 MB for each thread.
//!
//! On a GPU, a plan that cuts sums over k in parts ([`Gemm::split`]) has a workspace of 4 bytes an element of D and
//! part, for each stream that runs it: made at the first run on the stream, kept as long as the plan. A graph that
//! recorded a run needs the plan to be alive.

pub mod bound;

mod activation;
mod checks;
mod choice;
mod cost;
mod data_grad;
mod dispatch;
mod forward;
mod launch;
mod layout;
mod operands;
mod plan;
pub(crate) mod reference;
mod swiglu_grad;
mod weight_grad;

pub use crate::kernel::table::gemm::Tile;
pub use activation::Activation;
#[cfg(target_arch = "x86_64")]
pub(crate) use activation::MAGIC;
pub(crate) use activation::Real;
pub use bound::bound;
pub use data_grad::{DataGrad, DataGradOperands, DataGradPlan};
pub use forward::Gemm;
pub use layout::{Layout, Matrix, Subnormals, WeightLayout};
pub use operands::{Operands, Source};
pub use plan::Plan;
pub use swiglu_grad::{SwigluGrad, SwigluGradPlan};
pub use weight_grad::{Copy, Stats, WeightGrad, WeightGradOperands, WeightGradPlan};
