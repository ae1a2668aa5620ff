//! The memory of one product as slices, for the reference.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use crate::Storage;
use crate::gemm::reference::{Slices, Term};
use crate::kernel::params::gemm::{self as params, Product};

/// Elements from the first to the last of a matrix.
fn extent(rows: u64, cols: u64, ld: u64) -> usize {
    if rows == 0 || cols == 0 { 0 } else { ((rows - 1) * ld + cols) as usize }
}

/// # Safety
/// As for `super::run`, for this one product.
pub(super) unsafe fn slices<'a, T: Storage, O: Storage>(block: &Product) -> Slices<'a, T, O> {
    let has = |flag: u32| block.flags & flag != 0;
    let Product { m, n, k, .. } = *block;
    let columns = if has(params::FLAG_GATED) { 2 * n } else { n };
    let matrix = |transposed: bool, rows: u64, cols: u64, ld: u64| {
        if transposed { extent(cols, rows, ld) } else { extent(rows, cols, ld) }
    };
    let a_len = |ld: u64| matrix(has(params::FLAG_A_TRANSPOSED), m, k, ld);
    let d_len = |ld: u64| matrix(has(params::FLAG_D_TRANSPOSED), m, n, ld);
    let z_len = match block.role {
        params::ROLE_FUSED_A => a_len(block.ldz),
        _ => extent(m, n, block.ldz),
    };
    // SAFETY: the caller's promise; `extent` is `Footprint::need` (checks.rs) of one member.
    unsafe {
        let term = |address: u64, ld: u64| match address {
            0 => Term::Absent,
            _ if address == block.d => Term::InPlace,
            _ => Term::Own(read(address, d_len(ld))),
        };
        Slices {
            a: read(block.a, a_len(block.lda)),
            b: read(block.b, matrix(has(params::FLAG_B_TRANSPOSED), k, columns, block.ldb)),
            c: term(block.c, block.ldc),
            bias: (block.bias != 0).then(|| read(block.bias, columns as usize)),
            residual: term(block.residual, block.ldr),
            z: (block.z != 0).then(|| read(block.z, z_len)),
            d: write(block.d, d_len(block.ldd)),
            preactivation: (block.preactivation != 0)
                .then(|| write(block.preactivation, extent(m, columns, block.ldp))),
            fused_a: (block.fused_a != 0).then(|| write(block.fused_a, a_len(block.ldf))),
            a_sums: (block.a_sums != 0).then(|| write(block.a_sums, m as usize)),
        }
    }
}

/// # Safety
/// The address is valid for reads of `len` elements.
unsafe fn read<'a, E>(address: u64, len: usize) -> &'a [E] {
    // SAFETY: the caller's promise.
    if len == 0 { &[] } else { unsafe { from_raw_parts(address as *const E, len) } }
}

/// # Safety
/// The address is valid for writes of `len` elements, and nothing else uses them.
unsafe fn write<'a, E>(address: u64, len: usize) -> &'a mut [E] {
    // SAFETY: the caller's promise.
    if len == 0 { &mut [] } else { unsafe { from_raw_parts_mut(address as *mut E, len) } }
}
