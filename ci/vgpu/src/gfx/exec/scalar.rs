//! The scalar unit. Logic keeps track of undefined bits one by one, since lane masks go through it;
//! arithmetic spoils all bits.

use super::map::Act;
use super::memory::{PRIVATE_APERTURE, SHARED_APERTURE};
use super::wave::{EXEC, Mode, Wave};
use crate::gfx::decode::{Instruction, Operand, Source};
use crate::gfx::isa::Type;

/// All bits that an operand of this type has.
fn all(ty: Type) -> u64 {
    if ty.words() == 2 { u64::MAX } else { u32::MAX.into() }
}

fn store(w: &mut Wave, i: &Instruction, value: u64, undefined: u64) {
    let Operand::Scalar(n) = i.dst else { return };
    if i.dst_type.words() == 2 {
        w.set64(n, value, undefined);
    } else {
        w.set(n, value as u32, undefined as u32);
    }
}

fn set_scc(w: &mut Wave, value: bool, undefined: bool) {
    (w.scc, w.scc_undefined) = (value, undefined);
}

/// Whether undefined bits leave open that a value is not 0.
fn open(value: u64, undefined: u64) -> bool {
    undefined != 0 && value & !undefined == 0
}

fn source(w: &Wave, i: &Instruction, n: usize) -> (u64, u64) {
    let (value, undefined) = w.scalar_operand(&i.src[n]);
    let all = all(i.src[n].ty);
    (value & all, undefined & all)
}

/// Arithmetic of two sources: result, and SCC if it is set.
fn sum(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64) -> (u64, Option<bool>)) {
    let ((a, ua), (b, ub)) = (source(w, i, 0), source(w, i, 1));
    let (value, scc) = f(a, b);
    let undefined = ua | ub != 0;
    store(w, i, value & all(i.dst_type), if undefined { u64::MAX } else { 0 });
    if let Some(scc) = scc {
        set_scc(w, scc, undefined);
    }
}

/// The same on 32 bits.
fn sum32(w: &mut Wave, i: &Instruction, f: impl Fn(u32, u32) -> (u32, Option<bool>)) {
    sum(w, i, |a, b| {
        let (value, scc) = f(a as u32, b as u32);
        (value.into(), scc)
    });
}

/// Logic of two sources; SCC says whether the result is not 0.
fn logic(
    w: &mut Wave,
    i: &Instruction,
    f: impl Fn(u64, u64) -> u64,
    undefined: impl Fn([u64; 2], [u64; 2]) -> u64,
) {
    let ((a, ua), (b, ub)) = (source(w, i, 0), source(w, i, 1));
    let all = all(i.dst_type);
    let (value, undefined) = (f(a, b) & all, undefined([a, b], [ua, ub]) & all);
    store(w, i, value, undefined);
    set_scc(w, value != 0, open(value, undefined));
}

fn and([a, b]: [u64; 2], [ua, ub]: [u64; 2]) -> u64 {
    (ua | ub) & (a | ua) & (b | ub)
}

fn or([a, b]: [u64; 2], [ua, ub]: [u64; 2]) -> u64 {
    (ua | ub) & (!a | ua) & (!b | ub)
}

fn either(_: [u64; 2], [ua, ub]: [u64; 2]) -> u64 {
    ua | ub
}

/// One source: result, its undefined bits, and whether SCC tells if it is 0.
fn unary(
    w: &mut Wave,
    i: &Instruction,
    scc: bool,
    f: impl Fn(u64) -> u64,
    bits: impl Fn(u64) -> u64,
) {
    let (a, ua) = source(w, i, 0);
    let all = all(i.dst_type);
    let (value, undefined) = (f(a) & all, bits(ua) & all);
    store(w, i, value, undefined);
    if scc {
        set_scc(w, value != 0, open(value, undefined));
    }
}

fn spoil(u: u64) -> u64 {
    if u == 0 { 0 } else { u64::MAX }
}

