//! The epilogue of a tile, row by row while its sums are in the cache: each step is a short loop over
//! f32 values, in the order that `gemm::reference` defines.

use super::super::past;
use super::form::Form;
use super::lanes;
use super::map::{apply, derivative};
use super::pack::{flush, load};
use crate::Storage;
use crate::gemm::Activation;
use crate::gemm::reference::{flushed, smallest_normal};
use crate::kernel::params::gemm::{self as params, Product};

/// The widest tile, in columns.
pub(super) const WIDEST: usize = 256;

/// Whether D is stored past the caches. (On a server 2048×3072×768 of bf16 took 10 to 20 % longer without, where operands
/// came from memory.)
pub(super) fn past_caches<F: Form>(block: &Product) -> bool {
    #[cfg(halfstep_avx512)]
    if F::WIDE {
        let lines = block.flags & params::FLAG_D_TRANSPOSED == 0;
        return lines && block.m * block.n >= past::LARGE;
    }
    let _ = block;
    false
}

/// The rows and columns of D that a tile has, and where its sums are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    /// The sums, `[rows][ld]`.
    pub sums: *mut f32,
    pub ld: usize,
    /// Where in each row the gate's second half starts.
    pub up: usize,
}

/// `epilogue(sums)` into D and the stored pre-activation.
///
/// # Safety
/// The tile is inside D; sums, operands and D are valid and nothing else uses the tile's part of
/// them. Rows of sums can be overwritten up to the next multiple of 16 columns. The processor has the form's instructions.
pub(super) unsafe fn epilogue<F: Form, T: Storage, O: Storage>(block: &Product, tile: Tile) {
    // SAFETY: the caller's promise.
    unsafe { around::<F::Around, T, O>(block, tile) }
}

/// [`epilogue`]. (Compiled once for each instruction set and pair of types, not for each kind of product.)
///
/// # Safety
/// As for it.
#[inline(never)]
unsafe fn around<F: Form, T: Storage, O: Storage>(block: &Product, tile: Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        F::vectorized(
            #[inline(always)]
            || by_rows::<F, T, O>(block, tile),
        );
    }
}

/// # Safety
/// As for [`epilogue`]. Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
unsafe fn by_rows<F: Form, T: Storage, O: Storage>(block: &Product, tile: Tile) {
    let has = |flag: u32| block.flags & flag != 0;
    let gated = has(params::FLAG_GATED);
    let activation = Activation::from_number(block.activation);
    let width = tile.columns.next_multiple_of(16);
    let halves = if gated { 2 } else { 1 };
    let mut bias = [[0.0f32; WIDEST]; 2];
    if block.bias != 0 {
        for (half, bias) in bias.iter_mut().enumerate().take(halves) {
            let first = half * block.n as usize + tile.column;
            // SAFETY: the bias has `n` elements for each half.
            unsafe {
                load::<F, T>((block.bias as *const T).add(first), &mut bias[..tile.columns]);
            }
        }
    }
    let mut other = [0.0f32; WIDEST]; // C, z or the residual
    let beyond = past_caches::<F>(block);
    let flushing = has(params::FLAG_FLUSH);
    let how = (flushing, beyond);
    for i in tile.row..tile.row + tile.rows {
        // SAFETY: row `i` of the tile's sums.
        let sums = unsafe {
            let start = tile.sums.add((i - tile.row) * tile.ld);
            std::slice::from_raw_parts_mut(start, if gated { tile.up + width } else { width })
        };
        let (first, second) = sums.split_at_mut(if gated { tile.up } else { width });
        let first = &mut first[..width];
        // SAFETY, for each block below: the row's elements are inside the operands.
        let row = |address: u64, ld: u64| address as usize + at::<O>(block, i, ld, tile.column);
        if block.alpha != 1.0 {
            for v in first.iter_mut().chain(&mut *second) {
                *v *= block.alpha;
            }
        }
        if block.c != 0 {
            // SAFETY: see above.
            unsafe {
                load_d::<F, O>(
                    block,
                    row(block.c, block.ldc),
                    block.ldc,
                    &mut other[..tile.columns],
                )
            };
            for (v, c) in first.iter_mut().zip(&other) {
                *v = block.beta.mul_add(*c, *v);
            }
        }
        if block.bias != 0 {
            for (half, bias) in [&mut *first, &mut *second].into_iter().zip(&bias) {
                for (v, bias) in half.iter_mut().zip(bias) {
                    *v += bias;
                }
            }
        }
        if block.preactivation != 0 {
            for (half, values) in [&*first, &*second].into_iter().enumerate().take(halves) {
                let column = half * block.n as usize + tile.column;
                // SAFETY: see above.
                unsafe {
                    let to = (block.preactivation as *mut T).add(i * block.ldp as usize + column);
                    store::<F, T>(&values[..tile.columns], to, how);
                }
            }
        }
        match block.role {
            params::ROLE_FORWARD if activation != Activation::None => {
                // SAFETY: the form's instructions are there, as the caller promised.
                unsafe { apply::<F>(activation, first) };
            }
            params::ROLE_DERIVATIVE => {
                // SAFETY: see above.
                unsafe {
                    let z = (block.z as *const T).add(i * block.ldz as usize + tile.column);
                    load::<F, T>(z, &mut other[..tile.columns]);
                }
                // SAFETY: as above.
                unsafe { derivative::<F>(activation, &mut other[..width]) };
                for (v, slope) in first.iter_mut().zip(&other) {
                    *v *= slope;
                }
            }
            _ => {}
        }
        if gated {
            for (v, up) in first.iter_mut().zip(&*second) {
                *v *= up;
            }
        }
        if block.residual != 0 {
            // SAFETY: see above.
            unsafe {
                let from = row(block.residual, block.ldr);
                load_d::<F, O>(block, from, block.ldr, &mut other[..tile.columns]);
            }
            for (v, residual) in first.iter_mut().zip(&other) {
                *v += residual;
            }
        }
        // SAFETY: see above.
        unsafe {
            let to = row(block.d, block.ldd);
            if has(params::FLAG_D_TRANSPOSED) {
                for (j, v) in first[..tile.columns].iter().enumerate() {
                    (to as *mut O)
                        .add(j * block.ldd as usize)
                        .write(flushed(O::narrow(*v), flushing));
                }
            } else {
                store::<F, O>(&first[..tile.columns], to as *mut O, how);
            }
        }
    }
    if beyond {
        past::drain();
    }
}

