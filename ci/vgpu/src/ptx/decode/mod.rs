//! One written instruction to what it does.

mod arithmetic;
mod memory;

use super::isa::*;
use super::lexer::Literal;
use super::modifiers::Modifiers;
use super::syntax::{Argument, Written};
use super::{PtxError, Result};
use crate::number::Rounding;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbol {
    Register(Reg),
    /// A variable: its space, and its address there.
    Memory(Space, u64),
}

/// Looks names up.
pub trait Names {
    fn symbol(&self, name: &str) -> Option<Symbol>;
    /// What `ld.param` reads through a register: a kernel's parameters, or a called function's.
    fn parameter_space(&self) -> Space;
}

struct Decoder<'a> {
    names: &'a dyn Names,
    args: &'a [Argument],
    opcode: &'a str,
    line: u32,
}

type Take<'a, 'b> = &'a mut Modifiers<'b>;

const SPACES: [(&str, Space); 7] = [
    ("global", Space::Global),
    ("const", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
];
/// Order of memory: blocks run one after the other here, so any order holds.
const ORDERS: [&str; 12] = [
    "weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "sc", "cta", "gpu", "sys",
    "cluster", "mmio",
];
/// Advice to caches.
const CACHES: [&str; 20] = [
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "nc",
    "L2::128B",
    "L2::64B",
    "L2::256B",
    "L1::no_allocate",
    "L1::evict_first",
    "L1::evict_last",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "unified",
];

/// Decodes any instruction except branches, calls and returns.
pub fn decode(written: &Written, names: &dyn Names, line: u32) -> Result<Op> {
    let (name, mut m) = Modifiers::split(&written.opcode, line);
    let d = Decoder { names, args: &written.operands, opcode: &written.opcode, line };
    let op = d.op(name, &mut m)?;
    m.finish()?;
    Ok(op)
}

impl Decoder<'_> {
    fn error<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(PtxError::new(self.line, format!("`{}`: {what}", self.opcode)))
    }

    fn arg(&self, i: usize) -> Result<&Argument> {
        match self.args.get(i) {
            Some(arg) => Ok(arg),
            None => self.error(format!("operand {} is missing", i + 1)),
        }
    }

    fn count(&self, most: usize) -> Result<()> {
        match self.args.len() <= most {
            true => Ok(()),
            false => self.error(format!("{} operands, {most} are known", self.args.len())),
        }
    }

    fn named_register(&self, name: &str) -> Result<Reg> {
        match self.names.symbol(name) {
            Some(Symbol::Register(reg)) => Ok(reg),
            _ => self.error(format!("no register {name}")),
        }
    }

    fn sink(&self, arg: &Argument) -> Result<Option<Reg>> {
        match arg {
            Argument::Name(name) if name == "_" => Ok(None),
            Argument::Name(name) => self.named_register(name).map(Some),
            _ => self.error("a register is expected"),
        }
    }

    fn dst(&self, i: usize) -> Result<Reg> {
        match self.sink(self.arg(i)?)? {
            Some(reg) => Ok(reg),
            None => self.error("`_` cannot stand here"),
        }
    }

    fn value(&self, arg: &Argument, ty: Type) -> Result<Operand> {
        match arg {
            Argument::Name(name) => {
                if let Some(special) = special(name) {
                    return Ok(Operand::Special(special));
                }
                match (name.as_str(), self.names.symbol(name)) {
                    ("WARP_SZ", _) => Ok(Operand::Constant(32)),
                    (_, Some(Symbol::Register(reg))) => Ok(Operand::Reg(reg)),
                    (_, Some(Symbol::Memory(_, address))) => Ok(Operand::Constant(address)),
                    (_, None) => self.error(format!("unknown name {name}")),
                }
            }
            Argument::Sum(name, offset) => match self.names.symbol(name) {
                Some(Symbol::Memory(_, address)) => {
                    Ok(Operand::Constant(address.wrapping_add_signed(*offset)))
                }
                _ => self.error(format!("unknown variable {name}")),
            },
            Argument::Number(literal) => {
                let bits = match (*literal, ty) {
                    (Literal::Integer(n), Type::F32) => (n as f32).to_bits().into(),
                    (Literal::Integer(n), Type::F64) => (n as f64).to_bits(),
                    (Literal::Integer(n), _) => n as u64,
                    (Literal::Single(bits), Type::F64) => f64::from(f32::from_bits(bits)).to_bits(),
                    (Literal::Single(bits), _) => bits.into(),
                    (Literal::Double(bits), Type::F32) => {
                        (f64::from_bits(bits) as f32).to_bits().into()
                    }
                    (Literal::Double(bits), _) => bits,
                };
                let bytes = if ty == Type::Pred { 8 } else { ty.bytes() };
                Ok(Operand::Constant(bits & u64::MAX >> (64 - 8 * bytes)))
            }
            other => self.error(format!("unexpected operand {other:?}")),
        }
    }

    fn src(&self, i: usize, ty: Type) -> Result<Operand> {
        self.value(self.arg(i)?, ty)
    }

    fn sources(&self, range: std::ops::Range<usize>, ty: Type) -> Result<Vec<Operand>> {
        self.count(range.end)?;
        range.map(|i| self.src(i, ty)).collect()
    }

    fn vector(&self, i: usize) -> Result<&[Argument]> {
        match self.arg(i)? {
            Argument::Vector(list) => Ok(list),
            single => Ok(std::slice::from_ref(single)),
        }
    }

    fn registers(&self, i: usize, count: &[usize]) -> Result<Vec<Reg>> {
        let list = self.vector(i)?;
        if !count.contains(&list.len()) {
            return self.error(format!("{} registers in operand {}", list.len(), i + 1));
        }
        list.iter().map(|a| self.sink(a).map(|r| r.unwrap_or(0))).collect()
    }

    /// An address and the space of the variable it names, if it names one.
    fn address(&self, i: usize) -> Result<(Address, Option<Space>)> {
        let Argument::Address(base, offset) = self.arg(i)? else {
            return self.error("an address is expected");
        };
        let at = |base, space| Ok((Address { base, offset: *offset as u64 }, space));
        match base.as_ref() {
            Argument::Name(name) => match self.names.symbol(name) {
                Some(Symbol::Register(reg)) => at(Operand::Reg(reg), None),
                Some(Symbol::Memory(space, address)) => at(Operand::Constant(address), Some(space)),
                None => self.error(format!("unknown name {name}")),
            },
            Argument::Number(_) => at(self.value(base, Type::U(8))?, None),
            other => self.error(format!("an address of {other:?}")),
        }
    }

    /// The space of an access: as written, except that a called function's parameters are local.
    fn space(&self, m: Take, named: Option<Space>) -> Space {
        match (m.one_of(&SPACES), named) {
            (Some(Space::Param), Some(space)) => space,
            (Some(Space::Param), None) => self.names.parameter_space(),
            (Some(space), _) => space,
            (None, _) => Space::Generic,
        }
    }

    fn op(&self, name: &str, m: Take) -> Result<Op> {
        match name {
            "mov" => self.mov(m),
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs"
            | "neg" | "sad" | "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "popc"
            | "clz" | "brev" | "bfind" | "bfe" | "bfi" | "lop3" | "prmt" | "shf" | "sqrt"
            | "rsqrt" | "rcp" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" => {
                self.arithmetic(name, m)
            }
            "cvt" => self.convert(m),
            "setp" => self.setp(m),
            "set" => {
                let (cmp, from) = (m.must(&COMPARISONS)?, m.ty()?);
                let flush = m.flag("ftz");
                let to = m.ty()?;
                self.count(3)?;
                let (a, b) = (self.src(1, from)?, self.src(2, from)?);
                let float_result = to == Type::F32;
                if !float_result && to.bytes() != 4 {
                    return self.error("result of this type");
                }
                Ok(Op::Set { cmp, ty: from, flush, float_result, dst: self.dst(0)?, a, b })
            }
            "selp" => {
                let ty = m.ty()?;
                self.count(4)?;
                let (a, b) = (self.src(1, ty)?, self.src(2, ty)?);
                Ok(Op::Select { dst: self.dst(0)?, a, b, predicate: self.src(3, Type::Pred)? })
            }
            "ld" | "ldu" | "st" => self.load_store(name == "st", m),
            "cvta" => {
                let from = m.flag("to");
                let space = m.must(&SPACES)?;
                m.ignore(&["u64"]);
                self.count(2)?;
                let (dst, src) = (self.dst(0)?, self.src(1, Type::U(8))?);
                Ok(match from {
                    true => Op::FromGeneric { space, dst, src },
                    false => Op::ToGeneric { space, dst, src },
                })
            }
            "isspacep" => {
                let space = m.must(&SPACES)?;
                self.count(2)?;
                Ok(Op::IsSpace { space, dst: self.dst(0)?, src: self.src(1, Type::U(8))? })
            }
            "atom" | "red" => self.atomic(name == "red", m),
            "cp" => self.copy_async(m),
            "ldmatrix" => {
                m.ignore(&["sync", "aligned", "m8n8", "b16"]);
                if !m.flag("shared") && !m.flag("shared::cta") {
                    return self.error("without .shared");
                }
                let count = m.must(&[("x1", 1), ("x2", 2), ("x4", 4)])?;
                let dst = self.registers(0, &[count])?;
                self.count(2)?;
                Ok(Op::MatrixLoad { transpose: m.flag("trans"), dst, address: self.address(1)?.0 })
            }
            "mma" => self.mma(m),
            "shfl" => self.shuffle(m),
            "vote" => {
                let mode = m.must(&[
                    ("all", Vote::All),
                    ("any", Vote::Any),
                    ("uni", Vote::Uniform),
                    ("ballot", Vote::Ballot),
                ])?;
                if !m.flag("sync") {
                    return self.error("without .sync");
                }
                m.ignore(&["pred", "b32"]);
                self.count(3)?;
                let (predicate, negated) = self.predicate(1)?;
                Ok(Op::Vote {
                    mode,
                    dst: self.dst(0)?,
                    predicate,
                    negated,
                    members: self.src(2, Type::U(4))?,
                })
            }
            "match" => {
                let all = m.must(&[("all", true), ("any", false)])?;
                m.ignore(&["sync"]);
                let ty = m.ty()?;
                self.count(3)?;
                let (value, members) = (self.src(1, ty)?, self.src(2, Type::U(4))?);
                if !all {
                    return Ok(Op::MatchAny {
                        bytes: ty.bytes(),
                        dst: self.dst(0)?,
                        value,
                        members,
                    });
                }
                let (dst, all) = self.pair(0)?;
                Ok(Op::MatchAll { bytes: ty.bytes(), dst, all, value, members })
            }
            "redux" => {
                use IntegerOp::*;
                m.ignore(&["sync"]);
                let op = m.must(&[
                    ("add", Add),
                    ("min", Min),
                    ("max", Max),
                    ("and", And),
                    ("or", Or),
                    ("xor", Xor),
                ])?;
                let ty = m.ty()?;
                self.count(3)?;
                if !matches!(ty, Type::U(4) | Type::S(4)) {
                    return self.error("of this type");
                }
                let signed = ty == Type::S(4);
                Ok(Op::Reduce {
                    op,
                    signed,
                    dst: self.dst(0)?,
                    value: self.src(1, ty)?,
                    members: self.src(2, Type::U(4))?,
                })
            }
            "activemask" => {
                m.ignore(&["b32"]);
                Ok(Op::ActiveMask { dst: self.dst(0)? })
            }
            "bar" | "barrier" => self.barrier(m),
            "membar" => {
                m.ignore(&["gl", "cta", "sys"]);
                Ok(Op::Fence)
            }
            "fence" => {
                m.ignore(&ORDERS);
                Ok(Op::Fence)
            }
            "prefetch" | "prefetchu" => {
                m.ignore(&["global", "local", "L1", "L2", "L2::evict_last", "L2::evict_normal"]);
                Ok(Op::Nothing)
            }
            "nanosleep" => {
                m.ignore(&["u32"]);
                Ok(Op::Nothing)
            }
            "trap" => Ok(Op::Trap),
            "exit" => Ok(Op::Exit),
            _ => self.error("unknown opcode"),
        }
    }
}

