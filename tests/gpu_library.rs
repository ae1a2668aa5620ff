//! Drivers stay loaded. A program of its own: nothing else here has opened one.
#![allow(missing_docs)]
#![cfg(all(any(feature = "cuda", feature = "hip"), target_os = "linux"))]

use halfstep::Device;

/// A driver has threads and handlers of its own: it stays when nobody has a device any more.
#[test]
fn drivers_stay_loaded() {
    #[cfg(feature = "cuda")]
    stays("libcuda.so", Device::cuda_count());
    #[cfg(feature = "hip")]
    stays("libamdhip64.so", Device::hip_count());
}

fn stays(library: &str, devices: usize) {
    if devices == 0 {
        return println!("skipped: no devices of {library}");
    }
    let loaded = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(loaded.contains(library), "{library} is gone");
}
