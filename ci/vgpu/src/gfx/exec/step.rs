//! One instruction of one wave.

use super::Launch;
use super::access::{self, Move};
use super::block::Block;
use super::map::Act;
use super::wait::Wait;
use super::wave::{EXEC, LANES, Status, Wave};
use super::{compare, convert, double, float, half, integer, lanes, matrix, scalar};
use crate::counters::Class;
use crate::finding::Kind;
use crate::gfx::decode::{Instruction, Operand, Variant};
use crate::gfx::isa::{Format, Type};
use crate::gfx::program::Step;
use crate::gfx::{GfxError, Result};
use crate::memory::Fault;

/// What an instruction does.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    Vector(Act),
    Scalar(Act),
    Memory(Move),
    Lds(Move),
    ScalarMemory,
    Wait(Wait),
    Branch(Condition),
    /// To an address in registers; the way back is kept if there is a place for it.
    Jump,
    Barrier,
    End,
    Trap,
    /// What others have written is read anew.
    Fence,
    Nothing,
}

/// When a branch is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Always,
    Scc(bool),
    /// No bit, or some bit, of vcc.
    Vcc(bool),
    Exec(bool),
}

/// Modifiers that change what a name means and that only floating instructions have.
fn modified(i: &Instruction) -> bool {
    i.clamp || i.omod != 0 || i.src.iter().any(|s| s.neg || s.abs)
}

/// What an instruction does, and its class; an error names what is not known.
pub fn action(i: &Instruction) -> Result<(Action, Class)> {
    let unknown = || GfxError::new(format!("`{i}` at {:#x} is not known", i.address));
    match i.format {
        Format::Sopp => control(i).ok_or_else(unknown),
        Format::Sop1 if matches!(i.name, "s_setpc_b64" | "s_swappc_b64") => {
            Ok((Action::Jump, Class::Control))
        }
        Format::Sopk if i.name == "s_call_b64" => {
            Ok((Action::Branch(Condition::Always), Class::Control))
        }
        Format::Sop1 | Format::Sop2 | Format::Sopc | Format::Sopk => {
            let act = scalar::action(i).ok_or_else(unknown)?;
            Ok((Action::Scalar(act), Class::Scalar))
        }
        Format::Smem => Ok((Action::ScalarMemory, Class::Scalar)),
        Format::Ds => {
            let what = access::movement(i).filter(|_| !i.access.gds).ok_or_else(unknown)?;
            let class = match what {
                Move::Permute { .. } | Move::Swizzle => Class::CrossLane,
                Move::Atomic { .. } => Class::Atomic,
                _ => Class::Shared,
            };
            Ok((Action::Lds(what), class))
        }
        Format::Flat | Format::Mubuf => {
            let what = access::movement(i).filter(|_| !i.access.lds).ok_or_else(unknown)?;
            Ok(match what {
                // Only the first cache holds what a block of the same device has overwritten.
                Move::Fence if i.name.contains("wbinvl1") => (Action::Fence, Class::Barrier),
                Move::Fence => (Action::Nothing, Class::Barrier),
                Move::Atomic { .. } => (Action::Memory(what), Class::Atomic),
                _ if i.access.segment == 1 => (Action::Memory(what), Class::Private),
                _ => (Action::Memory(what), Class::Global),
            })
        }
        Format::Vop1 | Format::Vop2 | Format::Vopc | Format::Vop3 | Format::Vop3p => {
            vector(i).ok_or_else(unknown)
        }
    }
}

fn control(i: &Instruction) -> Option<(Action, Class)> {
    let branch = |condition| (Action::Branch(condition), Class::Control);
    Some(match i.name {
        "s_branch" => branch(Condition::Always),
        "s_cbranch_scc0" => branch(Condition::Scc(false)),
        "s_cbranch_scc1" => branch(Condition::Scc(true)),
        "s_cbranch_vccz" => branch(Condition::Vcc(false)),
        "s_cbranch_vccnz" => branch(Condition::Vcc(true)),
        "s_cbranch_execz" => branch(Condition::Exec(false)),
        "s_cbranch_execnz" => branch(Condition::Exec(true)),
        "s_waitcnt" => (Action::Wait(Wait::of(i.simm)), Class::Async),
        "s_barrier" => (Action::Barrier, Class::Barrier),
        "s_endpgm" => (Action::End, Class::Control),
        "s_trap" => (Action::Trap, Class::Control),
        "s_nop" | "s_sleep" | "s_setprio" | "s_icache_inv" | "s_incperflevel"
        | "s_decperflevel" => (Action::Nothing, Class::Scalar),
        _ => return None,
    })
}

