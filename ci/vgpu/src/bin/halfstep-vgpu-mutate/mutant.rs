//! What is changed, whatever it is changed in.

use crate::random::Random;

/// One change of one kernel.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// What kind of change.
    pub operator: &'static str,
    /// The instruction as it was.
    pub place: String,
    pub change: Change,
}

/// The change itself.
#[derive(Debug, Clone)]
pub enum Change {
    /// A line of a kernel's text.
    Line(usize, String),
    /// Words of the image, by their addresses.
    Words(Vec<(u64, u32)>),
}

/// A constant with one bit changed that counts: of a shift's amount one of five, of a mask one that is
/// set, of a number one of the lowest twelve.
pub fn flip(n: i64, shift: bool, mask: bool, random: &mut Random) -> i64 {
    if shift {
        return n ^ 1 << random.below(5);
    }
    if mask && n != 0 {
        let set: Vec<i64> = (0..64).filter(|bit| n >> bit & 1 == 1).collect();
        return n ^ 1 << set[random.below(set.len() as u64) as usize];
    }
    n ^ 1 << random.below(12)
}

/// At most `most` mutants of each operator, chosen by what they are and not by where they stand, and the
/// proofs of those that came before them and are proved to change nothing. Of those that look alike, all
/// but the first get a number.
pub fn sample(
    all: Vec<Mutant>,
    kernel: &str,
    most: usize,
    seed: u64,
    proof: impl Fn(&Mutant) -> Option<&'static str>,
) -> (Vec<Mutant>, Vec<(Mutant, &'static str)>) {
    let mut keyed: Vec<(u64, Mutant)> = Vec::new();
    let mut seen = std::collections::HashMap::<String, u32>::new();
    for mut mutant in all {
        let text = format!("{} {}", mutant.operator, mutant.place);
        let repeat = seen.entry(text).or_default();
        *repeat += 1;
        if *repeat > 1 {
            mutant.place = format!("{} #{repeat}", mutant.place);
        }
        let text = format!("{kernel} {} {}", mutant.operator, mutant.place);
        keyed.push((Random::of(&text, seed).next(), mutant));
    }
    keyed.sort_by_key(|(key, mutant)| (mutant.operator, *key));
    let (mut out, mut proved): (Vec<Mutant>, Vec<_>) = (Vec::new(), Vec::new());
    for (_, mutant) in keyed {
        let same = out.iter().rev().take_while(|m| m.operator == mutant.operator).count();
        if same >= most {
            continue;
        }
        match proof(&mutant) {
            Some(name) => proved.push((mutant, name)),
            None => out.push(mutant),
        }
    }
    (out, proved)
}
