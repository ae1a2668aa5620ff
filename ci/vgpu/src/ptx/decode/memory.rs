//! What touches memory, or other lanes: loads, atomics, asynchronous copies, matrices, shuffles,
//! barriers.

use super::*;

impl Decoder<'_> {
    pub(super) fn load_store(&self, store: bool, m: Take) -> Result<Op> {
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

    pub(super) fn atomic(&self, reduction: bool, m: Take) -> Result<Op> {
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

    pub(super) fn mma(&self, m: Take) -> Result<Op> {
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

    pub(super) fn shuffle(&self, m: Take) -> Result<Op> {
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

    pub(super) fn barrier(&self, m: Take) -> Result<Op> {
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
