//! Exchanges between lanes within registers, and packed f32.

use super::map::Act;
use super::wave::{LANES, Vector, Wave, lanes};
use crate::gfx::decode::{Instruction, Operand};
use crate::number::{add_f32, fma_f32, mul_f32};

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    Some(match name {
        "v_nop" | "v_clrexcp" => |_, _| {},
        "v_readfirstlane_b32" => |w, i| {
            let exec = w.exec();
            read_lane(w, i, if exec == 0 { 0 } else { exec.trailing_zeros() });
        },
        "v_readlane_b32" => |w, i| {
            let (lane, undefined) = w.scalar_operand(&i.src[1]);
            read_lane(w, i, lane as u32 & 63);
            if let (true, Operand::Scalar(n)) = (undefined & 63 != 0, i.dst) {
                w.scalar_undefined[n as usize] = u32::MAX;
            }
        },
        "v_writelane_b32" => |w, i| {
            let ((value, undefined), (lane, _)) =
                (w.scalar_operand(&i.src[0]), w.scalar_operand(&i.src[1]));
            if let Operand::Vector(n) = i.dst {
                let slot = w.slot(n);
                w.set_lane(slot, lane as usize & 63, value as u32, undefined as u32);
            }
        },
        "v_swap_b32" => |w, i| {
            let (Operand::Vector(a), Operand::Vector(b)) = (i.dst, i.src[0].operand) else {
                return;
            };
            let (a, b) = (w.slot(a), w.slot(b));
            for lane in lanes(w.exec()) {
                let (x, y) = (w.lane(a, lane), w.lane(b, lane));
                w.set_lane(a, lane, y.0, y.1);
                w.set_lane(b, lane, x.0, x.1);
            }
        },
        "v_mbcnt_lo_u32_b32" => |w, i| count_below(w, i, 0),
        "v_mbcnt_hi_u32_b32" => |w, i| count_below(w, i, 32),
        "v_pk_add_f32" => |w, i| {
            let m = w.mode.round32();
            pairs(w, i, |[a, b]| add_f32(a, b, m));
        },
        "v_pk_mul_f32" => |w, i| {
            let m = w.mode.round32();
            pairs(w, i, |[a, b]| mul_f32(a, b, m));
        },
        "v_pk_fma_f32" => |w, i| {
            let m = w.mode.round32();
            pairs(w, i, |[a, b, c]| fma_f32(a, b, c, m));
        },
        "v_pk_mov_b32" => |w, i| {
            let Operand::Vector(n) = i.dst else { return };
            let slot = w.slot(n);
            let mask = w.exec();
            // The first source gives the low word, the second the high one.
            let chosen = [u16::from(i.op_sel & 1), u16::from(i.op_sel >> 1 & 1)];
            let words = [0, 1].map(|n| w.raw(i.src[n].operand, chosen[n]));
            let undefined = [0, 1].map(|n| w.raw_undefined(i.src[n].operand, chosen[n]));
            for n in 0..2 {
                w.write(slot + n, mask, &words[n].0);
                w.taint(slot + n, mask, &undefined[n]);
            }
        },
        _ => return None,
    })
}

fn read_lane(w: &mut Wave, i: &Instruction, lane: u32) {
    let (value, undefined) = match i.src[0].operand {
        Operand::Vector(n) => w.lane(w.slot(n), lane as usize),
        _ => {
            let (value, undefined) = w.scalar_operand(&i.src[0]);
            (value as u32, undefined as u32)
        }
    };
    if let Operand::Scalar(n) = i.dst {
        w.set(n, value, undefined);
    }
}

/// How many bits of the first source are set below a lane, plus the second.
fn count_below(w: &mut Wave, i: &Instruction, first: usize) {
    let below: Vector = std::array::from_fn(|l| {
        let n = l.saturating_sub(first).min(32) as u32;
        ((1_u64 << n) - 1) as u32
    });
    let (a, ta) = w.fetch(i, 0);
    let (b, tb) = w.fetch(i, 1);
    let out = std::array::from_fn(|l| (a[l] & below[l]).count_ones().wrapping_add(b[l]));
    w.store(i, &out);
    w.store_undefined(i, ta | tb, &[u32::MAX; LANES]);
}

/// Two f32 at once. Subnormals are kept: the packed forms are refused where the mode flushes.
fn pairs<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([f32; N]) -> f32) {
    let Operand::Vector(n) = i.dst else { return };
    let (slot, mask) = (w.slot(n), w.exec());
    let mut out = [([0; LANES], 0); 2];
    for (high, (out, tainted)) in out.iter_mut().enumerate() {
        let sel = if high == 1 { i.op_sel_hi } else { i.op_sel };
        let src: [(Vector, u64); N] = std::array::from_fn(|n| {
            let (mut x, t) = w.raw(i.src[n].operand, u16::from(sel >> n & 1));
            let negative = if high == 1 { i.neg_hi >> n & 1 == 1 } else { i.src[n].neg };
            if negative {
                x.iter_mut().for_each(|x| *x ^= 0x8000_0000);
            }
            (x, t)
        });
        for (l, out) in out.iter_mut().enumerate() {
            let y = f(std::array::from_fn(|n| f32::from_bits(src[n].0[l])));
            *out = y.to_bits();
            if y.is_nan() {
                let nan = src.iter().map(|s| s.0[l]).find(|x| super::float::is_nan(*x));
                *out = nan.map_or(0x7fc0_0000, |x| x | 0x40_0000);
            }
        }
        if i.clamp {
            for x in out.iter_mut() {
                let y = f32::from_bits(*x);
                *x = if y > 0.0 { y.min(1.0).to_bits() } else { 0 };
            }
        }
        *tainted = src.iter().fold(0, |t, s| t | s.1);
    }
    for (word, (out, tainted)) in out.iter().enumerate() {
        w.write(slot + word, mask, out);
        w.taint_all(slot + word, mask & tainted);
    }
}
