//! The kernels of `gemm` before and after a product, and beside it.

use super::product::{ACTIVATIONS, empty, matrix, statistics};
use super::{Builder, Case, Plain, TYPES};
use crate::params::gemm::*;

pub fn cases(name: &str) -> Vec<Case> {
    match name {
        "prepare" => (0..48).map(prepare).collect(),
        _ => (0..45).map(swiglu_grad).collect(),
    }
}

/// Columns beyond a block's 32, steps beyond a round of 8 × 256 where sums are wanted; now and then their statistics.
fn prepare(i: usize) -> Case {
    let mut b = Builder::default();
    let (turn, i) = (i / 6, i % 6);
    let input = TYPES[(i + turn) % 3];
    let sums = i != 1 && i != 4;
    let groups = if matches!(i, 2 | 4 | 5) { 3 } else { 0 };
    // As it is stored: sums are over the rows.
    let (rows, columns) = match (sums, turn) {
        (true, 5 | 7) => (2, 16_400), // statistics of two chunks
        (true, _) => ([2309, 300, 610][i % 3], 37),
        (false, _) => (70, 45),
    };
    let a = matrix(&mut b, [1, rows, columns], input, i.is_multiple_of(2), i == 3);
    let z = matrix(&mut b, [1, rows, columns], input, i.is_multiple_of(2), i == 3);
    let mut p = empty();
    (p.a, p.lda, p.z, p.ldz) = (a.at, a.ld as u64, z.at, z.ld as u64);
    (p.input, p.groups) = (input, groups);
    (p.m, p.k) = if sums { (columns as u64, rows as u64) } else { (rows as u64, columns as u64) };
    p.role = if i == 0 { ROLE_FORWARD } else { ROLE_FUSED_A };
    p.activation = (i + turn + 1) as u32 % ACTIVATIONS;
    if sums {
        p.flags |= FLAG_A_TRANSPOSED;
        let values = b.noise(columns * groups.max(1) as usize, turn > 5);
        p.output = TYPES[(i + 2 * turn) % 3];
        p.a_sums = b.values(&values, p.output, turn % 4 / 2);
        if turn % 2 == 1 {
            (p.a_sums_partials, p.a_sums_counts) = statistics(&mut b, values.len());
        }
    }
    if groups > 0 {
        p.flags |= FLAG_GROUPS_CUT_K;
        p.group_ends = b.table(&[7_u32, 300, rows as u32]);
    }
    p.flags |= u32::from(i.is_multiple_of(2)) * FLAG_ADD_A_SUMS
        + u32::from(i % 3 != 2 && i > 2) * FLAG_FLUSH;
    if i != 0 {
        p.ldf = (columns + 3) as u64;
        p.fused_a = b.room_for(rows * (columns + 3), input, i % 2);
    }
    b.launch([3, 1, 1], 256, p.bytes())
}

fn swiglu_grad(i: usize) -> Case {
    let mut b = Builder::default();
    let (turn, i) = (i / 9, i % 9);
    let input = TYPES[(i + turn) % 3];
    let (rows, n) =
        [(9, 77), (40, 64), (3, 5), (67, 33), (5, 130), (3, 7), (2, 15), (4, 23), (2, 17)][i];
    let even = i % 2 == 1;
    let dy = matrix(&mut b, [1, rows, n], input, even, true);
    let z = matrix(&mut b, [1, rows, 2 * n], input, even, true);
    let ldd = 2 * n + if even { 8 } else { 3 };
    let p = SwigluGrad {
        dy: dy.at,
        z: z.at,
        dz: b.room_for(rows * ldd, input, usize::from(!even)),
        ldy: dy.ld as u64,
        ldz: z.ld as u64,
        ldd: ldd as u64,
        rows: rows as u64,
        n: n as u64,
        input,
        activation: [4, 2, 1, 3, 0][(i + turn) % 5],
        flags: u32::from(i == 3) * FLAG_FLUSH,
        padding: 0,
    };
    b.launch([1, 1, 1], 256, p.bytes())
}
