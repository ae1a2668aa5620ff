//! `halfstep-resources LABEL=IMAGE…`: a table of what each kernel of each image needs, for
//! `ci/resources.txt`. A cubin is read with `cuobjdump`, a code object with `llvm-readelf` and
//! `llvm-objdump`, which are looked for in `PATH`.
//!
//! Columns: registers of a thread (on gfx90a vector registers, accumulation registers included),
//! bytes spilled and of scratch, scalars that are kept in lanes of a vector register, bytes of shared memory, waves that a multiprocessor (SIMD) holds,
//! instructions, and of them global loads and stores of 16 bytes, of less, and matrix products.
//! A second table is of the loops that multiply matrices, and of CUTLASS's for the same tile; what every such loop
//! has to keep to is checked (`MainLoop::faults`). `plain=IMAGE` behind an image is one of the same kernels with every
//! option of a product compiled out (`ci/resources/plain`): what options cost in registers is printed, and has a limit.
//! The last line counts the kernels that spill, into whatever memory or register: none should.

mod gfx90a;
mod main_loop;
mod sm80;
#[path = "../../../src/kernel/table/mod.rs"]
#[allow(dead_code)]
mod table;

use std::process::{Command, ExitCode};

use main_loop::MainLoop;
use table::gemm::Tile;

/// What one kernel needs.
#[derive(Debug, Default, Clone)]
pub struct Needs {
    /// Its symbol.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes spilled, and of scratch or local memory.
    pub scratch: u32,
    /// Scalar registers that are kept in lanes of vector registers (gfx90a).
    pub lanes: u32,
    /// Bytes of shared memory, those that launches ask for included.
    pub shared: u32,
    /// Waves that are resident at a time: of a multiprocessor, or of a SIMD.
    pub waves: u32,
    /// Instructions.
    pub instructions: u32,
    /// Global accesses of 16 bytes: loads and stores.
    pub wide: [u32; 2],
    /// Narrower ones.
    pub narrow: [u32; 2],
    /// Accesses that do not know which memory they are of.
    pub generic: u32,
    /// Matrix products.
    pub matrix: u32,
    /// The loop that multiplies matrices.
    pub main_loop: Option<MainLoop>,
}

/// A main loop of CUTLASS's.
struct Peer {
    name: &'static str,
    tile: Tile,
    /// Whether A and B are stored transposed; `None` stands for every layout that has no loop of its own here.
    layout: Option<(bool, bool)>,
    /// Matrix steps, fragment reads, copies, and all instructions. Ours may have a quarter more.
    counts: [u32; 4],
}

const fn peer(
    name: &'static str,
    tile: Tile,
    layout: Option<(bool, bool)>,
    counts: [u32; 4],
) -> Peer {
    Peer { name, tile, layout, counts }
}

const CUTLASS: [Peer; 7] = [
    // Steps of 64 of the two smallest, as ours.
    peer("64x64 nt, 5 stages", Tile::new(64, 64), None, [32, 16, 8, 131]),
    peer("128x64 nt, 3 stages", Tile::new(128, 64), None, [64, 24, 12, 201]),
    peer("128x128 nt, 4 stages", Tile::new(128, 128), None, [64, 16, 8, 162]),
    peer("256x128 nt, 3 stages", Tile::new(256, 128), None, [64, 16, 6, 150]),
    peer("128x256 nn, 3 stages", Tile::new(128, 256), Some((false, false)), [64, 16, 6, 140]),
    peer("128x256 tn, 3 stages", Tile::new(128, 256), Some((true, false)), [64, 16, 6, 137]),
    peer("128x256 nt, 3 stages", Tile::new(128, 256), None, [64, 16, 6, 150]),
];

/// f32's number among storage types, as rows of products have it.
const F32: u32 = 2;

/// Layout and tile of a product of aligned operands; `None` of a kernel that has no loop for them. (The smallest tile has
/// it in cubins only, and there of 16-bit types.)
fn aligned(kernel: &str, cubin: bool) -> Option<((bool, bool), Tile)> {
    let row = table::gemm::ROWS.iter().find(|row| row.symbol == kernel)?;
    let (storage, a, b, tile) = row.product?;
    let has = tile != table::gemm::SMALL_TILE || (cubin && storage != F32);
    has.then_some(((a, b), tile))
}

