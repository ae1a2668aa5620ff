//! Matrix products, all lanes of a wave together, whatever exec says.
//!
//! With g = lane / rows, a lane's elements of A are those of row `lane % rows` from depth
//! `g % groups · elements` on, in block `g / groups`; B has columns in place of rows. A lane's results
//! are of column `lane % columns`; registers go down four rows at a time, then lane groups do, then
//! registers again. Several blocks may share one's A (CBSZ and ABID); patterns of B's lanes (BLGP) are not known.
//!
//! What is rounded where is not in the manuals; it is as MMA-Sim found it, bit for bit, on MI200 (arXiv 2511.10909, and
//! its code). f32 factors are one chain of fused multiply-adds, rounded to nearest even, with subnormals. Of 16-bit factors
//! the products of a lane's elements are added in pairs, then the pairs, then their sum to the accumulator; each step is
//! rounded to nearest even, and a subnormal is 0: of its sign where it is a result, +0 where it is a factor or the
//! accumulator that comes in.

use super::float::flush;
use super::map::Act;
use super::wave::{LANES, Vector, Wave};
use crate::gfx::decode::{Instruction, Operand};
use crate::number::{bf16_to_f32, f16_to_f32};

/// What factors are.
const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    Some(match name {
        "v_mfma_f32_32x32x8bf16_1k" => product::<32, 32, 8, 1, BF16, 4>,
        "v_mfma_f32_16x16x16bf16_1k" => product::<16, 16, 16, 1, BF16, 4>,
        "v_mfma_f32_32x32x4bf16_1k" => product::<32, 32, 4, 2, BF16, 4>,
        "v_mfma_f32_16x16x4bf16_1k" => product::<16, 16, 4, 4, BF16, 4>,
        "v_mfma_f32_4x4x4bf16_1k" => product::<4, 4, 4, 16, BF16, 4>,
        "v_mfma_f32_32x32x8f16" => product::<32, 32, 8, 1, F16, 4>,
        "v_mfma_f32_16x16x16f16" => product::<16, 16, 16, 1, F16, 4>,
        "v_mfma_f32_32x32x4f16" => product::<32, 32, 4, 2, F16, 4>,
        "v_mfma_f32_16x16x4f16" => product::<16, 16, 4, 4, F16, 4>,
        "v_mfma_f32_4x4x4f16" => product::<4, 4, 4, 16, F16, 4>,
        "v_mfma_f32_32x32x4bf16" => product::<32, 32, 4, 1, BF16, 2>,
        "v_mfma_f32_16x16x8bf16" => product::<16, 16, 8, 1, BF16, 2>,
        "v_mfma_f32_32x32x2bf16" => product::<32, 32, 2, 2, BF16, 2>,
        "v_mfma_f32_16x16x2bf16" => product::<16, 16, 2, 4, BF16, 2>,
        "v_mfma_f32_4x4x2bf16" => product::<4, 4, 2, 16, BF16, 2>,
        "v_mfma_f32_32x32x2f32" => product::<32, 32, 2, 1, F32, 1>,
        "v_mfma_f32_16x16x4f32" => product::<16, 16, 4, 1, F32, 1>,
        "v_mfma_f32_32x32x1f32" => product::<32, 32, 1, 2, F32, 1>,
        "v_mfma_f32_16x16x1f32" => product::<16, 16, 1, 4, F32, 1>,
        "v_mfma_f32_4x4x1f32" => product::<4, 4, 1, 16, F32, 1>,
        "v_mfma_f64_16x16x4f64" => double_product,
        _ => return None,
    })
}

/// Most elements of a factor: four of each lane.
const MOST: usize = 4 * LANES;

/// One factor: by block and depth, all rows (or columns) side by side; and where it is undefined.
struct Factor {
    value: [f32; MOST],
    /// By block and row.
    undefined: [bool; LANES],
    any_undefined: bool,
}

/// Where a lane's first element is: block, row, depth.
fn place(lane: usize, rows: usize, depth: usize, elements: usize) -> (usize, usize, usize) {
    let (group, groups) = (lane / rows, depth / elements);
    (group / groups, lane % rows, group % groups * elements)
}

fn factor<const ROWS: usize, const K: usize, const KIND: u8, const PER: usize>(
    w: &Wave,
    i: &Instruction,
    n: usize,
) -> Factor {
    let mut f = Factor { value: [0.0; MOST], undefined: [false; LANES], any_undefined: false };
    let widen = |bits: u32| match KIND {
        F32 => f32::from_bits(bits),
        F16 if bits & 0x7c00 == 0 => 0.0,
        F16 => f16_to_f32(bits as u16),
        _ if bits & 0x7f80 == 0 => 0.0,
        _ => bf16_to_f32(bits as u16),
    };
    let per_word = if KIND == F32 { 1 } else { 2 };
    for word in 0..PER.div_ceil(per_word) {
        let (bits, tainted) = w.raw(i.src[n].operand, word as u16);
        for (lane, bits) in bits.into_iter().enumerate() {
            let (block, row, k) = place(lane, ROWS, K, PER);
            for half in 0..per_word {
                let e = per_word * word + half;
                f.value[(block * K + k + e) * ROWS + row] = widen(bits >> (16 * half) & mask(KIND));
            }
            if tainted >> lane & 1 == 1 {
                f.undefined[block * ROWS + row] = true;
                f.any_undefined = true;
            }
        }
    }
    f
}

