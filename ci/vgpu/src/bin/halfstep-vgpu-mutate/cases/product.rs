//! The products of `gemm`: each layout, with what surrounds a product turned on and off, and their sums over
//! parts of k.

use super::{BF16_TYPE, Builder, Case, F16_TYPE, F32_TYPE, Plain, TYPES, around};
use crate::params::Partial;
use crate::params::gemm::*;
use crate::random::Random;

/// Products of each layout.
const CASES: usize = 320;

/// Sums of parts of k.
const COMBINED: usize = 160;

/// Activations by their numbers: none, ReLU, GELU by tanh and by erf, SiLU.
pub const ACTIVATIONS: u32 = 5;

pub fn cases(kernel: &str, ptx: bool) -> Vec<Case> {
    let name = kernel.trim_start_matches("hs_gemm_");
    match name {
        "prepare" | "swiglu_grad" => around::cases(name),
        "combine" => (0..COMBINED).map(combine).collect(),
        _ => {
            let mut parts = name.split('_').skip(1);
            let input = match parts.next() {
                Some("bf16") => BF16_TYPE,
                Some("f16") => F16_TYPE,
                _ => F32_TYPE,
            };
            let layout = parts.next().unwrap_or_default();
            let tile = match parts.next() {
                None => [64, 64],
                Some("256x128") => [256, 128],
                Some("128x256") => [128, 256],
                Some("256x256") => [256, 256],
                Some("128x64") => [128, 64],
                Some(_) => [128, 128],
            };
            let largest = tile[0] + tile[1] > 256;
            // Four waves a tile, but for f32's and the largest; those ask for four stages of 32 steps, 128×64 for three of 64.
            let threads = if ptx && input != F32_TYPE && !largest { 128 } else { 256 };
            let asked = match tile {
                _ if !ptx => 0,
                [128, 64] => 3 * 128 * (128 + 64),
                _ if largest => 4 * 64 * (256 + 128),
                _ => 0,
            };
            // The smallest tile has a loop for aligned operands, too.
            let both = ptx && input != F32_TYPE && tile == [64, 64];
            // Sums that start at steps of their own, on one vendor.
            let rotated = !ptx && input != F32_TYPE;
            let of = |i| product(i, input, layout, tile, threads, (both, rotated));
            (0..CASES).map(|i| of(i).asking(asked)).collect()
        }
    }
}

/// A matrix with rows and room between them.
pub struct Matrix {
    pub at: u64,
    pub ld: usize,
}

/// A product of nothing.
pub fn empty() -> Product {
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
        counts: 0,
        a_sums_counts: 0,
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
        tile: 64 << 16 | 64,
        splits: 1,
    }
}

/// A matrix at an odd multiple of two elements, its rows apart by another.
fn paired(b: &mut Builder, [members, rows, columns]: [usize; 3], ty: u32, odd: bool) -> Matrix {
    let ld = (columns + 2).next_multiple_of(4) + 2;
    let values = b.noise(members * rows * ld, odd);
    Matrix { at: b.values(&values, ty, 2), ld }
}

/// `members` matrices of `rows` × `columns`, one after the other: whole eights apart if `even`, else
/// misaligned by an element.
pub fn matrix(b: &mut Builder, shape: [usize; 3], ty: u32, even: bool, odd: bool) -> Matrix {
    let [members, rows, columns] = shape;
    let ld = if even { columns.next_multiple_of(8) + 8 } else { (columns + 2) | 1 };
    let values = b.noise(members * rows * ld, odd);
    Matrix { at: b.values(&values, ty, usize::from(!even)), ld }
}

/// Elements that one partial is of.
const CHUNK: usize = 16_384;

/// Where the statistics of `len` elements go: partials, and counts of 0.
pub fn statistics(b: &mut Builder, len: usize) -> (u64, u64) {
    let chunks = len.div_ceil(CHUNK);
    (b.room((chunks * size_of::<Partial>()) as u64), b.table(&vec![0_u32; chunks]))
}

/// What a case is drawn from.
type Draw = [usize; 28];

fn draw(random: &mut Random) -> Draw {
    std::array::from_fn(|_| random.below(2520) as usize)
}

