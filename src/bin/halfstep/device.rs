//! Devices by name.

use std::num::NonZeroUsize;

use halfstep::Device;

/// The device of a name: `cpu`, `cpu:FORM` of its products ([`Device::cpu_with_arch`]), `cuda:N`, `hip:N`.
pub fn open(name: &str, threads: Option<NonZeroUsize>) -> Result<Device, String> {
    let (kind, which) = match name.split_once(':') {
        Some((kind, which)) => (kind, Some(which)),
        None => (name, None),
    };
    if kind == "cpu" {
        return cpu(which, threads);
    }
    let index = which.unwrap_or("0");
    let index: usize =
        index.parse().map_err(|_| format!("{index} is not the number of a device"))?;
    match (kind, threads) {
        (_, Some(_)) => Err("--threads is for the CPU".into()),
        #[cfg(feature = "cuda")]
        ("cuda", None) => Device::cuda(index).map_err(|error| error.to_string()),
        #[cfg(feature = "hip")]
        ("hip", None) => Device::hip(index).map_err(|error| error.to_string()),
        #[cfg(not(feature = "cuda"))]
        ("cuda", None) => Err(not_built("cuda", index)),
        #[cfg(not(feature = "hip"))]
        ("hip", None) => Err(not_built("hip", index)),
        _ => Err("expected cpu, cpu:FORM, cuda:N or hip:N".into()),
    }
}

#[cfg(not(all(feature = "cuda", feature = "hip")))]
fn not_built(kind: &str, index: usize) -> String {
    format!("number {index} of {kind}: this program was built without that feature")
}

/// The CPU, with a form of its products where one is named.
fn cpu(form: Option<&str>, threads: Option<NonZeroUsize>) -> Result<Device, String> {
    let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match (form, threads) {
        (None | Some("0"), None) => Ok(Device::cpu()),
        (None | Some("0"), Some(threads)) => Ok(Device::cpu_with_threads(threads)),
        (Some(form), threads) => Device::cpu_with_arch(threads.unwrap_or_else(all), form)
            .map_err(|error| error.to_string()),
    }
}
