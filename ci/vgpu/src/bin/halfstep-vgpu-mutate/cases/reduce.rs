//! The kernels of `reduce`.

use super::{Builder, Case, F32_TYPE, Plain, TYPES};
use crate::params::reduce::{
    Accumulate, FIXED_BLOCK, Fixed, INT8, INT8_BLOCK, INT8_BYTES, Pack, Piece, Quantize, Sum,
    Target, Unpack,
};

/// Two strips and a bit, so that blocks go round; tails of every length come with the shorter ones.
const LENGTHS: [usize; 4] = [4231, 13, 2054, 8];

pub fn cases(kernel: &str) -> Vec<Case> {
    let pairs = TYPES.into_iter().flat_map(|a| TYPES.map(|b| (a, b)));
    match kernel {
        "hs_reduce_pack" => {
            let small = pairs.cycle().take(18).enumerate().map(|(i, types)| pack(i, types));
            let large = (0..LARGE.len()).map(|i| pack_in_a_large_bucket(i, TYPES[i % 3]));
            small.chain(large).collect()
        }
        "hs_reduce_accumulate" => {
            (0..12).map(|i| accumulate(LENGTHS[i % 4], TYPES[i % 3], i / 3 % 2)).collect()
        }
        "hs_reduce_sum" => {
            let same = TYPES.map(|wire| (wire, wire));
            let types = [same[0], same[1], same[2], (TYPES[0], F32_TYPE), (F32_TYPE, TYPES[1])];
            let elements = (0..15).map(|i| sum(LENGTHS[i % 4], types[i % 5], i / 3 % 2));
            elements.chain([sum_of_integers(2304), sum_of_integers(256)]).collect()
        }
        "hs_reduce_unpack" => {
            let small = pairs.enumerate().map(|(i, types)| unpack(i, types));
            let large = (0..LARGE.len()).map(|i| unpack_of_a_large_bucket(i, TYPES[i % 3]));
            let integers = (0..6).map(unpack_integers);
            small.chain(large).chain(integers).collect()
        }
        "hs_reduce_quantize" => (0..8).map(quantize).collect(),
        "hs_reduce_measure" | "hs_reduce_encode" | "hs_reduce_decode" => {
            // Every length and type, from an aligned address and from another.
            let before = |i: usize| (i / 3 + i / 12) % 2;
            (0..24).map(|i| fixed(kernel, LENGTHS[i % 4], TYPES[i % 3], before(i))).collect()
        }
        _ => Vec::new(),
    }
}

fn pack(i: usize, (gradient_type, wire): (u32, u32)) -> Case {
    let (len, before) = (LENGTHS[i % 4], [0, 1][i / 2 % 2]);
    let mut b = Builder::default();
    let (g, sums) = (b.noise(len, true), b.noise(len, true));
    let gradient = if i == 3 { 0 } else { b.values(&g, gradient_type, before) };
    let accumulated = if i % 4 == 1 { 0 } else { b.values(&sums, F32_TYPE, before) };
    // Shards whose borders are inside of what a thread takes, and beside it; behind each there is more.
    let (offset, shard) = ([0, 3, 8][i % 3], [len.div_ceil(2) + 4, len + 8, 1027][i / 3 % 3]);
    let (shards, size) = ((offset + len).div_ceil(shard), if wire == F32_TYPE { 4 } else { 2 });
    let stride = (shard * size).next_multiple_of(32) + 32;
    let bucket = b.room((shards * stride) as u64);
    let non_finite = b.table(&[5_u64]);
    let block = Pack {
        gradient,
        accumulated,
        bucket,
        non_finite,
        shard: shard as u64,
        stride: stride as u64,
        offset: offset as u64,
        len: len as u64,
        scale: 0.5, // the middle between two stays one
        gradient_type,
        wire,
        padding: 0,
    };
    b.launch([2, 1, 1], 256, block.bytes())
}

fn accumulate(len: usize, gradient_type: u32, before: usize) -> Case {
    let mut b = Builder::default();
    let (g, sums) = (b.noise(len, true), b.noise(len, false));
    let (gradient, accumulated) =
        (b.values(&g, gradient_type, before), b.values(&sums, F32_TYPE, before));
    let block = Accumulate { gradient, accumulated, len: len as u64, gradient_type, padding: 0 };
    b.launch([2, 1, 1], 256, block.bytes())
}

fn sum(len: usize, (wire, to_type): (u32, u32), before: usize) -> Case {
    let mut b = Builder::default();
    let ranks = 3;
    let parts: Vec<u64> = (0..ranks)
        .map(|_| {
            let part = b.noise(len, true);
            b.values(&part, wire, before)
        })
        .collect();
    let (parts, weights) = (b.table(&parts), b.table(&[2.0_f32, 1.25, 2.5]));
    let to = b.room_for(len, to_type, before);
    let (len, ranks, factor) = (len as u64, ranks as u32, 0.25);
    let block = Sum { parts, weights, to, len, ranks, from_type: wire, to_type, factor };
    b.launch([2, 1, 1], 256, block.bytes())
}

