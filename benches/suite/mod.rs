//! What is measured: one suite for `cargo bench` (criterion's statistics: `benches/statistics`) and for `halfstep bench`
//! (tables, by turns: `measure`).
//!
//! Every case is checked after its first call and before anything is timed. The machine's own roofs are
//! measured between the timed calls, so that both see the same machine.
#![allow(dead_code, unused_imports)] // each program uses a part
#![allow(missing_docs)]

mod bandwidth;
mod caches;
mod convert;
mod gemm;
mod limits;
mod measure;
mod optim;
mod peak;
mod print;
mod reduce;
mod roofs;
mod together;

pub use bandwidth::Bandwidth;
pub use gemm::products;
pub use limits::{Arithmetic, Traffic, Unit};
pub use measure::{Line, measure, median, seconds};
pub use print::{LEGEND, header, roof_lines, row};
pub use roofs::{Roof, Roofs};

use std::num::NonZeroUsize;
use std::rc::Rc;

use halfstep::{Device, DeviceKind, Stream};

/// Why a case could not be made, run, or was wrong.
pub type Failure = String;

/// One thing to time, on one device.
pub trait Case {
    /// Enqueues one call.
    fn run(&mut self) -> Result<(), Failure>;
    /// Waits for it.
    fn wait(&self) -> Result<(), Failure>;
    /// The stream that all of a call is enqueued on, if there is one.
    fn stream(&self) -> Option<Rc<Stream>>;
    /// Whether the answer of the first call was right. Called after that, before the second.
    fn check(&mut self) -> Result<(), Failure>;
}

/// Takes the memory of a case on a device.
pub type Make = Box<dyn Fn(&Device) -> Result<Box<dyn Case>, Failure>>;

/// A case before it takes memory.
pub struct Entry {
    /// `gemm`, `optim`, `reduce`, `convert`.
    pub op: &'static str,
    pub name: String,
    pub size: String,
    /// The workload's name, which filters look at too; or nothing.
    pub workload: &'static str,
    /// Arithmetic of one call, and the least bytes that it moves to and from memory; between GPUs, over each one's links.
    pub flops: f64,
    pub bytes: f64,
    /// Which arithmetic bounds it, or
    pub arithmetic: Arithmetic,
    /// which bandwidth.
    pub traffic: Traffic,
    pub on: On,
    pub make: Make,
}

/// What one call runs on.
pub enum On {
    /// A device.
    One,
    /// A device that so many ranks of this process share. On the CPU each has one thread, so it is run there once.
    Shared(usize),
    /// All of these GPUs, a rank on each: once, whatever else there is. The case knows them.
    All(Vec<Device>),
}

impl Entry {
    /// `op name size workload`, which filters look at.
    pub fn label(&self) -> String {
        format!("{} {}", self.op, self.case())
    }

    /// The same without the operation.
    pub fn case(&self) -> String {
        format!("{} {} {}", self.name, self.size, self.workload).trim_end().into()
    }

    /// The devices that it is made on, and what is said of where it runs: ranks run on the first of the CPU's only, or on
    /// all GPUs (`cuda×4`), whichever of them it is.
    pub fn places<'a>(&'a self, devices: &'a [Device]) -> Vec<(String, &'a Device)> {
        let devices = match &self.on {
            On::All(gpus) => &gpus[..gpus.len().min(1)],
            _ => devices,
        };
        let place = |device| (self.place(device), device);
        let mut places: Vec<_> = devices.iter().map(place).collect();
        places.dedup_by(|one, before| one.0 == before.0);
        places
    }

    fn place(&self, device: &Device) -> String {
        match &self.on {
            On::Shared(ranks) if device.info().kind == DeviceKind::Cpu => format!("cpu×{ranks}"),
            On::All(gpus) => format!("{}×{}", kind_name(device), gpus.len()),
            _ => device_name(device),
        }
    }

    /// Makes it, and checks its first call; and the seconds that this took.
    ///
    /// # Errors
    /// Why it could not be made or run, or what is wrong.
    pub fn checked(&self, device: &Device) -> Result<(Box<dyn Case>, f64), Failure> {
        let mut case = (self.make)(device)?;
        let first = seconds(case.as_mut(), 1)?;
        case.check()?;
        Ok((case, first))
    }
}

