//! PTX text to tokens.

use super::{PtxError, Result};

/// A token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// A name, register, directive or opcode with its modifiers: dots belong to it.
    Word(&'a str),
    /// A number.
    Number(Literal),
    /// What stands between quotes.
    Text(&'a str),
    /// One character of punctuation.
    Mark(char),
    /// A function's body from after its brace on, and the line there: it is read when it is wanted.
    Body(&'a str, u32),
}

/// A number as it is written; the instruction's type says what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Literal {
    /// Decimal, hexadecimal, octal or binary.
    Integer(i128),
    /// `0f…`: bits of an f32.
    Single(u32),
    /// `0d…`, or decimal with a point: bits of an f64.
    Double(u64),
}

/// What there is to read: a file, or the body of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Bodies of functions are not looked into.
    File,
    Body,
}

/// Tokens, each with its line and the byte it begins at. `line` is that of the text's start.
pub fn lex(text: &str, part: Part, mut line: u32) -> Result<Vec<(Token<'_>, u32, usize)>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut tokens = Vec::new();
    // Between `.entry` or `.func` and what ends it: the next brace is that of a body.
    let mut heads = false;
    while at < bytes.len() {
        let c = bytes[at];
        let next = bytes.get(at + 1).copied().unwrap_or(b' ');
        match c {
            b'\n' => {
                line += 1;
                at += 1;
            }
            _ if c.is_ascii_whitespace() => at += 1,
            b'/' if matches!(next, b'/' | b'*') => at = skip(bytes, at, &mut line)?,
            b'"' => {
                let end = skip(bytes, at, &mut line)?;
                tokens.push((Token::Text(&text[at + 1..end - 1]), line, at));
                at = end;
            }
            b'{' if heads && part == Part::File => {
                let start = at + 1;
                let first = line;
                at = body(bytes, start, &mut line)?;
                tokens.push((Token::Body(&text[start..at], first), first, start));
                heads = false;
            }
            _ if is_word(c) => {
                let start = at;
                while at < bytes.len() {
                    // `L2::128B`: two colons join, one ends a label.
                    if bytes[at] == b':' && bytes.get(at + 1) == Some(&b':') {
                        at += 2;
                    } else if is_word(bytes[at]) {
                        at += 1;
                    } else {
                        break;
                    }
                }
                let word = &text[start..at];
                heads |= matches!(word, ".entry" | ".func");
                let token = if c.is_ascii_digit() {
                    let wrong = || PtxError::new(line, format!("`{word}` is not a number"));
                    Token::Number(number(word).ok_or_else(wrong)?)
                } else {
                    Token::Word(word)
                };
                tokens.push((token, line, start));
            }
            _ if b"{}()[]<>,;:@!+-|=".contains(&c) => {
                heads &= c != b';';
                tokens.push((Token::Mark(c.into()), line, at));
                at += 1;
            }
            _ => {
                let c = text[at..].chars().next().unwrap_or_default();
                return Err(PtxError::new(line, format!("character `{c}`")));
            }
        }
    }
    Ok(tokens)
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"_$%.".contains(&c)
}

/// Where the comment or the quoted text ends that begins at `at`.
fn skip(bytes: &[u8], at: usize, line: &mut u32) -> Result<usize> {
    let (begin, end): (_, &[u8]) = match bytes[at..] {
        [b'"', ..] => (1, b"\""),
        [_, b'*', ..] => (2, b"*/"),
        // The end of a line is a token's, which counts it.
        _ => {
            let len = bytes[at..].iter().position(|c| *c == b'\n');
            return Ok(len.map_or(bytes.len(), |len| at + len));
        }
    };
    let rest = &bytes[at + begin..];
    let len = rest.windows(end.len()).position(|part| part == end);
    let len = len.ok_or_else(|| PtxError::new(*line, "a comment or a quote without its end"))?;
    *line += rest[..len].iter().filter(|c| **c == b'\n').count() as u32;
    Ok(at + begin + len + end.len())
}

/// Where the body of a function ends: after the brace that closes it.
fn body(bytes: &[u8], mut at: usize, line: &mut u32) -> Result<usize> {
    let (first, mut depth) = (*line, 1);
    while let Some(c) = bytes.get(at) {
        match c {
            b'\n' => *line += 1,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'"' => {
                at = skip(bytes, at, line)?;
                continue;
            }
            b'/' if matches!(bytes.get(at + 1), Some(b'/' | b'*')) => {
                at = skip(bytes, at, line)?;
                continue;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(PtxError::new(first, "a function without its end"))
}

/// The statements of a body that begin with a directive, each with the line it begins in.
pub fn statements_of<'a>(
    text: &'a str,
    directive: &str,
    mut line: u32,
) -> Result<Vec<(&'a str, u32)>> {
    let bytes = text.as_bytes();
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => line += 1,
            b'"' => {
                at = skip(bytes, at, &mut line)?;
                continue;
            }
            b'/' if matches!(bytes.get(at + 1), Some(b'/' | b'*')) => {
                at = skip(bytes, at, &mut line)?;
                continue;
            }
            // `ld.shared` is one word.
            b'.' if (at == 0 || !is_word(bytes[at - 1])) && text[at..].starts_with(directive) => {
                let len = bytes[at..].iter().position(|c| *c == b';').unwrap_or(0) + 1;
                found.push((&text[at..at + len], line));
            }
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

fn number(word: &str) -> Option<Literal> {
    let lower = word.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0f") {
        return u32::from_str_radix(digits, 16).ok().map(Literal::Single);
    }
    if let Some(digits) = lower.strip_prefix("0d") {
        return u64::from_str_radix(digits, 16).ok().map(Literal::Double);
    }
    if lower.contains('.') {
        return lower.parse::<f64>().ok().map(|x| Literal::Double(x.to_bits()));
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let parse = |digits, radix| i128::from_str_radix(digits, radix).ok().map(Literal::Integer);
    match digits.as_bytes() {
        [b'0', b'x', ..] => parse(&digits[2..], 16),
        [b'0', b'b', ..] => parse(&digits[2..], 2),
        [b'0', _, ..] => parse(&digits[1..], 8),
        _ => parse(digits, 10),
    }
}
