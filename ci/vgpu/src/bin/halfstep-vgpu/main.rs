//! `halfstep-vgpu exec`: runs one kernel of a file, whatever compiler made it, with all checks.

mod argument;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use halfstep_vgpu::finding::Finding;
use halfstep_vgpu::launch::{Checks, Grid, Report};
use halfstep_vgpu::memory::GlobalMemory;
use halfstep_vgpu::ptx::{Module, launch};

use argument::{Argument, Given};

/// Executes device code where there is no GPU.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one kernel of a `.ptx` file or of a gfx90a code object.
    ///
    /// Prints what the checks found and what was counted. Exit status: 0 if nothing was found, 1 if a
    /// check fired or something in the file is not known, 2 for wrong arguments.
    Exec(Exec),
}

#[derive(Debug, clap::Args)]
struct Exec {
    /// The file.
    file: PathBuf,
    /// The kernel's name.
    #[arg(long)]
    kernel: String,
    /// Blocks: X,Y,Z (Y and Z are 1 if left out).
    #[arg(long, value_parser = extents, default_value = "1")]
    grid: [u32; 3],
    /// Threads of a block: X,Y,Z.
    #[arg(long, value_parser = extents)]
    block: [u32; 3],
    /// Bytes of shared memory beside what the kernel declares.
    #[arg(long, default_value_t = 0)]
    shared: u32,
    /// A parameter, in the kernel's order: in:FILE, inout:FILE=OUTFILE, out:BYTES=OUTFILE, i32:N,
    /// u32:N, i64:N, u64:N, f32:X, f64:X, or block:FILE for a struct passed by value. If the kernel
    /// takes one struct, several arguments are its fields.
    #[arg(long = "arg")]
    args: Vec<Given>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

fn extents(text: &str) -> Result<[u32; 3], String> {
    let mut extents = [1; 3];
    let parts: Vec<_> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("more than three numbers".into());
    }
    for (extent, part) in extents.iter_mut().zip(parts) {
        *extent = part.trim().parse().map_err(|error| format!("`{part}`: {error}"))?;
    }
    Ok(extents)
}

/// Wrong arguments, or something in the file that is not known.
enum Failure {
    Usage(String),
    Unknown(String),
}

fn main() -> ExitCode {
    let Command::Exec(exec) = Program::parse().command;
    match run(&exec) {
        Ok(report) => {
            print(&report, exec.json);
            ExitCode::from(u8::from(!report.findings.is_empty()))
        }
        Err(Failure::Unknown(what)) => {
            if exec.json {
                println!("{}", serde_json::json!({ "error": what }));
            }
            eprintln!("error: {}: {what}", exec.file.display());
            ExitCode::from(1)
        }
        Err(Failure::Usage(what)) => {
            eprintln!("error: {what}");
            ExitCode::from(2)
        }
    }
}

fn run(exec: &Exec) -> Result<Report, Failure> {
    let image = std::fs::read(&exec.file)
        .map_err(|error| Failure::Usage(format!("{}: {error}", exec.file.display())))?;
    let mut memory = GlobalMemory::new();
    let arguments = exec.args.iter().map(|given| Argument::place(given, &mut memory));
    let arguments: Vec<Argument> = arguments.collect::<Result<_, _>>().map_err(Failure::Usage)?;
    let magics: [&[u8]; 3] = [b"\x7fELF", b"__CLANG_OFFLOAD_BUNDLE__", b"CCOB"];
    let report = if magics.iter().any(|magic| image.starts_with(magic)) {
        run_gfx(exec, &image, &arguments, &mut memory)?
    } else {
        run_ptx(exec, &image, &arguments, &mut memory)?
    };
    for argument in &arguments {
        argument.save(&mut memory).map_err(Failure::Usage)?;
    }
    Ok(report)
}

fn run_ptx(
    exec: &Exec,
    image: &[u8],
    arguments: &[Argument],
    memory: &mut GlobalMemory,
) -> Result<Report, Failure> {
    let text =
        std::str::from_utf8(image).map_err(|e| Failure::Unknown(format!("not text: {e}")))?;
    let unknown = |error: halfstep_vgpu::ptx::PtxError| Failure::Unknown(error.to_string());
    let module = Module::parse(text).and_then(|m| m.load(memory)).map_err(unknown)?;
    let program = module.program(&exec.kernel).map_err(unknown)?;
    let fields: Vec<&[u8]> = arguments.iter().map(|a| a.bytes.as_slice()).collect();
    let params = argument::lay_out(&program.parameters, &fields).map_err(Failure::Usage)?;
    let grid = Grid { blocks: exec.grid, threads: exec.block, shared: exec.shared };
    launch(&program, grid, &params, memory, Checks::default()).map_err(unknown)
}

/// A gfx90a code object, or a bundle that has one.
fn run_gfx(
    exec: &Exec,
    image: &[u8],
    arguments: &[Argument],
    memory: &mut GlobalMemory,
) -> Result<Report, Failure> {
    use halfstep_vgpu::gfx::{CodeObject, GfxError, launch};
    let unknown = |error: GfxError| Failure::Unknown(error.to_string());
    let object = CodeObject::parse(image).and_then(|o| o.load(memory)).map_err(unknown)?;
    let program = object.program(&exec.kernel).map_err(unknown)?;
    let fields: Vec<&[u8]> = arguments.iter().map(|a| a.bytes.as_slice()).collect();
    let params = argument::lay_out(&program.parameters, &fields).map_err(Failure::Usage)?;
    let grid = Grid { blocks: exec.grid, threads: exec.block, shared: exec.shared };
    launch(&program, grid, &params, memory, Checks::default()).map_err(unknown)
}

fn print(report: &Report, json: bool) {
    if !json {
        report.findings.iter().for_each(|finding| println!("{finding}"));
        println!("{}", report.counters);
        return;
    }
    let finding = |f: &Finding| {
        serde_json::json!({
            "kind": format!("{:?}", f.kind),
            "kernel": f.kernel,
            "instruction": f.instruction,
            "block": f.block,
            "thread": f.thread,
            "address": f.address,
            "detail": f.detail,
            "count": f.count,
        })
    };
    let c = &report.counters;
    let classes = c.instructions().map(|(class, n)| (format!("{class:?}"), n.into()));
    let value = serde_json::json!({
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "counters": {
            "instructions": serde_json::Map::from_iter(classes),
            "lane_instructions": c.lane_instructions,
            "divergent": c.divergent,
            "bank_conflicts": c.bank_conflicts,
            "sectors": c.sectors,
            "ideal_sectors": c.ideal_sectors,
        },
    });
    println!("{value:#}");
}
