//! PTX text to tokens.

use super::{PtxError, Result};

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name, register, directive or opcode with its modifiers: dots belong to it.
    Word(String),
    /// A number.
    Number(Literal),
    /// What stands between quotes.
    Text(String),
    /// One character of punctuation.
    Mark(char),
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

/// Tokens, each with its line and the character it begins at.
pub fn lex(text: &[char]) -> Result<Vec<(Token, u32, usize)>> {
    let (mut at, mut line) = (0, 1);
    let mut tokens = Vec::new();
    let word = |c: char| c.is_ascii_alphanumeric() || "_$%.".contains(c);
    while at < text.len() {
        let c = text[at];
        let next = text.get(at + 1).copied().unwrap_or(' ');
        match c {
            '\n' => {
                line += 1;
                at += 1;
            }
            _ if c.is_whitespace() => at += 1,
            '/' if next == '/' => {
                while at < text.len() && text[at] != '\n' {
                    at += 1;
                }
            }
            '/' if next == '*' => {
                while at + 1 < text.len() && (text[at], text[at + 1]) != ('*', '/') {
                    line += u32::from(text[at] == '\n');
                    at += 1;
                }
                at += 2;
            }
            '"' => {
                let len = text[at + 1..].iter().position(|c| *c == '"');
                let len = len.ok_or_else(|| PtxError::new(line, "a quote without its end"))?;
                tokens.push((Token::Text(text[at + 1..at + 1 + len].iter().collect()), line, at));
                at += len + 2;
            }
            _ if word(c) => {
                let start = at;
                while at < text.len() {
                    // `L2::128B`: two colons join, one ends a label.
                    if text[at] == ':' && text.get(at + 1) == Some(&':') {
                        at += 2;
                    } else if word(text[at]) {
                        at += 1;
                    } else {
                        break;
                    }
                }
                let word: String = text[start..at].iter().collect();
                let token =
                    if c.is_ascii_digit() {
                        let number = number(&word);
                        Token::Number(number.ok_or_else(|| {
                            PtxError::new(line, format!("`{word}` is not a number"))
                        })?)
                    } else {
                        Token::Word(word)
                    };
                tokens.push((token, line, start));
            }
            _ if "{}()[]<>,;:@!+-|=".contains(c) => {
                tokens.push((Token::Mark(c), line, at));
                at += 1;
            }
            _ => return Err(PtxError::new(line, format!("character `{c}`"))),
        }
    }
    Ok(tokens)
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
