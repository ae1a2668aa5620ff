//! A wave: its registers, each bit of which is defined or not, and what is on its way to them.

use super::wait::{Queue, Range};
use crate::gfx::decode::{Operand, Source};
use crate::gfx::program::Program;
use crate::memory::Bytes;

/// Lanes of a wave.
pub const LANES: usize = 64;
/// One register of all lanes.
pub type Vector = [u32; LANES];

pub use crate::gfx::decode::{EXEC, VCC};

/// What undefined registers hold.
pub const POISON: u32 = 0xfdfd_fdfd;

/// What a wave waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ready,
    Barrier,
    Done,
}

/// A wave.
#[derive(Debug)]
pub struct Wave {
    pub index: u32,
    /// Lanes that are threads of the block.
    pub live: u64,
    pub status: Status,
    pub pc: u32,
    /// The scalar file, by the numbers of the encoding.
    pub scalar: [u32; 128],
    /// Bits of it that are undefined.
    pub scalar_undefined: [u32; 128],
    pub scc: bool,
    pub scc_undefined: bool,
    pub mode: Mode,
    pub vector: Vec<Vector>,
    /// Bits that are undefined; looked at only in lanes that `tainted` names.
    pub undefined: Vec<Vector>,
    /// By register: lanes with an undefined bit.
    pub tainted: Vec<u64>,
    /// Where registers for accumulation begin.
    pub accumulation: u16,
    /// Private memory, one lane's after the other's.
    pub private: Bytes,
    /// Where the image is in global memory.
    pub base: u64,
    pub vm: Queue,
    pub lgkm: Queue,
}

/// The MODE register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Mode {
    /// Rounding of f32.
    pub fn round32(self) -> crate::number::Rounding {
        rounding(self.0)
    }
    /// Rounding of f16 and f64.
    pub fn round16(self) -> crate::number::Rounding {
        rounding(self.0 >> 2)
    }
    /// Whether f32 is as hosts do it: to nearest, with subnormals.
    #[inline]
    pub fn plain32(self) -> bool {
        self.0 & 0x33 == 0x30
    }
    /// Whether subnormal f32 inputs and results are kept.
    pub fn subnormals32(self) -> (bool, bool) {
        (self.0 >> 4 & 1 == 1, self.0 >> 5 & 1 == 1)
    }
    /// The same of f16 and f64.
    pub fn subnormals16(self) -> (bool, bool) {
        (self.0 >> 6 & 1 == 1, self.0 >> 7 & 1 == 1)
    }
    /// Whether clamping turns NaN into 0.
    pub fn dx10(self) -> bool {
        self.0 >> 8 & 1 == 1
    }
}

fn rounding(bits: u32) -> crate::number::Rounding {
    use crate::number::Rounding::*;
    [Nearest, Up, Down, Zero][bits as usize & 3]
}

impl Wave {
    /// A wave whose registers nobody has written.
    pub fn new(index: u32, program: &Program) -> Self {
        let registers = program.registers as usize;
        Self {
            index,
            live: 0,
            status: Status::Ready,
            pc: program.entry,
            scalar: [POISON; 128],
            scalar_undefined: [u32::MAX; 128],
            scc: false,
            scc_undefined: true,
            mode: Mode(program.descriptor.mode()),
            vector: vec![[POISON; LANES]; registers],
            undefined: vec![[u32::MAX; LANES]; registers],
            tainted: vec![u64::MAX; registers],
            accumulation: program.descriptor.accumulation_offset(),
            private: Bytes::undefined(program.private as usize * LANES),
            base: program.base,
            vm: Queue::new(),
            lgkm: Queue::new(),
        }
    }

    /// The same wave of another block.
    pub fn restart(&mut self, program: &Program) {
        self.vector.fill([POISON; LANES]);
        self.undefined.fill([u32::MAX; LANES]);
        self.tainted.fill(u64::MAX);
        self.vm.clear();
        self.lgkm.clear();
        self.status = Status::Ready;
        self.pc = program.entry;
        self.scalar = [POISON; 128];
        self.scalar_undefined = [u32::MAX; 128];
        self.scc_undefined = true;
        self.mode = Mode(program.descriptor.mode());
        self.private = Bytes::undefined(program.private as usize * LANES);
    }

    /// A thread's index in its block.
    pub fn thread(&self, lane: usize) -> u32 {
        64 * self.index + lane as u32
    }

    /// Lanes that run.
    #[inline]
    pub fn exec(&self) -> u64 {
        u64::from(self.scalar[EXEC as usize]) | u64::from(self.scalar[EXEC as usize + 1]) << 32
    }

    /// Where a vector register is in the unified file.
    #[inline]
    pub fn slot(&self, register: u16) -> usize {
        if register < 256 {
            register as usize
        } else {
            (self.accumulation + register - 256) as usize
        }
    }

