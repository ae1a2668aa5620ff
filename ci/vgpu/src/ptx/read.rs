//! Reading a file: the outline first, bodies of functions when they are wanted.

use std::sync::Arc;

use super::Result;
use super::lexer::{Part, statements_of};
use super::parse::Parser;
use super::syntax::{Body, Home, Module, Statement, Variable};

impl Module {
    /// Reads a file, and cuts it into functions. Their bodies are read when they are wanted.
    pub fn parse(text: &str) -> Result<Arc<Self>> {
        let mut parser = Parser::new(text, Part::File, 1, 0)?;
        let mut module = Self::default();
        while !parser.done() {
            parser.top(&mut module)?;
        }
        Ok(Arc::new(module))
    }
}

impl Body {
    /// The statements, read the first time that they are asked for.
    pub fn statements(&self) -> Result<&[Statement]> {
        let read = self
            .statements
            .get_or_init(|| Parser::new(&self.text, Part::Body, self.line, 0)?.body());
        read.as_deref().map_err(Clone::clone)
    }

    /// The shared variables that are declared in it.
    pub fn shared(&self) -> Result<&[Variable]> {
        let read = self.shared.get_or_init(|| {
            let mut list = Vec::new();
            for (statement, line) in statements_of(&self.text, ".shared", self.line)? {
                let mut parser = Parser::new(statement, Part::Body, line, 1)?;
                list.append(&mut parser.variables(Home::Shared, false)?);
            }
            Ok(list)
        });
        read.as_deref().map_err(Clone::clone)
    }
}
