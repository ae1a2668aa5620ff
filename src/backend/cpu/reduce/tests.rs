//! The fast forms have the bits of the readable reference.

use super::super::wide::{Work, vector};
use super::strips::Making;
use super::{fixed, int8, pack, sum, unpack};
use crate::grad_stats;
use crate::kernel::params::reduce::{FIXED_BLOCK, INT8_BLOCK, INT8_BYTES};
use crate::optim::round::Lane;
use crate::reduce::reference;
use crate::{bf16, f16};

/// Whether the portable form runs, and whether it stores past the caches.
const FORMS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn run<W: Work>(portable: bool, work: W) -> W::Output {
    if portable { work.run::<false>() } else { vector(work) }
}

/// Numbers of every size, few of them large; `special` ones now and then.
fn values<T: Lane>(seed: u32, len: usize, special: &[f32]) -> Vec<T> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut one = || {
        let bits = random();
        match bits % 97 {
            n if (n as usize) < special.len() => T::narrow(special[n as usize]),
            n => T::narrow((bits as i32 as f32) * 0.5f32.powi(31 + n as i32 / 4)),
        }
    };
    (0..len).map(|_| one()).collect()
}

const SPECIAL: [f32; 7] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.4e38, 65_519.0, -65_521.0, -0.0];

/// Lengths about those of lines and strips, and places between lines.
const SHAPES: [(usize, usize); 7] =
    [(0, 0), (1, 1), (31, 3), (257, 0), (300, 17), (1023, 31), (5000, 5)];

fn bits<T: Lane>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.widen().to_bits()).collect()
}

fn check<G: Lane, W: Lane>() {
    for (number, (len, at)) in SHAPES.into_iter().enumerate() {
        for (special, scale) in
            [(&SPECIAL[..0], 1.0f32), (&SPECIAL[6..], 1024.0), (&SPECIAL, 1.0), (&SPECIAL, 0.3)]
        {
            packs::<G, W>(&values(number as u32 + 1, len, special), at, scale);
            let parts: Vec<Vec<W>> =
                (0..3).map(|part| values(9 * part + 5, at + len, special)).collect();
            let parts: Vec<&[W]> = parts.iter().map(|part| &part[at..]).collect();
            sums(&parts[..1 + number % 3], at, scale);
            unpacks::<G, W>(&values(7, len, special), at, scale);
        }
    }
}

fn packs<G: Lane, W: Lane>(gradient: &[G], at: usize, scale: f32) {
    let len = gradient.len();
    let zeros = vec![G::narrow(0.0); len];
    for (given, accumulates) in [(true, false), (true, true), (false, true), (false, false)] {
        let sums: Vec<f32> = values(3, len, &SPECIAL);
        let mut expected = (vec![W::narrow(0.0); len], accumulates.then(|| sums.clone()));
        let from = if given { gradient } else { &zeros };
        let bad = reference::pack(from, expected.1.as_deref_mut(), &mut expected.0, scale);
        for (portable, past) in FORMS {
            let mut room = vec![W::narrow(7.0); at + len + 1];
            let mut accumulated = accumulates.then(|| sums.clone());
            let source = pack::Source {
                gradient: given.then_some(gradient),
                accumulated: accumulated.as_deref_mut(),
                scale,
                bad: 0,
            };
            let to = &mut room[at..at + len];
            let count = run(portable, pack::Packing { source, to, past });
            assert!(room[at + len].widen() == 7.0 && room[..at].iter().all(|x| x.widen() == 7.0));
            let found = (bits(&room[at..at + len]), count);
            assert_eq!(found, (bits(&expected.0), bad));
            assert_eq!(accumulated, expected.1);
        }
    }
}

fn sums<W: Lane>(parts: &[&[W]], at: usize, factor: f32) {
    fn into<W: Lane, T: Lane>(parts: &[&[W]], at: usize, factor: f32) {
        let weights = [0.5, 3.0, 1.0];
        let len = parts[0].len();
        let mut expected = vec![T::narrow(0.0); len];
        reference::sum(parts, &weights, &mut expected, factor);
        // All of it, and what a later task has.
        for (start, (portable, past)) in
            [0, len / 3].into_iter().flat_map(|start| FORMS.map(|form| (start, form)))
        {
            let mut room = vec![T::narrow(7.0); at + len - start];
            let maker = sum::Sums { parts, weights: &weights, start, factor };
            run(portable, Making { maker, to: &mut room[at..], past });
            assert_eq!(bits(&room[at..]), bits(&expected[start..]));
        }
    }
    into::<W, W>(parts, at, factor);
    into::<W, f32>(parts, at, factor);
}

