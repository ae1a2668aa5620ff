//! Atomic operations, of global memory and of LDS.

use super::Launch;
use super::block::Block;
use super::memory::{NOTHING, Places, Space, undefined_bits, word_of};
use super::wave::{Wave, lanes};
use crate::finding::Kind;
use crate::gfx::decode::{Instruction, Operand};
use crate::gfx::isa::Format;
use crate::memory::{Fault, Loaded, Word, agent};
use crate::number::{F16, Rounding, f16_to_f32};

/// Atomic operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    Swap,
    CompareSwap,
    Add,
    Sub,
    ReverseSub,
    MinSigned,
    MaxSigned,
    MinUnsigned,
    MaxUnsigned,
    And,
    Or,
    Xor,
    Increment,
    Decrement,
    AddFloat,
    MinFloat,
    MaxFloat,
    AddPair,
}

impl Atomic {
    /// The operation with this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "swap" => Self::Swap,
            "cmpswap" => Self::CompareSwap,
            "add" => Self::Add,
            "sub" => Self::Sub,
            "smin" => Self::MinSigned,
            "smax" => Self::MaxSigned,
            "umin" => Self::MinUnsigned,
            "umax" => Self::MaxUnsigned,
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            "inc" => Self::Increment,
            "dec" => Self::Decrement,
            "add_f32" | "add_f64" => Self::AddFloat,
            "min_f64" => Self::MinFloat,
            "max_f64" => Self::MaxFloat,
            "pk_add_f16" => Self::AddPair,
            _ => return None,
        })
    }

    /// The new value. `compare` is what a swap asks for. Undefined if anything that counts is.
    pub fn apply(self, old: Word, data: Word, compare: Word, size: u8) -> Word {
        let defined = old.defined & data.defined & compare.defined == 0xff;
        if !defined && self != Self::Swap {
            return Word { bits: old.bits, defined: !(((1_u16 << size) - 1) as u8) };
        }
        let bits = if size == 8 {
            self.wide(old.bits, data.bits, compare.bits)
        } else {
            self.narrow(old.bits as u32, data.bits as u32, compare.bits as u32).into()
        };
        Word { bits, defined: if self == Self::Swap { data.defined } else { 0xff } }
    }

    fn wide(self, old: u64, x: u64, compare: u64) -> u64 {
        let f = f64::from_bits;
        match self {
            Self::Swap => x,
            Self::CompareSwap => {
                if old == compare {
                    x
                } else {
                    old
                }
            }
            Self::Add => old.wrapping_add(x),
            Self::Sub => old.wrapping_sub(x),
            Self::ReverseSub => x.wrapping_sub(old),
            Self::MinSigned => (old as i64).min(x as i64) as u64,
            Self::MaxSigned => (old as i64).max(x as i64) as u64,
            Self::MinUnsigned => old.min(x),
            Self::MaxUnsigned => old.max(x),
            Self::And => old & x,
            Self::Or => old | x,
            Self::Xor => old ^ x,
            Self::Increment => {
                if old >= x {
                    0
                } else {
                    old + 1
                }
            }
            Self::Decrement => {
                if old == 0 || old > x {
                    x
                } else {
                    old - 1
                }
            }
            Self::AddFloat => (f(old) + f(x)).to_bits(),
            Self::MinFloat => f(old).min(f(x)).to_bits(),
            Self::MaxFloat => f(old).max(f(x)).to_bits(),
            Self::AddPair => old,
        }
    }

    fn narrow(self, old: u32, x: u32, compare: u32) -> u32 {
        let f = f32::from_bits;
        match self {
            Self::Sub => old.wrapping_sub(x),
            Self::Add => old.wrapping_add(x),
            Self::ReverseSub => x.wrapping_sub(old),
            Self::MinSigned => (old as i32).min(x as i32) as u32,
            Self::MaxSigned => (old as i32).max(x as i32) as u32,
            // The unit for atomics flushes subnormals of f32.
            Self::AddFloat => {
                let z = super::float::flush;
                z((f(z(old)) + f(z(x))).to_bits())
            }
            Self::MinFloat => super::float::extreme(f(old), f(x), false).to_bits(),
            Self::MaxFloat => super::float::extreme(f(old), f(x), true).to_bits(),
            Self::AddPair => {
                let half = |shift: u32| {
                    let at = |x: u32| f64::from(f16_to_f32((x >> shift) as u16));
                    (F16.from_f64(at(old) + at(x), Rounding::Nearest) as u32) << shift
                };
                half(0) | half(16)
            }
            _ => self.wide(old.into(), x.into(), compare.into()) as u32,
        }
    }
}

impl Launch<'_> {
    /// An atomic operation, lane after lane.
    pub fn atomic(
        &mut self,
        block: &mut Block,
        w: &mut Wave,
        i: &Instruction,
        op: Atomic,
        size: u8,
        places: &Places,
    ) {
        let wide = usize::from(size / 4);
        // Flat and buffer compare-and-swap have both values side by side; LDS has two operands, the
        // value to compare with first.
        let two = op == Atomic::CompareSwap;
        let (data, compare) = match (i.format, i.src[1].operand, i.src[2].operand) {
            (Format::Ds, Operand::Vector(a), Operand::Vector(b)) if two => (w.slot(b), w.slot(a)),
            (_, Operand::Vector(a), _) => (w.slot(a), w.slot(a) + if two { wide } else { 0 }),
            _ => return,
        };
        for lane in lanes(w.exec()) {
            let Some((space, address)) = places[lane] else { continue };
            let value = |w: &Wave, slot: usize| -> Word {
                let low = word_of(w.lane(slot, lane), 4);
                if wide == 1 {
                    return low;
                }
                let high = word_of(w.lane(slot + 1, lane), 4);
                Word {
                    bits: low.bits | high.bits << 32,
                    defined: low.defined & 15 | high.defined << 4,
                }
            };
            let (new, expected) = (value(w, data), value(w, compare));
            let thread = w.thread(lane);
            let apply = |old: Word| op.apply(old, new, expected, size);
            let result = match space {
                Space::Global => {
                    if new.defined & expected.defined != 0xff && self.checks.undefined_stores {
                        let fault = Fault::new(Kind::UndefinedStore, "the value is undefined");
                        self.fault(block, w, lane, Some(address), fault);
                    }
                    {
                        let agent = agent(block.linear, thread);
                        self.memory.atomic(address, size.into(), agent, apply)
                    }
                }
                Space::Shared => block.shared.atomic(address, size.into(), thread, apply),
                Space::Beyond => Ok(Loaded { word: Word::known(0), fault: None }),
                Space::Private | Space::Arguments => {
                    Err(Fault::new(Kind::WriteToConstant, "an atomic of private memory"))
                }
            };
            let old = match result {
                Ok(Loaded { word, fault }) => {
                    if let Some(fault) = fault {
                        self.fault(block, w, lane, Some(address), fault);
                    }
                    word
                }
                Err(fault) => {
                    self.fault(block, w, lane, Some(address), fault);
                    NOTHING
                }
            };
            if let Operand::Vector(n) = i.dst {
                let slot = w.slot(n);
                w.set_lane(slot, lane, old.bits as u32, undefined_bits(old));
                if wide == 2 {
                    let high = Word { bits: old.bits >> 32, defined: old.defined >> 4 | 0xf0 };
                    w.set_lane(slot + 1, lane, high.bits as u32, undefined_bits(high));
                }
            }
        }
    }
}
