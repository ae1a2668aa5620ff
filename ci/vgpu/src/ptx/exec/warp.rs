//! A warp: registers with definedness, and which of its lanes run where.

use super::async_copy::Copies;
use crate::memory::{Bytes, Word};
use crate::ptx::isa::{Fixed, Reg, Special};
use crate::ptx::program::Program;

/// Lanes of a warp.
pub const LANES: usize = 32;

/// One register of all lanes. `defined` has a bit for each byte, all ones where a lane's value is
/// wholly defined.
#[derive(Debug, Clone, Copy)]
pub struct Vector {
    pub bits: [u64; LANES],
    pub defined: [u8; LANES],
}

/// A register that nobody has written.
const POISONED: Vector = Vector { bits: [0xfdfd_fdfd_fdfd_fdfd; LANES], defined: [0; LANES] };

impl Vector {
    /// The same known value in all lanes.
    pub fn splat(bits: u64) -> Self {
        Self { bits: [bits; LANES], defined: [0xff; LANES] }
    }

    /// A lane's value.
    pub fn word(&self, lane: usize) -> Word {
        Word { bits: self.bits[lane], defined: self.defined[lane] }
    }

    /// Whether all lanes of a mask are wholly defined.
    pub fn known(&self, mask: u32) -> bool {
        self.defined == [0xff; LANES] || lanes(mask).all(|l| self.defined[l] == 0xff)
    }
}

/// The lanes of a mask, ascending.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> + Clone {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// What special registers hold.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub block: [u32; 3],
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub dynamic_shared: u32,
    pub total_shared: u32,
}

/// What a warp waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ready,
    /// A barrier, by its number.
    Waiting(u32),
    Done,
}

/// A warp.
#[derive(Debug)]
pub struct Warp {
    pub index: u32,
    pub place: Place,
    pub registers: Vec<Vector>,
    /// Local memory, one lane's after the other's.
    pub local: Bytes,
    pub copies: Copies,
    pub status: Status,
    /// Lanes that have not exited.
    pub live: u32,
    /// The lanes that run, and where.
    pub active: u32,
    pub pc: u32,
    /// The other living lanes, in groups that are at different places, all beyond `pc`.
    others: Vec<(u32, u32)>,
    /// Barriers at which lanes wait for the rest of the warp, and how many were alive then.
    parked: Vec<(u32, u32)>,
}

impl Warp {
    /// A warp before its first instruction.
    pub fn new(index: u32, place: Place, program: &Program) -> Self {
        let registers = vec![POISONED; program.registers as usize];
        Self::with(registers, index, place, program)
    }

    /// The same warp of another block. What registers held is left in them, undefined: of thousands
    /// most are not used.
    pub fn restart(&mut self, place: Place, program: &Program) {
        let mut registers = std::mem::take(&mut self.registers);
        registers.iter_mut().for_each(|register| register.defined = [0; LANES]);
        *self = Self::with(registers, self.index, place, program);
    }

    fn with(registers: Vec<Vector>, index: u32, place: Place, program: &Program) -> Self {
        let threads: u32 = place.threads.iter().product();
        let lanes = (threads - 32 * index).min(32);
        let live = u32::MAX >> (32 - lanes);
        let mut warp = Self {
            index,
            place,
            registers,
            local: Bytes::undefined(program.local as usize * LANES),
            copies: Copies::default(),
            status: Status::Ready,
            live,
            active: live,
            pc: 0,
            others: Vec::new(),
            parked: Vec::new(),
        };
        for (what, reg) in &program.fixed {
            warp.registers[*reg as usize] = match what {
                Fixed::Constant(bits) => Vector::splat(*bits),
                Fixed::Special(special) => warp.special(*special),
            };
        }
        warp
    }

    /// A thread's index in its block.
    pub fn thread(&self, lane: usize) -> u32 {
        32 * self.index + lane as u32
    }

    /// Goes on to `next`, letting lanes meet that have come to the same place: whoever is furthest
    /// behind runs.
    #[inline]
    pub fn advance(&mut self, next: u32) {
        self.pc = next;
        if !self.others.is_empty() {
            self.choose();
        }
    }

    fn choose(&mut self) {
        if self.active != 0 {
            match self.others.iter_mut().find(|(pc, _)| *pc == self.pc) {
                Some((_, mask)) => *mask |= self.active,
                None => self.others.push((self.pc, self.active)),
            }
        }
        let order = |i: &usize| {
            let pc = self.others[*i].0;
            (self.parked.iter().any(|(at, _)| *at == pc), pc)
        };
        let first = (0..self.others.len()).min_by_key(order);
        match first {
            Some(i) => (self.pc, self.active) = self.others.swap_remove(i),
            None => self.active = 0,
        }
    }

    /// The active lanes are at a barrier to which the others may still come: compilers may put the
    /// code that leads there behind it. None if these wait for them; else whether all have come.
    pub fn gather(&mut self) -> Option<bool> {
        let pc = self.pc;
        if let Some(i) = self.parked.iter().position(|(at, _)| *at == pc) {
            let (_, expected) = self.parked.swap_remove(i);
            return Some(self.active == expected);
        }
        if self.active == self.live {
            return Some(true);
        }
        self.parked.push((pc, self.live));
        self.choose();
        None
    }