fn unpacks<G: Lane, W: Lane>(from: &[W], at: usize, factor: f32) {
    let mut expected = vec![G::narrow(0.0); from.len()];
    reference::unpack(from, &mut expected, factor);
    let products = from.iter().map(|value| factor * value.widen());
    let partial = grad_stats::partial(5, products);
    for (portable, past) in FORMS {
        let mut room = vec![G::narrow(7.0); at + from.len()];
        let means = unpack::Means { from, factor };
        let work = unpack::Unpacking { means, to: &mut room[at..], tensor: 5, past };
        let found = run(portable, work);
        assert_eq!((bits(&room[at..]), found), (bits(&expected), partial));
    }
}

#[test]
fn packed_buckets_have_the_bits_of_the_definition() {
    check::<bf16, bf16>();
    check::<f16, f16>();
    check::<f32, f32>();
    check::<f32, bf16>();
    check::<bf16, f32>();
    check::<f32, f16>();
    check::<f16, bf16>();
}

#[test]
fn blocks_of_8_bits_have_the_bits_of_the_definition() {
    let scales = [1.0, 1e-20, 1e-30, 7.8e-31, 1e-38, 1e20, 1.7e38, f32::INFINITY, 0.0];
    for (seed, scale) in (1..50).flat_map(|seed| scales.map(|scale| (seed, scale))) {
        let of = |seed| -> [f32; INT8_BLOCK] {
            let all: Vec<f32> = values(seed, INT8_BLOCK, &[]);
            // Halves of steps, too: ties.
            std::array::from_fn(
                |i| if i == 9 { 1.0 } else { (all[i] * 254.0).round() / 254.0 } * scale,
            )
        };
        let (values, carried) = (of(seed), of(seed + 77).map(|x| x * (seed % 3) as f32 * 0.1));
        let (mut lost, mut codes) = (values, [1; INT8_BLOCK]);
        let expected = reference::quantize(&mut lost, &carried, &mut codes);
        for portable in [false, true] {
            let (mut values, mut found) = (values, [1; INT8_BLOCK]);
            let (values, to) = (&mut values, &mut found);
            let step = run(portable, int8::Rounding { values, carried: &carried, codes: to });
            assert_eq!((found, step.to_bits()), (codes, expected.to_bits()));
            assert_eq!(values.map(f32::to_bits), lost.map(f32::to_bits));
        }
    }
}

/// Sums of shards of five blocks, from places inside of them and where they begin.
#[test]
fn sums_of_8_bit_integers_have_the_bits_of_the_definition() {
    const LEN: usize = 5 * INT8_BLOCK;
    let (weights, factor) = ([0.5, 3.0, 1.0], 0.3);
    // Of each rank its shard, words of it so that scales are aligned, and what is in it.
    let shard = |rank: u32| -> (Vec<u32>, Vec<f32>) {
        let (mut shard, mut all) = (vec![0u32; 5 * INT8_BYTES / 4], vec![0.0; LEN]);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut shard);
        for (block, (to, all)) in
            bytes.chunks_mut(INT8_BYTES).zip(all.chunks_mut(INT8_BLOCK)).enumerate()
        {
            let mut values = values::<f32>(9 * rank + block as u32 + 1, INT8_BLOCK, &[]);
            let mut codes = [0; INT8_BLOCK];
            let scale = reference::quantize(&mut values, &[0.0; INT8_BLOCK], &mut codes);
            reference::dequantize(&codes, scale, all);
            to[..INT8_BLOCK].copy_from_slice(bytemuck::cast_slice(&codes));
            to[INT8_BLOCK..].copy_from_slice(&scale.to_ne_bytes());
        }
        (shard, all)
    };
    let shards = [0, 1, 2].map(shard);
    let parts = shards.each_ref().map(|(shard, _)| shard.as_ptr() as u64);
    let mut expected = vec![0.0; LEN];
    let all = shards.each_ref().map(|(_, all)| &all[..]);
    reference::sum::<f32, f32>(&all, &weights, &mut expected, factor);
    for (start, len) in [(0, LEN), (256, 1024), (300, 700), (1279, 1), (512, 0)] {
        for (portable, past) in FORMS {
            let mut to = vec![7.0; len];
            let maker = int8::Sums { parts: &parts, weights: &weights, start, factor };
            run(portable, Making { maker, to: &mut to, past });
            assert_eq!(bits(&to), bits(&expected[start..start + len]), "{start} {len}");
        }
    }
}

