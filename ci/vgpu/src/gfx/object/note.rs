//! The metadata note: MessagePack, of which kernels' arguments are read.

use std::collections::BTreeMap;

use crate::gfx::{GfxError, Result};

/// A MessagePack value; what metadata does not have is an error.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nothing,
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

/// An argument in a kernel's block of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub offset: u64,
    pub size: u64,
    /// `by_value`, `global_buffer`, or what the runtime fills in: `hidden_…`.
    pub kind: String,
}

/// What the note says of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    /// The descriptor's symbol.
    pub symbol: String,
    pub arguments: Vec<Argument>,
    pub max_threads: Option<u64>,
    pub required_block: Option<[u32; 3]>,
    pub dynamic_stack: bool,
}

struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.0.split_at_checked(n).ok_or_else(|| GfxError::new("metadata is cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn text(&mut self, len: usize) -> Result<Value> {
        Ok(Value::Text(String::from_utf8_lossy(self.take(len)?).into_owned()))
    }

    fn list(&mut self, len: usize) -> Result<Value> {
        Ok(Value::List((0..len).map(|_| self.value()).collect::<Result<_>>()?))
    }

    fn map(&mut self, len: usize) -> Result<Value> {
        let mut map = BTreeMap::new();
        for _ in 0..len {
            if let Value::Text(key) = self.value()? {
                map.insert(key, self.value()?);
            }
        }
        Ok(Value::Map(map))
    }

    fn value(&mut self) -> Result<Value> {
        let tag = self.take(1)?[0];
        match tag {
            0..=0x7f => Ok(Value::Number(tag.into())),
            0x80..=0x8f => self.map(tag as usize & 15),
            0x90..=0x9f => self.list(tag as usize & 15),
            0xa0..=0xbf => self.text(tag as usize & 31),
            0xc0 => Ok(Value::Nothing),
            0xc2 | 0xc3 => Ok(Value::Flag(tag == 0xc3)),
            0xcc..=0xcf => Ok(Value::Number(self.number(1 << (tag - 0xcc))?)),
            0xd0..=0xd3 => Ok(Value::Number(self.number(1 << (tag - 0xd0))?)),
            0xd9..=0xdb => {
                let len = self.number(1 << (tag - 0xd9))? as usize;
                self.text(len)
            }
            0xdc | 0xdd => {
                let len = self.number(2 << (tag - 0xdc))? as usize;
                self.list(len)
            }
            0xde | 0xdf => {
                let len = self.number(2 << (tag - 0xde))? as usize;
                self.map(len)
            }
            _ => Err(GfxError::new(format!("unknown tag {tag:#x} in metadata"))),
        }
    }
}

impl Value {
    fn get(&self, key: &str) -> Option<&Self> {
        if let Self::Map(map) = self { map.get(key) } else { None }
    }
    fn items(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
    fn number(&self) -> Option<u64> {
        if let Self::Number(n) = self { Some(*n) } else { None }
    }
}

/// The kernels of a note.
pub fn kernels(note: &[u8]) -> Result<Vec<Kernel>> {
    let root = Parser(note).value()?;
    let kernels = root.get("amdhsa.kernels").map_or(&[][..], Value::items);
    kernels.iter().map(kernel).collect()
}

fn kernel(k: &Value) -> Result<Kernel> {
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::text).map(str::to_string);
    let number = |v: &Value, key: &str| v.get(key).and_then(Value::number);
    let missing = |key: &str| GfxError::new(format!("a kernel's metadata has no {key}"));
    let mut arguments = Vec::new();
    for a in k.get(".args").map_or(&[][..], Value::items) {
        arguments.push(Argument {
            name: text(a, ".name").unwrap_or_default(),
            offset: number(a, ".offset").ok_or_else(|| missing(".offset"))?,
            size: number(a, ".size").ok_or_else(|| missing(".size"))?,
            kind: text(a, ".value_kind").ok_or_else(|| missing(".value_kind"))?,
        });
    }
    let required = k.get(".reqd_workgroup_size").map(|list| {
        let mut sizes = list.items().iter().filter_map(Value::number);
        [(); 3].map(|()| sizes.next().unwrap_or(1) as u32)
    });
    Ok(Kernel {
        name: text(k, ".name").ok_or_else(|| missing(".name"))?,
        symbol: text(k, ".symbol").ok_or_else(|| missing(".symbol"))?,
        arguments,
        max_threads: number(k, ".max_flat_workgroup_size"),
        required_block: required,
        dynamic_stack: k.get(".uses_dynamic_stack") == Some(&Value::Flag(true)),
    })
}