const COMPARISONS: [(&str, Compare); 18] = [
    ("eq", Compare::Eq),
    ("ne", Compare::Ne),
    ("lt", Compare::Lt),
    ("le", Compare::Le),
    ("gt", Compare::Gt),
    ("ge", Compare::Ge),
    ("lo", Compare::Lt),
    ("ls", Compare::Le),
    ("hi", Compare::Gt),
    ("hs", Compare::Ge),
    ("equ", Compare::EqU),
    ("neu", Compare::NeU),
    ("ltu", Compare::LtU),
    ("leu", Compare::LeU),
    ("gtu", Compare::GtU),
    ("geu", Compare::GeU),
    ("num", Compare::Num),
    ("nan", Compare::Nan),
];

fn special(name: &str) -> Option<Special> {
    use Special::*;
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, 3),
    };
    Some(match (base, axis) {
        ("%tid", 0..3) => Tid(axis),
        ("%ntid", 0..3) => Ntid(axis),
        ("%ctaid", 0..3) => Ctaid(axis),
        ("%nctaid", 0..3) => Nctaid(axis),
        ("%laneid", 3) => LaneId,
        ("%warpid", 3) => WarpId,
        ("%nwarpid", 3) => Nwarpid,
        ("%lanemask_eq", 3) => MaskEq,
        ("%lanemask_le", 3) => MaskLe,
        ("%lanemask_lt", 3) => MaskLt,
        ("%lanemask_ge", 3) => MaskGe,
        ("%lanemask_gt", 3) => MaskGt,
        ("%clock" | "%clock64" | "%globaltimer", 3) => Clock,
        ("%dynamic_smem_size", 3) => DynamicShared,
        ("%total_smem_size", 3) => TotalShared,
        ("%smid", 3) => SmId,
        ("%nsmid", 3) => NsmId,
        ("%gridid", 3) => GridId,
        _ => return None,
    })
}
