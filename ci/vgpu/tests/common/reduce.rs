//! The crate's reduction kernels, whoever compiled them, against their definitions at 0 ulp: odd
//! lengths, misaligned pointers, borders of shards, values that are not finite.

pub mod int8;

use super::{Device, Params, clean, noise, root};
use halfstep_vgpu::number::{BF16, F16, Rounding, bf16_to_f32, f16_to_f32};

/// Where the kernels' headers are, for one target.
pub fn includes(target: &str) -> Vec<String> {
    let kernels = root().join("kernels");
    [target, "common"].iter().map(|f| format!("-I{}", kernels.join(f).display())).collect()
}

const LENGTHS: [usize; 6] = [1, 7, 8, 2047, 2049, 5003];
const TYPES: [u32; 3] = [0, 1, 2]; // bf16, f16, f32

fn narrow(x: f32, ty: u32) -> u32 {
    match ty {
        0 => BF16.from_f64(x.into(), Rounding::Nearest) as u32,
        1 => F16.from_f64(x.into(), Rounding::Nearest) as u32,
        _ => x.to_bits(),
    }
}

fn widen(bits: u32, ty: u32) -> f32 {
    match ty {
        0 => bf16_to_f32(bits as u16),
        1 => f16_to_f32(bits as u16),
        _ => f32::from_bits(bits),
    }
}

fn width(ty: u32) -> usize {
    if ty == 2 { 4 } else { 2 }
}

/// Values of a type, some of them not finite, subnormal or zero.
fn values(seed: u64, len: usize, ty: u32) -> Vec<u32> {
    let mut noise = noise(seed);
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-39, 6e-8, 65504.0, 3e38];
    let value = |i: usize| {
        let x = noise();
        if i % 37 == 5 { odd[i / 37 % odd.len()] } else { x * 100.0 }
    };
    (0..len).map(value).map(|x| narrow(x, ty)).collect()
}

/// An allocation of `before` elements and then the values, with its address past the former.
fn upload(device: &mut Device, data: &[u32], ty: u32, before: usize, name: &str) -> u64 {
    let mut bytes = vec![0; before * width(ty)];
    for x in data {
        bytes.extend_from_slice(&x.to_le_bytes()[..width(ty)]);
    }
    device.memory.allocate_with(bytes, name) + (before * width(ty)) as u64
}

/// Room for results, as misaligned, nothing defined.
fn room(device: &mut Device, len: usize, ty: u32, before: usize) -> u64 {
    device.memory.allocate(((before + len) * width(ty)) as u64, "to") + (before * width(ty)) as u64
}

fn read(device: &mut Device, at: u64, len: usize, ty: u32) -> Vec<u32> {
    match ty {
        2 => device.download(at, len, u32::from_le_bytes),
        _ => device.download(at, len, |b| u16::from_le_bytes(b).into()),
    }
}

fn same(found: u32, wanted: u32, ty: u32, what: &str) {
    let both_nan = widen(found, ty).is_nan() && widen(wanted, ty).is_nan();
    assert!(found == wanted || both_nan, "{what}: {found:#x}, not {wanted:#x}");
}

/// The kernel of this name against its definition.
pub fn pack_is_its_definition(device: &mut Device) {
    for (case, len) in LENGTHS.into_iter().enumerate() {
        for (ty, wire) in TYPES.iter().flat_map(|t| TYPES.map(|w| (*t, w))) {
            let before = (case + ty as usize) % 4;
            let (g, sums) = (values(1, len, ty), values(2, len, 2));
            let gradient = if case == 2 { 0 } else { upload(device, &g, ty, before, "gradient") };
            let accumulated =
                if case == 4 { 0 } else { upload(device, &sums, 2, before, "accumulated") };
            // Two shards, with something else behind each.
            let (offset, shard) = (3 * case, (3 * case + len).div_ceil(2).max(8));
            let stride = (shard * width(wire)).next_multiple_of(16) + 16;
            let bucket = device.memory.allocate(2 * stride as u64, "bucket");
            let count = device.upload(&[5_u64], "non_finite");
            let scale = 0.25_f32;
            let numbers = [shard, stride, offset, len].map(|number| number as u64);
            let params = [gradient, accumulated, bucket, count]
                .into_iter()
                .chain(numbers)
                .fold(Params::default(), Params::ptr);
            let report =
                device.run("hs_reduce_pack", 2, 256, params.f32(scale).u32(ty).u32(wire).u32(0));
            clean(&report);
            let mut packed = Vec::new();
            for half in 0..2 {
                let (from, to) = (offset.max(half * shard), (offset + len).min((half + 1) * shard));
                let at = bucket + (half * stride + from % shard * width(wire)) as u64;
                packed.extend(read(device, at, to.saturating_sub(from), wire));
            }
            let mut bad = 0;
            for i in 0..len {
                let mut x = if gradient == 0 { 0.0 } else { widen(g[i], ty) };
                if accumulated != 0 {
                    x += f32::from_bits(sums[i]);
                }
                let wanted = narrow(scale * x, wire);
                same(packed[i], wanted, wire, &format!("{len} {ty}->{wire} [{i}]"));
                bad += u64::from(!widen(wanted, wire).is_finite());
            }
            assert_eq!(device.download(count, 1, u64::from_le_bytes), [5 + bad]);
            if accumulated != 0 {
                assert!(read(device, accumulated, len, 2).iter().all(|x| *x == 0));
            }
        }
    }
}

