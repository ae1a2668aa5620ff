//! What every suite shares: devices, data from a seed, guarded operands, the oracle's rounding.
#![allow(dead_code)] // each suite uses its part
#![allow(missing_docs)]

pub mod blocks;
pub mod bound;
pub mod data;
#[cfg(feature = "safetensors")]
pub mod files;
pub mod gemm_case;
pub mod guard;
pub mod memory;
#[cfg(target_arch = "x86_64")]
pub mod mode;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(any(feature = "nccl", feature = "rccl"))]
pub mod nccl;
pub mod optim;
pub mod oracle_gemm;
pub mod oracle_optim;
pub mod ranks;
pub mod reduction;
pub mod rounding;
pub mod sharded;
#[cfg(feature = "tcp")]
pub mod tcp;
pub mod training;
#[cfg(any(feature = "cuda", feature = "hip"))]
pub mod vgpu;
#[path = "../../benches/workloads/mod.rs"]
pub mod workloads;

use std::sync::OnceLock;

use halfstep::gemm::Subnormals;
use halfstep::{Device, DeviceKind};

/// Every device that is here, found once: the CPU, and the GPUs that the build has a backend for.
/// What is not here is printed with the reason; what `HALFSTEP_REQUIRE` names (`cpu`, `cuda`, `hip`,
/// several with commas) must be.
fn found() -> &'static [Device] {
    static FOUND: OnceLock<Vec<Device>> = OnceLock::new();
    FOUND.get_or_init(|| {
        #[allow(unused_mut)]
        let mut devices = vec![("cpu", Ok::<Device, halfstep::Error>(Device::cpu()))];
        #[cfg(feature = "cuda")]
        devices.push(("cuda", Device::cuda(0)));
        #[cfg(feature = "hip")]
        devices.push(("hip", Device::hip(0)));
        let required = std::env::var("HALFSTEP_REQUIRE").unwrap_or_default();
        for required in required.split(',').filter(|name| !name.is_empty()) {
            let built = devices.iter().find(|(name, _)| *name == required);
            let (_, device) =
                built.unwrap_or_else(|| panic!("HALFSTEP_REQUIRE={required}: not in this build"));
            if let Err(error) = device {
                panic!("HALFSTEP_REQUIRE={required}: {error}");
            }
        }
        let here = devices.into_iter().filter_map(|(_, device)| match device {
            Ok(device) => {
                println!("device: {}", device.info());
                Some(device)
            }
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        });
        here.collect()
    })
}

/// The devices that a suite runs on.
pub fn devices() -> Vec<Device> {
    found().to_vec()
}

/// The first device of this one's kind, by a handle that no other test uses.
pub fn opened_again(device: &Device) -> halfstep::Result<Device> {
    match device.info().kind {
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda => Device::cuda(0),
        #[cfg(feature = "hip")]
        DeviceKind::Hip => Device::hip(0),
        _ => Ok(Device::cpu()),
    }
}

/// [`devices`], and the CPU with products by AMX, in an order of its own: for what products promise on any device.
pub fn product_devices() -> Vec<Device> {
    devices().into_iter().chain(amx()).collect()
}

/// The CPU with products by AMX, where this machine has it.
pub fn amx() -> Option<Device> {
    Device::cpu_with_arch(2.try_into().expect("not zero"), "amx-bf16")
        .inspect_err(|error| println!("skipped: {error}"))
        .ok()
}

/// The devices that run code themselves. An interpreter takes minutes for what these do in a second;
/// that it gives the CPU's bits is shown elsewhere (`optim_devices`, `reduce_devices`).
pub fn fast_devices() -> Vec<Device> {
    let (skip, run): (Vec<Device>, Vec<Device>) =
        devices().into_iter().partition(|device| device.info().name.contains("virtual"));
    for device in skip {
        println!("skipped: {}: too long for an interpreter", device.info());
    }
    run
}

/// The GPUs among them.
pub fn gpus() -> Vec<Device> {
    devices().into_iter().filter(|device| device.info().kind != DeviceKind::Cpu).collect()
}

/// For tests of the CPU's own tiles, bits and memory.
pub fn gemm_devices() -> Vec<Device> {
    let (run, skip): (Vec<Device>, Vec<Device>) =
        devices().into_iter().partition(|device| device.info().kind == DeviceKind::Cpu);
    for device in skip {
        println!("skipped: {}: this test is of the CPU", device.info());
    }
    run
}

/// What becomes of subnormals where a test has none: a device whose matrix unit flushes 16-bit ones has to be asked to.
pub fn policy(device: &Device) -> Subnormals {
    if device.info().flushes_subnormals { Subnormals::Flush } else { Subnormals::Preserve }
}

/// The CPU with a number of threads.
pub fn cpu(threads: usize) -> Device {
    Device::cpu_with_threads(threads.try_into().expect("at least one thread"))
}

/// The configuration of every property test: 256 cases, or what `PROPTEST_CASES` says (10,000 find what
/// fails once in a while), failures are printed as seeds and shapes.
pub fn cases() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
