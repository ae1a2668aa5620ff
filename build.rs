//! Compiles the device kernels: the table of kernels and the parameter blocks → generated C++ →
//! nvcc and hipcc → images that the crate embeds. Without `cuda` or `hip` it only asks the compiler's
//! version. With `mpi` it compiles the shim that calls MPI (`build/mpi.rs`).
//!
//! Standard library only, and for `mpi` the crate `cc`. No shell, no network, nothing written outside `OUT_DIR`.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// This file's form of the macro with which parameter blocks are declared: the struct, and its
/// layout as C++ will see it.
macro_rules! block {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        pub struct $name { $(pub $field: $type,)* }
        impl $name {
            pub fn cpp() -> String {
                let mut text = format!("struct {} {{\n", stringify!($name));
                $(text += &format!("  {} {};\n", crate::cpp_type(stringify!($type)), stringify!($field));)*
                text += &format!("}};\nstatic_assert(sizeof({0}) == {1}, \"{0}\");\n", stringify!($name), size_of::<$name>());
                $(text += &format!("static_assert(offsetof({0}, {1}) == {2}, \"{0}.{1}\");\n", stringify!($name), stringify!($field), core::mem::offset_of!($name, $field));)*
                text
            }
        }
    };
}

#[cfg(feature = "mpi")]
#[path = "build/mpi.rs"]
mod mpi;
#[path = "src/kernel/params/mod.rs"]
#[allow(dead_code)]
mod params;
#[path = "src/kernel/table/mod.rs"]
#[allow(dead_code)]
mod table;

/// A field's type in C++.
fn cpp_type(rust: &str) -> &str {
    match rust {
        "u64" => "uint64_t",
        "u32" => "uint32_t",
        "f32" => "float",
        "f64" => "double",
        block if block.starts_with(char::is_uppercase) => block, // a block inside a block
        other => panic!("a parameter block has a field of type {other}, which C++ has no name for"),
    }
}

/// A vendor's compiler.
struct Compiler {
    feature: &'static str,
    /// Folder under `kernels`, and suffix of sources.
    target: &'static str,
    suffix: &'static str,
    variable: &'static str,
    program: &'static str,
    /// Variables that name a folder with `bin/<program>`.
    roots: &'static [&'static str],
    usual: &'static str,
    /// Variables whose flags the compiler takes by itself.
    flags: &'static [&'static str],
    /// Variable that names architectures, those there are unless it is set, and how they are named.
    archs: &'static str,
    default_arch: &'static str,
    named: &'static str,
    cure: &'static str,
}

