//! `--ranks`: `1..4096`, `4,8,3664`, `64`; `--baseline`: one of them.

use std::str::FromStr;

/// Numbers of ranks, ascending, each once.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks(Vec<usize>);

/// More than any machine has.
const MOST: usize = 1_000_000;

impl Ranks {
    pub fn list(&self) -> &[usize] {
        &self.0
    }
}

/// One number of ranks.
pub fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(ranks) if (1..=MOST).contains(&ranks) => Ok(ranks),
        _ => Err(format!("expected 1 to {MOST} ranks, found {text:?}")),
    }
}

impl FromStr for Ranks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text| count(text).map_err(|error| error + "; as in 1..4096 or 4,8,16");
        let mut list = match text.split_once("..") {
            Some((from, to)) => {
                let (from, to) = (number(from)?, number(to.trim_start_matches('='))?);
                if from > to {
                    return Err(format!("{from}..{to} is empty"));
                }
                let doubled = std::iter::successors(Some(1usize), |n| Some(2 * n));
                let between = doubled.skip_while(|&n| n < from).take_while(|&n| n <= to);
                between.chain([from, to]).collect()
            }
            None => text.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
        };
        list.sort_unstable();
        list.dedup();
        Ok(Self(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_powers_of_two_with_both_ends() {
        let list = |text: &str| text.parse::<Ranks>().unwrap().0;
        assert_eq!(list("1..8"), [1, 2, 4, 8]);
        assert_eq!(list("3..12"), [3, 4, 8, 12]);
        assert_eq!(list("64..64"), [64]);
        assert_eq!(list("1..=3"), [1, 2, 3]);
        assert_eq!(list("8, 4,8"), [4, 8]);
        for bad in [
            "",
            "0",
            "0..4",
            "8..4",
            "x",
            "1..",
            "..",
            "-1",
            "4,,8",
            "2000000",
            "1..99999999999999999999",
        ] {
            assert!(bad.parse::<Ranks>().is_err(), "{bad}");
        }
    }
}