/// Three tensors, of which the second is left alone or none is; the last one's piece is its second.
fn unpack(i: usize, (gradient_type, wire): (u32, u32)) -> Case {
    let (len, offset) = ([2061_usize, 16_500, 37, 7][i % 4], [0, 3, 8][i % 3]);
    let lens = [11, 5, len];
    let mut b = Builder::default();
    let total: usize = offset + lens.iter().sum::<usize>();
    let shard = total.div_ceil(3);
    let shards: Vec<u64> = (0..3)
        .map(|_| {
            let part = b.noise(shard, true);
            b.values(&part, wire, i % 2)
        })
        .collect();
    let (mut start, mut partial) = (offset as u64, 0);
    let (mut pieces, mut targets) = (Vec::new(), Vec::new());
    for (tensor, len) in lens.into_iter().enumerate() {
        let left_alone = tensor == 1 && i % 2 == 1;
        let to = if left_alone { 0 } else { b.room_for(len, gradient_type, i / 2 % 2) };
        targets.push(Target { to, offset: start, partial });
        for at in (0..len).step_by(16_384) {
            let len = (len - at).min(16_384) as u32;
            pieces.push(Piece { start: start + at as u64, len, tensor: tensor as u32 });
            partial += 1;
        }
        start += len as u64;
    }
    let (count, partials) = (pieces.len() as u64, b.room(16 * partial));
    let (shards, pieces, targets) = (b.table(&shards), b.table(&pieces), b.table(&targets));
    let block = Unpack {
        shards,
        pieces,
        targets,
        partials,
        shard: shard as u64,
        count,
        factor: 0.5,
        gradient_type,
        wire,
        padding: 0,
    };
    b.launch([2, 1, 1], 256, block.bytes())
}

/// Blocks of 8-bit integers.
fn blocks(b: &mut Builder, len: usize) -> u64 {
    let scales = b.noise(len / INT8_BLOCK, true);
    let code = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()[3];
    let block = |(index, scale): (usize, &f32)| {
        let codes = (0..INT8_BLOCK).map(move |i| code(index * INT8_BLOCK + i));
        codes.chain(scale.to_le_bytes())
    };
    b.bytes(scales.iter().enumerate().flat_map(block).collect())
}

fn sum_of_integers(len: usize) -> Case {
    let mut b = Builder::default();
    let parts = [blocks(&mut b, len), blocks(&mut b, len), blocks(&mut b, len)];
    let (parts, weights) = (b.table(&parts), b.table(&[2.0_f32, 1.25, 2.5]));
    let to = b.room_for(len, F32_TYPE, 0);
    let (len, from_type, to_type) = (len as u64, INT8, F32_TYPE);
    let block = Sum { parts, weights, to, len, ranks: 3, from_type, to_type, factor: 0.25 };
    b.launch([2, 1, 1], 256, block.bytes())
}

/// A tensor that lies across three shards, at a multiple of eight or beside one.
fn unpack_integers(i: usize) -> Case {
    let mut b = Builder::default();
    let (shard, gradient_type) = (768, TYPES[i % 3]);
    let shards = [blocks(&mut b, shard), blocks(&mut b, shard), blocks(&mut b, shard)];
    let (offset, len) = [(0, 1800), (8, 2001), (251, 1540), (5, 13), (767, 2), (1, 2303)][i];
    let (to, partials) = (b.room_for(len, gradient_type, 0), b.room(16));
    let pieces = b.table(&[Piece { start: offset, len: len as u32, tensor: 0 }]);
    let targets = b.table(&[Target { to, offset, partial: 0 }]);
    let block = Unpack {
        shards: b.table(&shards),
        pieces,
        targets,
        partials,
        shard: shard as u64,
        count: 1,
        factor: 0.5,
        gradient_type,
        wire: INT8,
        padding: 0,
    };
    b.launch([1, 1, 1], 256, block.bytes())
}

/// Shards with something behind each; blocks whose largest is another of eight, tiny, huge or not finite.
fn quantize(i: usize) -> Case {
    let mut b = Builder::default();
    let (shard, shards) = [(256, 1), (512, 5), (2304, 2), (768, 7)][i % 4];
    let len = shard * shards;
    let mut values = b.noise(len, false);
    for (at, x) in values.iter_mut().enumerate() {
        let block = at / INT8_BLOCK;
        let largest = at % 8 == block % 8 && at / 8 % 29 == block;
        *x *= if largest { 16.0 } else { 1.0 };
        *x *= [1.0, 2.0_f32.powi(-102), 2.0_f32.powi(124), 2.0_f32.powi(-70)][(block + i) % 4];
        *x = if (block + i) % 9 == 8 && at % 80 == 3 { f32::NAN } else { *x };
    }
    let carried: Vec<f32> =
        values.iter().rev().map(|x| if x.is_nan() { 0.0 } else { 0.25 * x }).collect();
    let stride = (shard / INT8_BLOCK * INT8_BYTES + 4 * i) as u64;
    let block = Quantize {
        values: b.values(&values, F32_TYPE, 0),
        carried: b.values(&carried, F32_TYPE, 0),
        to: b.room(shards as u64 * stride),
        stride,
        len: len as u64,
        blocks: (shard / INT8_BLOCK) as u32,
        padding: 0,
    };
    b.launch([2, 1, 1], 256, block.bytes())
}

