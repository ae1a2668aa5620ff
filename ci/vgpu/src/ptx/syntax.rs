//! A PTX file as a tree: what is written, not yet what it means.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use super::lexer::Literal;
use super::{Program, Result};

/// A parsed file.
#[derive(Debug, Default)]
pub struct Module {
    pub(super) variables: Vec<Variable>,
    pub(super) functions: Vec<Function>,
    /// Kernels that were decoded, each with the variables that it names and where they were.
    pub(super) programs: Mutex<HashMap<String, Decoded>>,
}

/// A kernel, and addresses that are in it, by name.
pub type Decoded = (BTreeMap<String, u64>, Arc<Program>);

/// Where a variable lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable in memory.
#[derive(Debug, Clone)]
pub struct Variable {
    pub name: String,
    pub home: Home,
    pub align: u64,
    /// Bytes; 0 for `extern x[]`.
    pub size: u64,
    /// Contents, if they are given.
    pub initial: Option<Vec<u8>>,
    /// Defined elsewhere.
    pub external: bool,
    pub line: u32,
}

/// A kernel or a function.
#[derive(Debug, Clone)]
pub struct Function {
    pub name: String,
    pub entry: bool,
    pub results: Vec<Variable>,
    pub params: Vec<Variable>,
    pub body: Option<Body>,
    /// Most threads of a block, and the exact block, where they are given.
    pub max_threads: Option<u32>,
    pub required_block: Option<[u32; 3]>,
    pub line: u32,
}

/// What a function does, between its braces. Of an image with many large kernels few are run.
#[derive(Debug, Clone)]
pub struct Body {
    pub text: String,
    /// The line that the text begins in.
    pub line: u32,
    pub statements: OnceLock<Result<Vec<Statement>>>,
    /// Its shared variables, found without reading the rest.
    pub shared: OnceLock<Result<Vec<Variable>>>,
}

/// One statement of a body.
#[derive(Debug, Clone)]
pub struct Statement {
    pub line: u32,
    pub kind: StatementKind,
}

/// What a statement is.
#[derive(Debug, Clone)]
pub enum StatementKind {
    Label(String),
    /// `.reg .type name` or `.reg .type name<count>`.
    Registers {
        name: String,
        count: Option<u32>,
    },
    Variable(Variable),
    Open,
    Close,
    Instruction(Written),
}

/// An instruction as it is written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub opcode: String,
    pub operands: Vec<Argument>,
    /// All of it, for findings.
    pub text: String,
}

/// An operand as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    Name(String),
    Number(Literal),
    /// `!p`
    Not(String),
    /// `{a, b}`
    Vector(Vec<Argument>),
    /// `[base + offset]`
    Address(Box<Argument>, i64),
    /// `p|q`
    Pair(String, String),
    /// `name + offset`
    Sum(String, i64),
    /// `(a, b)`
    List(Vec<Argument>),
}

impl Module {
    /// Names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().filter(|f| f.entry && f.body.is_some()).map(|f| f.name.as_str())
    }
}
