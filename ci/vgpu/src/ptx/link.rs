//! A module's variables in memory, and its kernels as flat programs: scopes resolved, labels turned
//! into numbers, called functions put in place of their calls.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::decode::{Names, Symbol, decode};
use super::isa::{Fixed, Guard, Instruction, Op, Reg, Space};
use super::modifiers::Modifiers;
use super::program::{Parameter, Program};
use super::syntax::*;
use super::{PtxError, Result};
use crate::memory::GlobalMemory;

/// Deepest chain of calls. Recursion has no bound, and is an error here.
const MAX_CALL_DEPTH: usize = 32;

/// A module whose variables are in a device's memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    module: Arc<Module>,
    globals: BTreeMap<String, (u64, u64)>,
}

impl Module {
    /// Puts the module's variables in global memory.
    pub fn load(self: Arc<Self>, memory: &mut GlobalMemory) -> Result<Loaded> {
        let mut globals = BTreeMap::new();
        for variable in &self.variables {
            if variable.home == Home::Shared {
                continue;
            }
            if variable.external {
                let what = format!("variable {} is defined elsewhere", variable.name);
                return Err(PtxError::new(variable.line, what));
            }
            // What has no initial value is zero.
            let data = variable.initial.clone().unwrap_or(vec![0; variable.size as usize]);
            let address = memory.allocate_with(data, &variable.name);
            if variable.home == Home::Const {
                memory.make_constant(address);
            }
            globals.insert(variable.name.clone(), (address, variable.size));
        }
        Ok(Loaded { module: self, globals })
    }
}

impl Loaded {
    /// Names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.module.kernels()
    }

    /// Address and bytes of a variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.get(name).copied()
    }

    /// Address and bytes of every variable.
    pub fn globals(&self) -> impl Iterator<Item = (u64, u64)> {
        self.globals.values().copied()
    }

    /// A kernel, decoded if nobody asked for it before with the variables that it names where they
    /// are.
    pub fn program(&self, kernel: &str) -> Result<Arc<Program>> {
        let programs = || self.module.programs.lock().unwrap_or_else(|error| error.into_inner());
        let same = |(name, address): (&String, &u64)| {
            self.globals.get(name).is_some_and(|(now, _)| now == address)
        };
        if let Some((variables, program)) = programs().get(kernel)
            && variables.iter().all(same)
        {
            return Ok(program.clone());
        }
        let (function, mut linker, head) = self.head(kernel)?;
        linker.body(function, 0)?;
        linker.resolve()?;
        let program = Arc::new(Program {
            local: linker.local,
            registers: linker.registers.get(),
            fixed: linker.fixed.into_inner().into_iter().collect(),
            code: linker.code,
            ..head
        });
        programs().insert(kernel.into(), (linker.named.into_inner(), program.clone()));
        Ok(program)
    }

    /// A kernel without its code, for which that need not be read.
    pub fn outline(&self, kernel: &str) -> Result<Program> {
        self.head(kernel).map(|(_, _, head)| head)
    }

    fn head(&self, kernel: &str) -> Result<(&Function, Linker<'_>, Program)> {
        let function = self.module.functions.iter().find(|f| f.entry && f.name == kernel);
        let Some(function) = function else {
            let names: Vec<_> = self.kernels().collect();
            return Err(PtxError::new(
                0,
                format!("no kernel {kernel}; there are {}", names.join(", ")),
            ));
        };
        let mut linker = Linker::new(self);
        let mut parameters = Vec::new();
        let mut offset = 0_u64;
        for param in &function.params {
            offset = offset.next_multiple_of(param.align.max(1));
            parameters.push(Parameter { name: param.name.clone(), offset, size: param.size });
            linker.define(&param.name, Symbol::Memory(Space::Param, offset));
            offset += param.size;
        }
        linker.place_shared(function)?;
        let head = Program {
            name: kernel.into(),
            parameters,
            max_threads: function.max_threads,
            required_block: function.required_block,
            shared: linker.shared,
            dynamic_shared: linker.shared.next_multiple_of(linker.dynamic_align.max(1)),
            local: 0,
            registers: 0,
            fixed: Vec::new(),
            code: Vec::new(),
        };
        Ok((function, linker, head))
    }
}

/// A block of braces: what is declared in it.
#[derive(Debug, Default)]
struct Scope {
    symbols: HashMap<String, Symbol>,
    id: usize,
}

/// A branch whose target's number is not known yet.
struct Fixup {
    at: usize,
    label: String,
    scopes: Vec<usize>,
    line: u32,
}

