//! What the suites share: compiling with nvcc where it is there, and running one kernel.
#![allow(dead_code)]

pub mod gfx;
pub mod reduce;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use halfstep_vgpu::finding::Kind;
use halfstep_vgpu::launch::{Checks, Grid, Report};
use halfstep_vgpu::memory::GlobalMemory;
use halfstep_vgpu::{gfx as amd, ptx};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// nvcc, where there is one.
pub fn nvcc() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> =
        std::env::var_os("NVCC").map(PathBuf::from).into_iter().collect();
    places.extend(std::env::split_paths(&path).map(|folder| folder.join("nvcc")));
    places.push(root().join("target/toolkit/nvidia/cu13/bin/nvcc"));
    let found = places.into_iter().find(|place| place.is_file());
    if found.is_none() {
        println!(
            "skipped: no nvcc in $NVCC, PATH or target/toolkit (ci/setup-compilers installs it)"
        );
    }
    found
}

/// PTX of a source, compiled as the crate's kernels are.
pub fn compile(source: &Path, flags: &[&str]) -> Option<String> {
    let name = source.file_name()?.to_string_lossy().into_owned();
    // Tests of one process compile the same source at the same time.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let output = std::env::temp_dir().join(format!("vgpu-{unique}-{name}.ptx"));
    let done = Command::new(nvcc()?)
        .args(["-std=c++17", "-O3", "-fmad=false", "-arch=sm_80", "-ptx"])
        .args(flags)
        .arg("-o")
        .args([&output, source])
        .output()
        .expect("nvcc runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = std::fs::read_to_string(&output).expect("nvcc wrote it");
    let _ = std::fs::remove_file(&output);
    Some(text)
}

/// What a compiler made, in a device's memory.
pub enum Image {
    Ptx(ptx::Loaded),
    Gfx(amd::Loaded),
}

/// A device with one image.
pub struct Device {
    pub memory: GlobalMemory,
    pub image: Image,
}

/// Arguments of a kernel, side by side as PTX lays them out.
#[derive(Default, Clone)]
pub struct Params(pub Vec<u8>);

impl Params {
    pub fn add(mut self, bytes: &[u8]) -> Self {
        while !self.0.len().is_multiple_of(bytes.len().min(8)) {
            self.0.push(0);
        }
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn ptr(self, address: u64) -> Self {
        self.add(&address.to_le_bytes())
    }
    pub fn u32(self, x: u32) -> Self {
        self.add(&x.to_le_bytes())
    }
    pub fn f32(self, x: f32) -> Self {
        self.add(&x.to_le_bytes())
    }
}

impl Device {
    pub fn new(text: &str) -> Self {
        let mut memory = GlobalMemory::new();
        let module = ptx::Module::parse(text).expect("PTX that can be read");
        let module = module.load(&mut memory).expect("a module that can be loaded");
        Self { memory, image: Image::Ptx(module) }
    }

    pub fn gfx(file: &[u8]) -> Self {
        let mut memory = GlobalMemory::new();
        let object = amd::CodeObject::parse(file).expect("a code object that can be read");
        let object = object.load(&mut memory).expect("a code object that can be loaded");
        Self { memory, image: Image::Gfx(object) }
    }

    /// Address and bytes of a variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        match &self.image {
            Image::Ptx(module) => module.global(name),
            Image::Gfx(object) => object.global(name),
        }
    }

    pub fn upload<T: Copy>(&mut self, data: &[T], name: &str) -> u64 {
        self.memory.allocate_with(bytes(data), name)
    }

    pub fn run(&mut self, kernel: &str, blocks: u32, threads: u32, params: Params) -> Report {
        let grid = Grid { blocks: [blocks, 1, 1], threads: [threads, 1, 1], shared: 0 };
        self.launch(kernel, grid, params)
    }

    pub fn launch(&mut self, kernel: &str, grid: Grid, params: Params) -> Report {
        let (memory, checks) = (&mut self.memory, Checks::default());
        match &self.image {
            Image::Ptx(module) => {
                let program = module.program(kernel).expect("a kernel that is known");
                ptx::launch(&program, grid, &params.0, memory, checks).expect("it runs")
            }
            Image::Gfx(object) => {
                let program = object.program(kernel).expect("a kernel that is known");
                amd::launch(&program, grid, &params.0, memory, checks).expect("it runs")
            }
        }
    }

    pub fn download<const N: usize, T>(
        &mut self,
        at: u64,
        count: usize,
        one: fn([u8; N]) -> T,
    ) -> Vec<T> {
        let bytes = self.memory.read(at, (count * N) as u64).expect("inside an allocation");
        bytes.chunks_exact(N).map(|c| one(c.try_into().expect("N bytes"))).collect()
    }
}

/// The bytes of plain numbers.
pub fn bytes<T: Copy>(data: &[T]) -> Vec<u8> {
    // SAFETY: called with integers and floats only, which have no padding.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) }.to_vec()
}

/// No check fired.
pub fn clean(report: &Report) {
    let list: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}

/// The kinds of what was found.
pub fn kinds(report: &Report) -> Vec<Kind> {
    report.findings.iter().map(|f| f.kind).collect()
}

/// Numbers in [-1, 1) that are the same every time.
pub fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}