    /// The registers of an operand, for asking whether they are pending.
    pub fn range(&self, operand: Operand, words: u8) -> Option<Range> {
        match operand {
            Operand::Vector(n) => {
                Some(Range { scalar: false, first: self.slot(n) as u16, count: words })
            }
            Operand::Scalar(n) => {
                Some(Range { scalar: true, first: n.into(), count: words.min(128 - n) })
            }
            _ => None,
        }
    }

    /// Sets a scalar register.
    pub fn set(&mut self, register: u8, value: u32, undefined: u32) {
        self.scalar[register as usize] = value;
        self.scalar_undefined[register as usize] = undefined;
    }

    /// Sets a pair of scalar registers.
    pub fn set64(&mut self, register: u8, value: u64, undefined: u64) {
        self.set(register, value as u32, undefined as u32);
        self.set(register + 1, (value >> 32) as u32, (undefined >> 32) as u32);
    }

    /// A scalar operand: its value and its undefined bits.
    pub fn scalar_operand(&self, s: &Source) -> (u64, u64) {
        let wide = s.ty.words() >= 2;
        match s.operand {
            Operand::Scalar(n) => {
                let n = n as usize;
                let (mut value, mut undefined) =
                    (u64::from(self.scalar[n]), u64::from(self.scalar_undefined[n]));
                if wide && n < 127 {
                    value |= u64::from(self.scalar[n + 1]) << 32;
                    undefined |= u64::from(self.scalar_undefined[n + 1]) << 32;
                }
                (value, undefined)
            }
            Operand::Constant { bits, .. } => (bits, 0),
            Operand::Special(code) => self.special(code, wide),
            Operand::None | Operand::Vector(_) => (0, 0),
        }
    }

    fn special(&self, code: u8, wide: bool) -> (u64, u64) {
        use super::memory::{PRIVATE_APERTURE, SHARED_APERTURE};
        let (vcc, vcc_undefined) = self.vcc();
        match code {
            235 if wide => (SHARED_APERTURE, 0),
            237 if wide => (PRIVATE_APERTURE, 0),
            251 => (u64::from(vcc == 0), if vcc & !vcc_undefined == 0 { vcc_undefined } else { 0 }),
            252 => (u64::from(self.exec() == 0), 0),
            253 => (self.scc.into(), self.scc_undefined.into()),
            _ => (0, 0),
        }
    }

    /// The mask of carries and comparisons, and its undefined bits.
    pub fn vcc(&self) -> (u64, u64) {
        let at = VCC as usize;
        let pair = |file: &[u32; 128]| u64::from(file[at]) | u64::from(file[at + 1]) << 32;
        (pair(&self.scalar), pair(&self.scalar_undefined))
    }

    /// A register's undefined bits, all lanes.
    pub fn undefined_bits(&self, slot: usize) -> Vector {
        let (bits, tainted) = (&self.undefined[slot], self.tainted[slot]);
        std::array::from_fn(|lane| if tainted >> lane & 1 == 1 { bits[lane] } else { 0 })
    }

    /// Writes lanes of a register with defined values.
    #[inline]
    pub fn write(&mut self, slot: usize, mask: u64, value: &Vector) {
        let register = &mut self.vector[slot];
        if mask == u64::MAX {
            *register = *value;
        } else {
            for lane in 0..LANES {
                let keep = ((mask >> lane & 1) as u32).wrapping_sub(1);
                register[lane] = register[lane] & keep | value[lane] & !keep;
            }
        }
        self.tainted[slot] &= !mask;
    }

    /// Says which bits of what was just written are undefined.
    pub fn taint(&mut self, slot: usize, mask: u64, undefined: &Vector) {
        for lane in lanes(mask) {
            if undefined[lane] != 0 {
                self.undefined[slot][lane] = undefined[lane];
                self.tainted[slot] |= 1 << lane;
            }
        }
    }

    /// Makes whole lanes undefined.
    pub fn taint_all(&mut self, slot: usize, mask: u64) {
        for lane in lanes(mask) {
            self.undefined[slot][lane] = u32::MAX;
        }
        self.tainted[slot] |= mask;
    }

    /// Sets one lane.
    #[inline]
    pub fn set_lane(&mut self, slot: usize, lane: usize, value: u32, undefined: u32) {
        self.vector[slot][lane] = value;
        if undefined == 0 {
            self.tainted[slot] &= !(1 << lane);
        } else {
            self.undefined[slot][lane] = undefined;
            self.tainted[slot] |= 1 << lane;
        }
    }

    /// One lane's value and undefined bits.
    #[inline]
    pub fn lane(&self, slot: usize, lane: usize) -> (u32, u32) {
        let tainted = self.tainted[slot] >> lane & 1 == 1;
        (self.vector[slot][lane], if tainted { self.undefined[slot][lane] } else { 0 })
    }
}

/// The lanes of a mask, ascending.
pub fn lanes(mask: u64) -> impl Iterator<Item = usize> + Clone {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}
