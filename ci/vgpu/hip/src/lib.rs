//! `libamdhip64.so` over the virtual GPU: the functions of the HIP runtime, in their own words, for
//! devices that imitate one die of an MI250X. Code objects for gfx90a are executed.
//!
//! A function that is not provided prints its name and returns hipErrorNotSupported. The side door
//! for tests (`vgpu_take_findings` and others) is described in `halfstep_vgpu::driver::door`.
#![allow(non_snake_case)] // the runtime's names

mod attribute;
mod call;
mod copy;
mod device;
mod event;
mod graph;
mod launch;
mod memory;
mod module;
mod names;
mod pointer;
mod pool;
mod properties;
mod stream;
mod stubs;

halfstep_vgpu::export_door!();
halfstep_vgpu::export_nccl!();
