//! Mutants of PTX: one line of one kernel changed.

use crate::mutant::{Change, Mutant, flip};
use crate::random::Random;
use crate::slice::{self, Flow};

/// The text of a file, cut into what all kernels share and the kernels.
pub struct Text<'a> {
    preamble: &'a str,
    kernels: Vec<(&'a str, &'a str)>,
}

const ENTRY: &str = ".visible .entry ";

impl<'a> Text<'a> {
    pub fn cut(text: &'a str) -> Self {
        let mut starts: Vec<usize> = text.match_indices(ENTRY).map(|(at, _)| at).collect();
        let preamble = &text[..starts.first().copied().unwrap_or(text.len())];
        starts.push(text.len());
        let kernel = |pair: &[usize]| {
            let body = &text[pair[0]..pair[1]];
            let name = body[ENTRY.len()..].split('(').next().unwrap_or_default();
            (name.trim(), body)
        };
        Self { preamble, kernels: starts.windows(2).map(kernel).collect() }
    }

    pub fn names(&self) -> Vec<&'a str> {
        self.kernels.iter().map(|(name, _)| *name).collect()
    }

    /// Lines before the kernel in such a file.
    pub fn before(&self) -> u64 {
        self.preamble.lines().count() as u64
    }

    /// A file with one kernel in it, with the given change.
    pub fn with(&self, name: &str, change: Option<(usize, &str)>) -> String {
        let body = self.body(name);
        let mut out = self.preamble.to_string();
        for (i, line) in body.lines().enumerate() {
            out.push_str(change.filter(|(at, _)| *at == i).map_or(line, |(_, with)| with));
            out.push('\n');
        }
        out
    }

    fn body(&self, name: &str) -> &'a str {
        self.kernels.iter().find(|(n, _)| *n == name).map_or("", |(_, body)| body)
    }

    /// All mutants of a kernel.
    pub fn mutants(&self, name: &str) -> Vec<Mutant> {
        let mut list = Vec::new();
        let lines: Vec<&str> = self.body(name).lines().map(str::trim).collect();
        let flows: Vec<Flow> = lines.iter().map(|line| flow(line)).collect();
        let addresses = slice::addresses(&flows);
        for (i, text) in lines.into_iter().enumerate() {
            if !text.ends_with(';') || text.starts_with('.') || text.starts_with("//") {
                continue;
            }
            let mut random = Random::of(text, i as u64);
            for (operator, with) in changes(text, addresses[i], &mut random) {
                let place = text.split_whitespace().collect::<Vec<_>>().join(" ");
                list.push(Mutant { operator, place, change: Change::Line(i, with) });
            }
        }
        list
    }
}

/// Registers in a piece of text.
fn registers(text: &str) -> Vec<String> {
    let name = |c: char| c.is_alphanumeric() || c == '%';
    text.split(|c| !name(c)).filter(|w| w.starts_with('%')).map(str::to_string).collect()
}

/// What a line does with registers.
fn flow(text: &str) -> Flow {
    let rest = match text.starts_with('@') {
        true => text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim()),
        false => text,
    };
    let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let kind = name.split('.').next().unwrap_or_default();
    let operands = split(operands.trim_end_matches(';'));
    let in_brackets = operands.iter().filter(|o| o.starts_with('['));
    let stores = matches!(kind, "st" | "red" | "cp" | "bra" | "bar");
    Flow {
        writes: if stores { Vec::new() } else { registers(&operands[0]) },
        reads: operands[1..].iter().flat_map(|o| registers(o)).collect(),
        addresses: in_brackets.flat_map(|o| registers(o)).collect(),
        arithmetic: matches!(
            kind,
            "add" | "sub" | "mul" | "mad" | "shl" | "shr" | "and" | "or" | "cvt" | "cvta" | "mov"
        ),
    }
}