/// The `i`-th product of a layout, drawn from its number: sizes with tails of every length, each
/// activation in each role, each type of what is added and stored, aligned to eights, to pairs and not at
/// all; k in parts now and then, some of them empty.
fn product(
    i: usize,
    ty: u32,
    layout: &str,
    [rows, columns]: [usize; 2],
    threads: u32,
    (both, rotated): (bool, bool),
) -> Case {
    let large = rows > 64;
    let b = &mut Builder::default();
    let mut random = Random::of(layout, i as u64);
    let draw = draw(&mut random);
    let mut below = |n: u64| random.below(n) as usize;
    let (ta, tb) = (layout.starts_with('t'), layout.ends_with('t'));
    let gated = draw[0] % 5 == 1;
    let even = large || draw[5] % 3 == 1;
    let copied = both && even;
    // Now and then a second tile each way; several steps of k and a tail, of eight if large.
    let eights = large || copied && gated;
    let whole = |n: usize| if eights { n.next_multiple_of(8) } else { n };
    let (m, n) = match i % 6 {
        0 => (rows + 1 + below(8), columns + 1 + below(8)),
        // All chunks of a tile have rows.
        1 | 2 => (rows - below(24), 9 + below(columns as u64 - 8)),
        // Of eight columns, only the first are there.
        3 => (1 + below(40), 1 + below(3)),
        _ => (1 + below(40), 1 + below(40)),
    };
    // Beyond as many steps of 32 as there are stages and one, the loop of copies runs twice where nothing is missing.
    let stages =
        if copied || rows + columns == 192 { 6 } else { 3 + usize::from(rows + columns > 256) };
    let long = if large || copied { 32 * stages + 39 + 16 * (i / 12 % 2) } else { 71 };
    // Columns of the second 256 too, whose sums start at the fifth step.
    let rotated = rotated && i % 20 == 8;
    let (m, n, k) = match rotated {
        true => (m, if gated { 266 } else { 257 + below(40) }, 256 + below(48)),
        false => (m, n, [long, 5, 33, 1][i % 4] + below(8)),
    };
    // Sums of A, now and then of more steps than are taken side by side.
    let sums = ta && draw[18] % 3 == 1;
    let k = if sums && i % 20 == 3 { 2060 + below(16) } else { k };
    let (m, n, k) = (whole(m), whole(n), whole(k));
    let cuts_k = draw[1] % 7 == 2 && ta && !tb && !gated;
    // So many sums that several waves have some of a chunk.
    let many = ta && !tb && !gated && sums && i % 18 == 1;
    let cuts_k = cuts_k || many;
    let groups = match draw[2] % 7 == 4 && !ta {
        _ if many => 9,
        grouped if grouped || cuts_k => 3,
        _ => 0,
    };
    let batch = if groups == 0 && draw[3].is_multiple_of(3) && !sums { 2 } else { 1 };
    let splits = match (ty, draw[3] % 9) {
        (BF16_TYPE | F16_TYPE, 4) if groups == 0 => 2 + draw[19] as u32 % 3,
        _ => 1,
    };
    // Statistics, now and then of more than a chunk.
    let counted = ta && !gated && batch == 1 && draw[2] % 3 == 1;
    let n = if counted && !large && i % 12 == 6 { 248 } else { n };
    let columns = if gated { 2 * n } else { n };
    let members = groups.max(batch);
    let a_shape = if ta { [batch, k, m] } else { [batch, m, k] };
    let b_members = if cuts_k { 1 } else { members };
    let b_shape = if tb { [b_members, columns, k] } else { [b_members, k, columns] };
    // Factors that are f16 in memory.
    let through = ty == BF16_TYPE && !large && draw[26] % 7 == 3;
    let stored = if through { F16_TYPE } else { ty };
    // Aligned to 4 bytes, where the loop for aligned operands takes them.
    let pairs = (large || copied) && i % 5 == 2;
    let operand = |b: &mut Builder, shape, odd| match pairs {
        true => paired(b, shape, stored, odd),
        false => matrix(b, shape, stored, even, odd),
    };
    let a = operand(b, a_shape, draw[6] % 6 == 5);
    let y = operand(b, b_shape, draw[6] % 6 == 4);
    let mut p = empty();
    (p.a, p.lda, p.stride_a) = (a.at, a.ld as u64, (a_shape[1] * a.ld) as u64);
    (p.b, p.ldb, p.stride_b) = (y.at, y.ld as u64, (b_shape[1] * y.ld) as u64);
    (p.m, p.n, p.k) = (m as u64, n as u64, k as u64);
    (p.batch, p.groups, p.splits) = (batch as u64, groups as u64, splits);
    p.tile = (rows as u32) << 16 | columns as u32;
    p.flags = u32::from(ta) * FLAG_A_TRANSPOSED + u32::from(tb) * FLAG_B_TRANSPOSED;
    p.flags |= u32::from(gated) * FLAG_GATED + u32::from(cuts_k) * FLAG_GROUPS_CUT_K;
    p.flags |= u32::from(rotated) * FLAG_ROTATED + u32::from(through) * FLAG_THROUGH_BF16;
    p.flags |= u32::from(pairs) * FLAG_PAIRS;
    if groups > 0 {
        let end = if cuts_k { k } else { m } as u32;
        // An empty one; ends before the start, and behind what there is.
        let ends = match draw[23] % 3 {
            _ if many => (1..=9).map(|g| end * g / 9).collect(),
            0 => vec![end / 2, end / 3, end + 7],
            1 => vec![end + 1, end, end / 2],
            _ => vec![end / 3, end / 3, end],
        };
        p.group_ends = b.table(&ends);
        p.stride_a = 0;
        p.stride_b *= u64::from(!cuts_k);
    }
    // Of one member only, what is around the product may have a type of its own.
    let own = groups == 0 && batch == 1 && splits == 1;
    p.input = if own && !through && !sums { TYPES[draw[27] % 3] } else { stored };
    p.output = [F32_TYPE, BF16_TYPE, F16_TYPE, ty][draw[4] % 4];
    if counted {
        (p.partials, p.counts) = statistics(b, members * m * n);
    }
    surround(b, &mut p, &draw, !large && splits == 1 && !sums);
    if copied && !through && p.role != ROLE_FUSED_A && p.flags & FLAG_FLUSH == 0 {
        p.flags |= FLAG_ALIGNED;
    }
    if p.role == ROLE_FUSED_A {
        // Lies as A does.
        let z = matrix(b, a_shape, stored, true, draw[20] % 4 == 1);
        (p.z, p.ldz) = (z.at, z.ld as u64);
        p.stride_z = if batch > 1 { (a_shape[1] * z.ld) as u64 } else { 0 };
    }
    if splits > 1 {
        p.workspace = b.room_for(splits as usize * m * columns, F32_TYPE, 0);
    }
    let strips = if sums { m.div_ceil(32) as u32 } else { 0 };
    if sums {
        let values = b.noise(groups.max(1) * m, many);
        p.a_sums = b.values(&values, p.output, draw[14] % 2);
        p.flags |= u32::from(draw[16] % 2 == 1) * FLAG_ADD_A_SUMS;
        if draw[15] % 2 == 1 || many {
            (p.a_sums_partials, p.a_sums_counts) = statistics(b, groups.max(1) * m);
        }
    }
    // Never more blocks than there are tiles: nothing launches them.
    let tiles = m.div_ceil(rows) as u32 * batch as u32 * splits;
    std::mem::take(b).launch([tiles.min(2 * splits) + strips.min(2), 1, 1], threads, p.bytes())
}

