//! Devices by name.

use std::num::NonZeroUsize;

use halfstep::Device;

/// The device of a name: `cpu`, `cuda:N`, `hip:N`.
pub fn open(name: &str, threads: Option<NonZeroUsize>) -> Result<Device, String> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index: usize =
        index.parse().map_err(|_| format!("{index} is not the number of a device"))?;
    match (kind, threads) {
        ("cpu", None) if index == 0 => Ok(Device::cpu()),
        ("cpu", Some(threads)) if index == 0 => Ok(Device::cpu_with_threads(threads)),
        ("cpu", _) => Err("there is one CPU device: cpu".into()),
        (_, Some(_)) => Err("--threads is for the CPU".into()),
        #[cfg(feature = "cuda")]
        ("cuda", None) => Device::cuda(index).map_err(|error| error.to_string()),
        #[cfg(feature = "hip")]
        ("hip", None) => Device::hip(index).map_err(|error| error.to_string()),
        #[cfg(not(all(feature = "cuda", feature = "hip")))]
        ("cuda" | "hip", None) => Err(format!("this program was built without the feature {kind}")),
        _ => Err("expected cpu, cuda:N or hip:N".into()),
    }
}
