//! Operands: registers, numbers, names, addresses, special registers.

use super::{Decoder, Symbol};
use crate::ptx::isa::*;
use crate::ptx::lexer::Literal;
use crate::ptx::syntax::Argument;
use crate::ptx::{PtxError, Result};

impl Decoder<'_> {
    pub(super) fn error<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(PtxError::new(self.line, format!("`{}`: {what}", self.opcode)))
    }

    pub(super) fn arg(&self, i: usize) -> Result<&Argument> {
        match self.args.get(i) {
            Some(arg) => Ok(arg),
            None => self.error(format!("operand {} is missing", i + 1)),
        }
    }

    pub(super) fn count(&self, most: usize) -> Result<()> {
        match self.args.len() <= most {
            true => Ok(()),
            false => self.error(format!("{} operands, {most} are known", self.args.len())),
        }
    }

    pub(super) fn named_register(&self, name: &str) -> Result<Reg> {
        match self.names.symbol(name) {
            Some(Symbol::Register(reg)) => Ok(reg),
            _ => self.error(format!("no register {name}")),
        }
    }

    pub(super) fn sink(&self, arg: &Argument) -> Result<Option<Reg>> {
        match arg {
            Argument::Name(name) if name == "_" => Ok(None),
            Argument::Name(name) => self.named_register(name).map(Some),
            _ => self.error("a register is expected"),
        }
    }

    pub(super) fn dst(&self, i: usize) -> Result<Reg> {
        match self.sink(self.arg(i)?)? {
            Some(reg) => Ok(reg),
            None => self.error("`_` cannot stand here"),
        }
    }

    pub(super) fn constant(&self, bits: u64) -> Reg {
        self.names.fixed(Fixed::Constant(bits))
    }

    pub(super) fn value(&self, arg: &Argument, ty: Type) -> Result<Reg> {
        match arg {
            Argument::Name(name) => {
                if let Some(special) = special(name) {
                    return Ok(self.names.fixed(Fixed::Special(special)));
                }
                match (name.as_str(), self.names.symbol(name)) {
                    ("WARP_SZ", _) => Ok(self.constant(32)),
                    (_, Some(Symbol::Register(reg))) => Ok(reg),
                    (_, Some(Symbol::Memory(_, address))) => Ok(self.constant(address)),
                    (_, None) => self.error(format!("unknown name {name}")),
                }
            }
            Argument::Sum(name, offset) => match self.names.symbol(name) {
                Some(Symbol::Memory(_, address)) => {
                    Ok(self.constant(address.wrapping_add_signed(*offset)))
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
                Ok(self.constant(bits & u64::MAX >> (64 - 8 * bytes)))
            }
            other => self.error(format!("unexpected operand {other:?}")),
        }
    }

    pub(super) fn src(&self, i: usize, ty: Type) -> Result<Reg> {
        self.value(self.arg(i)?, ty)
    }

    pub(super) fn sources(&self, range: std::ops::Range<usize>, ty: Type) -> Result<Vec<Reg>> {
        self.count(range.end)?;
        range.map(|i| self.src(i, ty)).collect()
    }

    pub(super) fn vector(&self, i: usize) -> Result<&[Argument]> {
        match self.arg(i)? {
            Argument::Vector(list) => Ok(list),
            single => Ok(std::slice::from_ref(single)),
        }
    }

    pub(super) fn registers(&self, i: usize, count: &[usize]) -> Result<Vec<Reg>> {
        let list = self.vector(i)?;
        if !count.contains(&list.len()) {
            return self.error(format!("{} registers in operand {}", list.len(), i + 1));
        }
        list.iter().map(|a| self.sink(a).map(|r| r.unwrap_or(0))).collect()
    }

    /// An address and the space of the variable it names, if it names one.
    pub(super) fn address(&self, i: usize) -> Result<(Address, Option<Space>)> {
        let Argument::Address(base, offset) = self.arg(i)? else {
            return self.error("an address is expected");
        };
        let at = |base, space| Ok((Address { base, offset: *offset as u64 }, space));
        match base.as_ref() {
            Argument::Name(name) => match self.names.symbol(name) {
                Some(Symbol::Register(reg)) => at(reg, None),
                Some(Symbol::Memory(space, address)) => at(self.constant(address), Some(space)),
                None => self.error(format!("unknown name {name}")),
            },
            Argument::Number(_) => at(self.value(base, Type::U(8))?, None),
            other => self.error(format!("an address of {other:?}")),
        }
    }

    /// `p` or `!p`.
    pub(super) fn predicate(&self, i: usize) -> Result<(Reg, bool)> {
        match self.arg(i)? {
            Argument::Not(name) => Ok((self.named_register(name)?, true)),
            _ => Ok((self.src(i, Type::Pred)?, false)),
        }
    }

    /// `d` or `d|p`.
    pub(super) fn pair(&self, i: usize) -> Result<(Reg, Option<Reg>)> {
        match self.arg(i)? {
            Argument::Pair(a, b) => {
                let second = self.sink(&Argument::Name(b.clone()))?;
                Ok((self.named_register(a)?, second))
            }
            _ => Ok((self.dst(i)?, None)),
        }
    }
}

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