/// Integers of every exponent, those too that are not of the values: which then do not fit, or are all 0.
#[test]
fn fixed_point_has_the_bits_of_the_definition() {
    fn check<G: Lane>(len: usize, special: &[f32]) {
        for (exponent, headroom) in (0..=255).flat_map(|e| [0, 1, 5, 20].map(|h| (e, h))) {
            let seed = u32::from(exponent) + 300 * headroom + 1;
            let scale = 2f32.powi((i32::from(exponent) - 126).max(-126));
            let values: Vec<G> = values::<f32>(seed, len, special)
                .into_iter()
                .map(|value| G::narrow(value * if seed % 3 == 0 { 1.0 } else { scale }))
                .collect();
            let factor = [1.0, 0.3, 1e-6, 0.0][seed as usize % 4];
            let (mut codes, mut means) = (vec![7; len], vec![G::narrow(7.0); len]);
            let measured = reference::measure(&values, factor);
            reference::encode(&values, exponent, &mut codes, factor, headroom);
            reference::decode(&codes, exponent, &mut means, factor, headroom);
            for portable in [false, true] {
                let values = &values[..];
                assert_eq!(run(portable, fixed::Measuring { values, factor }), measured);
                let (mut found, mut to) = (vec![7; len], vec![G::narrow(7.0); len]);
                let point = fixed::Point::new(exponent, headroom);
                run(portable, fixed::Encoding { values, to: &mut found, factor, point });
                assert_eq!(found, codes, "{} {exponent} {headroom}", G::DTYPE);
                run(portable, fixed::Decoding { sums: &found, to: &mut to, factor, point });
                assert_eq!(bits(&to), bits(&means), "{} {exponent} {headroom}", G::DTYPE);
            }
        }
    }
    for len in [FIXED_BLOCK, 37] {
        for special in [&SPECIAL[..0], &SPECIAL] {
            check::<f32>(len, special);
            check::<bf16>(len, special);
            check::<f16>(len, special);
        }
    }
}

/// Sums of parts that end inside a block, from where blocks begin and inside of them.
#[test]
fn sums_in_fixed_point_have_the_bits_of_the_definition() {
    fn check<V: Lane, T: Lane>(special: &[f32]) {
        const LEN: usize = 4 * FIXED_BLOCK + 9;
        let (weights, factor) = ([0.5, 3.0, 0.7], 0.3);
        let parts = [1, 2, 3].map(|seed| values::<V>(seed, LEN, special));
        let mut expected: Vec<T> = Vec::new();
        for at in (0..LEN).step_by(FIXED_BLOCK) {
            let blocks = parts.each_ref().map(|part| &part[at..LEN.min(at + FIXED_BLOCK)]);
            let measured = blocks.iter().zip(weights).map(|(b, w)| reference::measure(b, w));
            let exponent = measured.max().unwrap();
            let mut sums = vec![0i32; blocks[0].len()];
            for (block, weight) in blocks.iter().zip(weights) {
                let mut codes = vec![0; block.len()];
                reference::encode(block, exponent, &mut codes, weight, reference::headroom(3));
                sums.iter_mut().zip(codes).for_each(|(sum, code)| *sum += code);
            }
            let mut means = vec![T::narrow(7.0); sums.len()];
            reference::decode(&sums, exponent, &mut means, factor, reference::headroom(3));
            expected.extend(means);
        }
        let parts = parts.each_ref().map(|part| part.as_ptr() as u64);
        for (start, end) in [(0, LEN), (256, 1024), (300, 700), (1024, LEN), (512, 512)] {
            for (portable, past) in FORMS {
                let mut to = vec![T::narrow(7.0); end - start];
                let (parts, weights) = (&parts[..], &weights[..]);
                let maker = fixed::Sums::<V>::new(parts, weights, (start, LEN), factor);
                run(portable, Making { maker, to: &mut to, past });
                assert_eq!(bits(&to), bits(&expected[start..end]), "{start} {end}");
            }
        }
    }
    for special in [&SPECIAL[..0], &SPECIAL] {
        check::<f32, f32>(special);
        check::<bf16, bf16>(special);
        check::<f16, f32>(special);
        check::<f32, f16>(special);
    }
}
