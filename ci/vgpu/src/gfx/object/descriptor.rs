//! Kernel descriptors: what hardware sets up before a kernel's first instruction.

use crate::gfx::{GfxError, Result};

/// The 64 bytes of `<kernel>.kd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub group_bytes: u32,
    pub private_bytes: u32,
    pub kernarg_bytes: u32,
    /// From the descriptor to the first instruction.
    pub entry: i64,
    rsrc3: u32,
    rsrc1: u32,
    rsrc2: u32,
    properties: u16,
    preload: u16,
}

/// Scalar registers that a kernel starts with, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    PrivateSegmentBuffer,
    DispatchPointer,
    QueuePointer,
    KernargPointer,
    DispatchId,
    FlatScratchInit,
    PrivateSegmentSize,
}

impl User {
    const ALL: [(Self, u32); 7] = [
        (Self::PrivateSegmentBuffer, 4),
        (Self::DispatchPointer, 2),
        (Self::QueuePointer, 2),
        (Self::KernargPointer, 2),
        (Self::DispatchId, 2),
        (Self::FlatScratchInit, 2),
        (Self::PrivateSegmentSize, 1),
    ];
}

impl Descriptor {
    /// Reads a descriptor; whatever has no meaning here must be 0.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let u32 = |at: usize| -> Result<u32> {
            let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            let word = word.ok_or_else(|| GfxError::new(format!("{name} is cut short")))?;
            Ok(u32::from_le_bytes(word))
        };
        let last = u32(56)?;
        let d = Self {
            group_bytes: u32(0)?,
            private_bytes: u32(4)?,
            kernarg_bytes: u32(8)?,
            entry: (u64::from(u32(16)?) | u64::from(u32(20)?) << 32) as i64,
            rsrc3: u32(44)?,
            rsrc1: u32(48)?,
            rsrc2: u32(52)?,
            properties: last as u16,
            preload: (last >> 16) as u16,
        };
        if d.properties & 1 << 10 != 0 {
            return Err(GfxError::new(format!("{name}: waves of 32")));
        }
        Ok(d)
    }

    /// Vector registers of a lane, accumulation ones included.
    pub fn vector_registers(&self) -> u16 {
        (self.rsrc1 as u16 & 63).wrapping_add(1) * 8
    }

    /// How many of them come before those for accumulation.
    pub fn accumulation_offset(&self) -> u16 {
        (self.rsrc3 as u16 & 63).wrapping_add(1) * 4
    }

    /// Rounding, subnormals, clamping and IEEE mode, as in the MODE register.
    pub fn mode(&self) -> u32 {
        let float = self.rsrc1 >> 12 & 0xff;
        let (dx10, ieee) = (self.rsrc1 >> 21 & 1, self.rsrc1 >> 23 & 1);
        float | dx10 << 8 | ieee << 9
    }

    /// The registers that are asked for, with how many each takes.
    pub fn user(&self) -> impl Iterator<Item = (User, u32)> {
        let properties = self.properties;
        User::ALL
            .into_iter()
            .enumerate()
            .filter(move |(i, _)| properties >> i & 1 == 1)
            .map(|p| p.1)
    }

    /// Scalar registers filled by the command, not by the wave.
    pub fn user_count(&self) -> u32 {
        self.rsrc2 >> 1 & 31
    }

    /// Words of the arguments that are in registers from the start, after those of [`user`](Self::user):
    /// how many, and the first one's place among them. Such a kernel has 256 bytes in front that load
    /// them where the firmware does not.
    pub fn preload(&self) -> (u32, u32) {
        (u32::from(self.preload & 127), u32::from(self.preload >> 7))
    }

    /// Which of the block's three indices are given.
    pub fn block_index(&self) -> [bool; 3] {
        [7, 8, 9].map(|bit| self.rsrc2 >> bit & 1 == 1)
    }

    /// Whether the number of waves is given.
    pub fn block_info(&self) -> bool {
        self.rsrc2 >> 10 & 1 == 1
    }

    /// Whether the offset of the wave's private memory is given.
    pub fn private_offset(&self) -> bool {
        self.rsrc2 & 1 == 1
    }

    /// How many of a thread's indices are in v0.
    pub fn thread_indices(&self) -> u32 {
        (self.rsrc2 >> 11 & 3) + 1
    }
}
