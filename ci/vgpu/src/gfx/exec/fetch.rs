//! Sources as an instruction takes them (parts of registers, other lanes', negated), and results as
//! it leaves them.

use super::wave::{LANES, Vector, Wave, lanes};
use crate::gfx::decode::{Dpp, Instruction, Operand, Source, Variant};
use crate::gfx::isa::{Format, Type};

/// The lane that another reads, or none if it is not there.
pub fn dpp_lane(control: u16, lane: usize) -> Option<usize> {
    let (row, at) = (lane & !15, lane & 15);
    let n = (control & 15) as usize;
    match control {
        0..=0xff => Some(lane & !3 | (control as usize >> (2 * (lane & 3)) & 3)),
        0x101..=0x10f => (at + n < 16).then_some(row + at + n),
        0x111..=0x11f => at.checked_sub(n).map(|at| row + at),
        0x121..=0x12f => Some(row + (at + 16 - n) % 16),
        0x130 => (lane < 63).then_some(lane + 1),
        0x134 => Some((lane + 1) % 64),
        0x138 => lane.checked_sub(1),
        0x13c => Some((lane + 63) % 64),
        0x140 => Some(row + 15 - at),
        0x141 => Some(lane ^ 7),
        // The last lane of the row before; of the half before.
        0x142 => row.checked_sub(1),
        0x143 => (lane >= 32).then_some(31),
        0x150..=0x15f => Some(row + n),
        _ => None,
    }
}

/// Whether a control is one of those above.
pub fn dpp_known(control: u16) -> bool {
    matches!(control, 0..=0xff | 0x101..=0x10f | 0x111..=0x11f | 0x121..=0x12f
        | 0x130 | 0x134 | 0x138 | 0x13c | 0x140..=0x143 | 0x150..=0x15f)
}

impl Wave {
    /// Lanes whose result an instruction writes.
    #[inline]
    pub fn enabled(&self, i: &Instruction) -> u64 {
        match i.dpp {
            None => self.exec(),
            Some(dpp) => self.dpp_enabled(dpp),
        }
    }

    fn dpp_enabled(&self, dpp: Dpp) -> u64 {
        let exec = self.exec();
        let written = |lane: &usize| {
            let masks = dpp.row_mask >> (lane / 16) & 1 & dpp.bank_mask >> (lane % 16 / 4);
            let source = dpp_lane(dpp.control, *lane).is_some_and(|from| exec >> from & 1 == 1);
            masks & 1 == 1 && (source || dpp.bound_control)
        };
        lanes(exec).filter(written).fold(0, |mask, lane| mask | 1 << lane)
    }

    /// A register's word, all lanes: value, and lanes with undefined bits.
    #[inline]
    pub fn raw(&self, operand: Operand, word: u16) -> (Vector, u64) {
        match operand {
            Operand::Vector(n) => {
                let slot = self.slot(n) + word as usize;
                (self.vector[slot], self.tainted[slot])
            }
            Operand::Constant { bits, .. } => ([(bits >> (32 * word)) as u32; LANES], 0),
            _ => {
                let ty = if word == 0 { Type::B32 } else { Type::B64 };
                let (value, undefined) = self.scalar_operand(&Source::new(operand, ty));
                let shift = 32 * word;
                let tainted = if undefined >> shift == 0 { 0 } else { u64::MAX };
                ([(value >> shift) as u32; LANES], tainted)
            }
        }
    }

    /// The undefined bits of a register's word.
    pub fn raw_undefined(&self, operand: Operand, word: u16) -> Vector {
        match operand {
            Operand::Vector(n) => self.undefined_bits(self.slot(n) + word as usize),
            Operand::Constant { .. } => [0; LANES],
            _ => {
                let ty = if word == 0 { Type::B32 } else { Type::B64 };
                let (_, undefined) = self.scalar_operand(&Source::new(operand, ty));
                [(undefined >> (32 * word)) as u32; LANES]
            }
        }
    }

    /// A source of 32 bits or less, in its lanes and with its modifiers.
    #[inline]
    pub fn fetch(&self, i: &Instruction, n: usize) -> (Vector, u64) {
        let s = &i.src[n];
        let (mut value, mut tainted) = self.raw(s.operand, 0);
        if i.variant == Variant::Sdwa || i.variant == Variant::Dpp {
            value = self.select(i, n, value, 0);
            if tainted != 0 {
                let undefined = self.select(i, n, self.raw_undefined(s.operand, 0), 0);
                tainted = lanes(u64::MAX).filter(|l| undefined[*l] != 0).fold(0, |m, l| m | 1 << l);
            }
        }
        if matches!(s.ty, Type::B16 | Type::F16) {
            let shift = if i.op_sel >> n & 1 == 1 { 16 } else { 0 };
            value.iter_mut().for_each(|x| *x = *x >> shift & 0xffff);
        }
        if s.abs || s.neg {
            let sign = if s.ty == Type::F16 { 0x8000 } else { 0x8000_0000 };
            if s.abs {
                value.iter_mut().for_each(|x| *x &= !sign);
            }
            if s.neg {
                value.iter_mut().for_each(|x| *x ^= sign);
            }
        }
        (value, tainted)
    }

    /// The undefined bits of such a source.
    pub fn fetch_undefined(&self, i: &Instruction, n: usize) -> Vector {
        let s = &i.src[n];
        let mut undefined = self.select(i, n, self.raw_undefined(s.operand, 0), 0);
        if matches!(s.ty, Type::B16 | Type::F16) {
            let shift = if i.op_sel >> n & 1 == 1 { 16 } else { 0 };
            undefined.iter_mut().for_each(|x| *x = *x >> shift & 0xffff);
        }
        undefined
    }