/// Names of the parts.
pub const OPS: [&str; 4] = ["gemm", "optim", "reduce", "convert"];

/// Everything of these parts on these devices, with so many elements of the arrays of `optim` and `convert`.
pub fn entries(ops: &[&str], len: usize, devices: &[Device]) -> Vec<Entry> {
    let mut all = Vec::new();
    for op in ops {
        match *op {
            "gemm" => gemm::entries(&mut all),
            "optim" => optim::entries(&mut all, len),
            "reduce" => reduce::entries(&mut all, devices),
            "convert" => convert::entries(&mut all, len),
            _ => {}
        }
    }
    all
}

/// One thread, and as many as there are cores.
pub fn threads() -> Vec<NonZeroUsize> {
    let all = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut threads = vec![NonZeroUsize::MIN, all];
    threads.dedup();
    threads
}

/// Elements of large arrays: 80 MB of f32, or as many as take twice the last caches in 16 bits; and at most what an
/// optimizer's step has room for on any server.
pub fn large() -> usize {
    caches::last_level().clamp(20_000_000, 200_000_000)
}

/// The CPU with so many threads, and the GPUs there are; and why some cannot be opened.
pub fn devices() -> (Vec<Device>, Vec<Failure>) {
    let mut devices: Vec<_> = threads().into_iter().map(Device::cpu_with_threads).collect();
    let (gpus, broken) = gpus();
    devices.extend(gpus);
    (devices, broken)
}

/// The GPUs there are; and why some cannot be opened.
pub fn gpus() -> (Vec<Device>, Vec<Failure>) {
    let (mut devices, mut broken) = (Vec::new(), Vec::new());
    let mut gpu = |device: halfstep::Result<Device>, name: String| match device {
        Ok(device) => devices.push(device),
        Err(error) => broken.push(format!("{name}: {error}")),
    };
    #[cfg(feature = "cuda")]
    (0..Device::cuda_count()).for_each(|i| gpu(Device::cuda(i), format!("cuda:{i}")));
    #[cfg(feature = "hip")]
    (0..Device::hip_count()).for_each(|i| gpu(Device::hip(i), format!("hip:{i}")));
    let _ = &mut gpu; // without a GPU's feature
    (devices, broken)
}

/// What a device is called in tables: `cpu×2`, `amx×2` where its products of bf16 are AMX's, `cuda:0`.
pub fn device_name(device: &Device) -> String {
    let (info, kind) = (device.info(), kind_name(device));
    match info.kind {
        DeviceKind::Cpu if info.arch == "amx-bf16" => format!("amx×{}", info.units),
        DeviceKind::Cpu => format!("{kind}×{}", info.units),
        _ => format!("{kind}:{}", info.index),
    }
}

/// `cpu`, `cuda`, `hip`.
pub fn kind_name(device: &Device) -> &'static str {
    match device.info().kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Cuda => "cuda",
        _ => "hip",
    }
}

/// The library's error in words.
fn text(error: halfstep::Error) -> Failure {
    error.to_string()
}

fn wait(stream: &Stream) -> Result<(), Failure> {
    stream.sync().map_err(text)
}

/// Values in [-1, 1) from a fixed seed.
fn signals<T: halfstep::Storage>(len: usize, mut seed: u32) -> Vec<T> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| T::narrow(next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each of them is run, and what that is called.
    #[test]
    fn ranks_run_once_on_what_they_share() {
        let devices = [1, 3].map(|threads| Device::cpu_with_threads(threads.try_into().unwrap()));
        let places = |on| {
            let mut entry = entries(&["convert"], 10_000, &devices).remove(0);
            entry.on = on;
            let names: Vec<_> = entry.places(&devices).into_iter().map(|place| place.0).collect();
            names.join(" ")
        };
        let names = devices.each_ref().map(device_name).join(" ");
        assert_eq!(places(On::One), names);
        assert_eq!(places(On::Shared(2)), "cpu×2");
        assert_eq!(places(On::All(vec![devices[0].clone(); 4])), "cpu×4");
    }
}
