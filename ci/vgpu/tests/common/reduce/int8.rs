//! Blocks of 8-bit integers: rounded, added up, unpacked.

use super::{Device, Params, clean, fold, narrow, noise, read, room, same, upload};

const BLOCK: usize = 256;
const BYTES: usize = BLOCK + 4;
const INT8: u32 = 3;

/// What blocks are like: normal, with huge and tiny values, not finite, zeros; each with another largest.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut noise = noise(seed);
    let value = |i: usize| {
        let block = i / BLOCK;
        let x = noise() * if i % 251 == block % 251 { 8.0 } else { 1.0 };
        match block % 7 {
            1 => x * 1e-33, // below 2^-100
            2 => x * 1e-28,
            3 => x * 1e36,
            4 if i % BLOCK == 200 => [f32::NAN, f32::INFINITY, -1.8e38][block / 7 % 3],
            5 => [0.0, -0.0][i % 2],
            _ => x,
        }
    };
    (0..len).map(value).collect()
}

fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// The kernel of this name against its definition.
pub fn quantize_is_its_definition(device: &mut Device) {
    for (case, (shard, shards)) in
        [(256, 1), (256, 3), (2304, 2), (4096, 2)].into_iter().enumerate()
    {
        let len = shard * shards;
        let (given, carried) = (values(31 + case as u64, len), values(77, len));
        let stride = shard / BLOCK * BYTES + 4 * case;
        let at = upload(device, &words(&given), 2, 0, "values");
        let lost = upload(device, &words(&carried), 2, 0, "carried");
        let to = device.memory.allocate((shards * stride) as u64, "to");
        let numbers = [at, lost, to, stride as u64, len as u64];
        let params = numbers.into_iter().fold(Params::default(), Params::ptr);
        let params = params.u32((shard / BLOCK) as u32).u32(0);
        clean(&device.run("hs_reduce_quantize", 2, 256, params));
        let left = read(device, at, len, 2);
        for block in 0..len / BLOCK {
            let range = block * BLOCK..(block + 1) * BLOCK;
            let v: Vec<f32> = range.clone().map(|i| given[i] + carried[i]).collect();
            let (shard, within) = (range.start / shard, range.start % shard / BLOCK);
            let at = to + (shard * stride + within * BYTES) as u64;
            let codes = device.download(at, BLOCK, |b: [u8; 1]| b[0] as i8);
            let scale = device.download(at + BLOCK as u64, 1, f32::from_le_bytes)[0];
            let m = v.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap();
            let m = f32::from_bits(m);
            let what = format!("case {case}, block {block}, largest {m}");
            if m.is_nan() || m >= 2f32.powi(127) {
                assert!(scale.is_nan() && codes.iter().all(|c| *c == 0), "{what}");
                assert!(left[range].iter().all(|x| *x == 0), "{what}");
                continue;
            }
            let tiny = m < 2f32.powi(-100);
            let (step, per) = if tiny { (0.0, 0.0) } else { (m * (1.0 / 127.0), 127.0 / m) };
            assert_eq!(scale.to_bits(), f32::to_bits(step), "{what}");
            for (i, x) in v.into_iter().enumerate() {
                let code = f64::from(x * per).round_ties_even() as i8;
                let lost = x - step * f32::from(code);
                assert_eq!(
                    (codes[i], left[range.start + i]),
                    (code, lost.to_bits()),
                    "{what} [{i}]"
                );
                assert_eq!(f64::from(lost) + f64::from(step * f32::from(code)), f64::from(x));
            }
        }
    }
}

/// Codes of any kind and scales, in memory; and what they stand for.
fn blocks(device: &mut Device, seed: u64, len: usize) -> (u64, Vec<f32>) {
    let mut noise = noise(seed);
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for block in 0..len / BLOCK {
        let scale = if block % 5 == 3 { f32::NAN } else { noise() };
        let codes: Vec<i8> =
            (0..BLOCK).map(|i| (i * 7 + block * 31 + seed as usize) as i8).collect();
        values.extend(codes.iter().map(|code| scale * f32::from(*code)));
        bytes.extend(codes.iter().map(|code| *code as u8));
        bytes.extend(scale.to_le_bytes());
    }
    (device.memory.allocate_with(bytes, "blocks"), values)
}

/// `sum` and `unpack` of blocks against their definitions.
pub fn sum_and_unpack(device: &mut Device) {
    for (ranks, len) in [(1, 256), (3, 2560), (2, 4864)] {
        let parts: Vec<(u64, Vec<f32>)> = (0..ranks).map(|r| blocks(device, r, len)).collect();
        let at: Vec<u64> = parts.iter().map(|part| part.0).collect();
        let weights: Vec<f32> = (0..ranks).map(|r| 0.3 + r as f32).collect();
        let (table, factors) = (device.upload(&at, "parts"), device.upload(&weights, "weights"));
        let to = room(device, len, 2, 1);
        let params = Params::default().ptr(table).ptr(factors).ptr(to).ptr(len as u64);
        let params = params.u32(ranks as u32).u32(INT8).u32(2).f32(0.5);
        clean(&device.run("hs_reduce_sum", 2, 256, params));
        for (i, found) in read(device, to, len, 2).into_iter().enumerate() {
            let mut sum = weights[0] * parts[0].1[i];
            for r in 1..parts.len() {
                sum = weights[r].mul_add(parts[r].1[i], sum);
            }
            same(found, (0.5 * sum).to_bits(), 2, &format!("{ranks} {len} [{i}]"));
        }
    }
    for (case, (offset, len)) in
        [(0, 700), (5, 2001), (8, 1992), (250, 1003)].into_iter().enumerate()
    {
        for ty in [0, 1, 2] {
            let (shard, shards) = (768, 3);
            let bucket: Vec<(u64, Vec<f32>)> =
                (0..shards).map(|s| blocks(device, 40 + s, shard)).collect();
            let at: Vec<u64> = bucket.iter().map(|shard| shard.0).collect();
            let values: Vec<f32> = bucket.into_iter().flat_map(|shard| shard.1).collect();
            let table = device.upload(&at, "shards");
            let to = room(device, len, ty, case % 3);
            let partials = device.memory.allocate(16, "partials");
            let pieces = device.upload(&[offset as u64, len as u64], "pieces");
            let targets = device.upload(&[to, offset as u64, 0], "targets");
            let params = [table, pieces, targets, partials, shard as u64, 1]
                .iter()
                .fold(Params::default(), |p, a| p.ptr(*a));
            let params = params.f32(0.5).u32(ty).u32(INT8).u32(0);
            clean(&device.run("hs_reduce_unpack", 1, 256, params));
            let products: Vec<f32> = values[offset..offset + len].iter().map(|x| 0.5 * x).collect();
            for (i, found) in read(device, to, len, ty).into_iter().enumerate() {
                same(found, narrow(products[i], ty), ty, &format!("{offset} {len} {ty} [{i}]"));
            }
            let squares =
                products.iter().map(|x| if x.is_finite() { f64::from(*x).powi(2) } else { 0.0 });
            let bad = products.iter().filter(|x| !x.is_finite()).count() as u64;
            let partial = device.download(partials, 2, u64::from_le_bytes);
            assert_eq!(partial, [fold(squares).to_bits(), bad]);
        }
    }
}
