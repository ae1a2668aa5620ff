//! SLURM's lists of hosts, written out.

#![forbid(unsafe_code)]

use crate::{Error, Result};

const OP: &str = "hosts";
/// More names than any machine has nodes: a list that stands for more is a mistake.
const MOST: usize = 1 << 20;

/// The hosts that a list in SLURM's notation stands for, in its order: `nid[001-003,7],login1` is
/// nid001, nid002, nid003, nid7, login1. Numbers have as many digits as the range's first; a name may
/// have several brackets, of which the last counts fastest.
///
/// ```
/// let hosts = halfstep::reduce::hosts("nid[001-003,7],login1")?;
/// assert_eq!(hosts, ["nid001", "nid002", "nid003", "nid7", "login1"]);
/// # Ok::<(), halfstep::Error>(())
/// ```
///
/// # Errors
/// [`Error::Range`] for a list that is not of this form, is empty, or stands for more than 2²⁰ hosts.
pub fn hosts(list: &str) -> Result<Vec<String>> {
    let bad = |expected: &str| Error::range(OP, "list", expected, format!("{list:?}"));
    let mut hosts = Vec::new();
    for name in split(list).ok_or_else(|| bad("brackets in pairs"))? {
        let mut names = vec![String::new()];
        let mut rest = name;
        while let Some((before, after)) = rest.split_once('[') {
            let (ranges, after) = after.split_once(']').ok_or_else(|| bad("brackets in pairs"))?;
            let numbers = numbers(ranges)
                .ok_or_else(|| bad("numbers and ascending ranges of them in brackets"))?;
            if names.len().saturating_mul(numbers.len()) > MOST {
                return Err(bad("at most 1048576 hosts"));
            }
            let each = |name: &String| {
                let start = format!("{name}{before}");
                numbers.iter().map(|number| format!("{start}{number}")).collect::<Vec<_>>()
            };
            names = names.iter().flat_map(each).collect();
            rest = after;
        }
        names.iter_mut().for_each(|name| name.push_str(rest));
        let valid = |name: &String| {
            let good = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
            !name.is_empty() && name.chars().all(good)
        };
        if !names.iter().all(valid) {
            return Err(bad("names of hosts with commas between them"));
        }
        hosts.extend(names);
        if hosts.len() > MOST {
            return Err(bad("at most 1048576 hosts"));
        }
    }
    Ok(hosts)
}

/// Cuts at commas outside brackets; `None` if those are not in pairs.
fn split(list: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in list.bytes().enumerate() {
        match (byte, inside) {
            (b'[', false) => inside = true,
            (b']', true) => inside = false,
            (b'[', true) | (b']', false) => return None,
            (b',', false) => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    (!inside).then_some(parts)
}

/// `001-003,7`: 001, 002, 003, 7.
fn numbers(ranges: &str) -> Option<Vec<String>> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if !digits(first) || !digits(last) {
            return None;
        }
        let (low, high): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        // Of a range too long only so much is made as shows that it is.
        let high = high.min(low.saturating_add(MOST as u64));
        if high < low || numbers.len() > MOST {
            return None;
        }
        let width = first.len();
        numbers.extend((low..=high).map(|number| format!("{number:0width$}")));
    }
    Some(numbers)
}