/// What is added to a product, what it goes through, and where it is stored; `fused` if A's own derivative may be
/// what it goes through.
fn surround(b: &mut Builder, p: &mut Product, draw: &Draw, fused: bool) {
    let (m, n) = (p.m as usize, p.n as usize);
    let gated = p.flags & FLAG_GATED != 0;
    let columns = if gated { 2 * n } else { n };
    let cuts_k = p.flags & FLAG_GROUPS_CUT_K != 0;
    let members = p.groups.max(p.batch) as usize;
    let (input, output) = (p.input, p.output);
    p.flags |= u32::from(draw[7] % 4 == 3) * FLAG_FLUSH;
    // Where subnormals are flushed, results are among them.
    let small = p.flags & FLAG_FLUSH != 0 && draw[8].is_multiple_of(2);
    let tiny = if p.output == BF16_TYPE { 3e-39 } else { 1e-6 };
    p.alpha = if small { tiny } else { [1.0, 0.75, 0.75][draw[8] % 3] };
    p.activation = draw[26] as u32 % ACTIVATIONS;
    // By groups of rows as a whole, by members one after the other.
    let copies = if p.groups > 0 && !cuts_k { 1 } else { members };
    let stride = |rows: usize, ld: usize| if copies > 1 { (rows * ld) as u64 } else { 0 };
    let add = |b: &mut Builder, columns: usize, ty: u32, even: bool| {
        let x = matrix(b, [copies, m, columns], ty, even, draw[9] % 3 == 2);
        (x.at, x.ld as u64, stride(m, x.ld))
    };
    let transposed = draw[10] % 7 == 2 && !gated && (p.groups == 0 || cuts_k);
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
        if fused && draw[19] % 6 > 1 {
            p.role = ROLE_FUSED_A;
        } else {
            p.role = ROLE_DERIVATIVE;
            (p.z, p.ldz, p.stride_z) = add(b, n, input, draw[18] % 4 == 1);
        }
    }
    let (rows, wide) = if transposed { (n, m) } else { (m, n) };
    let dense = p.partials != 0;
    if transposed {
        // Added to in place.
        p.flags |= FLAG_D_TRANSPOSED;
        p.beta = if small { tiny } else { 0.5 };
        let d = if dense {
            let values = b.noise(copies * rows * wide, false);
            Matrix { at: b.values(&values, output, draw[21] % 2), ld: wide }
        } else {
            matrix(b, [copies, rows, wide], output, draw[21].is_multiple_of(2), false)
        };
        (p.d, p.ldd, p.stride_d) = (d.at, d.ld as u64, stride(rows, d.ld));
        (p.c, p.ldc, p.stride_c) = (p.d, p.ldd, p.stride_d);
    } else {
        if draw[22].is_multiple_of(3) {
            p.beta = -0.5;
            (p.c, p.ldc, p.stride_c) = add(b, n, output, draw[23].is_multiple_of(2));
        }
        let ld = match draw[24] % 4 {
            _ if dense => wide,
            0 | 1 => wide.next_multiple_of(8),
            _ => (wide + 1) | 1,
        };
        p.d = b.room_for(copies * rows * ld, output, usize::from(draw[25] % 4 > 1));
        (p.ldd, p.stride_d) = (ld as u64, stride(rows, ld));
    }
    if draw[13] % 4 == 1 {
        p.copy_type = TYPES[draw[12] % 3];
        p.copy = b.room_for(copies * rows * p.ldd as usize, p.copy_type, draw[15] % 2);
    }
}