/// exec becomes `f(source, exec)`, and the result is what it was.
fn save_exec(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64) -> u64, wr: bool) {
    let (a, ua) = source(w, i, 0);
    let exec = w.exec();
    let value = f(a, exec);
    // Bits of the result that depend on undefined ones.
    let undefined = f(a | ua, exec) ^ f(a & !ua, exec);
    if !wr {
        store(w, i, exec, 0);
    } else {
        store(w, i, value, undefined);
    }
    w.set64(EXEC, value, undefined);
    set_scc(w, value != 0, open(value, undefined));
}

fn compare(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64) -> bool) {
    let ((a, ua), (b, ub)) = (source(w, i, 0), source(w, i, 1));
    set_scc(w, f(a, b), ua | ub != 0);
}

/// A field given by one number: where it begins, and how wide it is.
fn field(a: u64, b: u64, bits: u64) -> (u64, u64) {
    let (at, width) = (b & (bits - 1), b >> 16 & 0x7f);
    let kept = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
    (a >> at & kept, width.min(bits))
}

fn extend(x: u64, width: u64) -> u64 {
    if width == 0 { 0 } else { ((x << (64 - width)) as i64 >> (64 - width)) as u64 }
}

/// What an instruction of this kind does; none if it is not known.
pub fn action(i: &Instruction) -> Option<Act> {
    logical(i.name)
        .or_else(|| arithmetic(i.name))
        .or_else(|| single(i.name))
        .or_else(|| comparison(i.name))
        .or_else(|| constant(i))
}

fn logical(name: &str) -> Option<Act> {
    Some(match name {
        "s_and_b32" | "s_and_b64" => |w, i| logic(w, i, |a, b| a & b, and),
        "s_or_b32" | "s_or_b64" => |w, i| logic(w, i, |a, b| a | b, or),
        "s_xor_b32" | "s_xor_b64" => |w, i| logic(w, i, |a, b| a ^ b, either),
        "s_andn2_b32" | "s_andn2_b64" => {
            |w, i| logic(w, i, |a, b| a & !b, |[a, b], u| and([a, !b], u))
        }
        "s_orn2_b32" | "s_orn2_b64" => {
            |w, i| logic(w, i, |a, b| a | !b, |[a, b], u| or([a, !b], u))
        }
        "s_nand_b32" | "s_nand_b64" => |w, i| logic(w, i, |a, b| !(a & b), and),
        "s_nor_b32" | "s_nor_b64" => |w, i| logic(w, i, |a, b| !(a | b), or),
        "s_xnor_b32" | "s_xnor_b64" => |w, i| logic(w, i, |a, b| !(a ^ b), either),
        "s_and_saveexec_b64" => |w, i| save_exec(w, i, |a, e| a & e, false),
        "s_or_saveexec_b64" => |w, i| save_exec(w, i, |a, e| a | e, false),
        "s_xor_saveexec_b64" => |w, i| save_exec(w, i, |a, e| a ^ e, false),
        "s_andn2_saveexec_b64" => |w, i| save_exec(w, i, |a, e| a & !e, false),
        "s_orn2_saveexec_b64" => |w, i| save_exec(w, i, |a, e| a | !e, false),
        "s_nand_saveexec_b64" => |w, i| save_exec(w, i, |a, e| !(a & e), false),
        "s_nor_saveexec_b64" => |w, i| save_exec(w, i, |a, e| !(a | e), false),
        "s_xnor_saveexec_b64" => |w, i| save_exec(w, i, |a, e| !(a ^ e), false),
        "s_andn1_saveexec_b64" => |w, i| save_exec(w, i, |a, e| !a & e, false),
        "s_orn1_saveexec_b64" => |w, i| save_exec(w, i, |a, e| !a | e, false),
        "s_andn1_wrexec_b64" => |w, i| save_exec(w, i, |a, e| !a & e, true),
        "s_andn2_wrexec_b64" => |w, i| save_exec(w, i, |a, e| a & !e, true),
        "s_cselect_b32" | "s_cselect_b64" => |w, i| {
            let ((a, ua), (b, ub)) = (source(w, i, 0), source(w, i, 1));
            let (value, undefined) = if w.scc { (a, ua) } else { (b, ub) };
            let undefined = if w.scc_undefined { u64::MAX } else { undefined };
            store(w, i, value, undefined);
        },
        "s_cmov_b32" | "s_cmov_b64" => |w, i| {
            let (a, ua) = source(w, i, 0);
            if w.scc {
                store(w, i, a, if w.scc_undefined { u64::MAX } else { ua });
            }
        },
        _ => return None,
    })
}

