//! The fast path against the reference, bit for bit.

use half::{bf16, f16};
use proptest::prelude::*;

use super::super::wide::{Work, vector};
use super::chunk::{Grad, Half, Job, Param, State, Update};
use crate::kernel::params::optim::{
    MASTER_F32, MASTER_NEAREST, MASTER_OWN, MASTER_REMAINDER, MASTER_STOCHASTIC, Scalars,
};
use crate::kernel::table::optim::Row;
use crate::optim::random::Key;
use crate::optim::reference::{self, Element, Kind};
use crate::{Dtype, Storage};

/// The combinations of parameter type and master that plans allow.
const MODES: [(u32, Dtype); 8] = [
    (MASTER_OWN, Dtype::F32),
    (MASTER_F32, Dtype::Bf16),
    (MASTER_F32, Dtype::F16),
    (MASTER_REMAINDER, Dtype::Bf16),
    (MASTER_STOCHASTIC, Dtype::Bf16),
    (MASTER_STOCHASTIC, Dtype::F16),
    (MASTER_NEAREST, Dtype::Bf16),
    (MASTER_NEAREST, Dtype::F16),
];

const ROWS: [Row; 10] = [
    Row::AdamW,
    Row::AdamWMax,
    Row::Adam,
    Row::AdamMax,
    Row::Sgd,
    Row::SgdMomentum,
    Row::Adagrad,
    Row::Lion,
    Row::LambMoments,
    Row::LambApply,
];

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    *seed >> 16
}

/// Mostly ordinary numbers, some very large, tiny, zero or special.
fn value(seed: &mut u64) -> f32 {
    let bits = next(seed);
    let unit = (bits >> 8 & 0xff_ffff) as f32 / 8_388_608.0 - 1.0;
    match bits & 0x3f {
        0 => 0.0,
        1 => -0.0,
        2 => unit * 1e-40,
        3 => unit * 3e38,
        4 => unit * 1e-6,
        5 if bits & 0xc0 == 0 => f32::NAN,
        6 if bits & 0xc0 == 0 => f32::INFINITY,
        _ => unit,
    }
}

/// One chunk's memory as the fast path and as the reference see it.
struct Memory {
    elements: Vec<Element>,
    bf16s: Vec<bf16>,
    f16s: Vec<f16>,
    masters: Vec<f32>,
    remainders: Vec<u16>,
    wide: [Vec<f32>; 3],
    narrow: [Vec<bf16>; 3],
}

impl Memory {
    fn new(mode: u32, param: Dtype, moment: Dtype, len: usize, seed: &mut u64) -> Self {
        let elements: Vec<Element> = (0..len)
            .map(|_| {
                let p = value(seed);
                let master = match mode {
                    MASTER_REMAINDER => u32::from(next(seed) as u16),
                    _ => value(seed).to_bits(),
                };
                let param = reference::nearest(param, p);
                // Second moments are not negative.
                let state = [value(seed), value(seed).abs(), value(seed).abs()];
                Element { param, master, slots: state.map(|x| reference::nearest(moment, x)) }
            })
            .collect();
        let each = |f: &dyn Fn(&Element) -> u32| -> Vec<u32> { elements.iter().map(f).collect() };
        let (params, masters) = (each(&|e| e.param), each(&|e| e.master));
        let slots = [0, 1, 2].map(|n: usize| each(&|e| e.slots[n]));
        let f32s = |bits: &[u32]| bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>();
        let bf16s = |bits: &[u32]| bits.iter().map(|&b| bf16::from_bits(b as u16)).collect();
        Self {
            bf16s: bf16s(&params),
            f16s: params.iter().map(|&b| f16::from_bits(b as u16)).collect(),
            masters: f32s(if mode == MASTER_OWN { &params } else { &masters }),
            remainders: masters.iter().map(|&b| b as u16).collect(),
            wide: slots.each_ref().map(|bits| f32s(bits)),
            narrow: slots.each_ref().map(|bits| bf16s(bits)),
            elements,
        }
    }