fn vector(i: &Instruction) -> Option<(Action, Class)> {
    if i.dpp.is_some_and(|dpp| !super::fetch::dpp_known(dpp.control)) {
        return None;
    }
    /// Finds what a name does.
    type Find = fn(&str) -> Option<Act>;
    let parts: [(Find, Class); 8] = [
        (integer::action, Class::Integer),
        (float::action, Class::Float),
        (lanes::action, Class::CrossLane),
        (convert::action, Class::Move),
        (compare::action, Class::Integer),
        (double::action, Class::Double),
        (half::action, Class::Float),
        (matrix::action, Class::Matrix),
    ];
    let (act, class) = parts.iter().find_map(|(find, class)| Some((find(i.name)?, *class)))?;
    // Parts and other lanes of 64-bit registers do not exist; packed ones have their own modifiers.
    let wide = i.src.iter().any(|s| s.ty.words() > 1) && i.variant == Variant::Sdwa;
    let clamps = matches!(
        i.name,
        "v_add_u32"
            | "v_sub_u32"
            | "v_subrev_u32"
            | "v_add_i32"
            | "v_sub_i32"
            | "v_add_u16"
            | "v_sub_u16"
    );
    let sign = matches!(i.name, "v_cndmask_b32" | "v_mov_b32") && !i.clamp && i.omod == 0;
    let integer = class == Class::Integer && !i.name.starts_with("v_cmp");
    if wide || integer && modified(i) && !clamps && !sign {
        return None;
    }
    Some((Action::Vector(act), class_of(i, class)))
}

/// The class that counters show.
fn class_of(i: &Instruction, class: Class) -> Class {
    const APPROXIMATE: [&str; 6] = ["v_rcp", "v_rsq", "v_sqrt", "v_exp", "v_log", "v_sin"];
    let name = i.name;
    if APPROXIMATE.iter().any(|a| name.starts_with(a)) || name.starts_with("v_cos") {
        return Class::Special;
    }
    match name {
        "v_mov_b32"
        | "v_accvgpr_read_b32"
        | "v_accvgpr_write_b32"
        | "v_accvgpr_mov_b32"
        | "v_cndmask_b32"
        | "v_perm_b32"
        | "v_pk_mov_b32"
        | "v_pack_b32_f16"
        | "v_nop" => Class::Move,
        "v_pk_add_f32" | "v_pk_mul_f32" | "v_pk_fma_f32" => Class::Float,
        _ => class,
    }
}

