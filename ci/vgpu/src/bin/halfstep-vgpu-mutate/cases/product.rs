//! The kernels of `gemm`: each layout, with what surrounds a product turned on and off.

use super::{BF16_TYPE, Builder, Case, F16_TYPE, F32_TYPE, Plain, TYPES};
use crate::params::Partial;
use crate::params::gemm::*;
use crate::random::Random;

/// Products of each layout.
const CASES: usize = 140;

/// Activations by their numbers: none, ReLU, GELU by tanh and by erf, SiLU.
const ACTIVATIONS: u32 = 5;

pub fn cases(kernel: &str, ptx: bool) -> Vec<Case> {
    let name = kernel.trim_start_matches("hs_gemm_");
    match name {
        "prepare" => (0..6).map(prepare).collect(),
        "finish" => (0..8).map(finish).collect(),
        "swiglu_grad" => (0..9).map(swiglu_grad).collect(),
        _ => {
            let mut parts = name.split('_').skip(1);
            let input = match parts.next() {
                Some("bf16") => BF16_TYPE,
                Some("f16") => F16_TYPE,
                _ => F32_TYPE,
            };
            let layout = parts.next().unwrap_or_default();
            let large = parts.next().is_some();
            // Four waves a tile, but for f32's.
            let threads = if ptx && input != F32_TYPE { 128 } else { 256 };
            (0..CASES).map(|i| product(i, input, layout, large, threads)).collect()
        }
    }
}

/// A matrix with rows and room between them.
struct Matrix {
    at: u64,
    ld: usize,
}

/// A product of nothing.
fn empty() -> Product {
    Product {
        a: 0,
        b: 0,
        c: 0,
        bias: 0,
        residual: 0,
        z: 0,
        group_ends: 0,
        d: 0,
        preactivation: 0,
        fused_a: 0,
        a_sums: 0,
        copy: 0,
        partials: 0,
        a_sums_partials: 0,
        workspace: 0,
        lda: 0,
        ldb: 0,
        ldc: 0,
        ldr: 0,
        ldz: 0,
        ldd: 0,
        ldp: 0,
        ldf: 0,
        stride_a: 0,
        stride_b: 0,
        stride_c: 0,
        stride_bias: 0,
        stride_residual: 0,
        stride_z: 0,
        stride_d: 0,
        stride_preactivation: 0,
        m: 0,
        n: 0,
        k: 0,
        batch: 1,
        groups: 0,
        tensor: 3,
        a_sums_tensor: 5,
        alpha: 1.0,
        beta: 0.0,
        input: 0,
        output: 0,
        copy_type: 0,
        activation: 0,
        role: ROLE_FORWARD,
        flags: 0,
        tile: 64,
        splits: 1,
    }
}

/// `members` matrices of `rows` × `columns`, one after the other: whole eights apart if `even`, else
/// misaligned by an element.
fn matrix(b: &mut Builder, shape: [usize; 3], ty: u32, even: bool, odd: bool) -> Matrix {
    let [members, rows, columns] = shape;
    let ld = if even { columns.next_multiple_of(8) + 8 } else { (columns + 2) | 1 };
    let values = b.noise(members * rows * ld, odd);
    Matrix { at: b.values(&values, ty, usize::from(!even)), ld }
}

