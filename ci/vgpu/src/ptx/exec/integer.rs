//! Integer and logic operations.

// One expression serves every width, so that some casts are to the type they come from.
#![allow(clippy::unnecessary_cast)]

use super::warp::Warp;
use crate::memory::Word;
use crate::ptx::isa::{IntegerOp, Permute, Reg, Type};

/// Runs an expression with `U` and `S` as the unsigned and signed type of a width.
macro_rules! by_width {
    ($bytes:expr, $body:expr) => {
        match $bytes {
            1 => {
                #[allow(dead_code)]
                type U = u8;
                #[allow(dead_code)]
                type S = i8;
                $body
            }
            2 => {
                #[allow(dead_code)]
                type U = u16;
                #[allow(dead_code)]
                type S = i16;
                $body
            }
            4 => {
                #[allow(dead_code)]
                type U = u32;
                #[allow(dead_code)]
                type S = i32;
                $body
            }
            _ => {
                #[allow(dead_code)]
                type U = u64;
                #[allow(dead_code)]
                type S = i64;
                $body
            }
        }
    };
}

impl Warp {
    /// Runs an integer operation.
    pub fn integer(&mut self, mask: u32, op: IntegerOp, ty: Type, dst: Reg, src: &[Reg]) {
        use IntegerOp as I;
        let bytes = ty.bytes();
        let signed = matches!(ty, Type::S(_));
        let width = 8 * bytes;
        match op {
            I::Add => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| (a as U).wrapping_add(b as U) as u64)
            ),
            I::Sub => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| (a as U).wrapping_sub(b as U) as u64)
            ),
            I::AddSat => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| (a as S).saturating_add(b as S) as U as u64)
            ),
            I::SubSat => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| (a as S).saturating_sub(b as S) as U as u64)
            ),
            I::MulLo => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| (a as U).wrapping_mul(b as U) as u64)
            ),
            I::MadLo => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b, c]| (a as U)
                    .wrapping_mul(b as U)
                    .wrapping_add(c as U)
                    as u64)
            ),
            I::MulHi | I::MadHi => {
                let high = |a: u64, b: u64| -> u64 {
                    by_width!(
                        bytes,
                        match signed {
                            true => ((a as S as i128 * b as S as i128) >> width) as U as u64,
                            false => ((a as U as u128 * b as U as u128) >> width) as U as u64,
                        }
                    )
                };
                match op {
                    I::MulHi => self.map(mask, dst, src, |[a, b]| high(a, b)),
                    _ => self.map(mask, dst, src, |[a, b, c]| {
                        by_width!(bytes, (high(a, b) as U).wrapping_add(c as U) as u64)
                    }),
                }
            }
            I::MulWide | I::MadWide => {
                let wide = |a: u64, b: u64| match (bytes, signed) {
                    (2, true) => (a as i16 as i32 * b as i16 as i32) as u32 as u64,
                    (2, false) => (a as u16 as u32 * b as u16 as u32) as u64,
                    (_, true) => (a as i32 as i64 * b as i32 as i64) as u64,
                    (_, false) => a as u32 as u64 * b as u32 as u64,
                };
                let used = u64::MAX >> (64 - 2 * width);
                match op {
                    I::MulWide => self.map(mask, dst, src, |[a, b]| wide(a, b)),
                    _ => self.map(mask, dst, src, |[a, b, c]| wide(a, b).wrapping_add(c) & used),
                }
            }
            I::Sad => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b, c]| {
                    let distance =
                        if signed { (a as S).abs_diff(b as S) } else { (a as U).abs_diff(b as U) };
                    (c as U).wrapping_add(distance) as u64
                })
            ),
            // Division by zero is not defined; all ones is what hardware gives.
            I::Div => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| match (b as U, signed) {
                    (0, _) => U::MAX as u64,
                    (_, true) => (a as S).wrapping_div(b as S) as U as u64,
                    (_, false) => (a as U / b as U) as u64,
                })
            ),
            I::Rem => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| match (b as U, signed) {
                    (0, _) => U::MAX as u64,
                    (_, true) => (a as S).wrapping_rem(b as S) as U as u64,
                    (_, false) => (a as U % b as U) as u64,
                })
            ),
            I::Min => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| if signed {
                    (a as S).min(b as S) as U as u64
                } else {
                    (a as U).min(b as U) as u64
                })
            ),
            I::Max => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| if signed {
                    (a as S).max(b as S) as U as u64
                } else {
                    (a as U).max(b as U) as u64
                })
            ),
            I::Abs => by_width!(
                bytes,
                self.map(mask, dst, src, |[a]| (a as S).wrapping_abs() as U as u64)
            ),
            I::Neg => by_width!(
                bytes,
                self.map(mask, dst, src, |[a]| (a as S).wrapping_neg() as U as u64)
            ),
            I::And => self.map_tainted(
                mask,
                dst,
                src,
                |[a, b]| a & b,
                |[a, b]| a.defined & b.defined | zeros(a) | zeros(b),
            ),
            I::Or => self.map_tainted(
                mask,
                dst,
                src,
                |[a, b]| a | b,
                |[a, b]| a.defined & b.defined | ones(a) | ones(b),
            ),
            I::Xor => {
                self.map_tainted(mask, dst, src, |[a, b]| a ^ b, |[a, b]| a.defined & b.defined)
            }
            I::Not if ty == Type::Pred => self.map(mask, dst, src, |[a]| a ^ 1),
            I::Not => by_width!(
                bytes,
                self.map_tainted(mask, dst, src, |[a]| !(a as U) as u64, |[a]| a.defined)
            ),
            I::Cnot => by_width!(bytes, self.map(mask, dst, src, |[a]| u64::from(a as U == 0))),
            I::Shl => by_width!(
                bytes,
                self.map_tainted(
                    mask,
                    dst,
                    src,
                    |[a, b]| (a as U).checked_shl(b as u32).unwrap_or(0) as u64,
                    |[a, b]| { shifted(a, b, |defined, n| defined << n | low(n), bytes) }
                )
            ),
            I::Shr if signed => by_width!(
                bytes,
                self.map(mask, dst, src, |[a, b]| ((a as S) >> (b as u32).min(width - 1)) as U
                    as u64)
            ),
            I::Shr => by_width!(
                bytes,
                self.map_tainted(
                    mask,
                    dst,
                    src,
                    |[a, b]| (a as U).checked_shr(b as u32).unwrap_or(0) as u64,
                    |[a, b]| { shifted(a, b, |defined, n| defined >> n | !(0xff_u8 >> n), bytes) }
                )
            ),
            I::Popc => {
                by_width!(bytes, self.map(mask, dst, src, |[a]| (a as U).count_ones().into()))
            }
            I::Clz => {
                by_width!(bytes, self.map(mask, dst, src, |[a]| (a as U).leading_zeros().into()))
            }
            I::Brev => {
                by_width!(bytes, self.map(mask, dst, src, |[a]| (a as U).reverse_bits() as u64))
            }
            I::Bfind | I::BfindShift => self.map(mask, dst, src, |[a]| {
                let found: u64 = by_width!(bytes, {
                    let a = if signed && (a as S) < 0 { !(a as U) } else { a as U };
                    a as u64
                });
                match (found, op) {
                    (0, _) => u32::MAX.into(),
                    (_, I::Bfind) => found.ilog2().into(),
                    (_, _) => (width - 1 - found.ilog2()).into(),
                }
            }),
            I::Bfe => self.map(mask, dst, src, |[a, b, c]| {
                extract(a, b as u32 & 0xff, c as u32 & 0xff, width, signed)
            }),
            I::Bfi => self.map_tainted(
                mask,
                dst,
                src,
                |[a, b, c, d]| insert(a, b, c as u32 & 0xff, d as u32 & 0xff, width),
                |[a, b, c, d]| {
                    if c.defined & d.defined != 0xff {
                        return 0;
                    }
                    // The same on a byte's worth of ones for each byte that is not defined.
                    let spread = |w: Word| spread(!w.defined);
                    let tainted = insert(
                        spread(a),
                        spread(b),
                        c.bits as u32 & 0xff,
                        d.bits as u32 & 0xff,
                        width,
                    );
                    !gather(tainted)
                },
            ),
            I::Lop3(table) => self.map(mask, dst, src, |[a, b, c]| {
                let mut out = 0;
                for i in 0..8_u64 {
                    if table >> i & 1 == 1 {
                        let pick = |x: u64, bit: u64| if i >> bit & 1 == 1 { x } else { !x };
                        out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
                    }
                }
                out & 0xffff_ffff
            }),
            I::Prmt(mode) => self.map_tainted(
                mask,
                dst,
                src,
                |[a, b, c]| permute(a & 0xffff_ffff | b << 32, c, mode),
                |[a, b, c]| {
                    if c.defined != 0xff {
                        return 0;
                    }
                    let tainted = spread(!a.defined) & 0xffff_ffff | spread(!b.defined) << 32;
                    !gather(permute(tainted, c.bits, mode))
                },
            ),
            I::ShiftLeftWrap | I::ShiftLeftClamp | I::ShiftRightWrap | I::ShiftRightClamp => {
                let wrap = matches!(op, I::ShiftLeftWrap | I::ShiftRightWrap);
                let left = matches!(op, I::ShiftLeftWrap | I::ShiftLeftClamp);
                self.map(mask, dst, src, |[a, b, c]| {
                    let both = (a & 0xffff_ffff) | b << 32;
                    let n = if wrap { c as u32 & 31 } else { (c as u32).min(32) };
                    if left { (both << n) >> 32 } else { (both >> n) & 0xffff_ffff }
                });
            }
        }
    }
}

