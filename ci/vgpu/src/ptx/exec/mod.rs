//! Runs a kernel: blocks one after the other, each block's warps until they meet at barriers.

mod async_copy;
mod block;
mod compare;
mod convert;
mod float;
mod integer;
mod lanes;
mod matrix;
mod memory;
mod narrow;
mod step;
mod unit;
mod warp;

use super::program::Program;
use super::{PtxError, Result};
use crate::counters::Counters;
use crate::finding::Findings;
use crate::launch::{Checks, Grid, Report};
use crate::memory::{Bytes, GlobalMemory};

/// What is the same for all blocks of a launch, and what they add to.
struct Launch<'a> {
    program: &'a Program,
    grid: Grid,
    params: Bytes,
    memory: &'a mut GlobalMemory,
    checks: Checks,
    findings: Findings,
    counters: Counters,
    executed: u64,
    /// By instruction, whether it was executed.
    reached: Vec<bool>,
}

/// Runs `program` with the bytes of its parameters.
pub fn launch(
    program: &Program,
    grid: Grid,
    params: &[u8],
    memory: &mut GlobalMemory,
    checks: Checks,
) -> Result<Report> {
    let error = |what: String| Err(PtxError::new(0, format!("{}: {what}", program.name)));
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
        return error(format!("{} bytes of parameters, needs {needs}", params.len()));
    }
    memory.begin_launch();
    memory.check_races = checks.races;
    let mut launch = Launch {
        program,
        grid,
        params: Bytes::known(params.to_vec()),
        memory,
        checks,
        findings: Findings::default(),
        counters: Counters::default(),
        executed: 0,
        reached: vec![false; program.code.len()],
    };
    let mut warps = Vec::new();
    for z in 0..grid.blocks[2] {
        for y in 0..grid.blocks[1] {
            for x in 0..grid.blocks[0] {
                launch.block([x, y, z], &mut warps)?;
            }
        }
    }
    let reached = launch.reached.iter().zip(&program.code).filter(|(reached, _)| **reached);
    let reached = reached.map(|(_, instruction)| instruction.line.into()).collect();
    Ok(Report { findings: launch.findings.into_vec(), counters: launch.counters, reached })
}
