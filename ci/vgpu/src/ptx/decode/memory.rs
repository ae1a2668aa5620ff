//! Loads, stores, atomics and asynchronous copies.

use super::{Decoder, Take};
use crate::ptx::Result;
use crate::ptx::isa::*;
use crate::ptx::lexer::Literal;
use crate::ptx::syntax::Argument;

/// Memories by name.
pub(super) const SPACES: [(&str, Space); 7] = [
    ("global", Space::Global),
    ("const", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
];
/// Order of memory: blocks run one after the other here, so any order holds. Loads and stores with
/// one are plain to the check of races; fences and atomic operations are not.
pub(super) const ORDERS: [&str; 12] = [
    "weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "sc", "cta", "gpu", "sys",
    "cluster", "mmio",
];
/// Advice to caches.
pub(super) const CACHES: [&str; 20] = [
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

impl Decoder<'_> {
    /// The space of an access: as written, except that a called function's parameters are local.
    pub(super) fn space(&self, m: Take, named: Option<Space>) -> Space {
        match (m.one_of(&SPACES), named) {
            (Some(Space::Param), Some(space)) => space,
            (Some(Space::Param), None) => self.names.parameter_space(),
            (Some(space), _) => space,
            (None, _) => Space::Generic,
        }
    }

    pub(super) fn load_store(&self, store: bool, m: Take) -> Result<Op> {
        let strength = if m.flag("acquire") || m.flag("release") {
            Strength::Fenced
        } else if m.flag("relaxed") || m.flag("volatile") {
            Strength::Relaxed
        } else {
            Strength::Weak
        };
        // Inside a block, barriers order.
        let strength = if m.flag("cta") { Strength::Weak } else { strength };
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
            return Ok(Op::Store { space, ty, src, address, strength });
        }
        let dst = list.iter().map(|a| self.sink(a)).collect::<Result<_>>()?;
        Ok(Op::Load { space, ty, dst, address, strength })
    }

    pub(super) fn atomic(&self, reduction: bool, m: Take) -> Result<Op> {
        use AtomicOp::*;
        let orders = ["acquire", "release", "acq_rel"].map(|order| m.flag(order)).contains(&true);
        let inside = m.flag("cta");
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
        Ok(Op::Atomic {
            op,
            ty,
            space,
            dst,
            address: self.address(first)?.0,
            a,
            b,
            fences: orders && !inside,
        })
    }

    pub(super) fn copy_async(&self, m: Take) -> Result<Op> {
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
}
