//! One written instruction to what it does.

mod arithmetic;
mod collective;
mod memory;
mod operand;

use super::Result;
use super::isa::*;
use super::modifiers::Modifiers;
use super::syntax::{Argument, Written};
use arithmetic::COMPARISONS;
use memory::{ORDERS, SPACES};

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
    /// The register with this in it.
    fn fixed(&self, what: Fixed) -> Reg;
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

/// Decodes any instruction except branches, calls and returns.
pub fn decode(written: &Written, names: &dyn Names, line: u32) -> Result<Op> {
    let (name, mut m) = Modifiers::split(&written.opcode, line);
    let d = Decoder { names, args: &written.operands, opcode: &written.opcode, line };
    let op = d.op(name, &mut m)?;
    m.finish()?;
    Ok(op)
}

impl Decoder<'_> {
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
            "membar" | "fence" => {
                // Blocks are ordered by what reaches beyond one.
                let inside = m.flag("cta");
                m.ignore(&ORDERS);
                m.ignore(&["gl"]);
                Ok(if inside { Op::Nothing } else { Op::Fence })
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
}