fn signed(f: impl Fn(i32, i32) -> i32) -> impl Fn(u32, u32) -> u32 {
    move |a, b| f(a as i32, b as i32) as u32
}

fn arithmetic(name: &str) -> Option<Act> {
    Some(match name {
        "s_add_u32" => |w, i| {
            sum32(w, i, |a, b| {
                let (value, carry) = a.overflowing_add(b);
                (value, Some(carry))
            });
        },
        "s_sub_u32" => |w, i| sum32(w, i, |a, b| (a.wrapping_sub(b), Some(b > a))),
        "s_add_i32" => |w, i| {
            sum32(w, i, |a, b| {
                let (value, over) = (a as i32).overflowing_add(b as i32);
                (value as u32, Some(over))
            });
        },
        "s_sub_i32" => |w, i| {
            sum32(w, i, |a, b| {
                let (value, over) = (a as i32).overflowing_sub(b as i32);
                (value as u32, Some(over))
            });
        },
        "s_addc_u32" => |w, i| carry(w, i, |a, b, c| (a + b + c, a + b + c > u32::MAX.into())),
        "s_subb_u32" => {
            |w, i| carry(w, i, |a, b, c| (a.wrapping_sub(b).wrapping_sub(c), b + c > a))
        }
        "s_min_i32" => |w, i| {
            sum32(w, i, |a, b| (signed(i32::min)(a, b), Some((a as i32) < b as i32)));
        },
        "s_max_i32" => |w, i| {
            sum32(w, i, |a, b| (signed(i32::max)(a, b), Some(a as i32 > b as i32)));
        },
        "s_min_u32" => |w, i| sum32(w, i, |a, b| (a.min(b), Some(a < b))),
        "s_max_u32" => |w, i| sum32(w, i, |a, b| (a.max(b), Some(a > b))),
        "s_mul_i32" => |w, i| sum32(w, i, |a, b| (a.wrapping_mul(b), None)),
        "s_mul_hi_u32" => {
            |w, i| sum32(w, i, |a, b| (((u64::from(a) * u64::from(b)) >> 32) as u32, None))
        }
        "s_mul_hi_i32" => |w, i| {
            sum32(w, i, |a, b| (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32, None));
        },
        "s_absdiff_i32" => |w, i| {
            sum32(w, i, |a, b| {
                let value = (a as i32).wrapping_sub(b as i32).unsigned_abs();
                (value, Some(value != 0))
            });
        },
        "s_lshl_b32" | "s_lshl_b64" => |w, i| shift(w, i, |a, n, _| a << n),
        "s_lshr_b32" | "s_lshr_b64" => |w, i| shift(w, i, |a, n, _| a >> n),
        "s_ashr_i32" | "s_ashr_i64" => {
            |w, i| shift(w, i, |a, n, bits| (extend(a, bits) as i64 >> n) as u64)
        }
        "s_bfm_b32" => |w, i| sum(w, i, |n, at| (((1 << (n & 31)) - 1) << (at & 31), None)),
        "s_bfm_b64" => |w, i| sum(w, i, |n, at| (((1 << (n & 63)) - 1) << (at & 63), None)),
        "s_bfe_u32" => |w, i| {
            sum(w, i, |a, b| {
                let value = field(a, b, 32).0;
                (value, Some(value != 0))
            });
        },
        "s_bfe_u64" => |w, i| {
            sum(w, i, |a, b| {
                let value = field(a, b, 64).0;
                (value, Some(value != 0))
            });
        },
        "s_bfe_i32" => |w, i| {
            sum(w, i, |a, b| {
                let (value, width) = field(a, b, 32);
                (extend(value, width), Some(value != 0))
            });
        },
        "s_bfe_i64" => |w, i| {
            sum(w, i, |a, b| {
                let (value, width) = field(a, b, 64);
                (extend(value, width), Some(value != 0))
            });
        },
        "s_lshl1_add_u32" => |w, i| shift_add(w, i, 1),
        "s_lshl2_add_u32" => |w, i| shift_add(w, i, 2),
        "s_lshl3_add_u32" => |w, i| shift_add(w, i, 3),
        "s_lshl4_add_u32" => |w, i| shift_add(w, i, 4),
        "s_pack_ll_b32_b16" => |w, i| sum32(w, i, |a, b| (a & 0xffff | b << 16, None)),
        "s_pack_lh_b32_b16" => |w, i| sum32(w, i, |a, b| (a & 0xffff | b & 0xffff_0000, None)),
        "s_pack_hh_b32_b16" => |w, i| sum32(w, i, |a, b| (a >> 16 | b & 0xffff_0000, None)),
        _ => return None,
    })
}

