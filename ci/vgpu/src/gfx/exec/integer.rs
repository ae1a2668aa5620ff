//! Vector integers and bits.

use super::map::{Act, accumulate, fetch_mask, map, map_bits, store_mask};
use super::wave::{LANES, Wave};
use crate::gfx::decode::Instruction;

/// What an instruction of this kind does.
pub fn action(name: &str) -> Option<Act> {
    bits(name).or_else(|| sums(name)).or_else(|| wide(name)).or_else(|| narrow(name))
}

/// Undefined bits of a left shift: those shifted in are zeros; an undefined count spoils all.
fn shl(x: u32, by: u32, by_undefined: u32) -> u32 {
    if by_undefined & 31 != 0 { u32::MAX } else { x << (by & 31) }
}

fn shr(x: u32, by: u32, by_undefined: u32) -> u32 {
    if by_undefined & 31 != 0 { u32::MAX } else { x >> (by & 31) }
}

/// All bits, if any is.
fn any(u: u32) -> u32 {
    if u == 0 { 0 } else { u32::MAX }
}

/// Bits of `a & b` that are undefined: not where the other has a defined 0.
fn and(a: u32, b: u32, ua: u32, ub: u32) -> u32 {
    (ua | ub) & (a | ua) & (b | ub)
}

fn or(a: u32, b: u32, ua: u32, ub: u32) -> u32 {
    (ua | ub) & (!a | ua) & (!b | ub)
}

/// `v_perm_b32`: bytes 0 to 3 are the second source's, 4 to 7 the first's; above are signs and
/// constants.
pub fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(a) << 32 | u64::from(b);
    let byte = |s: u32| match s {
        0..=7 => (bytes >> (8 * s)) as u32 & 0xff,
        8..=11 => 0xff * ((bytes >> (16 * (s - 8) + 15)) as u32 & 1),
        12 => 0,
        _ => 0xff,
    };
    (0..4).map(|i| byte(selector >> (8 * i) & 0xff) << (8 * i)).sum()
}

fn permute_undefined(ua: u32, ub: u32, selector: u32) -> u32 {
    let bytes = u64::from(ua) << 32 | u64::from(ub);
    let byte = |s: u32| match s {
        0..=7 => (bytes >> (8 * s)) as u32 & 0xff,
        8..=11 => 0xff * ((bytes >> (16 * (s - 8) + 15)) as u32 & 1),
        _ => 0,
    };
    (0..4).map(|i| byte(selector >> (8 * i) & 0xff) << (8 * i)).sum()
}

/// A field of bits: offset and width count modulo 32.
fn field(x: u32, at: u32, width: u32) -> u32 {
    x >> (at & 31) & !(u32::MAX << (width & 31))
}

fn signed_field(x: u32, at: u32, width: u32) -> u32 {
    let width = width & 31;
    if width == 0 {
        return 0;
    }
    let unused = 32 - width;
    ((field(x, at, width) << unused) as i32 >> unused) as u32
}

