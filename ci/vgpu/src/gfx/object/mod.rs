//! Code objects: from a file to kernels in memory.

mod bundle;
mod descriptor;
mod elf;
mod link;
mod note;

pub use descriptor::{Descriptor, User};
pub use note::Argument;

use super::program::Program;
use super::{GfxError, Result};
use crate::memory::GlobalMemory;
use elf::Elf;
use note::Kernel;

/// A code object for gfx90a.
#[derive(Debug, Clone)]
pub struct CodeObject {
    elf: Elf,
    kernels: Vec<Kernel>,
}

/// A code object whose image is in a device's memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    object: CodeObject,
    /// The image as it lies in memory, and where.
    image: Vec<u8>,
    base: u64,
}

/// Relocations that a loader does.
const R_AMDGPU_NONE: u32 = 0;
const R_AMDGPU_ABS64: u32 = 3;
const R_AMDGPU_RELATIVE64: u32 = 13;

impl CodeObject {
    /// Reads an ELF file, or the one for gfx90a of an offload bundle.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let elf = Elf::parse(bundle::unbundle(file)?)?;
        let kernels = note::kernels(&elf.metadata)?;
        Ok(Self { elf, kernels })
    }

    /// Puts the image in global memory: code, constants and variables.
    pub fn load(self, memory: &mut GlobalMemory) -> Result<Loaded> {
        let end = self.elf.segments.iter().map(|s| s.address + s.size).max().unwrap_or(0);
        if end > 1 << 30 {
            return Err(GfxError::new(format!("an image of {end} bytes")));
        }
        let mut image = vec![0; end as usize];
        for s in &self.elf.segments {
            let at = s.address as usize;
            let room = image.get_mut(at..at + s.data.len());
            let room = room.ok_or_else(|| GfxError::new("a segment is longer in the file"))?;
            room.copy_from_slice(&s.data);
        }
        let base = memory.allocate_with(image.clone(), "the code object");
        for r in &self.elf.relocations {
            let symbol = match &r.symbol {
                Some(s) if !s.defined => {
                    return Err(GfxError::new(format!("{} is defined elsewhere", s.name)));
                }
                Some(s) => s.value,
                None => 0,
            };
            let value = match r.kind {
                R_AMDGPU_NONE => continue,
                R_AMDGPU_ABS64 => base.wrapping_add(symbol).wrapping_add_signed(r.addend),
                R_AMDGPU_RELATIVE64 => base.wrapping_add_signed(r.addend),
                kind => return Err(GfxError::new(format!("unknown relocation {kind}"))),
            };
            let at = r.at as usize;
            let room = image.get_mut(at..at + 8);
            let room = room.ok_or_else(|| GfxError::new("a relocation outside the image"))?;
            room.copy_from_slice(&value.to_le_bytes());
        }
        memory.write(base, &image).map_err(|fault| GfxError::new(fault.detail))?;
        if !self.has_variables() {
            memory.make_constant(base);
        }
        Ok(Loaded { object: self, image, base })
    }

    /// The word at a place in the image.
    pub fn word(&self, at: u64) -> Option<u32> {
        let inside = |s: &&elf::Segment| at >= s.address && at - s.address < s.data.len() as u64;
        let segment = self.elf.segments.iter().find(inside)?;
        let bytes = segment.data.get((at - segment.address) as usize..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// Puts another word in the place of one that [`word`](Self::word) gives.
    pub fn patch(&mut self, at: u64, word: u32) {
        for s in &mut self.elf.segments {
            let Some(from) = at.checked_sub(s.address) else { continue };
            if let Some(bytes) = s.data.get_mut(from as usize..from as usize + 4) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Whether anything in the image is there to be written.
    fn has_variables(&self) -> bool {
        let writable = |at: u64| {
            let inside = |s: &&elf::Segment| (s.address..s.address + s.size).contains(&at);
            self.elf.segments.iter().find(inside).is_some_and(|s| s.writable)
        };
        self.elf.symbols.iter().any(|s| s.kind == 1 && s.defined && s.size > 0 && writable(s.value))
    }
}

impl Loaded {
    /// Names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.object.kernels.iter().map(|k| k.name.as_str())
    }

    /// Address and bytes of a variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        let found = self.object.elf.symbols.iter().find(|s| s.name == name && s.kind == 1)?;
        Some((self.base + found.value, found.size))
    }

    /// Where the image is: one allocation.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// A kernel without its code, for which that need not be decoded.
    pub fn outline(&self, kernel: &str) -> Result<Program> {
        link::head(self, kernel).map(|(program, _)| program)
    }

    /// Decodes a kernel.
    pub fn program(&self, kernel: &str) -> Result<Program> {
        link::program(self, kernel)
    }
}
