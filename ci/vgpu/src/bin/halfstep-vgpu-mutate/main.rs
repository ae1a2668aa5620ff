//! `halfstep-vgpu-mutate`: breaks compiled kernels in one place after the other, and counts how often
//! the virtual GPU notices.
//!
//! A mutant is killed if its results differ from those of the kernel as it was compiled, if a check
//! fires, or if it cannot be run to its end. That kernels give the right results is shown elsewhere.

mod accept;
mod cases;
mod gfx;
mod image;
mod mutant;
mod ptx;
mod random;
mod slice;

/// This program's form of the macro with which the crate declares parameter blocks.
macro_rules! block {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }
        impl crate::cases::Plain for $name {
            fn bytes(&self) -> Vec<u8> {
                [$(crate::cases::Plain::bytes(&self.$field)),*].concat()
            }
        }
    };
}

#[path = "../../../../../src/kernel/params/mod.rs"]
#[allow(dead_code)]
mod params;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use accept::Entry;
use image::{Fate, Image, Subject};

/// Mutants of each kind and kernel, from which `ci/vgpu/mutate.txt` is made.
const SAMPLE: usize = 5;

/// Breaks kernels and counts how often that is noticed.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    /// `.ptx` files and code objects for gfx90a.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Survivors that are known, with reasons.
    #[arg(long)]
    accept: Option<PathBuf>,
    /// Only kernels whose name has this in it.
    #[arg(long, default_value = "")]
    kernel: String,
    /// Mutants of each kind and kernel.
    #[arg(long, default_value_t = SAMPLE)]
    sample: usize,
    /// All mutants.
    #[arg(long)]
    all: bool,
    /// What the sample is drawn from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Runs those that are proved equivalent, too: a difference is an error.
    #[arg(long)]
    check_proofs: bool,
    /// Percent of each vendor's that have to be killed.
    #[arg(long, default_value_t = 95.0)]
    least: f64,
}

impl Program {
    /// Whether every line of the list of survivors has its mutant among those that are run: of a part of them nobody
    /// can say that a line has become wrong.
    fn is_whole(&self) -> bool {
        self.kernel.is_empty() && !self.all && self.seed == 0 && self.sample >= SAMPLE
    }
}