fn bits(name: &str) -> Option<Act> {
    Some(match name {
        "v_mov_b32" | "v_accvgpr_read_b32" | "v_accvgpr_write_b32" | "v_accvgpr_mov_b32" => {
            |w, i| map_bits(w, i, |[a]| a, |_, [u]| u)
        }
        "v_not_b32" => |w, i| map_bits(w, i, |[a]| !a, |_, [u]| u),
        "v_bfrev_b32" => |w, i| map_bits(w, i, |[a]| a.reverse_bits(), |_, [u]| u.reverse_bits()),
        "v_and_b32" => |w, i| map_bits(w, i, |[a, b]| a & b, |[a, b], [ua, ub]| and(a, b, ua, ub)),
        "v_or_b32" => |w, i| map_bits(w, i, |[a, b]| a | b, |[a, b], [ua, ub]| or(a, b, ua, ub)),
        "v_xor_b32" => |w, i| map_bits(w, i, |[a, b]| a ^ b, |_, [ua, ub]| ua | ub),
        "v_xnor_b32" => |w, i| map_bits(w, i, |[a, b]| !(a ^ b), |_, [ua, ub]| ua | ub),
        "v_lshlrev_b32" => {
            |w, i| map_bits(w, i, |[n, a]| a << (n & 31), |[n, _], [un, ua]| shl(ua, n, un))
        }
        "v_lshrrev_b32" => {
            |w, i| map_bits(w, i, |[n, a]| a >> (n & 31), |[n, _], [un, ua]| shr(ua, n, un))
        }
        "v_ashrrev_i32" => |w, i| {
            let shift = |x: u32, n: u32| (x as i32 >> (n & 31)) as u32;
            let undefined = |n, un: u32, ua| if un & 31 != 0 { u32::MAX } else { shift(ua, n) };
            map_bits(w, i, |[n, a]| shift(a, n), |[n, _], [un, ua]| undefined(n, un, ua));
        },
        "v_lshl_or_b32" => |w, i| {
            let undefined = |[a, n, c]: [u32; 3], [ua, un, uc]: [u32; 3]| {
                or(a << (n & 31), c, shl(ua, n, un), uc)
            };
            map_bits(w, i, |[a, n, c]| a << (n & 31) | c, undefined);
        },
        "v_and_or_b32" => |w, i| {
            let undefined =
                |[a, b, c]: [u32; 3], [ua, ub, uc]: [u32; 3]| or(a & b, c, and(a, b, ua, ub), uc);
            map_bits(w, i, |[a, b, c]| a & b | c, undefined);
        },
        "v_or3_b32" => |w, i| {
            let undefined =
                |[a, b, c]: [u32; 3], [ua, ub, uc]: [u32; 3]| or(a | b, c, or(a, b, ua, ub), uc);
            map_bits(w, i, |[a, b, c]| a | b | c, undefined);
        },
        "v_bfi_b32" => |w, i| {
            let undefined = |[m, a, b]: [u32; 3], [um, ua, ub]: [u32; 3]| {
                m & ua | !m & ub | um & (a ^ b | ua | ub)
            };
            map_bits(w, i, |[m, a, b]| m & a | !m & b, undefined);
        },
        "v_bfe_u32" => |w, i| {
            let undefined = |[_, at, n]: [u32; 3], [u, uat, un]: [u32; 3]| {
                if (uat | un) & 31 != 0 { u32::MAX } else { field(u, at, n) }
            };
            map_bits(w, i, |[a, at, n]| field(a, at, n), undefined);
        },
        "v_bfe_i32" => |w, i| {
            let undefined = |[_, at, n]: [u32; 3], [u, uat, un]: [u32; 3]| {
                if (uat | un) & 31 != 0 { u32::MAX } else { signed_field(u, at, n) }
            };
            map_bits(w, i, |[a, at, n]| signed_field(a, at, n), undefined);
        },
        "v_bfm_b32" => |w, i| map(w, i, |[n, at]| !(u32::MAX << (n & 31)) << (at & 31)),
        "v_alignbit_b32" => |w, i| {
            let shift =
                |a: u32, b: u32, n: u32| ((u64::from(a) << 32 | u64::from(b)) >> (n & 31)) as u32;
            let undefined =
                |[_, _, n]: [u32; 3], [ua, ub, un]: [u32; 3]| any(un & 31) | shift(ua, ub, n);
            map_bits(w, i, |[a, b, n]| shift(a, b, n), undefined);
        },
        "v_alignbyte_b32" => |w, i| {
            let shift = |a: u32, b: u32, n: u32| {
                ((u64::from(a) << 32 | u64::from(b)) >> (8 * (n & 3))) as u32
            };
            let undefined =
                |[_, _, n]: [u32; 3], [ua, ub, un]: [u32; 3]| any(un & 3) | shift(ua, ub, n);
            map_bits(w, i, |[a, b, n]| shift(a, b, n), undefined);
        },
        "v_perm_b32" => |w, i| {
            let undefined = |[_, _, s]: [u32; 3], [ua, ub, us]: [u32; 3]| {
                any(us) | permute_undefined(ua, ub, s)
            };
            map_bits(w, i, |[a, b, s]| permute(a, b, s), undefined);
        },
        "v_pack_b32_f16" => {
            |w, i| map_bits(w, i, |[a, b]| a | b << 16, |_, [ua, ub]| ua | ub << 16)
        }
        "v_cndmask_b32" => choose,
        "v_ffbh_u32" => |w, i| map(w, i, |[a]| if a == 0 { u32::MAX } else { a.leading_zeros() }),
        "v_ffbl_b32" => |w, i| map(w, i, |[a]| if a == 0 { u32::MAX } else { a.trailing_zeros() }),
        "v_ffbh_i32" => |w, i| {
            map(w, i, |[a]| {
                let n = (a ^ (a as i32 >> 31) as u32).leading_zeros();
                if n == 32 { u32::MAX } else { n }
            });
        },
        "v_bcnt_u32_b32" => |w, i| map(w, i, |[a, b]| a.count_ones().wrapping_add(b)),
        _ => return None,
    })
}