    /// Parts (SDWA) and other lanes (DPP) of a register.
    fn select(&self, i: &Instruction, n: usize, from: Vector, absent: u32) -> Vector {
        if let (Some(dpp), 0) = (i.dpp, n) {
            let exec = self.exec();
            let lane = |lane| dpp_lane(dpp.control, lane).filter(|from| exec >> from & 1 == 1);
            return std::array::from_fn(|l| lane(l).map_or(absent, |l| from[l]));
        }
        let (Some(sdwa), true) = (i.sdwa, n < 2) else { return from };
        let sext = i.src[n].sext;
        from.map(|x| match sdwa.src[n] {
            part @ 0..=3 if sext => (x >> (8 * part)) as i8 as u32,
            part @ 0..=3 => x >> (8 * part) & 0xff,
            part @ 4..=5 if sext => (x >> (16 * (part - 4))) as i16 as u32,
            part @ 4..=5 => x >> (16 * (part - 4)) & 0xffff,
            _ => x,
        })
    }

    /// A source of 64 bits (or of 32, with zeros above).
    pub fn fetch64(&self, i: &Instruction, n: usize) -> ([u64; LANES], u64) {
        let s = &i.src[n];
        if s.ty.words() == 1 {
            let (value, tainted) = self.fetch(i, n);
            return (value.map(u64::from), tainted);
        }
        let ((low, t0), (high, t1)) = (self.raw(s.operand, 0), self.raw(s.operand, 1));
        let mut value: [u64; LANES] =
            std::array::from_fn(|l| u64::from(low[l]) | u64::from(high[l]) << 32);
        if s.abs {
            value.iter_mut().for_each(|x| *x &= u64::MAX >> 1);
        }
        if s.neg {
            value.iter_mut().for_each(|x| *x ^= 1 << 63);
        }
        (value, t0 | t1)
    }

    /// Leaves a result of 32 bits or less.
    #[inline]
    pub fn store(&mut self, i: &Instruction, value: &Vector) {
        let mask = self.enabled(i);
        let Operand::Vector(n) = i.dst else { return };
        let slot = self.slot(n);
        if i.sdwa.is_some_and(|s| s.dst != 6) || keeps_half(i) {
            let old = self.vector[slot];
            let value = std::array::from_fn(|l| place(i, old[l], value[l], false));
            return self.write_part(slot, mask, &value, i);
        }
        self.write(slot, mask, value);
    }

    /// Writes a part of a register: what stays is as defined as it was.
    fn write_part(&mut self, slot: usize, mask: u64, value: &Vector, i: &Instruction) {
        let old = self.undefined_bits(slot);
        self.write(slot, mask, value);
        let undefined = std::array::from_fn(|l| place(i, old[l], 0, false));
        self.taint(slot, mask, &undefined);
    }

    /// Makes undefined what was just stored, in lanes of a mask.
    pub fn store_undefined(&mut self, i: &Instruction, mask: u64, undefined: &Vector) {
        let mask = mask & self.enabled(i);
        let Operand::Vector(n) = i.dst else { return };
        let slot = self.slot(n);
        let old = self.undefined_bits(slot);
        let part = i.sdwa.is_some_and(|s| s.dst != 6) || keeps_half(i);
        let undefined = std::array::from_fn(|l| {
            if part { place(i, old[l], undefined[l], true) | old[l] } else { undefined[l] }
        });
        self.taint(slot, mask, &undefined);
    }

    /// Leaves a result of 64 bits, or of 32 if that is what it has.
    pub fn store64(&mut self, i: &Instruction, value: &[u64; LANES], tainted: u64) {
        self.store_pair(i, value, [tainted; 2]);
    }

    /// The same, where the two words are undefined in different lanes.
    pub fn store_pair(&mut self, i: &Instruction, value: &[u64; LANES], tainted: [u64; 2]) {
        let mask = self.enabled(i);
        let Operand::Vector(n) = i.dst else { return };
        let slot = self.slot(n);
        let words = usize::from(i.dst_type.words().min(2));
        for (word, tainted) in tainted.into_iter().enumerate().take(words) {
            self.write(slot + word, mask, &value.map(|x| (x >> (32 * word)) as u32));
            self.taint_all(slot + word, mask & tainted);
        }
    }
}

/// Whether a 16-bit result leaves the register's other half as it was. Those that older encodings
/// have too write zeros there.
fn keeps_half(i: &Instruction) -> bool {
    match i.name {
        "v_fma_mixlo_f16" | "v_fma_mixhi_f16" => true,
        _ => {
            i.format == Format::Vop3
                && i.variant == Variant::Only
                && matches!(i.dst_type, Type::B16 | Type::F16)
                && !i.name.contains("legacy")
        }
    }
}

/// Puts a result in its part of a register.
fn place(i: &Instruction, old: u32, new: u32, undefined: bool) -> u32 {
    let Some(sdwa) = i.sdwa else {
        let high = i.name == "v_fma_mixhi_f16" || i.op_sel >> 3 & 1 == 1;
        return if high { old & 0xffff | new << 16 } else { old & !0xffff | new & 0xffff };
    };
    let (shift, width) = match sdwa.dst {
        byte @ 0..=3 => (8 * u32::from(byte), 8),
        word @ 4..=5 => (16 * u32::from(word - 4), 16),
        _ => (0, 32),
    };
    let field = (u32::MAX >> (32 - width)) << shift;
    let part = new << shift & field;
    let above = (u64::from(u32::MAX) << (shift + width)) as u32;
    match sdwa.unused {
        1 if !undefined && part >> (shift + width - 1) & 1 == 1 => part | above,
        2 => old & !field | part,
        _ => part,
    }
}