const COMPILERS: [Compiler; 2] = [
    Compiler {
        feature: "CARGO_FEATURE_CUDA",
        target: table::CUDA,
        suffix: "cu",
        variable: "NVCC",
        program: "nvcc",
        roots: &["CUDA_HOME", "CUDA_PATH"],
        usual: "/usr/local/cuda/bin/nvcc",
        flags: &["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"],
        archs: "HALFSTEP_CUDA_ARCHS",
        default_arch: "80",
        named: "numbers, as in 80,90",
        cure: "install the CUDA toolkit (on a cluster: `module load CUDA`), or set NVCC",
    },
    Compiler {
        feature: "CARGO_FEATURE_HIP",
        target: table::HIP,
        suffix: "hip",
        variable: "HIPCC",
        program: "hipcc",
        roots: &["ROCM_PATH", "HIP_PATH"],
        usual: "/opt/rocm/bin/hipcc",
        flags: &["HIPCC_COMPILE_FLAGS_APPEND", "HIPCC_LINK_FLAGS_APPEND"],
        archs: "HALFSTEP_HIP_ARCHS",
        default_arch: "gfx90a",
        named: "names without features, as in gfx90a,gfx942",
        cure: "install ROCm (on a cluster: `module load rocm`), or set HIPCC",
    },
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // AVX-512 intrinsics are stable from Rust 1.89 on. Older compilers use AVX2's in their place,
    // with the same results.
    println!("cargo:rustc-check-cfg=cfg(halfstep_avx512)");
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let rustc = env::var_os("RUSTC").and_then(|rustc| version(Path::new(&rustc)));
    let rustc = rustc.unwrap_or("unknown".into());
    println!("cargo:rustc-env=HALFSTEP_RUSTC={rustc}");
    println!("cargo:rustc-env=HALFSTEP_DEVICE_COMPILERS=none");
    if x86 && minor(&rustc).is_some_and(|minor| minor >= 89) {
        println!("cargo:rustc-cfg=halfstep_avx512");
    }
    #[cfg(feature = "mpi")]
    if skip().is_none()
        && let Err(error) = mpi::build()
    {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
    let wanted: Vec<&Compiler> =
        COMPILERS.iter().filter(|c| env::var_os(c.feature).is_some()).collect();
    if wanted.is_empty() {
        return;
    }
    if let Err(error) = build(&wanted) {
        // One line of cause and one of cure: cargo shows what a build script writes to stderr.
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// What a variable says; one that is empty says nothing.
fn said(variable: &str) -> Option<OsString> {
    println!("cargo:rerun-if-env-changed={variable}");
    env::var_os(variable).filter(|value| !value.is_empty())
}

/// Has cargo run this script again when a compiler's file changes; one that is looked for in `PATH` by its name has none here.
fn watch(program: &Path) {
    if program.is_absolute() {
        println!("cargo:rerun-if-changed={}", program.display());
    }
}

/// The variable that says that nothing but Rust is to be compiled.
fn skip() -> Option<&'static str> {
    let set = |variable: &&str| said(variable).is_some_and(|value| value != "0");
    ["HALFSTEP_SKIP_KERNELS", "DOCS_RS"].into_iter().find(set)
}

/// What a compiler says that it is: the line with its release (nvcc), or the first.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let release = text.lines().find(|line| line.contains(", release "));
    release.or(text.lines().next()).map(|line| line.trim().to_string())
}

/// The 88 of `rustc 1.88.0 (…)`.
fn minor(rustc: &str) -> Option<u32> {
    rustc.split('.').nth(1)?.parse().ok()
}

fn build(wanted: &[&Compiler]) -> Result<()> {
    let targets = wanted.iter().map(|compiler| compiler.target);
    for path in ["common"].into_iter().chain(targets) {
        println!("cargo:rerun-if-changed=kernels/{path}");
    }
    for path in ["params", "table"] {
        println!("cargo:rerun-if-changed=src/kernel/{path}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    if let Some(variable) = skip() {
        println!("cargo:warning={variable} is set: no device kernels are built in");
        return write_images(&out, 0, &[]);
    }
    let params = params_header();
    let all: String = COMPILERS.iter().map(|compiler| kernels(compiler.target)).collect();
    let abi = checksum(format!("{params}{all}").as_bytes());
    fs::write(out.join("params.h"), params)?;
    let (mut chains, mut versions) = (Vec::new(), Vec::new());
    for compiler in wanted {
        let program = compiler.find()?;
        watch(&program); // one that is upgraded in its place
        compiler.flags.iter().for_each(|variable| drop(said(variable))); // kernels are made anew when they change
        versions.extend(version(&program));
        let source = out.join(format!("kernels.{}", compiler.suffix));
        fs::write(&source, format!("{}HS_ABI({abi:#x}ull)\n", kernels(compiler.target)))?;
        for arch in compiler.architectures()? {
            chains.push(compiler.jobs(&program, &source, &out, &arch));
        }
    }
    println!("cargo:rustc-env=HALFSTEP_DEVICE_COMPILERS={}", versions.join("; "));
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = |jobs: &[Job]| jobs.iter().try_for_each(Job::run).map_err(|e| e.to_string());
        let threads: Vec<_> = chains.iter().map(|jobs| scope.spawn(move || run(jobs))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for result in results {
        result.map_err(|_| "a compiler's thread panicked")??;
    }
    let jobs: Vec<Job> = chains.into_iter().flatten().collect();
    write_images(&out, abi, &jobs)
}

/// The C++ form of every parameter block.
fn params_header() -> String {
    use params::{Partial, gemm, optim, reduce, roof};
    let blocks = [
        Partial::cpp(),
        gemm::Product::cpp(),
        gemm::SwigluGrad::cpp(),
        optim::Chunk::cpp(),
        optim::Tensor::cpp(),
        optim::Group::cpp(),
        optim::Progress::cpp(),
        optim::Scalars::cpp(),
        optim::Status::cpp(),
        optim::Post::cpp(),
        optim::Source::cpp(),
        optim::ScaleRules::cpp(),
        optim::Stats::cpp(),
        optim::Control::cpp(),
        optim::Step::cpp(),
        optim::Convert::cpp(),
        reduce::Pack::cpp(),
        reduce::Accumulate::cpp(),
        reduce::Sum::cpp(),
        reduce::Piece::cpp(),
        reduce::Target::cpp(),
        reduce::Unpack::cpp(),
        reduce::Fixed::cpp(),
        reduce::Quantize::cpp(),
        roof::Roof::cpp(),
    ];
    let blocks = blocks.join("\n");
    format!("#pragma once\n#include <stddef.h>\n#include <stdint.h>\nnamespace hs {{\n{blocks}}}\n")
}

/// One entry point for each row that a target has.
fn kernels(target: &str) -> String {
    let mut text = String::from("#include \"target.h\"\n#include \"params.h\"\n");
    // Bytes of shared memory that a launch asks for, of each tile.
    text += "namespace hs { template <uint32_t ROWS, uint32_t COLUMNS> constexpr uint32_t ASKED = 0; }\n";
    for tile in table::gemm::Tile::ALL.into_iter().filter(|tile| tile.asked() > 0) {
        let (rows, columns, asked) = (tile.rows, tile.columns, tile.asked());
        let _ = writeln!(
            text,
            "template <> constexpr uint32_t hs::ASKED<{rows}, {columns}> = {asked};"
        );
    }
    let mut headers: Vec<_> = table::on(target).map(|(_, source)| source.header).collect();
    headers.dedup();
    for header in headers {
        let _ = writeln!(text, "#include \"{header}\"");
    }
    for (entry, source) in table::on(target) {
        let (threads, teams) = match source.team {
            table::Team::Threads => (table::THREADS.to_string(), 2),
            table::Team::FourWaves(teams) => ("4 * hs::WAVE".to_string(), teams),
            table::Team::Alone => (table::THREADS.to_string(), 1),
        };
        let (symbol, block, function) = (entry.symbol, entry.block, source.function);
        let _ = writeln!(text, "HS_KERNEL({symbol}, {block}, {threads}, {teams}, {function})");
    }
    text
}

/// One image to make.
struct Job {
    command: Vec<String>,
    /// Where the command cannot be run.
    cure: &'static str,
    target: &'static str,
    arch: String,
    format: &'static str,
    output: PathBuf,
}

impl Compiler {
    fn find(&self) -> Result<PathBuf> {
        if let Some(path) = said(self.variable) {
            return Ok(path.into());
        }
        let rooted = |root: OsString| Path::new(&root).join("bin").join(self.program);
        let mut places: Vec<PathBuf> =
            self.roots.iter().filter_map(|root| said(root)).map(rooted).collect();
        let path = env::var_os("PATH").unwrap_or_default();
        places.extend(env::split_paths(&path).map(|folder| folder.join(self.program)));
        places.push(self.usual.into());
        places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
            let Self { program, variable, usual, cure, target, .. } = self;
            let roots = self.roots.join("/bin, $");
            format!(
                "feature `{target}` needs {program}; looked in ${variable}, ${roots}/bin, PATH and {usual}\n\
                 cure: {cure}; or set HALFSTEP_SKIP_KERNELS=1 to build without kernels"
            )
            .into()
        })
    }

    /// The architectures to compile for, each once: those that are named, with or without the prefix that the compiler
    /// gives them, or else the usual one. What no device would be found to have is refused.
    fn architectures(&self) -> Result<BTreeSet<String>> {
        let named = said(self.archs).unwrap_or_default();
        let named = named.to_string_lossy();
        let mut archs = BTreeSet::new();
        for name in named.split([',', ';', ' ']).filter(|name| !name.is_empty()) {
            let (arch, known) = match self.target == table::CUDA {
                true => {
                    let number = name.trim_start_matches("compute_").trim_start_matches("sm_");
                    (number, number.parse::<u32>().is_ok())
                }
                false => {
                    let plain = name.chars().all(|c| c.is_ascii_alphanumeric());
                    (name, plain && name.starts_with("gfx"))
                }
            };
            if !known {
                let Self { archs: variable, named, default_arch, .. } = self;
                return Err(format!(
                    "{variable}: expected {named}, found {name}\ncure: set it so, or unset it for {default_arch}"
                )
                .into());
            }
            archs.insert(arch.to_string());
        }
        if archs.is_empty() {
            archs.insert(self.default_arch.into());
        }
        Ok(archs)
    }

    /// The images of an architecture, in the order in which they are made.
    fn jobs(&self, program: &Path, source: &Path, out: &Path, arch: &str) -> Vec<Job> {
        let include = |folder: &str| format!("-Ikernels/{folder}");
        let image = |format: &str, arch: &str| out.join(format!("{arch}.{format}"));
        let job = |format: &'static str, arch: String, flags: Vec<String>, source: &Path| {
            let output = image(format, &arch);
            let mut command = vec![program.display().to_string()];
            command.extend(["-std=c++17", "-O3"].map(str::to_string));
            command.extend(flags);
            command.extend([
                include(self.target),
                include("common"),
                format!("-I{}", out.display()),
            ]);
            command.extend([
                "-o".into(),
                output.display().to_string(),
                source.display().to_string(),
            ]);
            Job { command, cure: self.cure, target: self.target, arch, format, output }
        };
        let text = |flags: &[&str]| flags.iter().map(|flag| flag.to_string()).collect::<Vec<_>>();
        if self.target == table::HIP {
            let mut flags = text(&["-ffp-contract=off", "-fno-fast-math"]);
            flags.push(format!("--offload-arch={arch}"));
            // hipcc is a wrapper of clang; clang itself needs to be told what the wrapper knows.
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.contains("clang") {
                true => flags.extend(text(&["-x", "hip", "--offload-device-only"])),
                false => flags.push("--genco".into()),
            }
            let more = said("HALFSTEP_HIP_FLAGS").unwrap_or_default();
            flags.extend(more.to_string_lossy().split_whitespace().map(str::to_string));
            return vec![job("co", arch.into(), flags, source)];
        }
        // PTX that the driver compiles for newer architectures, and from it a cubin for this one.
        let strict = ["-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false"];
        let flags = |kind: &str| {
            let mut flags = text(&strict);
            flags.extend([kind.to_string(), format!("-arch=sm_{arch}")]);
            flags
        };
        let virtual_arch = format!("compute_{arch}");
        let ptx = image("ptx", &virtual_arch);
        vec![
            job("ptx", virtual_arch, flags("-ptx"), source),
            job("cubin", format!("sm_{arch}"), flags("-cubin"), &ptx),
        ]
    }
}