/// The second source where the mask is 1.
fn choose(w: &mut Wave, i: &Instruction) {
    let (mask, mask_undefined) = fetch_mask(w, i, 2);
    let ((a, ta), (b, tb)) = (w.fetch(i, 0), w.fetch(i, 1));
    let (ua, ub) = (w.fetch_undefined(i, 0), w.fetch_undefined(i, 1));
    let second = |l: usize| mask >> l & 1 == 1;
    let out = std::array::from_fn(|l| if second(l) { b[l] } else { a[l] });
    w.store(i, &out);
    if ta | tb | mask_undefined != 0 {
        let undefined = std::array::from_fn(|l| match (mask_undefined >> l & 1, second(l)) {
            (1, _) => u32::MAX,
            (_, true) => ub[l],
            (_, false) => ua[l],
        });
        w.store_undefined(i, u64::MAX, &undefined);
    }
}

/// Bits of a sum or product that are undefined: the lowest undefined bit of a term, and all above.
fn rise(undefined: u32) -> u32 {
    undefined | undefined.wrapping_neg()
}

/// Sums and products modulo 2³², whose low bits depend on low bits only.
fn low<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([u32; N]) -> u32) {
    map_bits(w, i, f, |_, u| rise(u.into_iter().fold(0, |all, u| all | u)));
}

/// Clamping of integers saturates.
fn sum(w: &mut Wave, i: &Instruction, plain: fn(u32, u32) -> u32, saturated: fn(u32, u32) -> u32) {
    if i.clamp {
        map(w, i, |[a, b]| saturated(a, b));
    } else {
        low(w, i, |[a, b]| plain(a, b));
    }
}

