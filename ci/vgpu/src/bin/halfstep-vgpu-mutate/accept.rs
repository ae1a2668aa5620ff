//! Survivors that are known, with the reason.
//!
//! A line of the file: vendor, kernel, operator, and between backquotes the instruction; `*` in
//! kernel and instruction stands for anything. Then `: ` and the reason, which begins with `same: ` where the mutant
//! computes the same whatever a plan gives it: argued there, where it could not be proved.

/// One line.
pub struct Entry {
    pub line: usize,
    pub vendor: String,
    kernel: String,
    operator: String,
    place: String,
    /// Whether the mutant computes the same whatever a plan gives it.
    pub same: bool,
    /// How many survivors it has covered, and how many others it named.
    pub survived: u32,
    pub killed: u32,
}

/// The lines of a file; `#` begins a comment.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let line = line + 1;
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let parsed = || {
            let (head, rest) = text.split_once('`')?;
            let (place, reason) = rest.split_once("`: ")?;
            let mut words = head.split_whitespace().map(str::to_string);
            let (vendor, kernel, operator) = (words.next()?, words.next()?, words.next()?);
            let place = place.to_string();
            let same = reason.starts_with("same: ");
            let (survived, killed) = (0, 0);
            let entry = Entry { line, vendor, kernel, operator, place, same, survived, killed };
            (!reason.trim().is_empty()).then_some(entry)
        };
        let wrong = || format!("line {line}: vendor kernel operator `instruction`: reason");
        entries.push(parsed().ok_or_else(wrong)?);
    }
    Ok(entries)
}

impl Entry {
    pub fn names(&self, vendor: &str, kernel: &str, operator: &str, place: &str) -> bool {
        self.vendor == vendor
            && self.operator == operator
            && matches(&self.kernel, kernel)
            && matches(&self.place, place)
    }
}

/// Whether a text is what a pattern with stars says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    (0..=text.len()).filter(|i| text.is_char_boundary(*i)).any(|i| matches(rest, &text[i..]))
}