struct Linker<'a> {
    loaded: &'a Loaded,
    scopes: Vec<Scope>,
    next_scope: usize,
    labels: HashMap<(usize, String), u32>,
    fixups: Vec<Fixup>,
    code: Vec<Instruction>,
    registers: Cell<Reg>,
    /// Registers that no instruction writes, made when an operand is decoded.
    fixed: RefCell<HashMap<Fixed, Reg>>,
    /// The module's variables that are named, and where they are.
    named: RefCell<BTreeMap<String, u64>>,
    shared: u64,
    dynamic_align: u64,
    local: u64,
    depth: usize,
    /// First scope of the function that is being put in place; names of its callers are not seen.
    floor: usize,
    in_call: bool,
}

impl Names for Linker<'_> {
    fn symbol(&self, name: &str) -> Option<Symbol> {
        let visible = self.scopes[self.floor..].iter().rev().chain(self.scopes.first());
        let mut found = visible.filter_map(|scope| scope.symbols.get(name).copied());
        found.next().or_else(|| {
            let (address, _) = *self.loaded.globals.get(name)?;
            self.named.borrow_mut().insert(name.into(), address);
            Some(Symbol::Memory(Space::Global, address))
        })
    }

    fn fixed(&self, what: Fixed) -> Reg {
        *self.fixed.borrow_mut().entry(what).or_insert_with(|| self.allocate(1))
    }

    fn parameter_space(&self) -> Space {
        if self.in_call { Space::Local } else { Space::Param }
    }
}

impl<'a> Linker<'a> {
    fn new(loaded: &'a Loaded) -> Self {
        Self {
            loaded,
            scopes: vec![Scope::default()],
            next_scope: 1,
            labels: HashMap::new(),
            fixups: Vec::new(),
            code: Vec::new(),
            fixed: RefCell::default(),
            named: RefCell::default(),
            registers: Cell::new(1), // register 0 takes what nobody reads
            shared: 0,
            dynamic_align: 1,
            local: 0,
            depth: 0,
            floor: 0,
            in_call: false,
        }
    }

    fn allocate(&self, count: u32) -> Reg {
        let first = self.registers.get();
        self.registers.set(first + count);
        first
    }

    fn define(&mut self, name: &str, symbol: Symbol) {
        let scope = self.scopes.last_mut().expect("the outermost scope stays");
        scope.symbols.insert(name.into(), symbol);
    }

    fn open(&mut self) {
        self.scopes.push(Scope { id: self.next_scope, ..Scope::default() });
        self.next_scope += 1;
    }

