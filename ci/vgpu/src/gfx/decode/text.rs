//! The assembler's text of an instruction, as the vendor's disassembler prints it.

use std::fmt;

use super::operand::{Operand, Source};
use super::scalar::register_name;
use super::{Broadcast, Instruction, Variant};
use crate::gfx::isa::{Format, Type};

/// Registers of the vector file.
fn vector_name(first: u16, words: u8) -> String {
    let (letter, first) = if first < 256 { ("v", first) } else { ("a", first - 256) };
    match words {
        1 => format!("{letter}{first}"),
        n => format!("{letter}[{first}:{}]", first + u16::from(n) - 1),
    }
}

/// Floats that have a code of their own, from 240 on.
const FLOATS: [&str; 9] =
    ["0.5", "-0.5", "1.0", "-1.0", "2.0", "-2.0", "4.0", "-4.0", "0.15915494"];

fn constant(code: u16, literal: u32) -> String {
    match code {
        128..=192 => (code - 128).to_string(),
        193..=208 => (192 - i32::from(code)).to_string(),
        240..=248 => FLOATS[code as usize - 240].into(),
        255 => number(literal),
        _ => format!("{literal:#x}"),
    }
}

/// A literal; what could have been a short constant is written as one.
fn number(literal: u32) -> String {
    match literal as i32 {
        n @ -16..=64 => n.to_string(),
        _ => {
            let value = |name: &&str| name.parse().map(f32::to_bits) == Ok(literal);
            let float = FLOATS.iter().find(|name| value(name));
            float.map_or(format!("{literal:#x}"), |name| (*name).to_string())
        }
    }
}

fn special(code: u8) -> &'static str {
    match code {
        235 => "src_shared_base",
        236 => "src_shared_limit",
        237 => "src_private_base",
        238 => "src_private_limit",
        239 => "src_pops_exiting_wave_id",
        251 => "src_vccz",
        252 => "src_execz",
        253 => "src_scc",
        _ => "?",
    }
}

impl Instruction {
    fn operand(&self, operand: Operand, words: u8) -> String {
        match operand {
            Operand::None => "off".into(),
            Operand::Vector(n) => vector_name(n, words),
            Operand::Scalar(n) => register_name(n, words),
            // 1/(2π) is longer where it is a double.
            Operand::Constant { code: 248, bits } if bits >> 32 != 0 => {
                "0.15915494309189532".into()
            }
            Operand::Constant { code, .. } => constant(code, self.literal),
            Operand::Special(code) => special(code).into(),
        }
    }

    fn source(&self, s: &Source) -> String {
        let mut text = self.operand(s.operand, s.ty.words());
        if s.sext {
            text = format!("sext({text})");
        }
        if s.abs {
            text = format!("|{text}|");
        }
        match (s.neg, s.operand) {
            (false, _) => text,
            // A minus sign in front of a constant would be another constant.
            (true, Operand::Constant { .. }) if !s.abs => format!("neg({text})"),
            (true, _) => format!("-{text}"),
        }
    }