fn carry(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64, u64) -> (u64, bool)) {
    let (c, undefined) = (u64::from(w.scc), w.scc_undefined);
    sum(w, i, |a, b| {
        let (value, carry) = f(a, b, c);
        (value, Some(carry))
    });
    if undefined {
        store(w, i, 0, u64::MAX);
        w.scc_undefined = true;
    }
}

fn shift(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64, u64) -> u64) {
    let ((a, ua), (n, un)) = (source(w, i, 0), source(w, i, 1));
    let bits = 32 * u64::from(i.dst_type.words());
    let n = n & (bits - 1);
    let all = all(i.dst_type);
    let undefined = if un & (bits - 1) != 0 { all } else { f(ua, n, bits) & all };
    let value = f(a, n, bits) & all;
    store(w, i, value, undefined);
    set_scc(w, value != 0, open(value, undefined));
}

fn shift_add(w: &mut Wave, i: &Instruction, n: u32) {
    sum(w, i, |a, b| {
        let value = (a << n) + b;
        (value, Some(value > u32::MAX.into()))
    });
}

fn single(name: &str) -> Option<Act> {
    fn count(x: u64, none: u64, f: impl Fn(u64) -> u32) -> u64 {
        if x == none { u32::MAX.into() } else { f(x).into() }
    }
    Some(match name {
        "s_mov_b32" | "s_mov_b64" => |w, i| unary(w, i, false, |a| a, |u| u),
        "s_not_b32" | "s_not_b64" => |w, i| unary(w, i, true, |a| !a, |u| u),
        "s_brev_b32" => |w, i| {
            unary(
                w,
                i,
                false,
                |a| (a as u32).reverse_bits().into(),
                |u| (u as u32).reverse_bits().into(),
            )
        },
        "s_brev_b64" => |w, i| unary(w, i, false, u64::reverse_bits, u64::reverse_bits),
        "s_bcnt1_i32_b32" | "s_bcnt1_i32_b64" => {
            |w, i| unary(w, i, true, |a| a.count_ones().into(), spoil)
        }
        "s_bcnt0_i32_b32" => |w, i| unary(w, i, true, |a| (32 - a.count_ones()).into(), spoil),
        "s_bcnt0_i32_b64" => |w, i| unary(w, i, true, |a| a.count_zeros().into(), spoil),
        "s_ff1_i32_b32" | "s_ff1_i32_b64" => {
            |w, i| unary(w, i, false, |a| count(a, 0, u64::trailing_zeros), spoil)
        }
        "s_ff0_i32_b32" => |w, i| {
            unary(w, i, false, |a| count(a, u32::MAX.into(), u64::trailing_ones), spoil);
        },
        "s_ff0_i32_b64" => {
            |w, i| unary(w, i, false, |a| count(a, u64::MAX, u64::trailing_ones), spoil)
        }
        "s_flbit_i32_b32" => {
            |w, i| unary(w, i, false, |a| count(a, 0, |a| a.leading_zeros() - 32), spoil)
        }
        "s_flbit_i32_b64" => |w, i| unary(w, i, false, |a| count(a, 0, u64::leading_zeros), spoil),
        "s_flbit_i32" => |w, i| {
            let sign = |a: u64| u64::from(a as u32 ^ (a as i32 >> 31) as u32);
            unary(w, i, false, |a| count(sign(a), 0, |a| a.leading_zeros() - 32), spoil);
        },
        "s_flbit_i32_i64" => |w, i| {
            let sign = |a: u64| a ^ (a as i64 >> 63) as u64;
            unary(w, i, false, |a| count(sign(a), 0, u64::leading_zeros), spoil);
        },
        "s_sext_i32_i8" => |w, i| unary(w, i, false, |a| a as i8 as u64, |u| u as i8 as u64),
        "s_sext_i32_i16" => |w, i| unary(w, i, false, |a| a as i16 as u64, |u| u as i16 as u64),
        "s_abs_i32" => |w, i| unary(w, i, true, |a| (a as i32).unsigned_abs().into(), spoil),
        "s_bitset0_b32" | "s_bitset0_b64" => |w, i| set_bit(w, i, false),
        "s_bitset1_b32" | "s_bitset1_b64" => |w, i| set_bit(w, i, true),
        "s_getpc_b64" => |w, i| {
            let pc = w.base + i.address + 4;
            store(w, i, pc, 0);
        },
        _ => return None,
    })
}