/// Bytes from a matrix's start to element `(i, column)`.
#[inline(always)]
fn at<O: Storage>(block: &Product, i: usize, ld: u64, column: usize) -> usize {
    let transposed = block.flags & params::FLAG_D_TRANSPOSED != 0;
    let ld = ld as usize;
    size_of::<O>() * if transposed { column * ld + i } else { i * ld + column }
}

/// A row of C or the residual, which may be stored transposed like D.
///
/// # Safety
/// The row's elements are inside the operand. Where `F::VECTOR`, inside `F::vectorized`.
#[inline(always)]
unsafe fn load_d<F: Form, O: Storage>(block: &Product, from: usize, ld: u64, to: &mut [f32]) {
    let from = from as *const O;
    if block.flags & params::FLAG_D_TRANSPOSED == 0 {
        // SAFETY: the caller's promise.
        return unsafe { load::<F, O>(from, to) };
    }
    for (j, value) in to.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *value = unsafe { (*from.add(j * ld as usize)).widen() };
    }
}

/// A row of f32 rounded to elements; subnormal ones become zeros where `flushing`. Where `past`, past the caches:
/// [`past::drain`] has to follow.
///
/// # Safety
/// `to` is valid for writes of as many elements as `from` has. Where `F::VECTOR`, inside
/// `F::vectorized`.
#[inline(always)]
pub(super) unsafe fn store<F: Form, T: Storage>(
    from: &[f32],
    to: *mut T,
    (flushing, past): (bool, bool),
) {
    if !flushing {
        // SAFETY: the caller's promise.
        return unsafe { lanes::narrow_all::<F, T>(from, to, past) };
    }
    const AT_ONCE: usize = 32;
    for (i, values) in from.chunks(AT_ONCE).enumerate() {
        let mut flushed = [0.0; AT_ONCE];
        // What rounds up to a normal number stays.
        for (flushed, value) in flushed.iter_mut().zip(values) {
            *flushed = T::narrow(*value).widen();
        }
        flush(&mut flushed, smallest_normal(T::DTYPE));
        // SAFETY: the caller's promise.
        unsafe { lanes::narrow_all::<F, T>(&flushed[..values.len()], to.add(AT_ONCE * i), past) };
    }
}