    fn suffix(&self) -> &'static str {
        match self.variant {
            Variant::Only => "",
            Variant::E32 => "_e32",
            Variant::E64 => "_e64",
            Variant::Sdwa => "_sdwa",
            Variant::Dpp => "_dpp",
        }
    }

    fn arithmetic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = Vec::new();
        if self.dst != Operand::None {
            list.push(self.operand(self.dst, self.dst_type.words()));
        }
        if self.mask != Operand::None {
            list.push(self.operand(self.mask, 2));
        }
        let packed = self.format == Format::Vop3p;
        for s in self.sources() {
            list.push(if packed && s.ty != Type::Mix {
                self.operand(s.operand, s.ty.words())
            } else {
                self.source(s)
            });
        }
        if !list.is_empty() {
            write!(f, " {}", list.join(", "))?;
        }
        if packed {
            return self.packed_modifiers(f);
        }
        if self.op_sel != 0 {
            // The result's half is the last.
            let n = self.sources as usize;
            let flags: Vec<_> =
                (0..n).chain([3]).map(|i| (self.op_sel >> i & 1).to_string()).collect();
            write!(f, " op_sel:[{}]", flags.join(","))?;
        }
        if self.clamp {
            write!(f, " clamp")?;
        }
        f.write_str(["", " mul:2", " mul:4", " div:2"][self.omod as usize])?;
        self.sdwa_modifiers(f)?;
        self.dpp_modifiers(f)
    }

    fn packed_modifiers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.starts_with("v_mfma") || self.name.starts_with("v_accvgpr") {
            let Broadcast { size, block } = self.broadcast;
            if size != 0 {
                write!(f, " cbsz:{size}")?;
            }
            return if block != 0 { write!(f, " abid:{block}") } else { Ok(()) };
        }
        let n = self.sources as usize;
        let all = (1 << n) - 1;
        let list =
            |bits: u8| (0..n).map(|i| (bits >> i & 1).to_string()).collect::<Vec<_>>().join(",");
        let mix = self.src[0].ty == Type::Mix;
        if self.op_sel & all != 0 {
            write!(f, " op_sel:[{}]", list(self.op_sel))?;
        }
        // Of mixed operands the high flag says that it is a half: by default it is not.
        if self.op_sel_hi & all != if mix { 0 } else { all } {
            write!(f, " op_sel_hi:[{}]", list(self.op_sel_hi))?;
        }
        let neg_lo = (0..n).map(|i| u8::from(self.src[i].neg) << i).sum::<u8>();
        if neg_lo != 0 && !mix {
            write!(f, " neg_lo:[{}]", list(neg_lo))?;
        }
        if self.neg_hi & all != 0 && !mix {
            write!(f, " neg_hi:[{}]", list(self.neg_hi))?;
        }
        if self.clamp { write!(f, " clamp") } else { Ok(()) }
    }

    fn sdwa_modifiers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PARTS: [&str; 8] =
            ["BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD", "?"];
        const REST: [&str; 4] = ["UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE", "?"];
        let Some(sdwa) = self.sdwa else { return Ok(()) };
        if self.format != Format::Vopc {
            let (dst, unused) = (PARTS[sdwa.dst as usize], REST[sdwa.unused as usize]);
            write!(f, " dst_sel:{dst} dst_unused:{unused}")?;
        }
        write!(f, " src0_sel:{}", PARTS[sdwa.src[0] as usize])?;
        if self.format != Format::Vop1 {
            write!(f, " src1_sel:{}", PARTS[sdwa.src[1] as usize])?;
        }
        Ok(())
    }

    fn dpp_modifiers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dpp) = self.dpp else { return Ok(()) };
        let c = dpp.control;
        match c {
            0..=0xff => {
                write!(f, " quad_perm:[{},{},{},{}]", c & 3, c >> 2 & 3, c >> 4 & 3, c >> 6)?;
            }
            0x101..=0x10f => write!(f, " row_shl:{}", c & 15)?,
            0x111..=0x11f => write!(f, " row_shr:{}", c & 15)?,
            0x121..=0x12f => write!(f, " row_ror:{}", c & 15)?,
            0x130 => write!(f, " wave_shl:1")?,
            0x134 => write!(f, " wave_rol:1")?,
            0x138 => write!(f, " wave_shr:1")?,
            0x13c => write!(f, " wave_ror:1")?,
            0x140 => write!(f, " row_mirror")?,
            0x141 => write!(f, " row_half_mirror")?,
            0x142 => write!(f, " row_bcast:15")?,
            0x143 => write!(f, " row_bcast:31")?,
            0x150..=0x15f => write!(f, " row_newbcast:{}", c & 15)?,
            _ => write!(f, " dpp_ctrl:{c:#x}")?,
        }
        write!(f, " row_mask:{:#x} bank_mask:{:#x}", dpp.row_mask, dpp.bank_mask)?;
        if dpp.bound_control { write!(f, " bound_ctrl:1") } else { Ok(()) }
    }

    fn cache_modifiers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a = self.access;
        for (set, name) in
            [(a.glc, "glc"), (a.slc, "slc"), (a.scc, "scc"), (a.lds, "lds"), (a.gds, "gds")]
        {
            if set {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }

    fn ds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = Vec::new();
        if self.dst != Operand::None {
            list.push(self.operand(self.dst, self.dst_type.words()));
        }
        list.extend(self.sources().iter().map(|s| self.source(s)));
        if !list.is_empty() {
            write!(f, " {}", list.join(", "))?;
        }
        let a = self.access;
        if self.name.contains("2_") || self.name.contains("2st64_") {
            if a.offset != 0 {
                write!(f, " offset0:{}", a.offset)?;
            }
            if a.offset1 != 0 {
                write!(f, " offset1:{}", a.offset1)?;
            }
        } else if self.name == "ds_swizzle_b32" {
            write!(f, " offset:{}", swizzle(a.offset as u32))?;
        } else if a.offset != 0 {
            write!(f, " offset:{}", a.offset)?;
        }
        self.cache_modifiers(f)
    }

    fn flat(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = Vec::new();
        if self.dst != Operand::None {
            list.push(self.operand(self.dst, self.dst_type.words()));
        }
        list.push(self.source(&self.src[0]));
        if self.src[1].operand != Operand::None {
            list.push(self.source(&self.src[1]));
        }
        if self.access.segment != 0 {
            list.push(self.source(&self.src[2]));
        }
        write!(f, " {}", list.join(", "))?;
        if self.access.offset != 0 {
            write!(f, " offset:{}", self.access.offset)?;
        }
        self.cache_modifiers(f)
    }

    fn buffer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sources > 0 {
            let data = match self.src[1].operand {
                Operand::None => self.operand(self.dst, self.dst_type.words()),
                _ => self.source(&self.src[1]),
            };
            let [address, _, resource, offset] = &self.src;
            let [address, resource, offset] = [address, resource, offset].map(|s| self.source(s));
            write!(f, " {data}, {address}, {resource}, {offset}")?;
        } else {
            return Ok(());
        }
        let a = self.access;
        if a.idxen {
            write!(f, " idxen")?;
        }
        if a.offen {
            write!(f, " offen")?;
        }
        if a.offset != 0 {
            write!(f, " offset:{}", a.offset)?;
        }
        self.cache_modifiers(f)
    }

    fn smem(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = Vec::new();
        if self.dst != Operand::None {
            list.push(self.operand(self.dst, self.dst_type.words()));
        }
        if self.sources > 0 {
            if self.src[1].operand != Operand::None {
                list.push(self.source(&self.src[1]));
            }
            list.push(self.source(&self.src[0]));
            list.push(match self.src[2].operand {
                Operand::None if self.access.offset < 0 => format!("-{:#x}", -self.access.offset),
                Operand::None => format!("{:#x}", self.access.offset),
                _ => self.source(&self.src[2]),
            });
        }
        if !list.is_empty() {
            write!(f, " {}", list.join(", "))?;
        }
        self.cache_modifiers(f)
    }

    fn flow(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            "s_waitcnt" => {
                let wait = super::super::exec::Wait::of(self.simm);
                let mut text = String::new();
                let whole = wait == super::super::exec::Wait { vm: 63, export: 7, lgkm: 15 };
                for (name, n, most) in
                    [("vmcnt", wait.vm, 63), ("expcnt", wait.export, 7), ("lgkmcnt", wait.lgkm, 15)]
                {
                    if n != most || whole {
                        text += &format!(" {name}({n})");
                    }
                }
                f.write_str(&text)
            }
            "s_endpgm" if self.simm == 0 => Ok(()),
            "s_barrier" | "s_icache_inv" | "s_endpgm_saved" | "s_ttracedata" => Ok(()),
            "s_sendmsg" | "s_sendmsghalt" => write!(f, " sendmsg({:#x})", self.simm),
            _ => write!(f, " {}", self.simm),
        }
    }

    fn constant16(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let register = |o: Operand| self.operand(o, 1);
        let hardware = || {
            let (id, at, size) = (self.simm & 63, self.simm >> 6 & 31, (self.simm >> 11) + 1);
            let name = hardware_register(id);
            match (at, size) {
                (0, 32) => format!("hwreg({name})"),
                _ => format!("hwreg({name}, {at}, {size})"),
            }
        };
        match self.name {
            "s_getreg_b32" => write!(f, " {}, {}", register(self.dst), hardware()),
            "s_setreg_b32" => write!(f, " {}, {}", hardware(), register(self.src[0].operand)),
            "s_setreg_imm32_b32" => write!(f, " {}, {}", hardware(), number(self.literal)),
            "s_call_b64" => write!(f, " {}, {}", self.operand(self.dst, 2), self.simm),
            _ => {
                let first = if self.dst == Operand::None { self.src[0].operand } else { self.dst };
                write!(f, " {}, {:#x}", register(first), self.simm)
            }
        }
    }
}