fn set_bit(w: &mut Wave, i: &Instruction, to: bool) {
    let (n, un) = source(w, i, 0);
    let (old, undefined) = w.scalar_operand(&Source::new(i.dst, i.dst_type));
    let bit = 1_u64 << (n & (32 * u64::from(i.dst_type.words()) - 1));
    let undefined = if un != 0 { u64::MAX } else { undefined & !bit };
    store(w, i, if to { old | bit } else { old & !bit }, undefined);
}

fn comparison(name: &str) -> Option<Act> {
    fn s(x: u64) -> i32 {
        x as i32
    }
    Some(match name {
        "s_cmp_eq_i32" | "s_cmp_eq_u32" | "s_cmp_eq_u64" => |w, i| compare(w, i, |a, b| a == b),
        "s_cmp_lg_i32" | "s_cmp_lg_u32" | "s_cmp_lg_u64" => |w, i| compare(w, i, |a, b| a != b),
        "s_cmp_gt_i32" => |w, i| compare(w, i, |a, b| s(a) > s(b)),
        "s_cmp_ge_i32" => |w, i| compare(w, i, |a, b| s(a) >= s(b)),
        "s_cmp_lt_i32" => |w, i| compare(w, i, |a, b| s(a) < s(b)),
        "s_cmp_le_i32" => |w, i| compare(w, i, |a, b| s(a) <= s(b)),
        "s_cmp_gt_u32" => |w, i| compare(w, i, |a, b| a > b),
        "s_cmp_ge_u32" => |w, i| compare(w, i, |a, b| a >= b),
        "s_cmp_lt_u32" => |w, i| compare(w, i, |a, b| a < b),
        "s_cmp_le_u32" => |w, i| compare(w, i, |a, b| a <= b),
        "s_bitcmp0_b32" | "s_bitcmp0_b64" => |w, i| bit_compare(w, i, false),
        "s_bitcmp1_b32" | "s_bitcmp1_b64" => |w, i| bit_compare(w, i, true),
        _ => return None,
    })
}

fn bit_compare(w: &mut Wave, i: &Instruction, wanted: bool) {
    let ((a, ua), (n, un)) = (source(w, i, 0), source(w, i, 1));
    let n = n & (32 * u64::from(i.src[0].ty.words()) - 1);
    set_scc(w, (a >> n & 1 == 1) == wanted, ua >> n & 1 == 1 || un != 0);
}

