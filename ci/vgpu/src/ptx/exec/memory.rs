//! Loads, stores and atomics of every memory.

use super::Launch;
use super::block::Block;
use super::step::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use super::warp::{LANES, Warp, lanes};
use crate::finding::Kind;
use crate::memory::{Fault, GlobalMemory, Loaded, Word, agent};
use crate::number::{BF16, F16};
use crate::ptx::Result;
use crate::ptx::isa::{Address, AtomicOp, Op, Reg, Space, Type};

/// Banks of shared memory.
const BANKS: usize = 32;

/// Values of a vector at most: `.v4` is the widest that is decoded.
const MOST_WORDS: usize = 4;

/// What a load gives that cannot be made.
const NOTHING: Word = Word { bits: 0xfdfd_fdfd_fdfd_fdfd, defined: 0 };

impl Launch<'_> {
    /// A lane's address, resolved to a memory; none if it is undefined.
    #[inline]
    fn resolve(
        &mut self,
        block: &Block,
        warp: &Warp,
        lane: usize,
        space: Space,
        base: Word,
        offset: u64,
    ) -> Option<(Space, u64)> {
        let address = base.bits.wrapping_add(offset);
        if base.defined != 0xff {
            let fault = Fault::new(Kind::UndefinedAddress, "the address is undefined");
            self.fault(block, warp, lane, None, fault);
            return None;
        }
        Some(match space {
            Space::Generic => {
                let inside = |start: u64| address.wrapping_sub(start) < WINDOW_BYTES;
                if inside(SHARED_WINDOW) {
                    (Space::Shared, address - SHARED_WINDOW)
                } else if inside(LOCAL_WINDOW) {
                    (Space::Local, address - LOCAL_WINDOW)
                } else if inside(PARAM_WINDOW) {
                    (Space::Param, address - PARAM_WINDOW)
                } else {
                    (Space::Global, address)
                }
            }
            Space::Global => (space, address),
            // 32-bit addresses wrap.
            _ => (space, address & 0xffff_ffff),
        })
    }

    /// The addresses of a mask's lanes, aligned ones only; the access is counted.
    pub fn addresses(
        &mut self,
        block: &Block,
        warp: &Warp,
        mask: u32,
        space: Space,
        address: Address,
        size: u64,
    ) -> [Option<(Space, u64)>; LANES] {
        let base = warp.read(address.base);
        let mut out = [None; LANES];
        for lane in lanes(mask) {
            let found = self.resolve(block, warp, lane, space, base.word(lane), address.offset);
            let Some((space, at)) = found else { continue };
            match GlobalMemory::aligned(at, size) {
                Ok(()) => out[lane] = Some((space, at)),
                Err(fault) => self.fault(block, warp, lane, Some(at), fault),
            }
        }
        let of = |wanted: Space| {
            out.iter().flatten().filter(move |(s, _)| *s == wanted).map(|(_, a)| *a)
        };
        if of(Space::Global).next().is_some() {
            self.counters.global_access(of(Space::Global), size);
        }
        if of(Space::Shared).next().is_some() {
            self.counters.shared_access(of(Space::Shared), size, BANKS);
        }
        out
    }

    /// One value; faults are reported.
    pub fn load_one(
        &mut self,
        block: &mut Block,
        warp: &Warp,
        lane: usize,
        at: (Space, u64),
        size: u32,
    ) -> Word {
        let mut word = [NOTHING];
        self.load_words(block, warp, lane, at, size, &mut word);
        word[0]
    }

    /// Values of `size` bytes side by side: one access of a lane. Faults are reported; what cannot be
    /// loaded is undefined.
    #[inline]
    pub fn load_words(
        &mut self,
        block: &mut Block,
        warp: &Warp,
        lane: usize,
        at: (Space, u64),
        size: u32,
        words: &mut [Word],
    ) {
        let (space, address) = at;
        let all = size * words.len() as u32;
        let result = match space {
            Space::Global | Space::Generic => {
                let agent = agent(block.linear, warp.thread(lane));
                self.memory.load_words(address, size, words, agent)
            }
            Space::Shared => block.shared.load_words(address, size, words, warp.thread(lane)),
            Space::Param => {
                let len = self.params.len() as u64;
                inside(address, all, len, "parameters").map(|at| {
                    self.params.load_words(at, size as usize, words);
                    None
                })
            }
            Space::Local => {
                let len = self.program.local;
                inside(address, all, len, "local memory").map(|at| {
                    let at = lane * len as usize + at;
                    warp.local.load_words(at, size as usize, words);
                    None
                })
            }
        };
        let fault = result.unwrap_or_else(|fault| {
            words.fill(NOTHING);
            Some(fault)
        });
        if let Some(fault) = fault {
            self.fault(block, warp, lane, Some(address), fault);
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn load(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        mask: u32,
        space: Space,
        ty: Type,
        dst: &[Option<Reg>],
        address: Address,
    ) {
        let size = ty.bytes();
        let whole = u64::from(size) * dst.len() as u64;
        let places = self.addresses(block, warp, mask, space, address, whole);
        // Into a wider register with the sign.
        let unused = if matches!(ty, Type::S(_)) { 64 - 8 * size } else { 0 };
        let mut words = [NOTHING; MOST_WORDS];
        let words = &mut words[..dst.len()];
        for lane in lanes(mask) {
            match places[lane] {
                Some(at) => self.load_words(block, warp, lane, at, size, words),
                None => words.fill(NOTHING),
            }
            for (dst, word) in dst.iter().zip(&*words) {
                let Some(dst) = dst else { continue };
                let bits = ((word.bits << unused) as i64 >> unused) as u64;
                let bits = if unused == 0 { word.bits } else { bits };
                warp.set(*dst, lane, Word { bits, ..*word });
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn store(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        mask: u32,
        space: Space,
        ty: Type,
        src: &[Reg],
        address: Address,
    ) {
        let size = ty.bytes();
        let whole = u64::from(size) * src.len() as u64;
        let places = self.addresses(block, warp, mask, space, address, whole);
        let outside = !((1_u16 << size) - 1) as u8;
        for (i, operand) in src.iter().enumerate() {
            let value = warp.read(*operand);
            for lane in lanes(mask) {
                let Some((space, start)) = places[lane] else { continue };
                let at = start + u64::from(size) * i as u64;
                let mut word = value.word(lane);
                word.defined |= outside;
                let Some(fault) = self.store_one(block, warp, lane, (space, at), size, word) else {
                    continue;
                };
                // Lanes that store the same at once to one place agree on what is there then.
                let same =
                    |l: usize| places[l] == places[lane] && value.word(l) == value.word(lane);
                let race = matches!(fault.kind, Kind::SharedRace | Kind::GlobalRace);
                if !race || !lanes(mask & ((1 << lane) - 1)).any(same) {
                    self.fault(block, warp, lane, Some(at), fault);
                }
            }
        }
    }

    /// Writes one value; the fault, if there is one, is the caller's to report.
    fn store_one(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        lane: usize,
        at: (Space, u64),
        size: u32,
        word: Word,
    ) -> Option<Fault> {
        let (space, address) = at;
        let result = match space {
            Space::Global | Space::Generic => {
                if word.defined != 0xff && self.checks.undefined_stores {
                    let fault = Fault::new(Kind::UndefinedStore, "the value is undefined");
                    self.fault(block, warp, lane, Some(address), fault);
                }
                self.memory.store(address, size, word, agent(block.linear, warp.thread(lane)))
            }
            Space::Shared => block.shared.store(address, size, word, warp.thread(lane)),
            Space::Param => Err(Fault::new(Kind::WriteToConstant, "the kernel's parameters")),
            Space::Local => {
                let len = self.program.local;
                inside(address, size, len, "local memory").map(|at| {
                    warp.local.store(lane * len as usize + at, size as usize, word);
                    None
                })
            }
        };
        match result {
            Ok(fault) => fault,
            Err(mut fault) => {
                if fault.kind == Kind::ReadOutOfBounds {
                    fault.kind = Kind::WriteOutOfBounds;
                }
                Some(fault)
            }
        }
    }

    /// Runs `atom` or `red`: the lanes one after the other.
    pub fn atomic(&mut self, block: &mut Block, warp: &mut Warp, mask: u32, op: &Op) -> Result<()> {
        let Op::Atomic { op, ty, space, dst, address, a, b, fences } = op else {
            unreachable!("atomics only")
        };
        let size = ty.bytes();
        if combine(*op, *ty, 0, 0, 0).is_none() {
            return self.error(warp, "not implemented for this type");
        }
        let places = self.addresses(block, warp, mask, *space, *address, size.into());
        if *fences {
            self.fence(warp, mask);
        }
        let (a, b) = (warp.read(*a), warp.read(*b));
        for lane in lanes(mask) {
            let Some((space, at)) = places[lane] else { continue };
            let (x, y) = (a.word(lane), b.word(lane));
            let known = x.defined & y.defined == 0xff;
            if !known && space == Space::Global && self.checks.undefined_stores {
                let fault = Fault::new(Kind::UndefinedStore, "the value is undefined");
                self.fault(block, warp, lane, Some(at), fault);
            }
            let new = |old: Word| Word {
                bits: combine(*op, *ty, old.bits, x.bits, y.bits).unwrap_or(0),
                defined: if known && old.defined == 0xff { 0xff } else { 0 },
            };
            let result = match space {
                Space::Global | Space::Generic => {
                    let agent = agent(block.linear, warp.thread(lane));
                    self.memory.atomic(at, size, agent, new)
                }
                Space::Shared => block.shared.atomic(at, size, warp.thread(lane), new),
                Space::Local | Space::Param => {
                    Err(Fault::new(Kind::WriteToConstant, "an atomic on private memory"))
                }
            };
            let (word, fault) = match result {
                Ok(Loaded { word, fault }) => (word, fault),
                Err(fault) => (NOTHING, Some(fault)),
            };
            if let Some(fault) = fault {
                self.fault(block, warp, lane, Some(at), fault);
            }
            if let Some(dst) = dst {
                warp.set(*dst, lane, word);
            }
        }
        if *fences {
            self.fence(warp, mask);
        }
        Ok(())
    }

    /// A fence beyond the block.
    pub fn fence(&mut self, warp: &Warp, mask: u32) {
        let (order, index) = (&mut self.memory.order, warp.index as usize);
        order.acquire(index);
        order.release(index, mask.into(), mask == warp.live);
    }
}

fn inside(address: u64, size: u32, len: u64, what: &str) -> std::result::Result<usize, Fault> {
    if address < len && u64::from(size) <= len - address {
        return Ok(address as usize);
    }
    let detail = format!("{size} bytes at {address} of {what}, which has {len}");
    Err(Fault::new(Kind::ReadOutOfBounds, detail))
}

/// The new value of an atomic operation; none if there is no such operation on the type.
fn combine(op: AtomicOp, ty: Type, old: u64, a: u64, b: u64) -> Option<u64> {
    use AtomicOp as A;
    let used = u64::MAX >> (64 - 8 * ty.bytes());
    let (single, double) = (|x: u64| f32::from_bits(x as u32), f64::from_bits);
    let narrow = |format: crate::number::Format, x: u64, y: u64| {
        let sum = format.to_f64(x & 0xffff) + format.to_f64(y & 0xffff);
        format.from_f64(sum, crate::number::Rounding::Nearest)
    };
    let halves = |format| narrow(format, old, a) | narrow(format, old >> 16, a >> 16) << 16;
    Some(match (op, ty) {
        (A::Add, Type::F32) => (single(old) + single(a)).to_bits().into(),
        (A::Add, Type::F64) => (double(old) + double(a)).to_bits(),
        (A::Add, Type::F16) => narrow(F16, old, a),
        (A::Add, Type::Bf16) => narrow(BF16, old, a),
        (A::Add, Type::F16x2) => halves(F16),
        (A::Add, Type::Bf16x2) => halves(BF16),
        (
            _,
            Type::F16
            | Type::Bf16
            | Type::F16x2
            | Type::Bf16x2
            | Type::Pred
            | Type::U(1)
            | Type::S(1),
        ) => {
            return None;
        }
        (A::Exchange, _) => a & used,
        (_, Type::F32 | Type::F64) => return None,
        (A::Add, _) => old.wrapping_add(a) & used,
        (A::And, _) => old & a & used,
        (A::Or, _) => (old | a) & used,
        (A::Xor, _) => (old ^ a) & used,
        (A::CompareSwap, _) => (if old & used == a & used { b } else { old }) & used,
        (A::Min, Type::S(4)) => (old as i32).min(a as i32) as u32 as u64,
        (A::Max, Type::S(4)) => (old as i32).max(a as i32) as u32 as u64,
        (A::Min, Type::S(8)) => (old as i64).min(a as i64) as u64,
        (A::Max, Type::S(8)) => (old as i64).max(a as i64) as u64,
        (A::Min, Type::U(_)) => (old & used).min(a & used),
        (A::Max, Type::U(_)) => (old & used).max(a & used),
        (A::Increment, _) => {
            if old & used >= a & used {
                0
            } else {
                old + 1
            }
        }
        (A::Decrement, _) => {
            if old & used == 0 || old & used > a & used {
                a & used
            } else {
                old - 1
            }
        }
        _ => return None,
    })
}