fn main() -> ExitCode {
    match run(&Program::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Counts, of a kernel, an operator, an op or a vendor.
#[derive(Default)]
struct Count {
    total: u32,
    killed: u32,
    /// Survivors that compute the same whatever a plan gives them.
    same: u32,
}

impl Count {
    fn share(&self) -> f64 {
        100.0 * f64::from(self.killed) / f64::from(self.total.max(1))
    }

    /// Of those that can be killed.
    fn share_of_others(&self) -> f64 {
        100.0 * f64::from(self.killed) / f64::from((self.total - self.same).max(1))
    }
}

fn run(program: &Program) -> Result<bool, String> {
    // A mutant that stops the interpreter itself is one that was found.
    std::panic::set_hook(Box::new(|_| ()));
    let mut accepted = match &program.accept {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|e| format!("{}: {e}", path.display()))?;
            accept::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?
        }
        None => Vec::new(),
    };
    let (mut unlisted, mut uncovered) = (Vec::new(), Vec::new());
    let mut by_vendor: BTreeMap<&str, Count> = BTreeMap::new();
    let mut by_operator: BTreeMap<(&str, &str), Count> = BTreeMap::new();
    let mut by_op: BTreeMap<(&str, String), Count> = BTreeMap::new();
    let mut equivalent: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
    for path in &program.files {
        let image = Image::read(path)?;
        let vendor = image.vendor();
        let wanted = |kernel: &&String| match program.kernel.as_str() {
            "" => program.all || cases::sampled(kernel),
            part => kernel.contains(part),
        };
        for kernel in image.kernels()?.iter().filter(wanted) {
            let named = |what: String| format!("{vendor} {kernel}: {what}");
            let subject = Subject::new(&image, kernel).map_err(named)?;
            if subject.cases() == 0 {
                uncovered.push(format!("{vendor} {kernel}"));
                continue;
            }
            let mutants = image.mutants(kernel).map_err(named)?;
            let possible = mutants.len();
            let most = if program.all { usize::MAX } else { program.sample };
            let (mut count, mut fates) = (Count::default(), BTreeMap::<Fate, u32>::new());
            let proof = |mutant: &mutant::Mutant| subject.proof(mutant);
            let (mutants, proved) = mutant::sample(mutants, kernel, most, program.seed, proof);
            if program.check_proofs {
                let equal: Vec<_> = proved.iter().map(|(mutant, _)| mutant.clone()).collect();
                for ((mutant, name), fate) in proved.iter().zip(subject.fates(&equal)) {
                    if fate != Fate::Survived {
                        let place = format!("{} `{}`", mutant.operator, mutant.place);
                        return Err(named(format!("{place}: killed, but equivalent by {name}")));
                    }
                }
            }
            for (mutant, name) in &proved {
                *equivalent.entry((vendor, mutant.operator, *name)).or_default() += 1;
            }
            for (mutant, fate) in mutants.iter().zip(subject.fates(&mutants)) {
                *fates.entry(fate).or_default() += 1;
                let killed = fate != Fate::Survived;
                let operator = by_operator.entry((vendor, mutant.operator)).or_default();
                let vendors = by_vendor.entry(vendor).or_default();
                for count in [&mut count, vendors, operator] {
                    count.total += 1;
                    count.killed += u32::from(killed);
                }
                let names =
                    |e: &&mut Entry| e.names(vendor, kernel, mutant.operator, &mutant.place);
                let known = accepted.iter_mut().find(names);
                if let Some(op) = op(kernel) {
                    let count = by_op.entry((vendor, op.into())).or_default();
                    count.total += 1;
                    count.killed += u32::from(killed);
                    count.same += u32::from(!killed && known.as_ref().is_some_and(|e| e.same));
                }
                match known {
                    Some(entry) if killed => entry.killed += 1,
                    Some(entry) => entry.survived += 1,
                    None if killed => {}
                    None => unlisted.push(format!(
                        "{vendor} {kernel} {} `{}`: reached by cases {:?}, {:x?}{}",
                        mutant.operator,
                        mutant.place,
                        subject.reaching(mutant),
                        mutant.change,
                        match mutant.operator {
                            "drop-wait" | "widen-wait" => subject.suspect(mutant),
                            _ => None,
                        }
                        .map_or(String::new(), |at| format!("; needed by {at}"))
                    )),
                }
            }
            let of = |fate| fates.get(&fate).copied().unwrap_or(0);
            println!(
                "{vendor:6} {kernel:28} {:4} of {:4} killed ({} by results, {} by checks, {} by errors), {} equivalent; {possible} possible, {} cases",
                count.killed,
                count.total,
                of(Fate::Result),
                of(Fate::Finding),
                of(Fate::Error),
                proved.len(),
                subject.cases()
            );
        }
    }
    for ((vendor, operator), count) in &by_operator {
        println!("{vendor:6} {operator:14} {:4} of {:4}", count.killed, count.total);
    }
    for ((vendor, operator, proof), count) in &equivalent {
        println!("{vendor:6} {operator:14} {count:4} equivalent, proved by {proof}");
    }
    let mut few = false;
    for ((vendor, op), count) in &by_op {
        let Count { total, killed, same } = count;
        let share = count.share_of_others();
        println!(
            "{vendor:6} {op:14} {killed:4} of {total:4}, {same} the same: {share:.1} % of others"
        );
        few |= share < program.least;
    }
    // Of a vendor whose code is not there nothing is known.
    accepted.retain(|entry| by_vendor.contains_key(entry.vendor.as_str()));
    Ok(conclude(program, &by_vendor, &accepted, &unlisted, &uncovered) && !few)
}

/// The op of one of the crate's kernels.
fn op(kernel: &str) -> Option<&str> {
    kernel.strip_prefix("hs_")?.split('_').next()
}

/// Prints what counts, and says whether all is well.
fn conclude(
    program: &Program,
    by_vendor: &BTreeMap<&str, Count>,
    accepted: &[Entry],
    unlisted: &[String],
    uncovered: &[String],
) -> bool {
    for (vendor, count) in by_vendor {
        let of_it = accepted.iter().filter(|entry| entry.vendor == *vendor);
        println!(
            "{vendor}: {} of {} mutants killed: {:.1} % ({} at least); {} survivors are known",
            count.killed,
            count.total,
            count.share(),
            program.least,
            of_it.map(|entry| entry.survived).sum::<u32>()
        );
    }
    let enough = |count: &Count| count.total > 0 && count.share() >= program.least;
    unlisted.iter().for_each(|survivor| println!("survived: {survivor}"));
    uncovered.iter().for_each(|kernel| println!("no cases: {kernel}"));
    let mut stale = false;
    for entry in accepted.iter().filter(|e| program.is_whole() && e.survived == 0) {
        stale = true;
        println!("line {}: accepted, but no longer survives ({} killed)", entry.line, entry.killed);
    }
    !by_vendor.is_empty()
        && by_vendor.values().all(enough)
        && unlisted.is_empty()
        && uncovered.is_empty()
        && !stale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_judged_where_their_mutants_run() {
        let whole = |words: &[&str]| {
            Program::parse_from(["mutate", "image.ptx"].iter().chain(words)).is_whole()
        };
        assert!(whole(&[]));
        assert!(whole(&["--sample", "9"]));
        for part in [&["--sample", "4"][..], &["--seed", "1"], &["--kernel", "adam"], &["--all"]] {
            assert!(!whole(part), "{part:?}");
        }
    }
}
