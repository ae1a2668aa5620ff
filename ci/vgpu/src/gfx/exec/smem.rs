//! Scalar memory.

use super::Launch;
use super::block::Block;
use super::memory::{NO_REGISTERS, Space, undefined_bits};
use super::wave::Wave;
use crate::finding::Kind;
use crate::gfx::Result;
use crate::gfx::decode::{Instruction, Operand};
use crate::memory::{Fault, Word};

impl Launch<'_> {
    /// Runs a scalar memory instruction.
    pub fn scalar_memory(
        &mut self,
        block: &mut Block,
        w: &mut Wave,
        i: &Instruction,
    ) -> Result<()> {
        if i.name.starts_with("s_dcache") {
            return Ok(());
        }
        let registers = w.range(i.dst, i.dst_type.words()).unwrap_or(NO_REGISTERS);
        let Operand::Scalar(first) = i.dst else {
            return self.error(w, "stores of the scalar unit");
        };
        if i.name.ends_with("time") {
            w.set64(first, self.executed, 0);
            w.lgkm.push(registers, false, 0);
            return Ok(());
        }
        let buffer = i.name.contains("buffer");
        let words = i.dst_type.words();
        let (address, end) = self.scalar_place(block, w, i, buffer);
        for n in 0..words {
            let at = address.map(|a| a + 4 * u64::from(n));
            let word = match at {
                Some(at) if end.is_some_and(|end| at + 4 > end) => Word::known(0),
                Some(at) => self.load_one(block, w, 0, (Space::Global, at), 4),
                None => super::memory::NOTHING,
            };
            w.set(first + n, word.bits as u32, undefined_bits(word));
        }
        w.lgkm.push(registers, false, 0);
        Ok(())
    }

    /// Where a scalar load begins, and where a buffer ends.
    fn scalar_place(
        &mut self,
        block: &Block,
        w: &Wave,
        i: &Instruction,
        buffer: bool,
    ) -> (Option<u64>, Option<u64>) {
        let Some(mut base) = self.scalar_address(block, w, i, 0) else { return (None, None) };
        let mut end = None;
        if let (true, Operand::Scalar(first)) = (buffer, i.src[0].operand) {
            base &= (1 << 48) - 1;
            end = Some(base + u64::from(w.scalar[first as usize + 2]));
        }
        let offset = match i.src[2].operand {
            Operand::None => Some(0),
            _ => self.scalar_address(block, w, i, 2),
        };
        let Some(offset) = offset else { return (None, None) };
        let address = base.wrapping_add(offset).wrapping_add_signed(i.access.offset.into());
        if address % 4 != 0 {
            let fault = Fault::new(Kind::Misaligned, "needs a multiple of 4");
            self.fault(block, w, 0, Some(address), fault);
        }
        (Some(address & !3), end)
    }
}