    /// The lanes of `taken` go to `target`, the rest of the active ones on.
    pub fn branch(&mut self, taken: u32, target: u32) {
        if taken == self.active {
            self.advance(target);
        } else if taken == 0 {
            self.advance(self.pc + 1);
        } else {
            let rest = self.active & !taken;
            match self.others.iter_mut().find(|(pc, _)| *pc == target) {
                Some((_, mask)) => *mask |= taken,
                None => self.others.push((target, taken)),
            }
            self.active = rest;
            self.advance(self.pc + 1);
        }
    }

    /// Lanes end.
    pub fn exit(&mut self, mask: u32) {
        self.live &= !mask;
        self.active &= !mask;
        if self.live == 0 {
            self.status = Status::Done;
        } else {
            self.pc += 1;
            self.choose();
        }
    }

    /// What a register holds.
    #[inline]
    pub fn read(&self, reg: Reg) -> Vector {
        self.registers[reg as usize]
    }

    fn special(&self, special: Special) -> Vector {
        let [x, y, _] = self.place.threads;
        let tid = |lane: usize| {
            let t = self.thread(lane);
            [t % x, t / x % y, t / (x * y)]
        };
        let each = |f: &dyn Fn(usize) -> u32| Vector {
            bits: std::array::from_fn(|lane| f(lane).into()),
            defined: [0xff; LANES],
        };
        let threads: u32 = self.place.threads.iter().product();
        match special {
            Special::Tid(axis) => each(&|lane| tid(lane)[axis]),
            Special::Ntid(axis) => Vector::splat(self.place.threads[axis].into()),
            Special::Ctaid(axis) => Vector::splat(self.place.block[axis].into()),
            Special::Nctaid(axis) => Vector::splat(self.place.blocks[axis].into()),
            Special::LaneId => each(&|lane| lane as u32),
            Special::WarpId => Vector::splat(self.index.into()),
            Special::Nwarpid => Vector::splat(threads.div_ceil(32).into()),
            Special::MaskEq => each(&|lane| 1 << lane),
            Special::MaskLt => each(&|lane| (1 << lane) - 1),
            Special::MaskLe => each(&|lane| u32::MAX >> (31 - lane)),
            Special::MaskGe => each(&|lane| u32::MAX << lane),
            Special::MaskGt => each(&|lane| !(u32::MAX >> (31 - lane))),
            Special::Clock | Special::SmId | Special::GridId => Vector::splat(0),
            Special::NsmId => Vector::splat(108),
            Special::DynamicShared => Vector::splat(self.place.dynamic_shared.into()),
            Special::TotalShared => Vector::splat(self.place.total_shared.into()),
        }
    }

    /// Writes a register in the lanes of a mask.
    #[inline]
    pub fn write(&mut self, dst: Reg, mask: u32, value: &Vector) {
        let register = &mut self.registers[dst as usize];
        if mask == u32::MAX {
            *register = *value;
        } else {
            for lane in lanes(mask) {
                register.bits[lane] = value.bits[lane];
                register.defined[lane] = value.defined[lane];
            }
        }
    }

    /// Writes one lane of a register.
    #[inline]
    pub fn set(&mut self, dst: Reg, lane: usize, word: Word) {
        let register = &mut self.registers[dst as usize];
        register.bits[lane] = word.bits;
        register.defined[lane] = word.defined;
    }

    /// `dst = f(sources)` lane by lane. The result is defined where all sources are.
    #[inline(always)]
    pub fn map<const N: usize>(
        &mut self,
        mask: u32,
        dst: Reg,
        src: &[Reg],
        f: impl Fn([u64; N]) -> u64,
    ) {
        let whole =
            |words: [Word; N]| if words.iter().all(|w| w.defined == 0xff) { 0xff } else { 0 };
        self.map_tainted(mask, dst, src, f, whole);
    }

    /// `dst = f(sources)` lane by lane; `defined` says which bytes of the result are defined when
    /// not all of the sources are.
    #[inline(always)]
    pub fn map_tainted<const N: usize>(
        &mut self,
        mask: u32,
        dst: Reg,
        src: &[Reg],
        f: impl Fn([u64; N]) -> u64,
        defined: impl Fn([Word; N]) -> u8,
    ) {
        let src: [&Vector; N] = std::array::from_fn(|i| &self.registers[src[i] as usize]);
        let mut out = Vector::splat(0);
        for lane in 0..LANES {
            out.bits[lane] = f(std::array::from_fn(|i| src[i].bits[lane]));
        }
        if src.iter().any(|v| v.defined != [0xff; LANES]) {
            for lane in 0..LANES {
                out.defined[lane] = defined(std::array::from_fn(|i| src[i].word(lane)));
            }
        }
        self.write(dst, mask, &out);
    }
}