fn sums(name: &str) -> Option<Act> {
    Some(match name {
        "v_add_u32" => |w, i| sum(w, i, u32::wrapping_add, u32::saturating_add),
        "v_sub_u32" => |w, i| sum(w, i, u32::wrapping_sub, u32::saturating_sub),
        "v_subrev_u32" => |w, i| sum(w, i, |a, b| b.wrapping_sub(a), |a, b| b.saturating_sub(a)),
        "v_add_i32" => |w, i| {
            sum(w, i, u32::wrapping_add, |a, b| (a as i32).saturating_add(b as i32) as u32);
        },
        "v_sub_i32" => |w, i| {
            sum(w, i, u32::wrapping_sub, |a, b| (a as i32).saturating_sub(b as i32) as u32);
        },
        "v_min_u32" => |w, i| map(w, i, |[a, b]| a.min(b)),
        "v_max_u32" => |w, i| map(w, i, |[a, b]| a.max(b)),
        "v_min_i32" => |w, i| map(w, i, |[a, b]| (a as i32).min(b as i32) as u32),
        "v_max_i32" => |w, i| map(w, i, |[a, b]| (a as i32).max(b as i32) as u32),
        "v_min3_u32" => |w, i| map(w, i, |[a, b, c]| a.min(b).min(c)),
        "v_max3_u32" => |w, i| map(w, i, |[a, b, c]| a.max(b).max(c)),
        "v_min3_i32" => |w, i| map(w, i, |[a, b, c]| (a as i32).min(b as i32).min(c as i32) as u32),
        "v_max3_i32" => |w, i| map(w, i, |[a, b, c]| (a as i32).max(b as i32).max(c as i32) as u32),
        "v_med3_u32" => |w, i| map(w, i, |[a, b, c]| a.min(b).max(a.max(b).min(c))),
        "v_med3_i32" => |w, i| {
            map(w, i, |x| {
                let [a, b, c] = x.map(|x| x as i32);
                a.min(b).max(a.max(b).min(c)) as u32
            });
        },
        "v_add3_u32" => |w, i| low(w, i, |[a, b, c]| a.wrapping_add(b).wrapping_add(c)),
        "v_lshl_add_u32" => |w, i| map(w, i, |[a, n, c]| (a << (n & 31)).wrapping_add(c)),
        "v_add_lshl_u32" => |w, i| map(w, i, |[a, b, n]| a.wrapping_add(b) << (n & 31)),
        "v_xad_u32" => |w, i| map(w, i, |[a, b, c]| (a ^ b).wrapping_add(c)),
        "v_mul_lo_u32" => |w, i| low(w, i, |[a, b]| a.wrapping_mul(b)),
        "v_mul_hi_u32" => |w, i| map(w, i, |[a, b]| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "v_mul_hi_i32" => |w, i| {
            map(w, i, |[a, b]| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
        },
        "v_mul_u32_u24" => |w, i| map(w, i, |[a, b]| low24(a).wrapping_mul(low24(b))),
        "v_mul_hi_u32_u24" => {
            |w, i| map(w, i, |[a, b]| ((u64::from(low24(a)) * u64::from(low24(b))) >> 32) as u32)
        }
        "v_mul_i32_i24" => |w, i| map(w, i, |[a, b]| signed24(a).wrapping_mul(signed24(b)) as u32),
        "v_mul_hi_i32_i24" => |w, i| {
            map(w, i, |[a, b]| ((i64::from(signed24(a)) * i64::from(signed24(b))) >> 32) as u32);
        },
        "v_mad_u32_u24" => {
            |w, i| map(w, i, |[a, b, c]| low24(a).wrapping_mul(low24(b)).wrapping_add(c))
        }
        "v_mad_i32_i24" => |w, i| {
            map(w, i, |[a, b, c]| (signed24(a).wrapping_mul(signed24(b)) as u32).wrapping_add(c));
        },
        "v_sad_u32" => |w, i| map(w, i, |[a, b, c]| a.abs_diff(b).wrapping_add(c)),
        "v_add_co_u32" => |w, i| carry(w, i, |a, b, _| (a + b, a + b > u32::MAX.into())),
        "v_sub_co_u32" => |w, i| carry(w, i, |a, b, _| (a.wrapping_sub(b), b > a)),
        "v_subrev_co_u32" => |w, i| carry(w, i, |a, b, _| (b.wrapping_sub(a), a > b)),
        "v_addc_co_u32" => |w, i| carry(w, i, |a, b, c| (a + b + c, a + b + c > u32::MAX.into())),
        "v_subb_co_u32" => {
            |w, i| carry(w, i, |a, b, c| (a.wrapping_sub(b).wrapping_sub(c), b + c > a))
        }
        "v_subbrev_co_u32" => {
            |w, i| carry(w, i, |a, b, c| (b.wrapping_sub(a).wrapping_sub(c), a + c > b))
        }
        _ => return None,
    })
}

fn low24(x: u32) -> u32 {
    x & 0xff_ffff
}

fn signed24(x: u32) -> i32 {
    (x << 8) as i32 >> 8
}

/// Sums with a carry in and out.
fn carry(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64, u64) -> (u64, bool)) {
    let ((a, ta), (b, tb)) = (w.fetch(i, 0), w.fetch(i, 1));
    let (c, tc) = if i.sources == 3 { fetch_mask(w, i, 2) } else { (0, 0) };
    let (mut out, mut carries) = ([0; LANES], 0);
    for l in 0..LANES {
        let (value, carry) = f(a[l].into(), b[l].into(), c >> l & 1);
        out[l] = value as u32;
        carries |= u64::from(carry) << l;
    }
    let tainted = ta | tb | tc;
    store_mask(w, i, carries, tainted);
    w.store(i, &out);
    if tainted != 0 {
        w.store_undefined(i, tainted, &[u32::MAX; LANES]);
    }
}

fn wide(name: &str) -> Option<Act> {
    Some(match name {
        "v_lshlrev_b64" => |w, i| shift64(w, i, |a, n| a << n),
        "v_lshrrev_b64" => |w, i| shift64(w, i, |a, n| a >> n),
        "v_ashrrev_i64" => |w, i| shift64(w, i, |a, n| (a as i64 >> n) as u64),
        "v_mad_u64_u32" => |w, i| {
            mad64(w, i, |a, b, c| (u64::from(a) * u64::from(b)).overflowing_add(c));
        },
        "v_mad_i64_i32" => |w, i| {
            mad64(w, i, |a, b, c| {
                let product = i64::from(a as i32) * i64::from(b as i32);
                let (sum, over) = product.overflowing_add(c as i64);
                (sum as u64, over)
            });
        },
        _ => return None,
    })
}

/// Undefined bits are shifted with the others.
fn shift64(w: &mut Wave, i: &Instruction, f: impl Fn(u64, u64) -> u64) {
    let ((n, tn), (a, ta)) = (w.fetch(i, 0), w.fetch64(i, 1));
    let out = std::array::from_fn(|l| f(a[l], u64::from(n[l] & 63)));
    let mut tainted = [tn; 2];
    if ta != 0 {
        let words = [0, 1].map(|word| w.raw_undefined(i.src[1].operand, word));
        for l in 0..LANES {
            let undefined = u64::from(words[0][l]) | u64::from(words[1][l]) << 32;
            let undefined = f(undefined, u64::from(n[l] & 63));
            tainted[0] |= u64::from(undefined as u32 != 0) << l;
            tainted[1] |= u64::from(undefined >> 32 != 0) << l;
        }
    }
    w.store_pair(i, &out, tainted);
}

fn mad64(w: &mut Wave, i: &Instruction, f: impl Fn(u32, u32, u64) -> (u64, bool)) {
    let ((a, ta), (b, tb), (c, tc)) = (w.fetch(i, 0), w.fetch(i, 1), w.fetch64(i, 2));
    let low = ta | tb | w.raw(i.src[2].operand, 0).1;
    let (mut out, mut over) = ([0; LANES], 0);
    for l in 0..LANES {
        let (value, carry) = f(a[l], b[l], c[l]);
        out[l] = value;
        over |= u64::from(carry) << l;
    }
    store_mask(w, i, over, low | tc);
    // Compilers add to a word with whatever is above it, and use the low word only.
    w.store_pair(i, &out, [low, low | tc]);
}

fn narrow(name: &str) -> Option<Act> {
    /// A result of 16 bits.
    fn map16<const N: usize>(w: &mut Wave, i: &Instruction, f: impl Fn([u32; N]) -> u32) {
        map(w, i, |x| f(x) & 0xffff);
    }
    fn s(x: u32) -> i32 {
        i32::from(x as i16)
    }
    Some(match name {
        "v_add_u16" => |w, i| {
            let most = if i.clamp { 0xffff } else { u32::MAX };
            map16(w, i, |[a, b]| (a & 0xffff).wrapping_add(b & 0xffff).min(most));
        },
        "v_sub_u16" => |w, i| {
            let clamp = i.clamp;
            map16(w, i, |[a, b]| {
                let (a, b) = (a & 0xffff, b & 0xffff);
                if clamp { a.saturating_sub(b) } else { a.wrapping_sub(b) }
            });
        },
        "v_subrev_u16" => |w, i| map16(w, i, |[a, b]| b.wrapping_sub(a)),
        "v_add_i16" => |w, i| map16(w, i, |[a, b]| a.wrapping_add(b)),
        "v_sub_i16" => |w, i| map16(w, i, |[a, b]| a.wrapping_sub(b)),
        "v_mul_lo_u16" => |w, i| map16(w, i, |[a, b]| a.wrapping_mul(b)),
        "v_lshlrev_b16" => |w, i| map16(w, i, |[n, a]| a << (n & 15)),
        "v_lshrrev_b16" => |w, i| map16(w, i, |[n, a]| (a & 0xffff) >> (n & 15)),
        "v_ashrrev_i16" => |w, i| map16(w, i, |[n, a]| (s(a) >> (n & 15)) as u32),
        "v_max_u16" => |w, i| map16(w, i, |[a, b]| (a & 0xffff).max(b & 0xffff)),
        "v_min_u16" => |w, i| map16(w, i, |[a, b]| (a & 0xffff).min(b & 0xffff)),
        "v_max_i16" => |w, i| map16(w, i, |[a, b]| s(a).max(s(b)) as u32),
        "v_min_i16" => |w, i| map16(w, i, |[a, b]| s(a).min(s(b)) as u32),
        "v_mad_u16" | "v_mad_legacy_u16" | "v_mad_i16" | "v_mad_legacy_i16" => {
            |w, i| map16(w, i, |[a, b, c]| a.wrapping_mul(b).wrapping_add(c))
        }
        "v_mad_u32_u16" => {
            |w, i| map(w, i, |[a, b, c]| (a & 0xffff).wrapping_mul(b & 0xffff).wrapping_add(c))
        }
        "v_mad_i32_i16" => {
            |w, i| map(w, i, |[a, b, c]| (s(a).wrapping_mul(s(b)) as u32).wrapping_add(c))
        }
        "v_sad_u8" => |w, i| {
            map(w, i, |[a, b, c]| {
                let byte = |x: u32, n: i32| x >> (8 * n) & 0xff;
                (0..4).fold(c, |sum, n| sum.wrapping_add(byte(a, n).abs_diff(byte(b, n))))
            });
        },
        "v_dot4_i32_i8" => |w, i| {
            map(w, i, |[a, b, c]| {
                let byte = |x: u32, n: i32| i32::from((x >> (8 * n)) as i8);
                (0..4).fold(c as i32, |sum, n| sum.wrapping_add(byte(a, n) * byte(b, n))) as u32
            });
        },
        "v_dot4c_i32_i8" => |w, i| {
            accumulate(w, i, |[a, b], c| {
                let byte = |x: u32, n: i32| i32::from((x >> (8 * n)) as i8);
                (0..4).fold(c as i32, |sum, n| sum.wrapping_add(byte(a, n) * byte(b, n))) as u32
            });
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_a_permutation() {
        let (a, b) = (0x8766_5544, 0x3322_9100);
        assert_eq!(permute(a, b, 0x0302_0100), b);
        assert_eq!(permute(a, b, 0x0706_0504), a);
        assert_eq!(permute(a, b, 0x0706_0302), 0x8766_3322);
        // Signs of the four halves, lowest first; then constants.
        assert_eq!(permute(a, b, 0x0b0a_0908), 0xff00_00ff);
        assert_eq!(permute(a, b, 0x0c0d_ff0c), 0x00ff_ff00);
    }

    #[test]
    fn fields_of_bits() {
        assert_eq!((field(0xabcd_1234, 8, 8), field(0xabcd_1234, 8, 32)), (0x12, 0));
        assert_eq!((signed_field(0x0000_8000, 8, 8), signed_field(1, 0, 0)), (0xffff_ff80, 0));
    }
}