/// Lengths of shards beyond 2³² elements, and the shard that begins in the middle of what is unpacked.
const LARGE: [(u64, usize); 7] = [
    ((1 << 33) + 3, 2),
    ((1 << 33) + 3, 1),
    ((1 << 32) + 1, 7),
    ((3 << 32) - 5, 5),
    ((1 << 40) - 1, 31),
    (0x1_8000_0001, 1023),
    ((1 << 61) / 3, 2),
];

/// Shards of which only what is written is there: the end of one and the start of the next.
fn pack_in_a_large_bucket(i: usize, wire: u32) -> Case {
    let mut b = Builder::default();
    let ((shard, next), before, len) = (LARGE[i], 1025 + i, 2061);
    let size = if wire == F32_TYPE { 4 } else { 2 };
    let values = b.noise(len, true);
    let gradient = b.values(&values, wire, 0);
    let (before, len, next) = (before as u64, len as u64, next as u64);
    let end = b.room(len * size + 64);
    let start = end + (before * size).next_multiple_of(32) + 32;
    let stride = (start - end).wrapping_add((shard - before).wrapping_mul(size));
    let block = Pack {
        gradient,
        accumulated: 0,
        bucket: start.wrapping_sub(next.wrapping_mul(stride)),
        non_finite: b.table(&[5_u64]),
        shard,
        stride,
        offset: next * shard - before,
        len,
        scale: 0.5,
        gradient_type: wire,
        wire,
        padding: 0,
    };
    b.launch([1, 1, 1], 256, block.bytes())
}

/// Shards of which only what is read is there: the end of one and the start of the next.
fn unpack_of_a_large_bucket(i: usize, wire: u32) -> Case {
    let mut b = Builder::default();
    // The border is behind another of an eight's elements each time.
    let ((shard, next), before, len) = (LARGE[i], 1025 + i, 2061);
    let parts = [b.noise(before, true), b.noise(len - before, true)];
    let size = if wire == F32_TYPE { 4 } else { 2 };
    let mut shards = vec![0; next + 1];
    let end = b.values(&parts[0], wire, 0);
    shards[next - 1] = end.wrapping_sub((shard - before as u64).wrapping_mul(size));
    shards[next] = b.values(&parts[1], wire, 1);
    let shards = b.table(&shards);
    let to = b.room_for(len, wire, 0);
    let partials = b.room(16);
    let offset = next as u64 * shard - before as u64;
    let pieces = b.table(&[Piece { start: offset, len: len as u32, tensor: 1 }]);
    let targets =
        b.table(&[Target { to: 0, offset: 0, partial: 0 }, Target { to, offset, partial: 0 }]);
    let block = Unpack {
        shards,
        pieces,
        targets,
        partials,
        shard,
        count: 1,
        factor: 0.5,
        gradient_type: wire,
        wire,
        padding: 0,
    };
    b.launch([1, 1, 1], 256, block.bytes())
}

/// What is written of values, exponents and sums has nothing in it before.
fn fixed(kernel: &str, len: usize, value_type: u32, before: usize) -> Case {
    let mut b = Builder::default();
    let blocks = len.div_ceil(FIXED_BLOCK);
    let mut values = b.noise(len, kernel != "hs_reduce_measure");
    if kernel == "hs_reduce_measure" {
        // The largest is another of eight in every block; some blocks have what is not finite.
        for (i, x) in values.iter_mut().enumerate() {
            let block = i / FIXED_BLOCK;
            let largest = i % 8 == block % 8 && i / 8 % 5 == block % 5;
            *x *= if largest { 2.0_f32.powi(block as i32 % 7 + 3) } else { 1.0 };
            *x = if block % 6 == 5 && i % 80 == 3 { f32::NAN } else { *x };
        }
    }
    let sums: Vec<u32> = (0..len as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    // 255 stands for what is not finite.
    let exponents = (0..blocks).map(|i| [129, 255, 1, 140, 254, 120][i % 6]).collect();
    let block = Fixed {
        values: match kernel {
            "hs_reduce_decode" => b.room_for(len, value_type, before),
            _ => b.values(&values, value_type, before),
        },
        exponents: match kernel {
            "hs_reduce_measure" => b.room(blocks as u64),
            _ => b.bytes(exponents),
        },
        sums: match kernel {
            "hs_reduce_decode" => b.table(&sums),
            _ => b.room_for(len, F32_TYPE, before),
        },
        len: len as u64,
        factor: 0.5,
        value_type,
        headroom: before as u32,
        padding: 0,
    };
    b.launch([2, 1, 1], 256, block.bytes())
}