/// Runs a tool and gives its output.
pub fn output(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let done =
        Command::new(tool).args(arguments).output().map_err(|error| format!("{tool}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{tool}: {}", String::from_utf8_lossy(&done.stderr)));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn table(label: &str, image: &str) -> Result<Vec<Needs>, String> {
    let cubin = image.ends_with(".cubin");
    let mut kernels = match cubin {
        true => sm80::read(image)?,
        false => gfx90a::read(image)?,
    };
    if kernels.is_empty() {
        return Err(format!("{image}: no kernels"));
    }
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    println!("\n{label}");
    let [loads, stores] = ["load 16/less", "store 16/less"];
    println!(
        "{:<32} {:>9} {:>7} {:>5} {:>6} {:>5} {:>12} {loads:>13} {stores:>13} {:>7} {:>6}",
        "kernel",
        "registers",
        "scratch",
        "lanes",
        "shared",
        "waves",
        "instructions",
        "generic",
        "matrix"
    );
    for k in &kernels {
        let pair = |i: usize| format!("{}/{}", k.wide[i], k.narrow[i]);
        println!(
            "{:<32} {:>9} {:>7} {:>5} {:>6} {:>5} {:>12} {:>13} {:>13} {:>7} {:>6}",
            k.kernel,
            k.registers,
            k.scratch,
            k.lanes,
            k.shared,
            k.waves,
            k.instructions,
            pair(0),
            pair(1),
            k.generic,
            k.matrix
        );
    }
    println!("\n{:<32} {}", "main loop, 32 of k (128x64: 64)", main_loop::COLUMNS);
    for kernel in &kernels {
        let aligned = aligned(&kernel.kernel, cubin);
        let main = match kernel.main_loop {
            Some(main) => main,
            None if aligned.is_none() => continue,
            None => return Err(format!("{}: no loop multiplies matrices", kernel.kernel)),
        };
        println!("{:<32} {main}", kernel.kernel);
        let Some((layout, tile)) = aligned else { continue };
        if let Some(fault) = main.faults() {
            return Err(format!("{}: {fault}", kernel.kernel));
        }
        if !cubin {
            continue;
        }
        let same = |of: &&Peer| of.tile == tile && of.layout.is_none_or(|of| of == layout);
        let peer =
            CUTLASS.iter().find(same).ok_or(format!("no figures of CUTLASS's for {tile}"))?;
        let [matrix, fragments, copies, all] = peer.counts;
        let same = [main.matrix, main.fragments, main.loads] == [matrix, fragments, copies];
        if !(same && main.all * 4 <= all * 5) {
            return Err(format!("{}: {main}; CUTLASS has {:?}", kernel.kernel, peer.counts));
        }
    }
    if cubin {
        for Peer { name, counts: [matrix, fragments, copies, all], .. } in CUTLASS {
            let (barriers, loads) = (1, copies);
            let of = MainLoop { matrix, fragments, loads, barriers, all, ..MainLoop::default() };
            println!("{:<32} {of}", format!("(CUTLASS {name})"));
        }
    }
    Ok(kernels)
}

/// Registers that options of a product may cost: bias, C, residual, activations, derivatives, gate, stored
/// pre-activation, D transposed, flushing.
const FOR_OPTIONS: u32 = 8;

/// Compares kernels with those that have no options.
fn options(kernels: &[Needs], plain: &str) -> Result<(), String> {
    let mut plain = sm80::read(plain)?;
    plain.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    println!("\n{:<32} {:>9} {:>15}", "options of a product", "registers", "without options");
    for Needs { kernel, registers, .. } in plain {
        let same = kernels.iter().find(|k| k.kernel == kernel).ok_or(format!("no {kernel}"))?;
        println!("{kernel:<32} {:>9} {registers:>15}", same.registers);
        if same.registers > registers + FOR_OPTIONS {
            return Err(format!("{kernel}: options cost more than {FOR_OPTIONS} registers"));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let (mut spilling, mut last) = (0, Vec::new());
    println!("What each kernel needs; made by ci/resources, compared by ci/run.");
    for argument in std::env::args().skip(1) {
        let (label, image) = argument.split_once('=').unwrap_or(("image", &argument));
        let done = match label {
            "plain" => options(&last, image),
            _ => table(label, image).map(|kernels| {
                spilling += kernels.iter().filter(|k| k.scratch + k.lanes > 0).count();
                last = kernels;
            }),
        };
        if let Err(reason) = done {
            eprintln!("halfstep-resources: {reason}");
            return ExitCode::FAILURE;
        }
    }
    println!("\nkernels that spill or use scratch, lanes included: {spilling}");
    ExitCode::SUCCESS
}
