//! GPUs: driver, devices, images, and whether a step on each gives the CPU's bits.

use std::path::Path;

use halfstep::optim::{AdamW, Config, Group, Optimizer, Tensor};
use halfstep::{Device, Storage, bf16};

use super::finding::Finding;
use super::programs::{on_path, output};
use crate::built;

/// What to look for: the kernel driver's traces, and the vendor's program with what to ask of it.
struct Vendor {
    feature: &'static str,
    built: bool,
    traces: &'static [&'static str],
    tools: &'static [(&'static str, &'static [&'static str])],
}

const CUDA: Vendor = Vendor {
    feature: "cuda",
    built: cfg!(feature = "cuda"),
    traces: &["/proc/driver/nvidia/version", "/dev/nvidia0"],
    tools: &[
        (
            "nvidia-smi",
            &[
                "--query-gpu=index,name,driver_version,memory.total,memory.free,clocks.max.sm,mig.mode.current",
                "--format=csv,noheader",
            ],
        ),
        ("nvidia-smi", &["topo", "-m"]),
    ],
};

const HIP: Vendor = Vendor {
    feature: "hip",
    built: cfg!(feature = "hip"),
    traces: &["/dev/kfd"],
    tools: &[
        ("rocm-smi", &["--showproductname", "--showmeminfo", "vram", "--csv"]),
        ("rocm-smi", &["--showtopo"]),
    ],
};

pub fn cuda() -> Vec<Finding> {
    #[cfg(feature = "cuda")]
    let open = Device::cuda as fn(usize) -> _;
    #[cfg(not(feature = "cuda"))]
    let open = absent as fn(usize) -> _;
    look(&CUDA, cuda_count(), open)
}

pub fn hip() -> Vec<Finding> {
    #[cfg(feature = "hip")]
    let open = Device::hip as fn(usize) -> _;
    #[cfg(not(feature = "hip"))]
    let open = absent as fn(usize) -> _;
    look(&HIP, hip_count(), open)
}

/// NVIDIA's that this build can see.
pub fn cuda_count() -> usize {
    #[cfg(feature = "cuda")]
    return Device::cuda_count();
    #[cfg(not(feature = "cuda"))]
    0
}

/// AMD's.
pub fn hip_count() -> usize {
    #[cfg(feature = "hip")]
    return Device::hip_count();
    #[cfg(not(feature = "hip"))]
    0
}

/// Stands for a backend that is not in this build; never called, since there are no devices then.
#[cfg(not(all(feature = "cuda", feature = "hip")))]
fn absent(_: usize) -> halfstep::Result<Device> {
    Ok(Device::cpu())
}

fn look(
    vendor: &Vendor,
    count: usize,
    open: fn(usize) -> halfstep::Result<Device>,
) -> Vec<Finding> {
    let Vendor { feature, built, traces, tools } = vendor;
    let trace = traces.iter().find(|path| Path::new(path).exists());
    let mut found = Vec::new();
    match (built, trace) {
        (false, None) => {
            return vec![Finding::note(format!(
                "not built in (feature {feature}), and no such GPU is here"
            ))];
        }
        (false, Some(trace)) => {
            found.push(Finding::problem(
                format!(
                    "a GPU seems to be here ({trace}); this program was built without {feature}"
                ),
                format!("build it with --features cli,{feature}"),
            ));
        }
        (true, _) => {
            found.push(images(feature));
            if count == 0 {
                // The reason names the library that was looked for, and what to do.
                let reason = open(0).err().map_or("no device".into(), |error| error.to_string());
                let here = trace.map_or(String::new(), |trace| format!("; but {trace} is here"));
                let cure = "run where the GPU is (on a cluster: in a job), check the driver and what hides \
                            devices (below), or build without the feature";
                found.push(Finding::problem(format!("{reason}{here}"), cure));
            }
            found.extend((0..count).map(|index| device(feature, index, open)));
        }
    }
    for (program, args) in *tools {
        if let Some(said) = on_path(program).and_then(|path| output(&path, args)) {
            found.push(Finding::fine(format!("{program} {}\n{}", args.join(" "), said.trim_end())));
        }
    }
    found
}

/// The images in this build.
fn images(feature: &str) -> Finding {
    let ours = halfstep::images().iter().filter(|image| image.target == feature);
    let list: Vec<String> = ours
        .map(|image| format!("{} {} {} kB", image.arch, image.format, image.bytes.len() / 1000))
        .collect();
    if list.is_empty() {
        return Finding::problem(
            "built without kernels",
            "build again without HALFSTEP_SKIP_KERNELS, where the compiler is",
        );
    }
    let kernels = halfstep::device_symbols(feature).count();
    let compilers = built::device_compilers();
    Finding::fine(format!(
        "{kernels} kernels in this build for {}, by {compilers}",
        list.join(", ")
    ))
}

/// Opening a device loads its image and resolves every kernel; then a step has to give the CPU's bits.
fn device(feature: &str, index: usize, open: fn(usize) -> halfstep::Result<Device>) -> Finding {
    let checked = open(index).and_then(|device| {
        let same = step(&device)? == step(&Device::cpu())?;
        Ok((device, same))
    });
    match checked {
        Ok((device, true)) => {
            let info = device.info();
            let flushes = if info.flushes_subnormals {
                "; its matrix unit reads subnormal 16-bit numbers as zero"
            } else {
                ""
            };
            Finding::fine(format!(
                "{info}: {} units; image loaded, a step gave the CPU's bits{flushes}",
                info.units
            ))
        }
        Ok((device, false)) => Finding::problem(
            format!("{}: a step did not give the CPU's bits", device.info()),
            "do not use this device; run `halfstep verify --device` on it, and report what it says",
        ),
        Err(error) => Finding::problem(
            error.to_string(),
            format!(
                "check that {feature}:{index} is free and healthy, and that this build has an image for it"
            ),
        ),
    }
}

/// One AdamW step on bf16 parameters with f32 masters, as bits.
fn step(device: &Device) -> halfstep::Result<Vec<u16>> {
    let value = |i: usize| ((i * 2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0;
    let values: Vec<bf16> = (0..1000).map(|i| bf16::narrow(value(i))).collect();
    let stream = device.stream()?;
    let group =
        Group::new(AdamW { lr: 1e-2, ..AdamW::default() }).tensor(Tensor::new("w", values.len()));
    let mut optimizer = Optimizer::<bf16, bf16>::new(device, &[group], Config::default())?;
    let (mut params, grads) = (device.upload(&values)?, device.upload(&values)?);
    optimizer.load_params(&stream, &[&params])?;
    optimizer.run(&stream, &mut [&mut params], &[Some(&grads)])?;
    Ok(params.to_vec(&stream)?.into_iter().map(bf16::to_bits).collect())
}
