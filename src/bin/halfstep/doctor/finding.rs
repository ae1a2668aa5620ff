//! One line of the report.

use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Fine,
    /// Not there, and nothing needs it; or worth knowing.
    Note,
    /// Stands in the way.
    Problem,
}

/// What was found, and its cure, which a problem has.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub level: Level,
    pub text: String,
    pub cure: Option<String>,
}

impl Finding {
    pub fn fine(text: impl Into<String>) -> Self {
        Self { level: Level::Fine, text: text.into(), cure: None }
    }

    pub fn note(text: impl Into<String>) -> Self {
        Self { level: Level::Note, text: text.into(), cure: None }
    }

    pub fn problem(text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Problem, text: text.into(), cure: Some(cure.into()) }
    }

    /// A note may have a cure, too.
    pub fn with_cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    fn word(&self) -> &'static str {
        match self.level {
            Level::Fine => "ok",
            Level::Note => "note",
            Level::Problem => "PROBLEM",
        }
    }

    pub fn json(&self) -> Value {
        json!({ "level": self.word().to_lowercase(), "text": self.text, "cure": self.cure })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = self.text.lines();
        writeln!(f, "  {:<8} {}", self.word(), lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(f, "  {:<8} {line}", "")?;
        }
        match &self.cure {
            Some(cure) => writeln!(f, "  {:<8} cure: {cure}", ""),
            None => Ok(()),
        }
    }
}