/// The bytes of a word that are defined and zero.
fn zeros(word: Word) -> u8 {
    word.defined & !gather(word.bits)
}

/// The bytes of a word that are defined and all ones.
fn ones(word: Word) -> u8 {
    word.defined & !gather(!word.bits)
}

/// Bit i: byte i is not zero.
fn gather(bits: u64) -> u8 {
    let bytes = bits.to_le_bytes();
    (0..8).fold(0, |mask, i| mask | u8::from(bytes[i] != 0) << i)
}

/// Byte i is all ones where bit i is 1.
fn spread(mask: u8) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| if mask >> i & 1 == 1 { 0xff } else { 0 }))
}

fn low(n: u32) -> u8 {
    !(0xff_u8 << n)
}

/// Definedness of a shift: byte by byte if it is by whole bytes, else all or nothing.
fn shifted(a: Word, b: Word, by: impl Fn(u8, u32) -> u8, bytes: u32) -> u8 {
    let n = b.bits as u32;
    match (b.defined == 0xff, a.defined == 0xff) {
        (true, true) => 0xff,
        (true, false) if n >= 8 * bytes => 0xff,
        (true, false) if n.is_multiple_of(8) => {
            by(a.defined, n / 8) | !((1_u16 << bytes) - 1) as u8
        }
        _ => 0,
    }
}

