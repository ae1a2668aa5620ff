//! What every suite shares: devices, data from a seed, guarded operands, the oracle's rounding.
#![allow(dead_code)] // each suite uses its part
#![allow(missing_docs)]

pub mod bound;
pub mod data;
#[cfg(feature = "safetensors")]
pub mod files;
pub mod gemm_case;
pub mod guard;
pub mod optim;
pub mod oracle_gemm;
pub mod oracle_optim;
pub mod ranks;
pub mod reduction;
pub mod rounding;
pub mod workloads;

use halfstep::Device;

/// Runs a suite on every device that is here, and prints which those are. A device that
/// `HALFSTEP_REQUIRE` names must be among them.
pub fn devices() -> Vec<Device> {
    let devices = vec![Device::cpu()];
    for device in &devices {
        println!("device: {}", device.info());
    }
    if let Ok(required) = std::env::var("HALFSTEP_REQUIRE") {
        assert!(required == "cpu", "HALFSTEP_REQUIRE={required}: this build has only the CPU");
    }
    devices
}

/// The CPU with a number of threads.
pub fn cpu(threads: usize) -> Device {
    Device::cpu_with_threads(threads.try_into().expect("at least one thread"))
}

/// How many cases a property is tried on.
pub const CASES: u32 = 256;

/// The configuration of every property test: 256 cases, failures are printed as seeds and shapes.
pub fn cases() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: CASES,
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