/// The sums of parts of k, two to five, and what surrounds them: blocks with nothing to do, with one eight a thread
/// and with more.
fn combine(i: usize) -> Case {
    let mut b = Builder::default();
    let mut random = Random::of("combine", i as u64);
    let draw = draw(&mut random);
    let mut below = |n: u64| random.below(n) as usize;
    let mut p = empty();
    let (m, n) = match i % 6 {
        0 if i % 12 == 6 => (64, 257 + below(7)),
        0 => (65 + below(8), 65 + below(8)),
        1 => (1, 16 * (1 + below(3))),
        _ => (1 + below(40), 1 + below(40)),
    };
    (p.m, p.n, p.k) = (m as u64, n as u64, 1000);
    p.splits = 2 + i as u32 % 4;
    (p.input, p.output) = (TYPES[draw[27] % 3], TYPES[draw[4] % 3]);
    let gated = draw[0] % 5 == 1;
    p.flags = u32::from(gated) * FLAG_GATED;
    if !gated && draw[2] % 3 == 1 {
        (p.partials, p.counts) = statistics(&mut b, m * n);
    }
    surround(&mut b, &mut p, &draw, false);
    let columns = if gated { 2 * n } else { n };
    let parts = b.noise(p.splits as usize * m * columns, draw[1] % 4 == 3);
    p.workspace = b.values(&parts, F32_TYPE, 0);
    b.launch([2, 1, 1], 256, p.bytes())
}
