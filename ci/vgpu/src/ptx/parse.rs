//! Tokens to the tree of a file.

use std::sync::OnceLock;

use super::lexer::{Literal, Part, Token, lex};
use super::syntax::*;
use super::{PtxError, Result};

/// Reads tokens one after the other.
pub struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32, usize)>,
    text: &'a str,
    at: usize,
}

/// Words that say who sees a symbol; all symbols are in one file here.
const LINKAGE: [&str; 4] = [".visible", ".extern", ".weak", ".common"];
/// Advice to ptxas without a meaning for results.
const PRAGMAS: [&str; 4] = ["nounroll", "used_bytes_mask", "enable_smem_spilling", "frequency"];

impl<'a> Parser<'a> {
    /// Begins at a text's token `at`; `line` is that of the text's start.
    pub fn new(text: &'a str, part: Part, line: u32, at: usize) -> Result<Self> {
        Ok(Self { tokens: lex(text, part, line)?, text, at })
    }
    pub fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }
    fn line(&self) -> u32 {
        self.tokens.get(self.at.min(self.tokens.len().saturating_sub(1))).map_or(0, |t| t.1)
    }
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|t| &t.0)
    }
    fn error<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(PtxError::new(self.line(), what))
    }
    fn next(&mut self) -> Result<Token<'a>> {
        let Some((token, ..)) = self.tokens.get(self.at) else {
            return self.error("the file ends too early");
        };
        self.at += 1;
        Ok(*token)
    }
    fn sees(&self, mark: char) -> bool {
        self.peek() == Some(&Token::Mark(mark))
    }
    fn take(&mut self, mark: char) -> bool {
        let sees = self.sees(mark);
        self.at += usize::from(sees);
        sees
    }
    fn expect(&mut self, mark: char) -> Result<()> {
        if self.take(mark) {
            return Ok(());
        }
        self.error(format!("`{mark}` is missing before {:?}", self.peek()))
    }
    fn word(&mut self) -> Result<&'a str> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => self.error(format!("a name is missing before {other:?}")),
        }
    }
    fn integer(&mut self) -> Result<i128> {
        let negative = self.take('-');
        match self.next()? {
            Token::Number(Literal::Integer(n)) => Ok(if negative { -n } else { n }),
            other => self.error(format!("a whole number is missing before {other:?}")),
        }
    }
    /// Skips what is left of a line, for directives without an end of their own.
    fn skip_line(&mut self, line: u32) {
        while !self.done() && self.line() == line {
            self.at += 1;
        }
    }

    pub fn top(&mut self, module: &mut Module) -> Result<()> {
        let line = self.line();
        let mut external = false;
        let mut word = self.word()?;
        while LINKAGE.contains(&word) {
            external |= word == ".extern";
            word = self.word()?;
        }
        match word {
            ".version" | ".target" | ".file" | ".loc" => self.skip_line(line),
            ".address_size" => {
                if self.integer()? != 64 {
                    return self.error(".address_size other than 64");
                }
            }
            ".section" => {
                self.word()?;
                self.skip_braces()?;
            }
            ".pragma" => self.pragma()?,
            ".global" | ".const" | ".shared" => {
                let home = match word {
                    ".global" => Home::Global,
                    ".const" => Home::Const,
                    _ => Home::Shared,
                };
                for variable in self.variables(home, external)? {
                    module.variables.push(variable);
                }
            }
            ".entry" | ".func" => {
                let function = self.function(word == ".entry")?;
                module.functions.retain(|f| f.name != function.name || f.body.is_some());
                if !module.functions.iter().any(|f| f.name == function.name) {
                    module.functions.push(function);
                }
            }
            _ => return Err(PtxError::new(line, format!("unknown directive {word}"))),
        }
        Ok(())
    }

    fn skip_braces(&mut self) -> Result<()> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn pragma(&mut self) -> Result<()> {
        loop {
            match self.next()? {
                Token::Text(text) if PRAGMAS.iter().any(|p| text.starts_with(p)) => {}
                Token::Mark(',') => {}
                Token::Mark(';') => return Ok(()),
                other => return self.error(format!("unknown pragma {other:?}")),
            }
        }
    }

    fn scalar(&mut self) -> Result<(u64, &'a str)> {
        let word = self.word()?;
        let bytes = match word {
            ".b8" | ".u8" | ".s8" => 1,
            ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
            ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => 4,
            ".b64" | ".u64" | ".s64" | ".f64" => 8,
            _ => return self.error(format!("unknown type {word}")),
        };
        Ok((bytes, word))
    }

    /// `.align n .type name[count] = {…}, …;` after the state space.
    pub fn variables(&mut self, home: Home, external: bool) -> Result<Vec<Variable>> {
        let mut list = vec![self.variable(home, external)?];
        while self.take(',') {
            let first = &list[0];
            let (align, scalar) = (first.align, first.align);
            list.push(self.declarator(home, external, align, scalar, "")?);
        }
        self.expect(';')?;
        Ok(list)
    }

    fn variable(&mut self, home: Home, external: bool) -> Result<Variable> {
        let mut align = 0;
        while let Some(Token::Word(word)) = self.peek() {
            match *word {
                ".align" => {
                    self.at += 1;
                    align = self.integer()? as u64;
                }
                ".attribute" => return self.error("unknown directive .attribute"),
                _ => break,
            }
        }
        let (scalar, kind) = self.scalar()?;
        // `.ptr .global .align 4` of a kernel's parameter: advice.
        while let Some(Token::Word(word)) = self.peek() {
            match *word {
                ".ptr" | ".global" | ".shared" | ".const" | ".local" => self.at += 1,
                ".align" => {
                    self.at += 1;
                    self.integer()?;
                }
                _ => break,
            }
        }
        self.declarator(home, external, align.max(scalar), scalar, kind)
    }

    fn declarator(
        &mut self,
        home: Home,
        external: bool,
        align: u64,
        scalar: u64,
        kind: &str,
    ) -> Result<Variable> {
        let line = self.line();
        let name = self.word()?;
        let mut size = scalar;
        while self.take('[') {
            if self.take(']') {
                size = 0;
            } else {
                size *= self.integer()? as u64;
                self.expect(']')?;
            }
        }
        let mut initial = None;
        if self.take('=') {
            let mut bytes = Vec::new();
            self.initializer(scalar as usize, kind, &mut bytes)?;
            bytes.resize(size.max(bytes.len() as u64) as usize, 0);
            size = bytes.len() as u64;
            initial = Some(bytes);
        }
        Ok(Variable { name: name.into(), home, align, size, initial, external, line })
    }

    fn initializer(&mut self, scalar: usize, kind: &str, bytes: &mut Vec<u8>) -> Result<()> {
        if self.take('{') {
            while !self.take('}') {
                self.initializer(scalar, kind, bytes)?;
                self.take(',');
            }
            return Ok(());
        }
        let negative = self.take('-');
        let Token::Number(literal) = self.next()? else {
            return self.error("an initial value that is not a number (an address)");
        };
        let bits = match literal {
            Literal::Integer(n) => (if negative { -n } else { n }) as u64,
            Literal::Single(bits) => bits.into(),
            Literal::Double(bits) if kind == ".f32" => {
                (f64::from_bits(bits) as f32).to_bits().into()
            }
            Literal::Double(bits) => bits,
        };
        bytes.extend_from_slice(&bits.to_le_bytes()[..scalar]);
        Ok(())
    }

    fn params(&mut self) -> Result<Vec<Variable>> {
        let mut list = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            match self.word()? {
                ".param" => list.push(self.variable(Home::Param, false)?),
                other => return self.error(format!("parameter in {other}")),
            }
            self.take(',');
        }
        Ok(list)
    }

    fn function(&mut self, entry: bool) -> Result<Function> {
        let line = self.line();
        let results = if self.sees('(') { self.params()? } else { Vec::new() };
        let name = self.word()?;
        let params = if self.sees('(') { self.params()? } else { Vec::new() };
        let mut function = Function {
            name: name.into(),
            entry,
            results,
            params,
            body: None,
            max_threads: None,
            required_block: None,
            line,
        };
        loop {
            if self.take(';') {
                return Ok(function);
            }
            if let Some(&Token::Body(text, line)) = self.peek() {
                self.at += 1;
                let (statements, shared) = (OnceLock::new(), OnceLock::new());
                function.body = Some(Body { text: text.into(), line, statements, shared });
                return Ok(function);
            }
            let word = self.word()?;
            match word {
                ".maxntid" => {
                    function.max_threads = Some(self.extents()?.iter().product());
                }
                ".reqntid" => function.required_block = Some(self.extents()?),
                ".minnctapersm" | ".maxnreg" | ".maxnctapersm" => {
                    self.integer()?;
                }
                ".noreturn" => {}
                ".pragma" => self.pragma()?,
                _ => return self.error(format!("unknown directive {word}")),
            }
        }
    }

    fn extents(&mut self) -> Result<[u32; 3]> {
        let mut extents = [1; 3];
        for (i, extent) in extents.iter_mut().enumerate() {
            if i == 0 || self.take(',') {
                *extent = self.integer()? as u32;
            }
        }
        Ok(extents)
    }

    pub fn body(&mut self) -> Result<Vec<Statement>> {
        let mut body = Vec::new();
        let mut depth = 0;
        loop {
            let line = self.line();
            let mut push = |kind| body.push(Statement { line, kind });
            if self.take('{') {
                depth += 1;
                push(StatementKind::Open);
            } else if self.take('}') {
                if depth == 0 {
                    return Ok(body);
                }
                depth -= 1;
                push(StatementKind::Close);
            } else if self.take(';') {
            } else if self.take('@') {
                let negated = self.take('!');
                let guard = Some((self.word()?.to_string(), negated));
                push(StatementKind::Instruction(self.instruction(guard)?));
            } else if self.tokens.get(self.at + 1).map(|t| &t.0) == Some(&Token::Mark(':')) {
                let name = self.word()?.to_string();
                self.at += 1;
                push(StatementKind::Label(name));
            } else if let Some(&Token::Word(word)) = self.peek() {
                if !word.starts_with('.') {
                    push(StatementKind::Instruction(self.instruction(None)?));
                    continue;
                }
                self.at += 1;
                match word {
                    ".loc" | ".file" => self.skip_line(line),
                    ".pragma" => self.pragma()?,
                    ".reg" => {
                        for kind in self.registers()? {
                            push(kind);
                        }
                    }
                    ".shared" | ".local" | ".param" => {
                        let home = match word {
                            ".shared" => Home::Shared,
                            ".local" => Home::Local,
                            _ => Home::Param,
                        };
                        for variable in self.variables(home, false)? {
                            push(StatementKind::Variable(variable));
                        }
                    }
                    _ => return self.error(format!("unknown directive {word}")),
                }
            } else {
                return self.error(format!("unexpected {:?}", self.peek()));
            }
        }
    }

    fn registers(&mut self) -> Result<Vec<StatementKind>> {
        let kind = self.word()?;
        if ![
            ".pred", ".b8", ".b16", ".b32", ".b64", ".u8", ".u16", ".u32", ".u64", ".s8", ".s16",
            ".s32", ".s64", ".f16", ".f16x2", ".bf16", ".bf16x2", ".f32", ".f64",
        ]
        .contains(&kind)
        {
            return self.error(format!("registers of type {kind}"));
        }
        let mut list = Vec::new();
        loop {
            let name = self.word()?;
            let mut count = None;
            if self.take('<') {
                count = Some(self.integer()? as u32);
                self.expect('>')?;
            }
            list.push(StatementKind::Registers { name: name.into(), count });
            if !self.take(',') {
                self.expect(';')?;
                return Ok(list);
            }
        }
    }

    fn instruction(&mut self, guard: Option<(String, bool)>) -> Result<Written> {
        let start = self.at;
        let opcode = self.word()?;
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.argument()?);
            if !self.take(',') && !self.sees(';') {
                return self.error(format!("`;` is missing after {opcode}"));
            }
        }
        // As it is written, up to its semicolon, white space apart.
        let text = &self.text[self.tokens[start].2..=self.tokens[self.at - 1].2];
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((predicate, negated)) = &guard {
            text = format!("@{}{predicate} {text}", if *negated { "!" } else { "" });
        }
        Ok(Written { guard, opcode: opcode.into(), operands, text })
    }

    fn offset(&mut self) -> Result<i64> {
        let mut offset = 0;
        while self.sees('+') || self.sees('-') {
            self.take('+');
            offset += self.integer()? as i64;
        }
        Ok(offset)
    }

    fn argument(&mut self) -> Result<Argument> {
        if self.take('!') {
            return Ok(Argument::Not(self.word()?.into()));
        }
        if self.take('{') {
            return Ok(Argument::Vector(self.list('}')?));
        }
        if self.take('(') {
            return Ok(Argument::List(self.list(')')?));
        }
        if self.take('[') {
            let base = match self.next()? {
                Token::Word(word) => Argument::Name(word.into()),
                Token::Number(number) => Argument::Number(number),
                other => return self.error(format!("an address cannot begin with {other:?}")),
            };
            let offset = self.offset()?;
            self.expect(']')?;
            return Ok(Argument::Address(Box::new(base), offset));
        }
        let negative = self.take('-');
        match self.next()? {
            Token::Number(number) => Ok(Argument::Number(match (number, negative) {
                (Literal::Integer(n), true) => Literal::Integer(-n),
                (Literal::Single(bits), true) => Literal::Single(bits ^ 1 << 31),
                (Literal::Double(bits), true) => Literal::Double(bits ^ 1 << 63),
                (number, false) => number,
            })),
            Token::Word(word) if !negative => {
                if self.take('|') {
                    return Ok(Argument::Pair(word.into(), self.word()?.into()));
                }
                match self.offset()? {
                    0 => Ok(Argument::Name(word.into())),
                    offset => Ok(Argument::Sum(word.into(), offset)),
                }
            }
            other => self.error(format!("unexpected {other:?}")),
        }
    }

    fn list(&mut self, end: char) -> Result<Vec<Argument>> {
        let mut list = Vec::new();
        while !self.take(end) {
            list.push(self.argument()?);
            if !self.take(',') && !self.sees(end) {
                return self.error(format!("`{end}` is missing"));
            }
        }
        Ok(list)
    }
}