    fn half(&mut self, param: Dtype) -> (Half<'_>, &mut Vec<f32>) {
        match param {
            Dtype::F16 => (Half::F16(&mut self.f16s), &mut self.masters),
            _ => (Half::Bf16(&mut self.bf16s), &mut self.masters),
        }
    }

    /// What the fast path left, as the reference's elements.
    fn found(&self, mode: u32, param: Dtype, moment: Dtype) -> Vec<Element> {
        let one = |i: usize| {
            let slot = |n: usize| match moment {
                Dtype::F32 => self.wide[n][i].to_bits(),
                _ => u32::from(self.narrow[n][i].to_bits()),
            };
            let stored = match (mode, param) {
                (MASTER_OWN, _) => self.masters[i].to_bits(),
                (_, Dtype::F16) => u32::from(self.f16s[i].to_bits()),
                _ => u32::from(self.bf16s[i].to_bits()),
            };
            let master = match mode {
                MASTER_F32 => self.masters[i].to_bits(),
                MASTER_REMAINDER => u32::from(self.remainders[i]),
                _ => self.elements[i].master,
            };
            Element { param: stored, master, slots: [slot(0), slot(1), slot(2)] }
        };
        (0..self.elements.len()).map(one).collect()
    }
}

/// NaNs of any payload are one.
fn same(dtype: Dtype, a: u32, b: u32) -> bool {
    a == b || reference::widen(dtype, a).is_nan() && reference::widen(dtype, b).is_nan()
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Portable,
    Vector,
    Streaming,
}

fn agree(row: Row, mode: usize, moment: Dtype, grad: Dtype, len: usize, form: Form, seed: u64) {
    let (mode, param) = MODES[mode];
    let mut rng = seed;
    let grads: Vec<f32> = (0..len).map(|_| value(&mut rng)).collect();
    let bits: Vec<u32> = grads.iter().map(|&g| reference::nearest(grad, g)).collect();
    let (g16, gb16): (Vec<f16>, Vec<bf16>) =
        bits.iter().map(|&b| (f16::from_bits(b as u16), bf16::from_bits(b as u16))).unzip();
    let mut memory = Memory::new(mode, param, moment, len, &mut rng);
    let scalars = Scalars {
        a: 0.01,
        w: if next(&mut rng) & 1 == 0 { 0.0 } else { 0.003 },
        b1: 0.9,
        c1: 0.1,
        b2: 0.99,
        c2: 0.01,
        s: 1.25,
        eps: 1e-8,
        n: 0.9,
        flags: next(&mut rng) as u32 & 1,
        active: 1,
        pad: 0,
    };
    let factor = if next(&mut rng) & 1 == 0 { 1.0 } else { 0.3 };
    let key = Key { seed, step: next(&mut rng), tensor: 7, slot: 0 };
    let start = 16_384 * (next(&mut rng) % 1000);
    let kind = Kind { row, mode, param, moment };
    let expected: Vec<Element> = memory
        .elements
        .iter()
        .zip(&bits)
        .enumerate()
        .map(|(i, (&old, &g))| {
            let g = reference::widen(grad, g) * factor;
            let mut new = reference::step(kind, &scalars, g, key, start + i as u64, old);
            if row == Row::LambMoments {
                (new.param, new.master) = (old.param, old.master); // this row leaves them
            }
            new
        })
        .collect();
    {
        let mut norms = [0.0f64; 2];
        let (mut wide, mut narrow) =
            (std::mem::take(&mut memory.wide), std::mem::take(&mut memory.narrow));
        let mut remainders = std::mem::take(&mut memory.remainders);
        let slots = {
            let [a, b, c] = &mut wide;
            let [d, e, f] = &mut narrow;
            match moment {
                Dtype::F32 => [State::F32(a), State::F32(b), State::F32(c)],
                _ => [State::Bf16(d), State::Bf16(e), State::Bf16(f)],
            }
        };
        let param = match mode {
            MASTER_OWN => Param::Own(&mut memory.masters),
            MASTER_REMAINDER => Param::Remainder(&mut memory.bf16s, &mut remainders),
            MASTER_F32 => {
                let (half, masters) = memory.half(param);
                Param::Master(masters, half)
            }
            MASTER_NEAREST => Param::Nearest(memory.half(param).0),
            _ => Param::Stochastic(memory.half(param).0),
        };
        let wide_grads: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let grad = match grad {
            Dtype::Bf16 => Grad::Bf16(&gb16),
            Dtype::F16 => Grad::F16(&g16),
            Dtype::F32 => Grad::F32(&wide_grads),
        };
        let big = matches!(form, Form::Streaming);
        let norms = &mut norms;
        let job = Job { grad, param, slots, norms, len, start, factor, big, key };
        let update = Update { job, row, scalars: &scalars };
        match form {
            Form::Portable => update.run::<false>(),
            Form::Vector | Form::Streaming => vector(update),
        }
        (memory.wide, memory.narrow, memory.remainders) = (wide, narrow, remainders);
    }
    let found = memory.found(mode, param, moment);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let fits = same(param, found.param, expected.param)
            && (found.master == expected.master
                || mode == MASTER_F32 && same(Dtype::F32, found.master, expected.master))
            && (0..3).all(|n| same(moment, found.slots[n], expected.slots[n]));
        assert!(
            fits,
            "{row:?} mode {mode} {param} moments {moment} grads {grad} {form:?} len {len} \
             element {i}: {found:x?} is not {expected:x?}"
        );
    }
}

