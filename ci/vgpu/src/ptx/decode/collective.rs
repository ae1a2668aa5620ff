//! What the lanes of a warp or the warps of a block do together.

use super::{Decoder, Take};
use crate::ptx::Result;
use crate::ptx::isa::*;

impl Decoder<'_> {
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
