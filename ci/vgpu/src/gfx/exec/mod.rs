//! Runs a kernel: blocks one after the other, each block's waves until they meet at barriers.

mod access;
mod arguments;
mod atomic;
mod block;
mod compare;
mod convert;
mod double;
mod fetch;
mod float;
mod half;
mod integer;
mod lanes;
mod lds;
mod map;
mod matrix;
mod memory;
mod places;
mod scalar;
mod smem;
mod step;
mod wait;
mod wave;

pub use access::Move;
pub use step::{Action, Condition, Use, action, uses};
pub use wait::Wait;

use super::program::{Program, Step};
use super::{GfxError, Result};
use crate::counters::{Class, Counters};
use crate::finding::Findings;
use crate::launch::{Checks, Grid, Report};
use crate::memory::{Bytes, GlobalMemory};

/// What is the same for all blocks of a launch, and what they add to.
struct Launch<'a> {
    program: &'a Program,
    grid: Grid,
    /// Arguments, hidden ones included, and behind them the dispatch packet.
    arguments: Bytes,
    /// Where in them the packet is.
    packet: u64,
    memory: &'a mut GlobalMemory,
    checks: Checks,
    findings: Findings,
    counters: Counters,
    executed: u64,
    /// By instruction, whether it was executed.
    reached: Vec<bool>,
    /// Whether the kernel has atomic operations, or loads past the caches, by which blocks can order
    /// themselves.
    publishes: bool,
    /// Whether it can tell others' plain stores from what was there: atomic stores are compiled to them.
    observes: bool,
    /// Whether the load, or the store, that is made now takes part in the order of blocks.
    observing: bool,
    publishing: bool,
}

/// Runs `program` with the bytes of its explicit arguments.
pub fn launch(
    program: &Program,
    grid: Grid,
    params: &[u8],
    memory: &mut GlobalMemory,
    checks: Checks,
) -> Result<Report> {
    let error = |what: String| Err(GfxError::new(format!("{}: {what}", program.name)));
    let threads: u64 = grid.threads.iter().map(|n| u64::from(*n)).product();
    if threads == 0 || threads > 1024 || grid.blocks.contains(&0) {
        return error(format!("a grid of {:?} blocks of {:?}", grid.blocks, grid.threads));
    }
    if program.max_threads.is_some_and(|max| threads > max.into()) {
        return error(format!("{threads} threads a block, compiled for {:?}", program.max_threads));
    }
    if program.required_block.is_some_and(|block| block != grid.threads) {
        return error(format!("needs blocks of {:?}", program.required_block));
    }
    if (params.len() as u64) < program.parameter_bytes() {
        let needs = program.parameter_bytes();
        return error(format!("{} bytes of arguments, needs {needs}", params.len()));
    }
    if program.shared + u64::from(grid.shared) > 64 << 10 {
        return error(format!("{} + {} bytes of LDS", program.shared, grid.shared));
    }
    memory.begin_launch();
    memory.check_races = checks.races;
    let (arguments, packet) = arguments::block(program, grid, params)?;
    let mut launch = Launch {
        program,
        grid,
        arguments,
        packet,
        memory,
        checks,
        findings: Findings::default(),
        counters: Counters::default(),
        executed: 0,
        reached: vec![false; program.code.len()],
        publishes: program.code.iter().any(|step| step.class == Class::Atomic || observes(step)),
        observes: program.code.iter().any(observes),
        observing: false,
        publishing: false,
    };
    let mut waves = Vec::new();
    for z in 0..grid.blocks[2] {
        for y in 0..grid.blocks[1] {
            for x in 0..grid.blocks[0] {
                launch.block([x, y, z], &mut waves)?;
            }
        }
    }
    let reached = launch.reached.iter().zip(&program.code).filter(|(reached, _)| **reached);
    let reached = reached.map(|(_, step)| step.instruction.address).collect();
    let (findings, counters) = (launch.findings.into_vec(), launch.counters);
    Ok(Report { findings, counters, reached })
}

/// Whether an instruction sees what others have stored, whoever they are: loads past the first cache, and
/// exchanges that a comparison decides about, as of locks.
fn observes(step: &Step) -> bool {
    match step.action {
        Action::Memory(Move::Load { .. }) => step.instruction.access.glc,
        Action::Memory(Move::Atomic { op, .. }) => op == atomic::Atomic::CompareSwap,
        _ => false,
    }
}
