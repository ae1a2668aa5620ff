//! One written instruction to what it does.

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

    /// `p` or `!p`.
    fn predicate(&self, i: usize) -> Result<(Operand, bool)> {
        match self.arg(i)? {
            Argument::Not(name) => Ok((Operand::Reg(self.named_register(name)?), true)),
            _ => Ok((self.src(i, Type::Pred)?, false)),
        }
    }

    /// `d` or `d|p`.
    fn pair(&self, i: usize) -> Result<(Reg, Option<Reg>)> {
        match self.arg(i)? {
            Argument::Pair(a, b) => {
                let second = self.sink(&Argument::Name(b.clone()))?;
                Ok((self.named_register(a)?, second))
            }
            _ => Ok((self.dst(i)?, None)),
        }
    }

    fn mov(&self, m: Take) -> Result<Op> {
        let ty = m.ty()?;
        self.count(2)?;
        match (self.arg(0)?, self.arg(1)?) {
            (_, Argument::Vector(list)) => {
                let bytes = ty.bytes() / list.len() as u32;
                let src = list.iter().map(|a| self.value(a, Type::U(bytes as u8)));
                Ok(Op::Pack { dst: self.dst(0)?, src: src.collect::<Result<_>>()?, bytes })
            }
            (Argument::Vector(list), _) => {
                let dst = list.iter().map(|a| self.sink(a)).collect::<Result<Vec<_>>>()?;
                let bytes = ty.bytes() / list.len() as u32;
                Ok(Op::Unpack { dst, src: self.src(1, ty)?, bytes })
            }
            _ => Ok(Op::Move { dst: self.dst(0)?, src: self.src(1, ty)? }),
        }
    }

    fn arithmetic(&self, name: &str, m: Take) -> Result<Op> {
        use IntegerOp as I;
        let ty = match name {
            "bfind" => {
                let shift = m.flag("shiftamt");
                let (ty, src) = (m.ty()?, 1..2);
                let op = if shift { I::BfindShift } else { I::Bfind };
                return Ok(Op::Integer { op, ty, dst: self.dst(0)?, src: self.sources(src, ty)? });
            }
            "prmt" => return self.permute(m),
            _ => m.ty()?,
        };
        if !matches!(ty, Type::U(_) | Type::S(_) | Type::Pred) {
            return self.float(name, ty, m);
        }
        let half = |m: Take, lo, hi, wide| m.one_of(&[("lo", lo), ("hi", hi), ("wide", wide)]);
        let (op, sources) = match name {
            "add" if m.flag("sat") => (I::AddSat, 2),
            "sub" if m.flag("sat") => (I::SubSat, 2),
            "add" => (I::Add, 2),
            "sub" => (I::Sub, 2),
            "mul" => match half(m, I::MulLo, I::MulHi, I::MulWide) {
                Some(op) => (op, 2),
                None => return self.error("neither .lo, .hi nor .wide"),
            },
            "mad" => match half(m, I::MadLo, I::MadHi, I::MadWide) {
                Some(op) => (op, 3),
                None => return self.error("neither .lo, .hi nor .wide"),
            },
            "sad" => (I::Sad, 3),
            "div" => (I::Div, 2),
            "rem" => (I::Rem, 2),
            "min" => (I::Min, 2),
            "max" => (I::Max, 2),
            "abs" => (I::Abs, 1),
            "neg" => (I::Neg, 1),
            "and" => (I::And, 2),
            "or" => (I::Or, 2),
            "xor" => (I::Xor, 2),
            "not" => (I::Not, 1),
            "cnot" => (I::Cnot, 1),
            "shl" => (I::Shl, 2),
            "shr" => (I::Shr, 2),
            "popc" => (I::Popc, 1),
            "clz" => (I::Clz, 1),
            "brev" => (I::Brev, 1),
            "bfe" => (I::Bfe, 3),
            "bfi" => (I::Bfi, 4),
            "lop3" => {
                let Argument::Number(Literal::Integer(table)) = self.arg(4)? else {
                    return self.error("a table that is not a number");
                };
                self.count(5)?;
                let src = (1..4).map(|i| self.src(i, ty)).collect::<Result<_>>()?;
                return Ok(Op::Integer { op: I::Lop3(*table as u8), ty, dst: self.dst(0)?, src });
            }
            "shf" => {
                let left = m.must(&[("l", true), ("r", false)])?;
                let wrap = m.must(&[("wrap", true), ("clamp", false)])?;
                let op = match (left, wrap) {
                    (true, true) => I::ShiftLeftWrap,
                    (true, false) => I::ShiftLeftClamp,
                    (false, true) => I::ShiftRightWrap,
                    (false, false) => I::ShiftRightClamp,
                };
                (op, 3)
            }
            _ => return self.error("on integers"),
        };
        self.count(sources + 1)?;
        // Shift amounts and bit positions are u32, whatever is shifted.
        let src = (1..=sources).map(|i| {
            let amount = match op {
                I::Shl | I::Shr => i == 2,
                I::Bfe => i > 1,
                I::Bfi => i > 2,
                _ => false,
            };
            self.src(i, if amount { Type::U(4) } else { ty })
        });
        Ok(Op::Integer { op, ty, dst: self.dst(0)?, src: src.collect::<Result<_>>()? })
    }

    fn permute(&self, m: Take) -> Result<Op> {
        use Permute::*;
        let choices = [
            ("f4e", Forward4),
            ("b4e", Backward4),
            ("rc8", Replicate8),
            ("ecl", EdgeClampLeft),
            ("ecr", EdgeClampRight),
            ("rc16", Replicate16),
        ];
        let mode = m.one_of(&choices).unwrap_or(Generic);
        let ty = m.ty()?;
        Ok(Op::Integer {
            op: IntegerOp::Prmt(mode),
            ty,
            dst: self.dst(0)?,
            src: self.sources(1..4, ty)?,
        })
    }

    fn float(&self, name: &str, ty: Type, m: Take) -> Result<Op> {
        use FloatOp as F;
        let approx = m.flag("approx") | m.flag("full");
        let rounding = m.rounding();
        let (op, sources) = match name {
            "add" => (F::Add, 2),
            "sub" => (F::Sub, 2),
            "mul" => (F::Mul, 2),
            "fma" | "mad" => (F::Fma, 3),
            "div" if approx => (F::DivApprox, 2),
            "div" => (F::Div, 2),
            "min" => (F::Min, 2),
            "max" => (F::Max, 2),
            "abs" => (F::Abs, 1),
            "neg" => (F::Neg, 1),
            "copysign" => (F::CopySign, 2),
            "sqrt" if approx => (F::SqrtApprox, 1),
            "sqrt" => (F::Sqrt, 1),
            "rsqrt" => (F::Rsqrt, 1),
            "rcp" if approx => (F::RcpApprox, 1),
            "rcp" => (F::Rcp, 1),
            "ex2" => (F::Exp2, 1),
            "lg2" => (F::Log2, 1),
            "sin" => (F::Sin, 1),
            "cos" => (F::Cos, 1),
            "tanh" => (F::Tanh, 1),
            _ => return self.error("on floating-point numbers"),
        };
        let approximate = matches!(
            op,
            F::DivApprox
                | F::SqrtApprox
                | F::Rsqrt
                | F::RcpApprox
                | F::Exp2
                | F::Log2
                | F::Sin
                | F::Cos
                | F::Tanh
        );
        if approx != approximate {
            return self.error(if approx { ".approx of this" } else { "without .approx" });
        }
        if matches!(op, F::Div | F::Sqrt | F::Rcp | F::Fma) && rounding.is_none() {
            return self.error("without a rounding");
        }
        let rounding = rounding.unwrap_or(Rounding::Nearest);
        let plain = matches!(op, F::Add | F::Sub | F::Mul | F::Fma);
        if rounding != Rounding::Nearest && !(plain && ty == Type::F32) {
            return self.error("in this rounding and type");
        }
        if approximate && op != F::Rsqrt && ty == Type::F64 {
            return self.error("of f64");
        }
        let mode = FloatMode {
            rounding,
            flush: m.flag("ftz"),
            saturate: m.flag("sat"),
            relu: m.flag("relu"),
            nan: m.flag("NaN"),
        };
        if m.flag("xorsign") || m.flag("abs") {
            return self.error("unknown modifier .xorsign.abs");
        }
        let src = self.sources(1..sources + 1, ty)?;
        Ok(Op::Float { op, ty, mode, dst: self.dst(0)?, src })
    }

    fn convert(&self, m: Take) -> Result<Op> {
        let from = m.ty()?;
        let to = m.ty()?;
        let integral = m.integral_rounding();
        let rounding = m.rounding();
        let float = FloatMode {
            rounding: integral.or(rounding).unwrap_or(Rounding::Nearest),
            flush: m.flag("ftz"),
            saturate: m.flag("sat"),
            relu: m.flag("relu"),
            nan: false,
        };
        let packed = matches!(to, Type::F16x2 | Type::Bf16x2);
        if packed && from != Type::F32 || matches!(from, Type::F16x2 | Type::Bf16x2 | Type::Pred) {
            return self.error("between these types");
        }
        let mode = ConvertMode { float, integral: integral.is_some() };
        let src = self.sources(1..if packed { 3 } else { 2 }, from)?;
        Ok(Op::Convert { to, from, mode, dst: self.dst(0)?, src })
    }

    fn setp(&self, m: Take) -> Result<Op> {
        let combine =
            m.one_of(&[("and", Combine::And), ("or", Combine::Or), ("xor", Combine::Xor)]);
        let ty = m.ty()?;
        let cmp = m.must(&COMPARISONS)?;
        let flush = m.flag("ftz");
        let (dst, other) = match self.arg(0)? {
            Argument::Pair(a, b) => {
                (self.sink(&Argument::Name(a.clone()))?, self.sink(&Argument::Name(b.clone()))?)
            }
            single => (self.sink(single)?, None),
        };
        let combine = match combine {
            Some(how) => {
                let (predicate, negated) = self.predicate(3)?;
                Some((how, predicate, negated))
            }
            None => None,
        };
        self.count(if combine.is_some() { 4 } else { 3 })?;
        let (a, b) = (self.src(1, ty)?, self.src(2, ty)?);
        Ok(Op::SetPredicate { cmp, ty, flush, dst, other, a, b, combine })
    }

    fn load_store(&self, store: bool, m: Take) -> Result<Op> {
        m.ignore(&ORDERS);
        m.ignore(&CACHES);
        let ty = m.ty()?;
        let width = m.one_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
        let (address, named) = self.address(usize::from(!store))?;
        let space = self.space(m, named);
        let list = self.vector(usize::from(store))?;
        self.count(2)?;
        if list.len() != width || u64::from(ty.bytes()) * width as u64 > 16 {
            return self.error("vector of this length");
        }
        if store {
            let src = list.iter().map(|a| self.value(a, ty)).collect::<Result<_>>()?;
            return Ok(Op::Store { space, ty, src, address });
        }
        let dst = list.iter().map(|a| self.sink(a)).collect::<Result<_>>()?;
        Ok(Op::Load { space, ty, dst, address })
    }

    fn atomic(&self, reduction: bool, m: Take) -> Result<Op> {
        use AtomicOp::*;
        m.ignore(&ORDERS);
        m.ignore(&["noftz"]);
        let space = m.one_of(&SPACES).unwrap_or(Space::Generic);
        let ty = m.ty()?;
        let op = m.must(&[
            ("add", Add),
            ("min", Min),
            ("max", Max),
            ("and", And),
            ("or", Or),
            ("xor", Xor),
            ("exch", Exchange),
            ("cas", CompareSwap),
            ("inc", Increment),
            ("dec", Decrement),
        ])?;
        let first = usize::from(!reduction);
        let dst = if reduction { None } else { self.sink(self.arg(0)?)? };
        let a = self.src(first + 1, ty)?;
        let b = if op == CompareSwap { self.src(first + 2, ty)? } else { a };
        self.count(first + 2 + usize::from(op == CompareSwap))?;
        Ok(Op::Atomic { op, ty, space, dst, address: self.address(first)?.0, a, b })
    }

    fn copy_async(&self, m: Take) -> Result<Op> {
        if !m.flag("async") {
            return self.error("unknown opcode");
        }
        if m.flag("commit_group") {
            return Ok(Op::CommitAsync);
        }
        if m.flag("wait_all") {
            return Ok(Op::WaitAsync { pending: 0, all: true });
        }
        if m.flag("wait_group") {
            let Argument::Number(Literal::Integer(n)) = self.arg(0)? else {
                return self.error("a count that is not a number");
            };
            return Ok(Op::WaitAsync { pending: *n as u32, all: false });
        }
        let whole_line = m.flag("cg");
        if !whole_line && !m.flag("ca") {
            return self.error("neither .ca nor .cg");
        }
        m.ignore(&["shared", "shared::cta", "global"]);
        m.ignore(&CACHES);
        let bytes = match self.arg(2)? {
            Argument::Number(Literal::Integer(n)) if [4, 8, 16].contains(n) => *n as u32,
            other => return self.error(format!("size {other:?}")),
        };
        if whole_line && bytes != 16 {
            return self.error(".cg copies 16 bytes");
        }
        self.count(4)?;
        let source_bytes = match self.args.len() {
            4 => Some(self.src(3, Type::U(4))?),
            _ => None,
        };
        Ok(Op::CopyAsync { bytes, to: self.address(0)?.0, from: self.address(1)?.0, source_bytes })
    }

    fn mma(&self, m: Take) -> Result<Op> {
        m.ignore(&["sync", "aligned", "row", "col"]);
        let k16 = m.must(&[("m16n8k16", true), ("m16n8k8", false)])?;
        // d, a, b, c in this order.
        let types = [m.ty()?, m.ty()?, m.ty()?, m.ty()?];
        let half = match types {
            [Type::F32, Type::F16, Type::F16, Type::F32] => true,
            [Type::F32, Type::Bf16, Type::Bf16, Type::F32] => false,
            _ => return self.error("of these types"),
        };
        self.count(4)?;
        let four = |list: Vec<Reg>| [list[0], list[1], list[2], list[3]];
        let dst = four(self.registers(0, &[4])?);
        let a = self.registers(1, &[if k16 { 4 } else { 2 }])?;
        let b = self.registers(2, &[if k16 { 2 } else { 1 }])?;
        let c =
            self.vector(3)?.iter().map(|a| self.value(a, Type::F32)).collect::<Result<Vec<_>>>()?;
        let Ok(c) = c.try_into() else {
            return self.error("an accumulator that is not 4 registers");
        };
        Ok(Op::MatrixMultiply { half, dst, a, b, c })
    }

    fn shuffle(&self, m: Take) -> Result<Op> {
        if !m.flag("sync") {
            return self.error("without .sync");
        }
        m.ignore(&["b32"]);
        let mode = m.must(&[
            ("up", Shuffle::Up),
            ("down", Shuffle::Down),
            ("bfly", Shuffle::Butterfly),
            ("idx", Shuffle::Index),
        ])?;
        self.count(5)?;
        let (dst, found) = self.pair(0)?;
        let [value, lane, clamp, members] = [1, 2, 3, 4].map(|i| self.src(i, Type::U(4)));
        Ok(Op::Shuffle {
            mode,
            dst,
            found,
            value: value?,
            lane: lane?,
            clamp: clamp?,
            members: members?,
        })
    }

    fn barrier(&self, m: Take) -> Result<Op> {
        m.ignore(&["aligned", "cta"]);
        if m.flag("warp") {
            m.ignore(&["sync"]);
            return Ok(Op::WarpBarrier { members: self.src(0, Type::U(4))? });
        }
        let wait = m.must(&[("sync", true), ("arrive", false)])?;
        self.count(2)?;
        let count = match self.args.len() {
            2 => Some(self.src(1, Type::U(4))?),
            _ => None,
        };
        Ok(Op::Barrier { id: self.src(0, Type::U(4))?, count, wait })
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