    /// The module's shared variables; those without a size begin where the others end.
    fn place_shared(&mut self, kernel: &Function) -> Result<()> {
        let loaded = self.loaded;
        let shared = || loaded.module.variables.iter().filter(|v| v.home == Home::Shared);
        for variable in shared().filter(|v| !v.external || v.size > 0) {
            self.variable(variable);
        }
        // The kernel's own and those of functions are placed now too: the unsized come after all.
        let functions = loaded.module.functions.iter().filter(|f| !f.entry);
        for body in functions.chain([kernel]).filter_map(|f| f.body.as_ref()) {
            for v in body.shared()? {
                if !self.scopes[0].symbols.contains_key(&v.name) {
                    self.variable(v);
                }
            }
        }
        for variable in shared().filter(|v| v.external && v.size == 0) {
            self.dynamic_align = self.dynamic_align.max(variable.align);
        }
        let start = self.shared.next_multiple_of(self.dynamic_align);
        for variable in shared().filter(|v| v.external && v.size == 0) {
            self.define(&variable.name, Symbol::Memory(Space::Shared, start));
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable) {
        let (space, end) = match variable.home {
            Home::Shared => (Space::Shared, &mut self.shared),
            // Parameters of calls live in the caller's local memory.
            _ => (Space::Local, &mut self.local),
        };
        let at = end.next_multiple_of(variable.align.max(1));
        *end = at + variable.size;
        self.define(&variable.name, Symbol::Memory(space, at));
    }

    fn body(&mut self, function: &Function, end_scope: usize) -> Result<()> {
        let Some(body) = &function.body else {
            let what = format!("function {} is defined elsewhere", function.name);
            return Err(PtxError::new(function.line, what));
        };
        self.open();
        for statement in body.statements()? {
            let line = statement.line;
            match &statement.kind {
                StatementKind::Open => self.open(),
                StatementKind::Close => {
                    self.scopes.pop();
                }
                StatementKind::Label(name) => {
                    let id = self.scopes.last().map_or(0, |s| s.id);
                    self.labels.insert((id, name.clone()), self.code.len() as u32);
                }
                StatementKind::Registers { name, count } => self.declare(name, *count),
                StatementKind::Variable(variable) => {
                    let placed = variable.home == Home::Shared
                        && self.scopes[0].symbols.contains_key(&variable.name);
                    if !placed {
                        self.variable(variable);
                    }
                }
                StatementKind::Instruction(written) => {
                    self.instruction(written, line, end_scope)?
                }
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn declare(&mut self, name: &str, count: Option<u32>) {
        match count {
            None => {
                let reg = self.allocate(1);
                self.define(name, Symbol::Register(reg));
            }
            Some(count) => {
                let first = self.allocate(count);
                for i in 0..count {
                    self.define(&format!("{name}{i}"), Symbol::Register(first + i));
                }
            }
        }
    }

    fn push(&mut self, guard: Option<Guard>, op: Op, line: u32, text: &str) {
        let class = op.class();
        self.code.push(Instruction { guard, op, class, line, text: text.into() });
    }

    fn instruction(&mut self, written: &Written, line: u32, end_scope: usize) -> Result<()> {
        let guard = match &written.guard {
            None => None,
            Some((name, negated)) => match self.symbol(name) {
                Some(Symbol::Register(predicate)) => Some(Guard { predicate, negated: *negated }),
                _ => return Err(PtxError::new(line, format!("no predicate {name}"))),
            },
        };
        let (name, mut m) = Modifiers::split(&written.opcode, line);
        match name {
            "bra" => {
                m.ignore(&["uni"]);
                let [Argument::Name(label)] = &written.operands[..] else {
                    return m.error("a target that is not a label");
                };
                self.branch(guard, label.clone(), None, line, &written.text);
            }
            "ret" => {
                m.ignore(&["uni"]);
                if self.in_call {
                    self.branch(guard, "return".into(), Some(end_scope), line, &written.text);
                } else {
                    self.push(guard, Op::Exit, line, &written.text);
                }
            }
            "call" => {
                m.ignore(&["uni"]);
                if guard.is_some() {
                    return m.error("guarded calls");
                }
                self.call(written, line)?;
            }
            _ => {
                let op = decode(written, self, line)?;
                self.push(guard, op, line, &written.text);
                return Ok(());
            }
        }
        m.finish()
    }

    fn branch(
        &mut self,
        guard: Option<Guard>,
        label: String,
        scope: Option<usize>,
        line: u32,
        text: &str,
    ) {
        let scopes = match scope {
            Some(id) => vec![id],
            None => self.scopes[self.floor..].iter().rev().map(|s| s.id).collect(),
        };
        self.fixups.push(Fixup { at: self.code.len(), label, scopes, line });
        self.push(guard, Op::Branch { target: 0 }, line, text);
    }

    /// Puts a function in place of its call. Its parameters and results are the caller's variables.
    fn call(&mut self, written: &Written, line: u32) -> Result<()> {
        let error =
            |what: String| Err(PtxError::new(line, format!("`{}`: {what}", written.opcode)));
        let lists = |arg: &Argument| match arg {
            Argument::List(list) => Some(list.clone()),
            _ => None,
        };
        let (results, rest) = match written.operands.first().and_then(lists) {
            Some(results) => (results, &written.operands[1..]),
            None => (Vec::new(), &written.operands[..]),
        };
        let Some(Argument::Name(callee)) = rest.first() else {
            return error("no name of a function".into());
        };
        let arguments = rest.get(1).and_then(lists).unwrap_or_default();
        let loaded = self.loaded;
        let found = loaded.module.functions.iter().find(|f| !f.entry && f.name == *callee);
        let Some(function) = found else {
            return error(format!("{callee} is not a function of this file (an indirect call?)"));
        };
        if self.depth == MAX_CALL_DEPTH {
            return error(format!("{callee} calls itself"));
        }
        if results.len() != function.results.len() || arguments.len() != function.params.len() {
            return error(format!("{callee} takes other parameters"));
        }
        let mut bindings = Vec::new();
        let pairs = results.iter().zip(&function.results);
        for (actual, formal) in pairs.chain(arguments.iter().zip(&function.params)) {
            let Argument::Name(name) = actual else {
                return error("an argument that is not a variable".into());
            };
            match self.symbol(name) {
                Some(symbol @ Symbol::Memory(..)) => bindings.push((formal.name.clone(), symbol)),
                _ => return error(format!("{name} is not a variable")),
            }
        }
        let outer = (self.floor, self.in_call);
        self.open();
        let id = self.scopes.last().map_or(0, |s| s.id);
        (self.floor, self.in_call) = (self.scopes.len() - 1, true);
        for (name, symbol) in bindings {
            self.define(&name, symbol);
        }
        self.depth += 1;
        self.body(function, id)?;
        self.depth -= 1;
        (self.floor, self.in_call) = outer;
        self.scopes.pop();
        self.labels.insert((id, "return".into()), self.code.len() as u32);
        Ok(())
    }

    fn resolve(&mut self) -> Result<()> {
        // Falling off the end is a return.
        self.push(None, Op::Exit, 0, "}");
        for Fixup { at, label, scopes, line } in &self.fixups {
            let found = scopes.iter().find_map(|id| self.labels.get(&(*id, label.clone())));
            let Some(target) = found else {
                return Err(PtxError::new(*line, format!("no label {label}")));
            };
            self.code[*at].op = Op::Branch { target: *target };
        }
        Ok(())
    }
}
