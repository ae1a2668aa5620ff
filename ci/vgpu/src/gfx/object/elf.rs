//! ELF as the linker writes it for AMD GPUs.

use crate::gfx::{GfxError, Result};

/// What `e_flags` says of the processor.
const MACHINE_GFX90A: u32 = 0x3f;

/// A name and what it stands for.
#[derive(Debug, Clone)]
pub struct Symbol {
    pub name: String,
    pub value: u64,
    pub size: u64,
    /// 1 a variable, 2 a function.
    pub kind: u8,
    pub defined: bool,
}

/// A piece of the file that is loaded.
#[derive(Debug, Clone)]
pub struct Segment {
    pub address: u64,
    pub size: u64,
    pub data: Vec<u8>,
    pub writable: bool,
}

/// A relocation that is left to the loader.
#[derive(Debug, Clone)]
pub struct Relocation {
    pub at: u64,
    pub kind: u32,
    pub symbol: Option<Symbol>,
    pub addend: i64,
}

/// A code object's parts.
#[derive(Debug, Clone)]
pub struct Elf {
    pub segments: Vec<Segment>,
    pub symbols: Vec<Symbol>,
    pub relocations: Vec<Relocation>,
    /// The descriptor of the metadata note.
    pub metadata: Vec<u8>,
    /// Where code is: start and end.
    pub text: (u64, u64),
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let at = at as usize;
        let bytes = self.0.get(at..at.saturating_add(N)).and_then(|b| b.try_into().ok());
        bytes.ok_or_else(|| GfxError::new("the code object is cut short"))
    }
    fn u16(&self, at: u64) -> Result<u64> {
        Ok(u16::from_le_bytes(self.bytes(at)?).into())
    }
    fn u32(&self, at: u64) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(at)?))
    }
    fn u64(&self, at: u64) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(at)?))
    }
    fn slice(&self, at: u64, len: u64) -> Result<&[u8]> {
        let (at, end) = (at as usize, at.saturating_add(len) as usize);
        self.0.get(at..end).ok_or_else(|| GfxError::new("the code object is cut short"))
    }
    fn string(&self, at: u64) -> Result<String> {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}

struct Section {
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
}

impl Elf {
    /// Reads a file.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let r = Reader(file);
        if !file.starts_with(b"\x7fELF\x02\x01") || r.u16(18)? != 224 {
            return Err(GfxError::new("not an ELF file for an AMD GPU"));
        }
        let flags = r.u32(48)?;
        if flags & 0xff != MACHINE_GFX90A {
            return Err(GfxError::new(format!("e_flags {flags:#x}: not code for gfx90a")));
        }
        // 2 is code object version 4, and so on; they differ in hidden arguments, which are named.
        let abi_version = r.bytes::<1>(8)?[0];
        if !(2..=4).contains(&abi_version) {
            return Err(GfxError::new(format!("unknown code object ABI {abi_version}")));
        }
        let sections = sections(&r)?;
        let mut elf = Self {
            segments: segments(&r)?,
            symbols: Vec::new(),
            relocations: Vec::new(),
            metadata: Vec::new(),
            text: (0, 0),
        };
        for s in &sections {
            match s.kind {
                2 | 11 => elf.symbols.extend(symbols(&r, s, &sections)?),
                4 => elf.relocations.extend(relocations(&r, s, &sections)?),
                9 => return Err(GfxError::new("relocations without addends are not known")),
                7 => elf.note(r.slice(s.offset, s.size)?)?,
                1 if s.flags & 4 != 0 => elf.text = (s.address, s.address + s.size),
                _ => {}
            }
        }
        Ok(elf)
    }

    fn note(&mut self, mut note: &[u8]) -> Result<()> {
        while note.len() >= 12 {
            let r = Reader(note);
            let (name, size, kind) = (r.u32(0)?, r.u32(4)?, r.u32(8)?);
            let start = 12 + u64::from(name).next_multiple_of(4);
            if r.slice(12, 6).is_ok_and(|n| n == b"AMDGPU") && kind == 32 {
                self.metadata = r.slice(start, size.into())?.to_vec();
            }
            let next = start + u64::from(size).next_multiple_of(4);
            note = note.get(next as usize..).unwrap_or_default();
        }
        Ok(())
    }
}

fn segments(r: &Reader) -> Result<Vec<Segment>> {
    let (start, size, count) = (r.u64(32)?, r.u16(54)?, r.u16(56)?);
    let mut list = Vec::new();
    for i in 0..count {
        let at = start + i * size;
        if r.u32(at)? == 1 {
            let data = r.slice(r.u64(at + 8)?, r.u64(at + 32)?)?.to_vec();
            let writable = r.u32(at + 4)? & 2 != 0;
            list.push(Segment { address: r.u64(at + 16)?, size: r.u64(at + 40)?, data, writable });
        }
    }
    Ok(list)
}

fn sections(r: &Reader) -> Result<Vec<Section>> {
    let (start, size, count) = (r.u64(40)?, r.u16(58)?, r.u16(60)?);
    let section = |i| {
        let at = start + i * size;
        Ok(Section {
            kind: r.u32(at + 4)?,
            flags: r.u64(at + 8)?,
            address: r.u64(at + 16)?,
            offset: r.u64(at + 24)?,
            size: r.u64(at + 32)?,
            link: r.u32(at + 40)?,
        })
    };
    (0..count).map(section).collect()
}

fn linked<'a>(section: &Section, sections: &'a [Section]) -> Result<&'a Section> {
    sections.get(section.link as usize).ok_or_else(|| GfxError::new("a section names no other"))
}

fn symbol(r: &Reader, at: u64, strings: u64) -> Result<Symbol> {
    let defined = r.u16(at + 6)? != 0;
    let (info, name) = (r.bytes::<1>(at + 4)?[0], r.string(strings + u64::from(r.u32(at)?))?);
    Ok(Symbol { name, value: r.u64(at + 8)?, size: r.u64(at + 16)?, kind: info & 15, defined })
}

fn symbols(r: &Reader, section: &Section, sections: &[Section]) -> Result<Vec<Symbol>> {
    let strings = linked(section, sections)?.offset;
    (0..section.size / 24).map(|i| symbol(r, section.offset + 24 * i, strings)).collect()
}

fn relocations(r: &Reader, section: &Section, sections: &[Section]) -> Result<Vec<Relocation>> {
    let mut list = Vec::new();
    for i in 0..section.size / 24 {
        let at = section.offset + 24 * i;
        let info = r.u64(at + 8)?;
        let symbol = match info >> 32 {
            0 => None,
            n => {
                let table = linked(section, sections)?;
                let strings = linked(table, sections)?.offset;
                Some(symbol(r, table.offset + 24 * n, strings)?)
            }
        };
        let addend = r.u64(at + 16)? as i64;
        list.push(Relocation { at: r.u64(at)?, kind: info as u32, symbol, addend });
    }
    Ok(list)
}
