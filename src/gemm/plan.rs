//! All checks of a product, and the choice of its kernel.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::checks::Footprint;
use super::choice::Choice;
use super::dispatch::Dispatch;
use super::layout::{Matrix, Subnormals};
use super::operands::{Bound, Operands, Source, missing};
use super::{Gemm, choice};
use crate::backend::cpu;
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::Product;
use crate::kernel::table;
use crate::{Device, DeviceInfo, DeviceKind, Dtype, Error, Result, Storage, Stream};

const OP: &str = "gemm";

/// A product that has been checked, for one device; run it as often as you like.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::{Device, bf16, gemm::Gemm};
/// let plan = Gemm::new(64, 64, 64).plan::<bf16, bf16>(&Device::cpu())?;
/// println!("{}", plan.explain());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Plan<T, O> {
    device: Device,
    dispatch: Dispatch,
    /// The parameter block without its addresses.
    block: Product,
    shapes: [Footprint; Matrix::COUNT],
    ends: Option<Footprint>,
    /// Nothing is launched.
    empty: bool,
    types: PhantomData<(T, O)>,
}

pub(super) fn plan<T: Storage, O: Storage>(gemm: &Gemm, device: &Device) -> Result<Plan<T, O>> {
    check_types::<T, O>(OP)?;
    check_subnormals::<T>(OP, gemm.subnormals, device)?;
    for (name, value) in [("alpha", gemm.alpha), ("beta", gemm.beta)] {
        if !value.is_finite() {
            return Err(Error::range(OP, name, "a finite number", value));
        }
    }
    if gemm.gated && gemm.beta != 0.0 {
        return Err(Error::unsupported(OP, "SwiGLU with β·C; use a bias or a residual"));
    }
    if gemm.gated && gemm.derivative {
        return Err(Error::unsupported(OP, "SwiGLU times a derivative; use SwigluGrad"));
    }
    if gemm.groups.is_some() && gemm.batch != 1 {
        return Err(Error::unsupported(OP, "a batch of grouped products; make one list of groups"));
    }
    if gemm.groups.is_some() && gemm.layout.a_transposed() {
        return Err(Error::unsupported(OP, "groups of rows of a transposed A; use NN or NT"));
    }
    if gemm.leading[Matrix::Bias as usize].is_some() {
        let reason = "a leading dimension of the bias, which is one row; its stride is from member to member";
        return Err(Error::unsupported(OP, reason));
    }
    let shapes = shapes(gemm)?;
    let [a, b, c, bias, residual, z, d] = shapes;
    let mut flags = 0;
    for (set, flag) in [
        (gemm.layout.a_transposed(), params::FLAG_A_TRANSPOSED),
        (gemm.layout.b_transposed(), params::FLAG_B_TRANSPOSED),
        (gemm.gated, params::FLAG_GATED),
        (gemm.subnormals == Subnormals::Flush, params::FLAG_FLUSH),
        (gemm.subnormals == Subnormals::ThroughBf16, params::FLAG_THROUGH_BF16),
        (gemm.rotate, params::FLAG_ROTATED),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let role = if gemm.derivative { params::ROLE_DERIVATIVE } else { params::ROLE_FORWARD };
    let block = Product {
        lda: a.ld as u64,
        ldb: b.ld as u64,
        ldc: c.ld as u64,
        ldr: residual.ld as u64,
        ldz: z.ld as u64,
        ldp: z.ld as u64,
        ldd: d.ld as u64,
        stride_a: a.stride as u64,
        stride_b: b.stride as u64,
        stride_c: c.stride as u64,
        stride_bias: bias.stride as u64,
        stride_residual: residual.stride as u64,
        stride_z: z.stride as u64,
        stride_preactivation: z.stride as u64,
        stride_d: d.stride as u64,
        m: gemm.m as u64,
        n: gemm.n as u64,
        // A factor of 0 makes the sum 0 without reading A and B.
        k: if gemm.alpha == 0.0 { 0 } else { gemm.k as u64 },
        batch: gemm.batch as u64,
        groups: gemm.groups.unwrap_or(0) as u64,
        alpha: gemm.alpha,
        beta: gemm.beta,
        input: T::DTYPE as u32,
        output: O::DTYPE as u32,
        activation: gemm.activation as u32,
        role,
        flags,
        tile: gemm.tile.map_or(0, table::gemm::Tile::code),
        splits: gemm.splits,
        ..bytemuck::Zeroable::zeroed()
    };
    let dispatch = Dispatch::new(OP, &block, device)?;
    let ends = ends_shape(OP, gemm.groups)?;
    let empty = gemm.m == 0 || gemm.n == 0 || gemm.batch == 0 || gemm.groups == Some(0);
    Ok(Plan { device: device.clone(), dispatch, block, shapes, ends, empty, types: PhantomData })
}

/// The shape of the list of group ends, where there are groups.
pub(super) fn ends_shape(op: &'static str, groups: Option<usize>) -> Result<Option<Footprint>> {
    let shape = |groups| Footprint::new(op, "group_ends", (1, groups), None, None, 1, false);
    groups.map(shape).transpose()
}

/// Input and output types that have a kernel.
pub(super) fn check_types<T: Storage, O: Storage>(op: &'static str) -> Result<()> {
    if O::DTYPE == T::DTYPE || O::DTYPE == Dtype::F32 {
        return Ok(());
    }
    let (input, output) = (T::DTYPE, O::DTYPE);
    let same = if input == Dtype::F32 { "" } else { &format!("{input} or ") };
    let reason = format!("{input} in, {output} out; supported: {input} in, {same}f32 out");
    Err(Error::unsupported(op, reason))
}

/// A device that flushes has to be asked to, or to be spared subnormals; only f16 can be.
pub(super) fn check_subnormals<T: Storage>(
    op: &'static str,
    policy: Subnormals,
    device: &Device,
) -> Result<()> {
    if policy == Subnormals::ThroughBf16 {
        let reason = format!("Subnormals::ThroughBf16 of {}; it is for products of f16", T::DTYPE);
        return if T::DTYPE == Dtype::F16 { Ok(()) } else { Err(Error::unsupported(op, reason)) };
    }
    let flushes = device.info().flushes_subnormals && T::DTYPE != Dtype::F32;
    if !flushes || policy == Subnormals::Flush {
        return Ok(());
    }
    let through =
        if T::DTYPE == Dtype::F16 { ", or keep them with Subnormals::ThroughBf16" } else { "" };
    let reason = format!(
        "the matrix unit of {} reads subnormal {} numbers as zero; allow it with Subnormals::Flush{through}",
        device.info(),
        T::DTYPE
    );
    Err(Error::unsupported(op, reason))
}

fn shapes(gemm: &Gemm) -> Result<[Footprint; Matrix::COUNT]> {
    let Gemm { m, n, k, .. } = *gemm;
    let columns = if gemm.gated { n.checked_mul(2) } else { Some(n) };
    let columns = columns.ok_or_else(|| {
        Error::shape(OP, "n", "sizes whose product fits the address space", format!("2·{n}"))
    })?;
    let swap =
        |swap: bool, (rows, cols): (usize, usize)| if swap { (cols, rows) } else { (rows, cols) };
    let grouped = gemm.groups.is_some();
    let shape = |matrix: Matrix, size: (usize, usize), own: bool, shared: bool| {
        // In a grouped product only B and the bias have one matrix for each group.
        let count = match gemm.groups {
            Some(groups) if own => groups,
            Some(_) => 1,
            None => gemm.batch,
        };
        let index = matrix as usize;
        let (ld, stride) = (gemm.leading[index], gemm.strides[index]);
        Footprint::new(OP, matrix.name(), size, ld, stride, count, shared)
    };
    let z = if gemm.gated && !gemm.derivative { columns } else { n };
    Ok([
        shape(Matrix::A, swap(gemm.layout.a_transposed(), (m, k)), false, false)?,
        shape(Matrix::B, swap(gemm.layout.b_transposed(), (k, columns)), true, false)?,
        shape(Matrix::C, (m, n), false, false)?,
        shape(Matrix::Bias, (1, columns), true, !grouped)?,
        shape(Matrix::Residual, (m, n), false, false)?,
        shape(Matrix::Preactivation, (m, z), false, false)?,
        shape(Matrix::D, (m, n), false, false)?.distinct(OP, "d")?,
    ])
}

impl<T: Storage, O: Storage> Plan<T, O> {
    /// Enqueues the product on `stream`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an operand that is missing or too short,
    /// [`Error::Overlap`](crate::Error::Overlap) for an output that shares memory with another operand
    /// (D may be exactly C or the residual), [`Error::Align`](crate::Error::Align),
    /// [`Error::Device`](crate::Error::Device). Nothing is written then.
    pub fn run(&self, stream: &Stream, operands: Operands<'_, T, O>) -> Result<()> {
        stream.expect_device(OP, &self.device)?;
        let Operands { a, b, c, bias, residual, derivative_of, group_ends, preactivation, d } =
            operands;
        let [a_shape, b_shape, c_shape, bias_shape, residual_shape, z_shape, d_shape] =
            &self.shapes;
        let mut block = self.block;
        let mut bound = Bound::new(OP, stream);
        block.d = bound.write("d", d, d_shape)?;
        if let Some(preactivation) = preactivation {
            if block.role == params::ROLE_DERIVATIVE {
                let reason = "storing a pre-activation while reading one";
                return Err(Error::unsupported(OP, reason));
            }
            z_shape.distinct(OP, "preactivation")?;
            block.preactivation = bound.write("preactivation", preactivation, z_shape)?;
        }
        // A and B are checked even where they are not read: α is data, the call stays as valid.
        block.a = bound.read("a", a, a_shape)?;
        block.b = bound.read("b", b, b_shape)?;
        if block.beta != 0.0 {
            block.c = match c {
                Source::From(c) => bound.read("c", c, c_shape)?,
                Source::InPlace => {
                    (block.ldc, block.stride_c) = (block.ldd, block.stride_d);
                    block.d
                }
                Source::None => return Err(missing(OP, "c", c_shape)),
            };
            if matches!(c, Source::From(_)) {
                bound.or_in_place();
            }
        }
        block.residual = match residual {
            Source::From(residual) => {
                let address = bound.read("residual", residual, residual_shape)?;
                bound.or_in_place();
                address
            }
            Source::InPlace => {
                (block.ldr, block.stride_residual) = (block.ldd, block.stride_d);
                block.d
            }
            Source::None => 0,
        };
        if let Some(bias) = bias {
            block.bias = bound.read("bias", bias, bias_shape)?;
        }
        if block.role == params::ROLE_DERIVATIVE {
            let z = derivative_of.ok_or_else(|| missing(OP, "derivative_of", z_shape))?;
            block.z = bound.read("derivative_of", z, z_shape)?;
        } else if derivative_of.is_some() {
            let expected = "none, of a plan without a derivative";
            return Err(Error::shape(OP, "derivative_of", expected, "a matrix"));
        }
        block.group_ends = bound.group_ends(group_ends, self.ends.as_ref())?;
        bound.overlaps()?;
        if self.empty {
            return Ok(());
        }
        self.dispatch.run(OP, block, stream)
    }

    /// What was chosen, and why, in words, as far as sizes say. Of a GPU's plan: the kernel, its tile, and what operands are
    /// aligned to, 16, 4 or 2 bytes. Of the CPU's: the form of the instructions, the tile in registers, and whether results
    /// have the reference's bits.
    pub fn explain(&self) -> String {
        explain(&self.block, &self.device)
    }
}

/// What is computed, where, how, and why that way.
pub(super) fn explain(block: &Product, device: &Device) -> String {
    let info = device.info();
    let Product { m, n, k, batch, groups, .. } = *block;
    let no_sum = block.alpha == 0.0 || k == 0;
    let (name, how) = match info.kind {
        DeviceKind::Cpu if no_sum => (types(block), String::new()),
        DeviceKind::Cpu => (types(block), format!("; {}", cpu::gemm::explain(block, info))),
        _ => on_gpu(block, info),
    };
    let mut text = format!("{name}: {m}×{n}×{k} on {info}");
    if groups > 0 {
        text += &format!(", {groups} groups");
    } else if batch != 1 {
        text += &format!(", batch of {batch}");
    }
    if no_sum {
        text += ", sum of 0: A and B are not read";
    }
    text + &how
}

fn transposed(block: &Product) -> (bool, bool) {
    let has = |flag: u32| block.flags & flag != 0;
    (has(params::FLAG_A_TRANSPOSED), has(params::FLAG_B_TRANSPOSED))
}

/// What is multiplied: a product of the CPU has no name of its own.
fn types(block: &Product) -> String {
    let input = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == block.input);
    let letter = |transposed| if transposed { 'T' } else { 'N' };
    let (a, b) = transposed(block);
    format!("{} {}{}", input.unwrap_or(Dtype::F32), letter(a), letter(b))
}

/// The kernel's name, and how it computes the product.
fn on_gpu(block: &Product, info: &DeviceInfo) -> (String, String) {
    // A plan whose tile cannot be is refused before.
    let choice = choice::choose(block, info).ok();
    let tile = choice.map_or(table::gemm::SMALL_TILE, |choice| choice.tile);
    let (a, b) = transposed(block);
    let name = table::gemm::product(block.multiplied(), a, b, tile).symbol.to_string();
    let Some(Choice { tile, splits, aligned, bytes, rotated, why }) = choice else {
        return (name, String::new());
    };
    let way = match (info.kind, tile) {
        (DeviceKind::Cuda, table::gemm::SMALL_TILE) if aligned => ", copied in the background",
        (DeviceKind::Cuda, table::gemm::SMALL_TILE) => ", through registers",
        _ => "",
    };
    let mut text = format!("; {tile} tiles{way}, operands aligned to {bytes} bytes: {why}");
    if splits > 1 {
        text += &format!("; k in {splits} parts, to fill {} units", info.units);
    }
    if rotated {
        let columns = choice::ROTATED_COLUMNS;
        text += &format!(
            "; k rotated by each {columns} columns, as rows lie a multiple of 4 KiB apart"
        );
    }
    (name, text)
}
