//! The parts of an opcode after its first: each must be taken by somebody.

use super::isa::Type;
use super::{PtxError, Result};
use crate::number::Rounding;

/// What is left of an opcode.
pub struct Modifiers<'a> {
    opcode: &'a str,
    rest: Vec<&'a str>,
    line: u32,
}

impl<'a> Modifiers<'a> {
    /// Splits an opcode into its name and modifiers.
    pub fn split(opcode: &'a str, line: u32) -> (&'a str, Self) {
        let mut parts = opcode.split('.');
        let name = parts.next().unwrap_or_default();
        // `.global.` at an end of inline assembly is written with a stray dot.
        (name, Self { opcode, rest: parts.filter(|p| !p.is_empty()).collect(), line })
    }

    /// Takes a modifier if it is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|part| *part == name);
        found.map(|i| self.rest.remove(i)).is_some()
    }

    /// Takes the first of a list that is there.
    pub fn one_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find(|(name, _)| self.flag(name)).map(|(_, value)| *value)
    }

    /// One of a list must be there.
    pub fn must<T: Copy>(&mut self, choices: &[(&str, T)]) -> Result<T> {
        match self.one_of(choices) {
            Some(value) => Ok(value),
            None => self.error("unknown or missing modifier"),
        }
    }

    /// Takes modifiers that only advise or that hold anyway.
    pub fn ignore(&mut self, names: &[&str]) {
        self.rest.retain(|part| !names.contains(part));
    }

    /// Takes the last modifier, which must be a type.
    pub fn ty(&mut self) -> Result<Type> {
        match self.rest.last().and_then(|name| Type::named(name)) {
            Some(ty) => {
                self.rest.pop();
                Ok(ty)
            }
            None => self.error("no type, or an unknown one"),
        }
    }

    /// Takes a rounding of floating-point results.
    pub fn rounding(&mut self) -> Option<Rounding> {
        use Rounding::*;
        self.one_of(&[("rn", Nearest), ("rz", Zero), ("rm", Down), ("rp", Up)])
    }

    /// Takes a rounding to whole numbers.
    pub fn integral_rounding(&mut self) -> Option<Rounding> {
        use Rounding::*;
        self.one_of(&[("rni", Nearest), ("rzi", Zero), ("rmi", Down), ("rpi", Up)])
    }

    /// Every modifier was understood.
    pub fn finish(self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(part) => self.error(&format!("unknown modifier .{part}")),
        }
    }

    /// An error that names the opcode.
    pub fn error<T>(&self, what: &str) -> Result<T> {
        Err(PtxError::new(self.line, format!("`{}`: {what}", self.opcode)))
    }
}
