//! `libcuda.so.1` over the virtual GPU: the functions of the CUDA driver, in their own words, for
//! devices that imitate an A100-SXM4-40GB. PTX is executed; cubins are refused, so that callers fall
//! back to their PTX.
//!
//! A function that is not provided prints its name and returns CUDA_ERROR_NOT_SUPPORTED. The side
//! door for tests (`vgpu_take_findings` and others) is described in `halfstep_vgpu::driver::door`.
#![allow(non_snake_case)] // the driver's names

mod attribute;
mod call;
mod context;
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
mod stream;
mod stubs;

halfstep_vgpu::export_door!();
halfstep_vgpu::export_nccl!();