impl Launch<'_> {
    /// Runs the instruction that the wave is at.
    #[inline]
    pub fn step(&mut self, block: &mut Block, w: &mut Wave) -> Result<()> {
        let program = self.program;
        let Some(step) = program.code.get(w.pc as usize) else {
            return Err(GfxError::new(format!("{}: runs past its end", program.name)));
        };
        self.executed += 1;
        self.reached[w.pc as usize] = true;
        if self.executed > self.checks.max_instructions {
            return self.error(w, "the launch does not come to an end");
        }
        if !(w.vm.is_empty() && w.lgkm.is_empty()) {
            self.check_waits(block, w, step);
        }
        let i = &step.instruction;
        let lanes = match step.action {
            Action::Vector(_) | Action::Memory(_) | Action::Lds(_) => w.exec().count_ones(),
            _ => w.live.count_ones(),
        };
        self.counters.count(step.class, lanes, w.live.count_ones());
        match step.action {
            Action::Vector(act) => {
                if step.class == Class::Double && w.mode.0 & 0xcc != 0xc0 {
                    return self.error(w, "f64 that is not rounded to nearest, with subnormals");
                }
                act(w, i);
                if step.writes_exec {
                    self.check_exec(block, w);
                }
            }
            Action::Scalar(act) => {
                act(w, i);
                if step.writes_exec {
                    self.check_exec(block, w);
                }
            }
            Action::Memory(what) => self.vector_memory(block, w, i, what)?,
            Action::Lds(what) => self.lds(block, w, i, what),
            Action::ScalarMemory => self.scalar_memory(block, w, i)?,
            Action::Wait(wait) => {
                w.vm.wait(wait.vm.into());
                w.lgkm.wait(wait.lgkm.into());
                // Stores are done and seen by other blocks: caches write through.
                if wait.vm == 0 && self.publishes {
                    self.memory.order.release(w.index as usize, u64::MAX, true);
                }
            }
            Action::Branch(condition) => {
                if let (Operand::Scalar(n), "s_call_b64") = (i.dst, i.name) {
                    w.set64(n, w.base + i.address + 4, 0);
                }
                if self.taken(block, w, condition) {
                    w.pc = step.target;
                    return Ok(());
                }
            }
            Action::Jump => return self.jump(block, w, i),
            Action::Barrier => w.status = Status::Barrier,
            Action::End => w.status = Status::Done,
            Action::Trap => return self.error(w, "the kernel trapped"),
            // What was not there yet when the cache was emptied may be from before.
            Action::Fence if w.vm.is_empty() => self.memory.order.acquire(w.index as usize),
            Action::Fence => {}
            Action::Nothing => {}
        }
        w.pc += 1;
        Ok(())
    }

    /// Reports registers that are read or written while data is on its way to them. What is read
    /// early is undefined.
    fn check_waits(&mut self, block: &Block, w: &mut Wave, step: &Step) {
        for used in &step.uses {
            let Some(range) = w.range(used.operand, used.words) else { continue };
            let vm = w.vm.covers(range) && !used.vm_in_order;
            if !vm && !w.lgkm.covers(range) {
                continue;
            }
            let counter = if vm { "vmcnt" } else { "lgkmcnt" };
            let what = if used.write { "overwritten" } else { "read" };
            let register = register_name(used.operand, used.words);
            let detail = format!("{register} is {what} before a wait on {counter}");
            let lane = w.exec().trailing_zeros() as usize % LANES;
            self.fault(block, w, lane, None, Fault::new(Kind::MissingWait, detail));
            if used.write {
                continue;
            }
            for n in 0..usize::from(range.count) {
                let at = range.first as usize + n;
                if range.scalar {
                    w.scalar_undefined[at] = u32::MAX;
                } else {
                    w.taint_all(at, u64::MAX);
                }
            }
        }
    }

    /// A mask of running lanes that is undefined is a branch that is.
    fn check_exec(&mut self, block: &Block, w: &mut Wave) {
        let at = EXEC as usize;
        let undefined =
            u64::from(w.scalar_undefined[at]) | u64::from(w.scalar_undefined[at + 1]) << 32;
        if undefined != 0 {
            let lane = undefined.trailing_zeros() as usize;
            let fault = Fault::new(Kind::UndefinedBranch, "whether the lane runs is undefined");
            self.fault(block, w, lane, None, fault);
            w.scalar_undefined[at] = 0;
            w.scalar_undefined[at + 1] = 0;
        }
        // Lanes that are no threads stay out: a kernel that lets them in by `s_mov_b64 exec, -1`
        // runs them on hardware too, but they have no place in findings.
    }

    fn taken(&mut self, block: &Block, w: &Wave, condition: Condition) -> bool {
        let (taken, undefined) = match condition {
            Condition::Always => (true, false),
            Condition::Scc(wanted) => (w.scc == wanted, w.scc_undefined),
            Condition::Vcc(some) => {
                let (vcc, undefined) = w.vcc();
                ((vcc != 0) == some, undefined != 0 && vcc & !undefined == 0)
            }
            Condition::Exec(some) => ((w.exec() != 0) == some, false),
        };
        if undefined {
            let lane = w.exec().trailing_zeros() as usize % LANES;
            let fault = Fault::new(Kind::UndefinedBranch, "the condition is undefined");
            self.fault(block, w, lane, None, fault);
        }
        taken
    }

    fn jump(&mut self, block: &Block, w: &mut Wave, i: &Instruction) -> Result<()> {
        let (target, undefined) = w.scalar_operand(&i.src[0]);
        if undefined != 0 {
            let fault = Fault::new(Kind::UndefinedBranch, "the address is undefined");
            self.fault(block, w, 0, None, fault);
        }
        if let Operand::Scalar(n) = i.dst {
            w.set64(n, w.base + i.address + 4, 0);
        }
        match self.program.index_of(target.wrapping_sub(w.base)) {
            Some(pc) => {
                w.pc = pc;
                Ok(())
            }
            None => self.error(w, &format!("jumps to {target:#x}, where there is no code")),
        }
    }
}

fn register_name(operand: Operand, words: u8) -> String {
    let range = |letter: &str, n: u16| match words {
        1 => format!("{letter}{n}"),
        _ => format!("{letter}[{n}:{}]", n + u16::from(words) - 1),
    };
    match operand {
        Operand::Vector(n) if n >= 256 => range("a", n - 256),
        Operand::Vector(n) => range("v", n),
        Operand::Scalar(n) => range("s", n.into()),
        _ => String::new(),
    }
}

/// Registers that an instruction uses, for asking whether they are pending.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    pub operand: Operand,
    pub words: u8,
    pub write: bool,
    /// Vector memory that arrives after what is on its way already.
    pub vm_in_order: bool,
}

/// The registers of an instruction.
pub fn uses(i: &Instruction, action: Action) -> Vec<Use> {
    let register = |o: Operand| matches!(o, Operand::Vector(_) | Operand::Scalar(_));
    let mut list = Vec::new();
    for s in i.sources().iter().filter(|s| register(s.operand)) {
        let words = if s.ty == Type::Scalar { 1 } else { s.ty.words() };
        list.push(Use { operand: s.operand, words, write: false, vm_in_order: false });
    }
    let in_order = matches!(action, Action::Memory(Move::Load { half: access::Half::Whole, .. }))
        && !(i.format == Format::Flat && i.access.segment == 0);
    if register(i.dst) {
        let words = i.dst_type.words();
        list.push(Use { operand: i.dst, words, write: true, vm_in_order: in_order });
    }
    if register(i.mask) {
        list.push(Use { operand: i.mask, words: 2, write: true, vm_in_order: false });
    }
    list
}
