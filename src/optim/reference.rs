//! The numerics of a step, one element at a time: what every device's kernels are compared with,
//! bit for bit. Nothing here is fast.
#![forbid(unsafe_code)]
#![cfg(test)]

use super::random::Key;
use super::round::{join, split};
use super::{Apply, rows};
use crate::kernel::params::optim::{
    MASTER_F32, MASTER_NEAREST, MASTER_OWN, MASTER_REMAINDER, Scalars,
};
use crate::kernel::table::optim::Row;
use crate::{Dtype, Storage, bf16, f16};

/// The value of stored bits.
pub(crate) fn widen(dtype: Dtype, bits: u32) -> f32 {
    match dtype {
        Dtype::Bf16 => bf16::from_bits(bits as u16).widen(),
        Dtype::F16 => f16::from_bits(bits as u16).widen(),
        Dtype::F32 => f32::from_bits(bits),
    }
}

/// The bits of the nearest value.
pub(crate) fn nearest(dtype: Dtype, value: f32) -> u32 {
    match dtype {
        Dtype::Bf16 => u32::from(bf16::narrow(value).to_bits()),
        Dtype::F16 => u32::from(f16::narrow(value).to_bits()),
        Dtype::F32 => value.to_bits(),
    }
}

/// The bits of the value above or below, at random.
fn stochastic(dtype: Dtype, value: f32, random: u16) -> u32 {
    match dtype {
        Dtype::Bf16 => u32::from(super::round::stochastic_bf16(value, random).to_bits()),
        Dtype::F16 => u32::from(super::round::stochastic_f16(value, random).to_bits()),
        Dtype::F32 => value.to_bits(),
    }
}

/// One element's stored bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Element {
    pub(crate) param: u32,
    pub(crate) master: u32,
    pub(crate) slots: [u32; 3],
}

/// How they are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) row: Row,
    pub(crate) mode: u32,
    pub(crate) param: Dtype,
    pub(crate) moment: Dtype,
}

/// The step of one element; `index` is its place in the tensor, `g` its unscaled gradient.
pub(crate) fn step(
    kind: Kind,
    scalars: &Scalars,
    g: f32,
    key: Key,
    index: u64,
    old: Element,
) -> Element {
    let p = match kind.mode {
        MASTER_OWN => f32::from_bits(old.param),
        MASTER_F32 => f32::from_bits(old.master),
        MASTER_REMAINDER => join(bf16::from_bits(old.param as u16), old.master as u16),
        _ => widen(kind.param, old.param),
    };
    let (p, slots) = rule(kind.row, scalars, g, p, old.slots.map(|bits| widen(kind.moment, bits)));
    let mut new = old;
    for (number, value) in slots.into_iter().enumerate().take(kind.row.slots()) {
        let key = Key { slot: 1 + number as u32, ..key };
        new.slots[number] = stochastic(kind.moment, value, key.bits(index));
    }
    match kind.mode {
        MASTER_OWN => new.param = p.to_bits(),
        MASTER_F32 => (new.master, new.param) = (p.to_bits(), nearest(kind.param, p)),
        MASTER_REMAINDER => {
            let (high, low) = split(p);
            (new.param, new.master) = (u32::from(high.to_bits()), u32::from(low));
        }
        MASTER_NEAREST => new.param = nearest(kind.param, p),
        _ => new.param = stochastic(kind.param, p, key.bits(index)),
    }
    new
}

fn rule(row: Row, s: &Scalars, g: f32, p: f32, slots: [f32; 3]) -> (f32, [f32; 3]) {
    fn of<const N: usize, R: Apply<N>>(
        s: &Scalars,
        g: f32,
        p: f32,
        mut slots: [f32; 3],
    ) -> (f32, [f32; 3]) {
        let state = std::array::from_fn(|n| slots[n]);
        let (p, state) = R::apply(s, g, p, state);
        slots[..N].copy_from_slice(&state);
        (p, slots)
    }
    match row {
        Row::AdamW => of::<2, rows::AdamW>(s, g, p, slots),
        Row::AdamWMax => of::<3, rows::AdamWMax>(s, g, p, slots),
        Row::Adam => of::<2, rows::Adam>(s, g, p, slots),
        Row::AdamMax => of::<3, rows::AdamMax>(s, g, p, slots),
        Row::Sgd => of::<0, rows::Sgd>(s, g, p, slots),
        Row::SgdMomentum => of::<1, rows::SgdMomentum>(s, g, p, slots),
        Row::Adagrad => of::<1, rows::Adagrad>(s, g, p, slots),
        Row::Lion => of::<1, rows::Lion>(s, g, p, slots),
        Row::LambMoments => of::<2, rows::LambMoments>(s, g, p, slots),
        Row::LambApply => of::<2, rows::LambApply>(s, g, p, slots),
        Row::Stats | Row::Control | Row::Convert | Row::LambTrust => (p, slots),
    }
}