/// The `i`-th product of a layout, drawn from its number: sizes with tails of every length, each
/// activation in each role, each type of what is added and stored, aligned to eights, to pairs and not at
/// all.
fn product(i: usize, ty: u32, layout: &str, large: bool, threads: u32) -> Case {
    let b = &mut Builder::default();
    let mut random = Random::of(layout, i as u64);
    let mut below = |n: u64| random.below(n) as usize;
    let draw: [usize; 28] = std::array::from_fn(|_| below(2520));
    let (ta, tb) = (layout.starts_with('t'), layout.ends_with('t'));
    // Now and then a second tile each way; several steps of k and a tail, of eight if large.
    let tile = if large { 128 } else { 64 };
    let whole = |n: usize| if large { n.next_multiple_of(8) } else { n };
    let (m, n) = match i % 6 {
        0 => (tile + 1 + below(8), tile + 1 + below(8)),
        _ => (1 + below(40), 1 + below(40)),
    };
    // Beyond four steps of 32, the large loop runs twice where nothing is missing.
    let long = if large { 135 + 16 * (i / 12 % 2) } else { 71 };
    let (m, n, k) = (whole(m), whole(n), whole([long, 5, 33, 1][i % 4] + below(8)));
    let gated = draw[0] % 5 == 1;
    let cuts_k = draw[1] % 7 == 2 && ta && !tb && !large && !gated;
    let groups = if cuts_k || draw[2] % 7 == 4 && !ta { 3 } else { 0 };
    let batch = if groups == 0 && draw[3].is_multiple_of(3) { 2 } else { 1 };
    let output = [F32_TYPE, BF16_TYPE, F16_TYPE, ty][draw[4] % 4];
    // Of one member only, what is around the product may have a type of its own.
    let input = if groups == 0 && batch == 1 { TYPES[draw[27] % 3] } else { ty };
    let columns = if gated { 2 * n } else { n };
    let members = groups.max(batch);
    let a_shape = if ta { [batch, k, m] } else { [batch, m, k] };
    let b_members = if cuts_k { 1 } else { members };
    let b_shape = if tb { [b_members, columns, k] } else { [b_members, k, columns] };
    let even = large || draw[5] % 3 == 1;
    let a = matrix(b, a_shape, ty, even, draw[6] % 6 == 5);
    let y = matrix(b, b_shape, ty, even, false);
    let mut p = empty();
    (p.a, p.lda, p.stride_a) = (a.at, a.ld as u64, (a_shape[1] * a.ld) as u64);
    (p.b, p.ldb, p.stride_b) = (y.at, y.ld as u64, (b_shape[1] * y.ld) as u64);
    (p.m, p.n, p.k) = (m as u64, n as u64, k as u64);
    (p.batch, p.groups) = (batch as u64, groups as u64);
    (p.input, p.output, p.tile) = (input, output, if large { 128 } else { 64 });
    p.flags = u32::from(ta) * FLAG_A_TRANSPOSED + u32::from(tb) * FLAG_B_TRANSPOSED;
    p.flags |= u32::from(gated) * FLAG_GATED + u32::from(cuts_k) * FLAG_GROUPS_CUT_K;
    p.flags |= u32::from(draw[7] % 4 == 3) * FLAG_FLUSH;
    if groups > 0 {
        let end = if cuts_k { k } else { m } as u32;
        p.group_ends = b.table(&[end / 3, end / 3, end]);
        p.stride_a = 0;
        p.stride_b *= u64::from(!cuts_k);
    }
    p.alpha = if draw[8] % 6 == 4 { 1.0 } else { 0.75 };
    p.activation = draw[26] as u32 % ACTIVATIONS;
    // By groups of rows as a whole, by members one after the other.
    let copies = if groups > 0 && !cuts_k { 1 } else { members };
    let stride = |rows: usize, ld: usize| if copies > 1 { (rows * ld) as u64 } else { 0 };
    let add = |b: &mut Builder, columns: usize, ty: u32, even: bool| {
        let x = matrix(b, [copies, m, columns], ty, even, draw[9] % 3 == 2);
        (x.at, x.ld as u64, stride(m, x.ld))
    };
    let transposed = draw[10] % 7 == 2 && !gated && (groups == 0 || cuts_k);
    if !transposed && draw[11].is_multiple_of(2) {
        (p.residual, p.ldr, p.stride_residual) = add(b, n, output, draw[12].is_multiple_of(4));
        let bias = b.noise(members * columns, false);
        (p.bias, p.stride_bias) = (b.values(&bias, input, draw[13] % 3), columns as u64);
    }
    if !transposed && (gated || draw[14] % 3 == 2) {
        let ld = if draw[15].is_multiple_of(2) { columns.next_multiple_of(8) } else { columns | 1 };
        p.preactivation = b.room_for(copies * m * ld, input, draw[16] % 2);
        (p.ldp, p.stride_preactivation) = (ld as u64, stride(m, ld));
    }
    if !transposed && !gated && draw[17] % 2 == 1 {
        p.role = ROLE_DERIVATIVE;
        (p.z, p.ldz, p.stride_z) = add(b, n, input, draw[18] % 4 == 1);
        if !large && draw[19] % 6 > 2 {
            // A's own derivative instead, which lies as A does.
            let z = matrix(b, a_shape, ty, true, draw[20] % 4 == 1);
            (p.role, p.z, p.ldz) = (ROLE_FUSED_A, z.at, z.ld as u64);
            p.stride_z = if batch > 1 { (a_shape[1] * z.ld) as u64 } else { 0 };
        }
    }
    let (rows, wide) = if transposed { (n, m) } else { (m, n) };
    if transposed {
        // Added to in place.
        p.flags |= FLAG_D_TRANSPOSED;
        p.beta = 0.5;
        let d = matrix(b, [copies, rows, wide], output, draw[21].is_multiple_of(2), false);
        (p.d, p.ldd, p.stride_d) = (d.at, d.ld as u64, stride(rows, d.ld));
        (p.c, p.ldc, p.stride_c) = (p.d, p.ldd, p.stride_d);
    } else {
        if draw[22].is_multiple_of(3) {
            p.beta = -0.5;
            (p.c, p.ldc, p.stride_c) = add(b, n, output, draw[23].is_multiple_of(2));
        }
        let ld = if draw[24] % 4 < 2 { wide.next_multiple_of(8) } else { (wide + 1) | 1 };
        p.d = b.room_for(copies * rows * ld, output, usize::from(draw[25] % 4 > 1));
        (p.ldd, p.stride_d) = (ld as u64, stride(rows, ld));
    }
    // Never more blocks than there are tiles: nothing launches them.
    let tiles = m.div_ceil(if large { 128 } else { 64 }) * batch;
    std::mem::take(b).launch([tiles.min(2) as u32, 1, 1], threads, p.bytes())
}