fn hardware_register(id: u16) -> String {
    const NAMES: [&str; 8] = [
        "HW_REG_MODE",
        "HW_REG_STATUS",
        "HW_REG_TRAPSTS",
        "HW_REG_HW_ID",
        "HW_REG_GPR_ALLOC",
        "HW_REG_LDS_ALLOC",
        "HW_REG_IB_STS",
        "HW_REG_SH_MEM_BASES",
    ];
    let known = match id {
        1..=7 => Some(NAMES[id as usize - 1]),
        15 => Some(NAMES[7]),
        _ => None,
    };
    known.map_or(id.to_string(), str::to_string)
}

/// Patterns of `ds_swizzle_b32`.
fn swizzle(offset: u32) -> String {
    if offset & 0x8000 != 0 {
        let [a, b, c, d] = [0, 2, 4, 6].map(|at| offset >> at & 3);
        return format!("swizzle(QUAD_PERM,{a},{b},{c},{d})");
    }
    let (and, or, xor) = (offset & 31, offset >> 5 & 31, offset >> 10 & 31);
    match (and, or, xor) {
        (31, 0, 1 | 2 | 4 | 8 | 16) => format!("swizzle(SWAP,{xor})"),
        (31, 0, 31 | 15 | 7 | 3) => format!("swizzle(REVERSE,{})", xor + 1),
        (_, _, 0) if or <= !and & 31 && (32 - and).is_power_of_two() && and + (32 - and) == 32 => {
            format!("swizzle(BROADCAST,{},{or})", 32 - and)
        }
        _ => {
            let mask: String = (0..5)
                .rev()
                .map(|b| match (and >> b & 1, or >> b & 1, xor >> b & 1) {
                    (0, 0, 0) => '0',
                    (0, _, _) => '1',
                    (1, 0, 0) => 'p',
                    (1, 0, 1) => 'i',
                    _ => '?',
                })
                .collect();
            format!("swizzle(BITMASK_PERM,\"{mask}\")")
        }
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.suffix())?;
        match self.format {
            Format::Sopp => self.flow(f),
            Format::Sopk => self.constant16(f),
            Format::Smem => self.smem(f),
            Format::Ds => self.ds(f),
            Format::Flat => self.flat(f),
            Format::Mubuf => self.buffer(f),
            _ => self.arithmetic(f),
        }
    }
}
