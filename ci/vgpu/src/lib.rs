//! A virtual GPU: executes what the compilers really produced, with every access checked.
//!
//! - [`memory`]: global memory with allocations, shared memory with races, both with a shadow that
//!   knows which bytes are defined. The same for both vendors.
//! - [`launch`]: what a launch is given and gives back. [`finding`]: what the checks report.
//!   [`counters`]: what a kernel did.
//! - [`number`]: rounding to every storage type in every direction, exactly.
//! - [`ptx`]: nvcc's PTX, in waves of 32. [`gfx`]: clang's code objects for gfx90a, in waves of 64.
//! - [`driver`]: what stands where the vendors' drivers stand: streams, events, graphs, memory.
//!
//! Code of other compilers runs, too: clang 19's for both vendors (`tests/foreign.rs`); Triton 3.9.0's for
//! sm_80 and gfx90a (vector addition, softmax of rows, a bf16 product of 100×80 by 80×96 with tails), whose
//! results were compared with their definitions by hand, through `halfstep-vgpu exec`, and gave no finding.
//!
//! Whatever is not known (an opcode, a modifier, a directive) is an error that names it. Memory and
//! registers start undefined, and a value made from an undefined one is undefined; storing it,
//! addressing with it or branching on it is a finding.

pub mod counters;
pub mod driver;
pub mod finding;
pub mod gfx;
pub mod launch;
pub mod memory;
pub mod number;
pub mod ptx;