/// Columns beyond a block's 32, steps beyond a round of 8 × 256 where sums are wanted.
fn prepare(i: usize) -> Case {
    let mut b = Builder::default();
    let input = TYPES[i % 3];
    let sums = i != 1 && i != 4;
    let groups = if i == 2 || i == 5 { 3 } else { 0 };
    // As it is stored: sums are over the rows.
    let (rows, columns) = if sums { ([2309, 300, 610][i % 3], 37) } else { (70, 45) };
    let a = matrix(&mut b, [1, rows, columns], input, i.is_multiple_of(2), i == 3);
    let z = matrix(&mut b, [1, rows, columns], input, i.is_multiple_of(2), i == 3);
    let mut p = empty();
    (p.a, p.lda, p.z, p.ldz) = (a.at, a.ld as u64, z.at, z.ld as u64);
    (p.input, p.groups) = (input, groups);
    (p.m, p.k) = if sums { (columns as u64, rows as u64) } else { (rows as u64, columns as u64) };
    p.role = if i == 0 { ROLE_FORWARD } else { ROLE_FUSED_A };
    p.activation = (i as u32 + 1) % ACTIVATIONS;
    if sums {
        p.flags |= FLAG_A_TRANSPOSED;
        let values = b.noise(columns * groups.max(1) as usize, false);
        p.a_sums = b.values(&values, F32_TYPE, 0);
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

/// More than a piece of 16,384 elements, tails, what is not finite, the ways of leaving things out.
fn finish(i: usize) -> Case {
    let mut b = Builder::default();
    let mut p = empty();
    let (m, n) =
        [(131, 127), (33, 250), (7, 3), (129, 255), (300, 1), (5, 3), (7, 9), (131, 254)][i];
    (p.m, p.n, p.k) = (m as u64, n as u64, 1);
    p.groups = u64::from(i == 3) * 2;
    let members = if i == 3 { 2 } else { 1 };
    let d = b.noise(members * m * n, i != 1);
    // Without partials of D, and more chunks of it than blocks.
    let partials = i != 1 && i != 7;
    p.d = b.values(&d, F32_TYPE, 0);
    p.copy_type = TYPES[i % 3];
    if i != 4 {
        p.copy = b.room_for(members * m * n, TYPES[i % 3], i % 2);
    }
    let room =
        |b: &mut Builder, len: usize| b.room((len.div_ceil(16_384) * size_of::<Partial>()) as u64);
    if partials {
        p.partials = room(&mut b, members * m * n);
    }
    if i != 2 {
        let sums = b.noise(members * m, i == 4);
        p.a_sums = b.values(&sums, F32_TYPE, 0);
        p.a_sums_partials = room(&mut b, members * m);
    }
    b.launch([2, 1, 1], 256, p.bytes())
}

fn swiglu_grad(i: usize) -> Case {
    let mut b = Builder::default();
    let input = TYPES[i % 3];
    let (rows, n) =
        [(9, 77), (40, 64), (3, 5), (67, 33), (5, 130), (3, 7), (2, 15), (4, 23), (2, 16)][i];
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
        activation: [4, 2, 1, 3, 0][i % 5],
        flags: u32::from(i == 3) * FLAG_FLUSH,
        padding: 0,
    };
    b.launch([1, 1, 1], 256, p.bytes())
}