/// Number of the MODE register, and of that with the apertures.
const MODE: u16 = 1;
const MEMORY_BASES: u16 = 15;

fn constant(i: &Instruction) -> Option<Act> {
    fn with(w: &mut Wave, i: &Instruction, f: impl Fn(i32, i32) -> (i32, Option<bool>)) {
        let (a, undefined) = w.scalar_operand(&i.src[0]);
        let (value, scc) = f(a as i32, i32::from(i.simm as i16));
        if i.dst != Operand::None {
            store(w, i, u64::from(value as u32), spoil(undefined));
        }
        if let Some(scc) = scc {
            set_scc(w, scc, undefined != 0);
        }
    }
    fn compare(w: &mut Wave, i: &Instruction, f: impl Fn(i32, i32) -> bool) {
        with(w, i, |a, b| (a, Some(f(a, b))));
    }
    fn compare_unsigned(w: &mut Wave, i: &Instruction, f: impl Fn(u32, u32) -> bool) {
        with(w, i, |a, b| (a, Some(f(a as u32, b as u32 & 0xffff))));
    }
    Some(match i.name {
        "s_movk_i32" => |w, i| store(w, i, u64::from(i.simm as i16 as u32), 0),
        "s_cmovk_i32" => |w, i| {
            if w.scc {
                let undefined = if w.scc_undefined { u64::MAX } else { 0 };
                store(w, i, u64::from(i.simm as i16 as u32), undefined);
            }
        },
        "s_addk_i32" => |w, i| {
            with(w, i, |a, b| {
                let (value, over) = a.overflowing_add(b);
                (value, Some(over))
            });
        },
        "s_mulk_i32" => |w, i| with(w, i, |a, b| (a.wrapping_mul(b), None)),
        "s_cmpk_eq_i32" => |w, i| compare(w, i, |a, b| a == b),
        "s_cmpk_lg_i32" => |w, i| compare(w, i, |a, b| a != b),
        "s_cmpk_gt_i32" => |w, i| compare(w, i, |a, b| a > b),
        "s_cmpk_ge_i32" => |w, i| compare(w, i, |a, b| a >= b),
        "s_cmpk_lt_i32" => |w, i| compare(w, i, |a, b| a < b),
        "s_cmpk_le_i32" => |w, i| compare(w, i, |a, b| a <= b),
        "s_cmpk_eq_u32" => |w, i| compare_unsigned(w, i, |a, b| a == b),
        "s_cmpk_lg_u32" => |w, i| compare_unsigned(w, i, |a, b| a != b),
        "s_cmpk_gt_u32" => |w, i| compare_unsigned(w, i, |a, b| a > b),
        "s_cmpk_ge_u32" => |w, i| compare_unsigned(w, i, |a, b| a >= b),
        "s_cmpk_lt_u32" => |w, i| compare_unsigned(w, i, |a, b| a < b),
        "s_cmpk_le_u32" => |w, i| compare_unsigned(w, i, |a, b| a <= b),
        "s_getreg_b32" if matches!(i.simm & 63, MODE | MEMORY_BASES) => |w, i| {
            let bases = (SHARED_APERTURE >> 48 << 16 | PRIVATE_APERTURE >> 48) as u32;
            let whole = if i.simm & 63 == MODE { w.mode.0 } else { bases };
            let (at, width) = (i.simm >> 6 & 31, (i.simm >> 11) + 1);
            store(w, i, u64::from(whole) >> at & ((1 << width) - 1), 0);
        },
        "s_setreg_b32" | "s_setreg_imm32_b32" if i.simm & 63 == MODE => |w, i| {
            let value = if i.name == "s_setreg_b32" {
                w.scalar_operand(&i.src[0]).0 as u32
            } else {
                i.literal
            };
            let (at, width) = (i.simm >> 6 & 31, (i.simm >> 11) + 1);
            let field = (((1_u64 << width) - 1) << at) as u32;
            w.mode = Mode(w.mode.0 & !field | value << at & field);
        },
        _ => return None,
    })
}