/// The kernel of this name against its definition.
pub fn accumulate_is_its_definition(device: &mut Device) {
    for (before, len) in LENGTHS.into_iter().enumerate() {
        for ty in TYPES {
            let (g, sums) = (values(3, len, ty), values(4, len, 2));
            let gradient = upload(device, &g, ty, before, "gradient");
            let accumulated = upload(device, &sums, 2, before, "accumulated");
            let params =
                Params::default().ptr(gradient).ptr(accumulated).ptr(len as u64).u32(ty).u32(0);
            clean(&device.run("hs_reduce_accumulate", 3, 256, params));
            let found = read(device, accumulated, len, 2);
            for i in 0..len {
                let wanted = f32::from_bits(sums[i]) + widen(g[i], ty);
                same(found[i], wanted.to_bits(), 2, &format!("{len} {ty} [{i}]"));
            }
        }
    }
}

/// The kernel of this name against its definition.
pub fn sum_is_its_definition(device: &mut Device) {
    for (case, len) in LENGTHS.into_iter().enumerate() {
        // A type to itself; to f32, and from it.
        for (wire, to_type) in [(0, 0), (1, 1), (2, 2), (0, 2), (2, 1)] {
            let ranks = 1 + case % 4;
            let parts: Vec<Vec<u32>> =
                (0..ranks).map(|r| values(10 + r as u64, len, wire)).collect();
            let weights: Vec<f32> = (0..ranks).map(|r| 0.3 + r as f32).collect();
            let factor = 1.0 / weights.iter().sum::<f32>();
            let at: Vec<u64> =
                parts.iter().enumerate().map(|(r, p)| upload(device, p, wire, r, "part")).collect();
            let (table, factors) =
                (device.upload(&at, "parts"), device.upload(&weights, "weights"));
            let to = room(device, len, to_type, case % 3);
            let params = Params::default().ptr(table).ptr(factors).ptr(to).ptr(len as u64);
            let report = device.run(
                "hs_reduce_sum",
                2,
                256,
                params.u32(ranks as u32).u32(wire).u32(to_type).f32(factor),
            );
            clean(&report);
            let found = read(device, to, len, to_type);
            for i in 0..len {
                let mut sum = weights[0] * widen(parts[0][i], wire);
                for r in 1..ranks {
                    sum = weights[r].mul_add(widen(parts[r][i], wire), sum);
                }
                let what = format!("{len} {wire}->{to_type} [{i}]");
                same(found[i], narrow(sum * factor, to_type), to_type, &what);
            }
        }
    }
}

/// Lane l of 2,048 adds elements l, l + 2048, …; lanes fold by halves.
fn fold(values: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 2048];
    for (i, x) in values.enumerate() {
        lanes[i % 2048] += x;
    }
    let mut half = 1024;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The kernel of this name against its definition.
pub fn unpack_is_its_definition(device: &mut Device) {
    for (case, len) in [1_usize, 9, 4099, 16_384, 40_001].into_iter().enumerate() {
        for (ty, wire) in TYPES.iter().flat_map(|t| TYPES.map(|w| (*t, w))) {
            let (offset, shards) = ([0, 3, 8, 1, 5][case], 3);
            let shard = (offset + len).div_ceil(shards).max(8);
            let bucket = values(20, shard * shards, wire);
            let at: Vec<u64> =
                bucket.chunks(shard).map(|s| upload(device, s, wire, case % 2, "shard")).collect();
            let table = device.upload(&at, "shards");
            let to = room(device, len, ty, case % 3);
            let partials = device.memory.allocate(16 * len.div_ceil(16_384) as u64, "partials");
            let factor = 0.5_f32;
            // Tensor 42 of a plan in which nobody has the one before it, which lies at the bucket's start.
            let of = |at: usize, len: usize, tensor: u64| [at as u64, len as u64 | tensor << 32];
            let chunks = (0..len).step_by(16_384);
            let pieces: Vec<u64> = (offset > 0)
                .then(|| of(0, offset, 41))
                .into_iter()
                .chain(chunks.map(|at| of(offset + at, 16_384.min(len - at), 42)))
                .flatten()
                .collect();
            let mut targets = vec![0; 3 * 43];
            targets[3 * 42..].copy_from_slice(&[to, offset as u64, 0]);
            let count = pieces.len() as u64 / 2;
            let (pieces, targets) =
                (device.upload(&pieces, "pieces"), device.upload(&targets, "targets"));
            let params = [table, pieces, targets, partials, shard as u64, count]
                .iter()
                .fold(Params::default(), |p, a| p.ptr(*a));
            let report =
                device.run("hs_reduce_unpack", 2, 256, params.f32(factor).u32(ty).u32(wire).u32(0));
            clean(&report);
            let found = read(device, to, len, ty);
            let products: Vec<f32> =
                bucket[offset..offset + len].iter().map(|x| factor * widen(*x, wire)).collect();
            for i in 0..len {
                same(found[i], narrow(products[i], ty), ty, &format!("{len} {wire}->{ty} [{i}]"));
            }
            let words = device.download(partials, 2 * len.div_ceil(16_384), u64::from_le_bytes);
            for (c, chunk) in products.chunks(16_384).enumerate() {
                let squares =
                    chunk.iter().map(|x| if x.is_finite() { f64::from(*x).powi(2) } else { 0.0 });
                assert_eq!(words[2 * c], fold(squares).to_bits(), "{len} chunk {c}");
                let bad = chunk.iter().filter(|x| !x.is_finite()).count() as u64;
                assert_eq!(words[2 * c + 1], bad | 42 << 32);
            }
        }
    }
}
