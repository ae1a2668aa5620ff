//! The outer step of low-communication training (DiLoCo), from file to file.
#![forbid(unsafe_code)]

mod rule;
mod run;
mod sink;
mod source;

use std::path::Path;

use crate::Result;

/// The operation's name in errors.
const OP: &str = "reduce::outer";

/// What to do with a worker's file that holds NaN or ±Inf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnNonFinite {
    /// An error that names file, tensor and element.
    #[default]
    Error,
    /// The worker counts for nothing in this step, in any tensor. Workers' files are read twice.
    LeaveOut,
}

/// The outer step of DiLoCo ([arXiv 2311.08105](https://arxiv.org/abs/2311.08105)): workers train
/// alone for many steps from one set of parameters, and what they learnt is merged by one step of
/// SGD with Nesterov momentum on an f32 master.
///
/// For each element, with master θ, momentum m, workers θᵢ and their weights wᵢ:
///
/// ```text
/// Δ  = Σ wᵢ·(θ − θᵢ) / Σ wᵢ         in the order of the list
/// v  = μ·m + Δ                      m' = f32(v)
/// d  = Δ + μ·v  (Nesterov)  or  v
/// θ' = f32(θ − lr·d)                start = bf16(θ')
/// ```
///
/// Everything between reading and the roundings marked is f64, each operation rounded by itself
/// (nothing is fused). It is the rule of PyTorch's `SGD(momentum, nesterov)` with dampening 0. The
/// bits depend on the files, the weights and the order of the list, and on nothing else: not on
/// [`piece`](Self::piece) or the processor. Another order of the list changes f64 sums in their last
/// bit, so sites that must agree list their workers alike.
///
/// Files are read and written in pieces: memory is 20 bytes for each element of a piece, whatever the
/// number of workers, and the files' headers.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::reduce::{Outer, OuterInputs, OuterOutputs, Worker};
/// # let folder = std::env::temp_dir().join(format!("halfstep-outer-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let write = |name: &str, values: [f32; 2]| {
/// #     let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
/// #     let view =
/// #         safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &bytes).unwrap();
/// #     let path = folder.join(name);
/// #     safetensors::serialize_to_file([("w", view)], None, &path).unwrap();
/// #     path
/// # };
/// # let master = write("master.safetensors", [1.0, 2.0]);
/// # let (lumi, leonardo) = (write("a.safetensors", [0.0, 2.0]), write("b.safetensors", [1.0, 1.0]));
/// # let (next, momentum) = (folder.join("1.safetensors"), folder.join("1.momentum.safetensors"));
/// let workers = [Worker { path: &lumi, weight: 3.0 }, Worker { path: &leonardo, weight: 1.0 }];
/// let report = Outer::default().step(
///     OuterInputs { master: &master, momentum: None, workers: &workers },
///     OuterOutputs { master: &next, momentum: &momentum, start: None },
/// )?;
/// assert_eq!((report.step, report.elements), (1, 2));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outer {
    /// lr: finite, not negative.
    pub learning_rate: f64,
    /// μ: from 0 to below 1.
    pub momentum: f64,
    /// Whether the step looks ahead by another μ·v.
    pub nesterov: bool,
    /// What a worker's NaN or ±Inf does.
    pub on_non_finite: OnNonFinite,
    /// Elements read at a time: at least 1. Does not change the result.
    pub piece: usize,
}

impl Default for Outer {
    /// DiLoCo's: lr 0.7, momentum 0.9, Nesterov; an error for NaN; 2¹⁸ elements at a time.
    fn default() -> Self {
        let on_non_finite = OnNonFinite::Error;
        Self { learning_rate: 0.7, momentum: 0.9, nesterov: true, on_non_finite, piece: 1 << 18 }
    }
}

/// What a worker arrived at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worker<'a> {
    /// A safetensors file with every tensor of the master, in f32, bf16 or f16; more are ignored.
    pub path: &'a Path,
    /// Its part of the average, such as the samples it has seen: finite, not negative.
    pub weight: f64,
}

/// The files that an [`Outer`] step reads.
#[derive(Debug, Clone, Copy)]
pub struct OuterInputs<'a> {
    /// The master: f32 tensors. A file with no `outer_step` in its metadata is of step 0.
    pub master: &'a Path,
    /// The momentum that the step before wrote; zeros if `None`, which only step 0, or μ = 0, may
    /// have.
    pub momentum: Option<&'a Path>,
    /// Workers, in the order in which they are added.
    pub workers: &'a [Worker<'a>],
}

/// The files that an [`Outer`] step writes, with checksums and `outer_step` in their metadata.
/// Master and momentum may replace the ones read.
#[derive(Debug, Clone, Copy)]
pub struct OuterOutputs<'a> {
    /// The new master, in f32.
    pub master: &'a Path,
    /// The new momentum, in f32.
    pub momentum: &'a Path,
    /// The new master in bf16, for workers to start from.
    pub start: Option<&'a Path>,
}

/// What an [`Outer`] step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterReport {
    /// The step of the files written: 1 for the first.
    pub step: u64,
    /// Tensors of the master.
    pub tensors: usize,
    /// Elements of the master.
    pub elements: u64,
    /// Workers (places in the list) left out for NaN or ±Inf.
    pub left_out: Vec<usize>,
}

impl Outer {
    /// Reads master, momentum and workers, and writes the next master and momentum.
    ///
    /// Outputs get their names when all of them are whole: first the copy to start from, then the
    /// momentum, then the master. A machine that stops between these leaves files of different
    /// steps, which the next step refuses; outputs under names of their own keep the old ones.
    ///
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) for lr, momentum, piece or weights,
    /// [`Error::Overlap`](crate::Error::Overlap) for an output that is another output or a worker;
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for what does not fit in a file: a tensor
    /// missing, or of another shape or type, another step, a wrong checksum, NaN or ±Inf, a result
    /// beyond f32; [`Error::Io`](crate::Error::Io). Except for a failure to rename, every
    /// output is then as it was, and nothing is left beside it.
    pub fn step(&self, inputs: OuterInputs<'_>, outputs: OuterOutputs<'_>) -> Result<OuterReport> {
        run::run(self, inputs, outputs)
    }
}