impl Job {
    fn run(&self) -> Result<()> {
        println!("{}", self.command.join(" "));
        let output = Command::new(&self.command[0])
            .args(&self.command[1..])
            // Where nvcc is in PATH too, hipcc would call it.
            .env("HIP_PLATFORM", "amd")
            .output()
            .map_err(|error| format!("{}: {error}\ncure: {}", self.command[0], self.cure))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} failed:\n{said}", self.command.join(" ")).into());
        }
        // Every row is in the image: the loader can rely on it.
        let image = fs::read(&self.output)?;
        for (entry, _) in table::on(self.target) {
            if !names(&image, entry.symbol) {
                return Err(format!("{}: no {}", self.output.display(), entry.symbol).into());
            }
        }
        Ok(())
    }
}

/// Whether an image has a symbol: the whole name, not the beginning of a longer one.
fn names(image: &[u8], symbol: &str) -> bool {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let window = |window: &[u8]| {
        window.strip_prefix(symbol.as_bytes()).is_some_and(|end| !end.iter().all(inside))
    };
    image.windows(symbol.len() + 1).any(window)
}

/// 64-bit FNV-1a, as `src/kernel/image.rs` checks it.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The list that `src/kernel/image.rs` includes.
fn write_images(out: &Path, abi: u64, jobs: &[Job]) -> Result<()> {
    let mut text = format!("pub(super) const ABI: u64 = {abi:#x};\n");
    text.push_str("pub(super) const IMAGES: &[Image] = &[\n");
    for Job { target, arch, format, output, .. } in jobs {
        let _ = writeln!(
            text,
            "    Image {{ target: {target:?}, arch: {arch:?}, format: {format:?}, checksum: {:#x}, bytes: include_bytes!({output:?}) }},",
            checksum(&fs::read(output)?)
        );
    }
    text.push_str("];\n");
    Ok(fs::write(out.join("images.rs"), text)?)
}