fn mask(kind: u8) -> u32 {
    if kind == F32 { u32::MAX } else { 0xffff }
}

/// Row and block of a register's results in a group of lanes.
fn result_place(register: usize, group: usize, rows: usize, columns: usize) -> (usize, usize) {
    let groups = LANES / columns;
    if 4 * groups > rows {
        // Four rows are a whole block: blocks lie side by side in the lanes.
        return (register, group);
    }
    let per_block = rows * columns / LANES;
    let (block, r) = (register / per_block, register % per_block);
    (r / 4 * 4 * groups + 4 * group + r % 4, block)
}

fn product<
    const M: usize,
    const N: usize,
    const K: usize,
    const BLOCKS: usize,
    const KIND: u8,
    const PER: usize,
>(
    w: &mut Wave,
    i: &Instruction,
) {
    let a = factor::<M, K, KIND, PER>(w, i, 0);
    let b = factor::<N, K, KIND, PER>(w, i, 1);
    let narrow = KIND != F32;
    let registers = M * N * BLOCKS / LANES;
    let mut out: Vec<(Vector, u64)> = Vec::with_capacity(registers);
    for register in 0..registers {
        let (c, mut tainted) = match i.src[2].operand {
            Operand::Vector(n) => {
                let slot = w.slot(n) + register;
                (w.vector[slot], w.tainted[slot])
            }
            operand => w.raw(operand, 0),
        };
        let mut d = [0; LANES];
        for group in 0..LANES / N {
            let (row, block) = result_place(register, group, M, N);
            let of_a = i.broadcast.of(block);
            let at = group * N;
            let mut sum: [f32; N] = std::array::from_fn(|j| f32::from_bits(c[at + j]));
            let x = |k: usize| a.value[(of_a * K + k) * M + row];
            let y = |k: usize| -> &[f32; N] {
                b.value[(block * K + k) * N..][..N].try_into().expect("a row of B")
            };
            if narrow {
                sum.iter_mut()
                    .for_each(|x| *x = if x.abs() < f32::MIN_POSITIVE { 0.0 } else { *x });
                for k in (0..K).step_by(PER) {
                    let (x, y): ([f32; PER], [_; PER]) =
                        (std::array::from_fn(|e| x(k + e)), std::array::from_fn(|e| y(k + e)));
                    for (j, sum) in sum.iter_mut().enumerate() {
                        let products = std::array::from_fn(|e| z(x[e] * y[e][j]));
                        *sum = z(*sum + pairwise::<PER>(products));
                    }
                }
            } else {
                for k in 0..K {
                    sum.iter_mut().zip(y(k)).for_each(|(sum, y)| *sum = x(k).mul_add(*y, *sum));
                }
            }
            for j in 0..N {
                d[at + j] = sum[j].to_bits();
            }
            if a.any_undefined || b.any_undefined {
                for j in 0..N {
                    let undefined = a.undefined[of_a * M + row] || b.undefined[block * N + j];
                    tainted |= u64::from(undefined) << (at + j);
                }
            }
        }
        out.push((d, tainted));
    }
    write(w, i, &out);
}

/// A result, or the zero of its sign in place of a subnormal.
fn z(x: f32) -> f32 {
    f32::from_bits(flush(x.to_bits()))
}

/// The sum of two or four.
fn pairwise<const N: usize>(x: [f32; N]) -> f32 {
    let first = z(x[0] + x[1]);
    if N == 2 { first } else { z(first + z(x[2] + x[3])) }
}

fn write(w: &mut Wave, i: &Instruction, out: &[(Vector, u64)]) {
    let Operand::Vector(n) = i.dst else { return };
    let slot = w.slot(n);
    for (r, (value, tainted)) in out.iter().enumerate() {
        w.write(slot + r, u64::MAX, value);
        w.taint_all(slot + r, *tainted);
    }
}

/// 16×16×4 of f64: results go down one row with each group of lanes, four with each pair of
/// registers.
fn double_product(w: &mut Wave, i: &Instruction) {
    let f64s = |operand, pair: u16| {
        let ((low, t0), (high, t1)) = (w.raw(operand, 2 * pair), w.raw(operand, 2 * pair + 1));
        let value: [f64; LANES] =
            std::array::from_fn(|l| f64::from_bits(u64::from(low[l]) | u64::from(high[l]) << 32));
        (value, t0 | t1)
    };
    let ((a, ta), (b, tb)) = (f64s(i.src[0].operand, 0), f64s(i.src[1].operand, 0));
    let rows = |t: u64| (t | t >> 16 | t >> 32 | t >> 48) & 0xffff;
    let mut out = Vec::new();
    for pair in 0..4 {
        let (c, mut tainted) = f64s(i.src[2].operand, pair);
        let mut d = [0_u64; LANES];
        for (l, d) in d.iter_mut().enumerate() {
            let (row, column) = (4 * pair as usize + l / 16, l % 16);
            let sum = (0..4).fold(c[l], |s, k| a[16 * k + row].mul_add(b[16 * k + column], s));
            *d = sum.to_bits();
            tainted |= (rows(ta) >> row & 1 | rows(tb) >> column & 1) << l;
        }
        out.push((d.map(|x| x as u32), tainted));
        out.push((d.map(|x| (x >> 32) as u32), tainted));
    }
    write(w, i, &out);
}