fn extract(a: u64, at: u32, len: u32, width: u32, signed: bool) -> u64 {
    if len == 0 {
        return 0;
    }
    let used = u64::MAX >> (64 - width);
    let a = a & used;
    let sign = signed && a >> (at + len - 1).min(width - 1) & 1 == 1;
    let kept = len.min(width.saturating_sub(at));
    let field = if kept == 0 { 0 } else { a >> at & u64::MAX >> (64 - kept) };
    let above = if kept == 0 { u64::MAX } else { (u64::MAX << (kept - 1)) << 1 };
    (if sign { field | above } else { field }) & used
}

fn insert(a: u64, b: u64, at: u32, len: u32, width: u32) -> u64 {
    let used = u64::MAX >> (64 - width);
    let kept = len.min(width.saturating_sub(at));
    if kept == 0 {
        return b & used;
    }
    let field = (u64::MAX >> (64 - kept)) << at;
    (b & !field | a << at & field) & used
}

/// `prmt`: four bytes out of eight. A selector's fourth bit copies the byte's sign all over it.
fn permute(both: u64, selector: u64, mode: Permute) -> u64 {
    let s = (selector & 3) as usize;
    let picks: [usize; 4] = match mode {
        Permute::Generic => std::array::from_fn(|i| (selector >> (4 * i) & 15) as usize),
        Permute::Forward4 => std::array::from_fn(|i| s + i),
        Permute::Backward4 => std::array::from_fn(|i| (s + 8 - i) % 8),
        Permute::Replicate8 => [s; 4],
        Permute::EdgeClampLeft => std::array::from_fn(|i| i.max(s)),
        Permute::EdgeClampRight => std::array::from_fn(|i| i.min(s)),
        Permute::Replicate16 => std::array::from_fn(|i| 2 * (s & 1) + (i & 1)),
    };
    let bytes = both.to_le_bytes();
    let out = picks.map(|pick| {
        let byte = bytes[pick & 7];
        if pick & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
    });
    u32::from_le_bytes(out).into()
}