/// What an instruction can become; `address` if it computes one.
fn changes(text: &str, address: bool, random: &mut Random) -> Vec<(&'static str, String)> {
    let (guard, rest) = match text.strip_prefix('@') {
        Some(_) => text.split_once(char::is_whitespace).unwrap_or(("", text)),
        None => ("", text),
    };
    let rest = rest.trim().trim_end_matches(';');
    let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let operands = split(operands);
    let parts: Vec<&str> = name.split('.').collect();
    let again =
        |name: &str, operands: &[String]| format!("{guard} {name} {};", operands.join(", "));
    let mut out = Vec::new();
    if let Some(predicate) = guard.strip_prefix('@') {
        let other = predicate.strip_prefix('!').map_or(format!("!{predicate}"), str::to_string);
        out.push(("negate", format!("@{other} {rest};")));
    }
    let drop = match (parts[0], name) {
        ("bar" | "barrier", _) => Some("drop-barrier"),
        ("fence" | "membar", _) => Some("drop-fence"),
        (_, n) if n.starts_with("cp.async.wait") => Some("drop-wait"),
        (_, n) if n.starts_with("cp.async.commit") => Some("drop-commit"),
        (_, n) if n.starts_with("cp.async") => Some("drop-copy"),
        _ => None,
    };
    out.extend(drop.map(|operator| (operator, String::new())));
    if name.starts_with("cp.async.wait_group") {
        let more = operands[0].parse().map_or(9, |n: u32| n + 1);
        out.push(("widen-wait", again(name, &[more.to_string()])));
    }
    if name.contains(".trans") {
        out.push(("drop-trans", again(&name.replace(".trans", ""), &operands)));
    }
    let swapped = |a: usize, b: usize| {
        let mut operands = operands.clone();
        operands.swap(a, b);
        (operands[a] != operands[b]).then(|| ("swap", again(name, &operands)))
    };
    match parts[0] {
        "mma" => out.extend(matrix(&operands).map(|o| ("swap", again(name, &o)))),
        "fma" | "mad" => out.extend(swapped(2, 3)),
        "sub" | "shl" | "shr" | "div" | "selp" if operands.len() > 2 => out.extend(swapped(1, 2)),
        "setp" if !matches!(parts[1], "eq" | "ne") => out.extend(swapped(1, 2)),
        _ => {}
    }
    if matches!(parts[0], "ld" | "st" | "ldmatrix" | "red" | "atom") {
        let by = if random.below(2) == 0 { 4 } else { 16 };
        let at = operands.iter().position(|o| o.starts_with('['));
        if let Some(at) = at {
            let mut operands = operands.clone();
            operands[at] = moved(&operands[at], by);
            out.push(("offset", again(name, &operands)));
        }
    }
    let integer = parts.last().is_some_and(|ty| ty.starts_with(['s', 'u', 'b']));
    let arithmetic = matches!(parts[0], "add" | "sub" | "mul" | "mad" | "shl" | "shr" | "and");
    if integer && arithmetic && address {
        let last = operands.len() - 1;
        if let Ok(n) = operands[last].parse::<i64>() {
            let mut operands = operands.clone();
            operands[last] =
                flip(n, parts[0].starts_with("sh"), parts[0] == "and", random).to_string();
            out.push(("flip", again(name, &operands)));
        }
    }
    out.extend(plain(guard, &parts, &operands).map(|with| ("plain-atomic", with)));
    out
}

/// Operands, at the commas outside brackets and braces.
fn split(text: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        depth += i32::from("[{".contains(c)) - i32::from("]}".contains(c));
        match (c, depth) {
            (',', 0) => out.push(String::new()),
            _ => out.last_mut().expect("one at least").push(c),
        }
    }
    out.iter().map(|o| o.trim().to_string()).collect()
}

/// A matrix product with two registers of A exchanged.
fn matrix(operands: &[String]) -> Option<Vec<String>> {
    let mut operands = operands.to_vec();
    let mut a = split(operands[1].trim_matches(['{', '}']));
    if a.len() < 2 || a[0] == a[1] {
        return None;
    }
    a.swap(0, 1);
    operands[1] = format!("{{{}}}", a.join(", "));
    Some(operands)
}

/// An address with its offset changed.
fn moved(address: &str, by: i64) -> String {
    let inner = address.trim_matches(['[', ']']);
    let (base, offset) = inner.rsplit_once('+').unwrap_or((inner, "0"));
    let offset = offset.trim().parse().unwrap_or(0) + by;
    format!("[{base}+{offset}]")
}

/// A sum by an atomic operation as a load, an addition and a store.
fn plain(guard: &str, parts: &[&str], operands: &[String]) -> Option<String> {
    let (to, address, value) = match parts[0] {
        "atom" => (operands[0].clone(), &operands[1], &operands[2]),
        "red" => ("%mutant".into(), &operands[0], &operands[1]),
        _ => return None,
    };
    let (space, ty) = (parts.iter().find(|p| matches!(**p, "global" | "shared")), parts.last()?);
    let space = space.map_or(String::new(), |space| format!(".{space}"));
    let bits = if ty.ends_with("64") { "b64" } else { "b32" };
    let declared = if parts[0] == "red" { format!(".reg .{bits} %mutant;") } else { String::new() };
    Some(format!(
        "{declared} {guard} ld{space}.{bits} {to}, {address}; {guard} add.{ty} {to}, {to}, {value}; \
         {guard} st{space}.{bits} {address}, {to};"
    ))
}