/// Every row, kind of state and type, around every edge of tiles and vectors.
#[test]
fn o12_the_fast_path_has_the_bits_of_the_reference() {
    let mut seed = 1;
    for row in ROWS {
        for mode in 0..MODES.len() {
            for moment in [Dtype::F32, Dtype::Bf16] {
                for grad in Dtype::ALL {
                    for form in [Form::Portable, Form::Vector, Form::Streaming] {
                        for len in [1, 9, 127, 128, 129, 511, 513, 1100] {
                            seed += 1;
                            agree(row, mode, moment, grad, len, form, seed);
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn o12_any_chunk_has_the_bits_of_the_reference(
        row in 0..ROWS.len(),
        mode in 0..MODES.len(),
        narrow in any::<bool>(),
        grad in 0..3usize,
        len in 1..4500usize,
        big in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let moment = if narrow { Dtype::Bf16 } else { Dtype::F32 };
        let form = if big { Form::Streaming } else { Form::Vector };
        agree(ROWS[row], mode, moment, Dtype::ALL[grad], len, form, seed);
    }
}

/// LAMB's norms are the fold of the values that the rule sees.
#[test]
fn lamb_norms_are_folds() {
    for len in [1usize, 700, 2048, 5000, 16_384] {
        let mut rng = len as u64;
        let mut p: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut m: Vec<f32> = (0..len).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut v: Vec<f32> = (0..len).map(|_| (next(&mut rng) & 0xff) as f32 / 256.0).collect();
        let g = vec![0.5f32; len];
        let s = Scalars {
            b1: 0.9,
            c1: 0.1,
            b2: 0.9,
            c2: 0.1,
            s: 1.0,
            eps: 1e-6,
            n: 1.0,
            w: 0.01,
            a: 0.1,
            flags: 0,
            active: 1,
            pad: 0,
        };
        let mut norms = [0.0f64; 2];
        let (kept, mut empty) = (p.clone(), []);
        let job = Job {
            grad: Grad::F32(&g),
            param: Param::Own(&mut p),
            slots: [State::F32(&mut m), State::F32(&mut v), State::F32(&mut empty)],
            norms: &mut norms,
            len,
            start: 0,
            factor: 1.0,
            big: false,
            key: Key { seed: 0, step: 0, tensor: 0, slot: 0 },
        };
        vector(Update { job, row: Row::LambMoments, scalars: &s });
        assert_eq!(p, kept);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let u = (0..len).map(|i| crate::optim::rows::lamb_direction(&s, p[i], m[i], v[i]));
        let of_u = crate::grad_stats::fold(u.map(square));
        let of_p = crate::grad_stats::fold(p.iter().copied().map(square));
        assert_eq!((norms[0].to_bits(), norms[1].to_bits()), (of_p.to_bits(), of_u.to_bits()));
        assert!(bf16::narrow(1.0).widen() == 1.0 && of_u > 0.0);
    }
}
