//! A kernel's code, and that of the functions it calls, decoded and with branches as indices.

use std::collections::HashMap;

use super::{Descriptor, Loaded};
use crate::gfx::decode::{EXEC, Instruction, Operand, decode};
use crate::gfx::exec::{Action, action, uses};
use crate::gfx::program::{Parameter, Program, Step};
use crate::gfx::{GfxError, Result};

pub fn program(loaded: &Loaded, name: &str) -> Result<Program> {
    let (head, entry) = head(loaded, name)?;
    let kernels = &loaded.object.kernels;
    let symbols = &loaded.object.elf.symbols;
    // Symbol sizes say where code ends; without one, it is the section's.
    let size = symbols.iter().find(|s| s.value == entry && s.kind == 2 && s.size > 0);
    let mut code = Code { loaded, steps: Vec::new(), places: HashMap::new(), name };
    code.range(entry, size.map(|s| entry + s.size))?;
    if code.steps.iter().any(|s| matches!(s.action, Action::Jump)) {
        let is_kernel = |name: &str| kernels.iter().any(|k| k.name == name);
        for s in symbols.iter().filter(|s| s.kind == 2 && s.defined && !is_kernel(&s.name)) {
            if !code.places.contains_key(&s.value) {
                code.range(s.value, Some(s.value + s.size))?;
            }
        }
    }
    code.resolve()?;
    code.check_registers(&head.descriptor)?;
    // What loads the arguments is skipped, as by firmware that has done it.
    let preloaded = head.descriptor.preload().0 > 0;
    let start = if preloaded { entry + PRELOAD } else { entry };
    let entry = code.places.get(&start).copied();
    let entry = entry.ok_or_else(|| GfxError::new(format!("{name}: no code at {start:#x}")))?;
    Ok(Program { entry, code: code.steps, places: code.places, ..head })
}

/// Bytes of code that load arguments which are in registers already.
const PRELOAD: u64 = 256;

/// A kernel without its code, and where that begins in the image.
pub fn head(loaded: &Loaded, name: &str) -> Result<(Program, u64)> {
    let kernels = &loaded.object.kernels;
    let Some(kernel) = kernels.iter().find(|k| k.name == name) else {
        let names: Vec<_> = loaded.kernels().collect();
        let list = names.join(", ");
        return Err(GfxError::new(format!("no kernel {name}; there are {list}")));
    };
    let mut symbols = loaded.object.elf.symbols.iter();
    let at = symbols.find(|s| s.name == kernel.symbol && s.defined);
    let at = at.ok_or_else(|| GfxError::new(format!("there is no symbol {}", kernel.symbol)))?;
    let bytes = loaded.image.get(at.value as usize..).unwrap_or_default();
    let descriptor = Descriptor::parse(bytes, &kernel.symbol)?;
    if kernel.dynamic_stack {
        return Err(GfxError::new(format!("{name} uses a stack of unknown size")));
    }
    let explicit = |kind: &str| !kind.starts_with("hidden_");
    let parameters = kernel.arguments.iter().filter(|a| explicit(&a.kind));
    let parameters = parameters
        .map(|a| Parameter { name: a.name.clone(), offset: a.offset, size: a.size })
        .collect();
    let hidden = kernel.arguments.iter().filter(|a| !explicit(&a.kind)).cloned().collect();
    let entry = at.value.wrapping_add_signed(descriptor.entry);
    let program = Program {
        name: name.into(),
        parameters,
        max_threads: kernel.max_threads.map(|n| n as u32),
        required_block: kernel.required_block,
        shared: descriptor.group_bytes.into(),
        private: descriptor.private_bytes,
        registers: descriptor.vector_registers(),
        hidden,
        descriptor,
        base: loaded.base,
        entry: 0,
        code: Vec::new(),
        places: HashMap::new(),
    };
    Ok((program, entry))
}

struct Code<'a> {
    loaded: &'a Loaded,
    steps: Vec<Step>,
    places: HashMap<u64, u32>,
    name: &'a str,
}

impl Code<'_> {
    /// Decodes from `start` to `end`, or to where code without a known end can no longer go on.
    fn range(&mut self, start: u64, end: Option<u64>) -> Result<()> {
        let limit = end.unwrap_or(self.loaded.object.elf.text.1);
        let (mut at, mut furthest) = (start, start);
        while at < limit {
            let bytes = self.loaded.image.get(at as usize..).unwrap_or_default();
            let named = |e: GfxError| GfxError::new(format!("{}: {e}", self.name));
            let instruction = decode(bytes, at).map_err(named)?;
            let (action, class) = action(&instruction).map_err(named)?;
            if matches!(action, Action::Branch(_)) {
                furthest = furthest.max(instruction.target());
            }
            let last = matches!(action, Action::End) && end.is_none() && furthest <= at;
            self.places.insert(at, self.steps.len() as u32);
            at += u64::from(instruction.bytes);
            let uses = uses(&instruction, action);
            let writes_exec = writes_exec(&instruction);
            self.steps.push(Step { instruction, action, class, target: 0, uses, writes_exec });
            if last {
                break;
            }
        }
        Ok(())
    }

    fn resolve(&mut self) -> Result<()> {
        for step in &mut self.steps {
            if !matches!(step.action, Action::Branch(_)) {
                continue;
            }
            let target = step.instruction.target();
            step.target = *self.places.get(&target).ok_or_else(|| {
                let i = &step.instruction;
                GfxError::new(format!("{}: `{i}` goes to {target:#x}, no code", self.name))
            })?;
        }
        Ok(())
    }

    /// Registers beyond those that the descriptor asks for belong to other waves.
    fn check_registers(&self, descriptor: &Descriptor) -> Result<()> {
        let (all, before) = (descriptor.vector_registers(), descriptor.accumulation_offset());
        for step in &self.steps {
            let i = &step.instruction;
            for used in &step.uses {
                let Operand::Vector(n) = used.operand else { continue };
                let end = if n < 256 { n } else { n - 256 + before } + u16::from(used.words);
                let limit = if n < 256 { all.min(256) } else { all };
                if end > limit {
                    let name = self.name;
                    return Err(GfxError::new(format!("{name}: `{i}`: of {all} registers")));
                }
            }
        }
        Ok(())
    }
}

fn writes_exec(i: &Instruction) -> bool {
    let exec = |o: Operand| matches!(o, Operand::Scalar(n) if n >= EXEC - 1);
    let implied = ["saveexec", "wrexec", "v_cmpx"].iter().any(|part| i.name.contains(part));
    implied || exec(i.dst) || exec(i.mask)
}
