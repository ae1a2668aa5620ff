//! One case of the suite on one thread, so many times, and nothing else: what `ci/instructions` counts the instructions
//! of. Without arguments it lists the cases that are guarded.

mod suite;
mod workloads;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::Device;
use suite::{Entry, Failure};
use workloads::Shape;

/// Elements of arrays: a step of an optimizer takes some hundred thousand instructions.
const LEN: usize = 100_000;

/// Of products: two million multiply-adds, with tails in every direction.
const SHAPE: Shape = Shape { name: "", rows: 101, input: 149, output: 137 };

/// Products of one small shape, and everything on arrays. Ranks are threads, which wait for each other as it comes.
fn guarded() -> Vec<Entry> {
    let mut entries = Vec::new();
    suite::products(&mut entries, SHAPE);
    entries.extend(suite::entries(&["optim", "convert"], LEN, &[]));
    entries
}

fn run(label: &str, calls: usize) -> Result<(), Failure> {
    let entry = guarded().into_iter().find(|entry| entry.label() == label);
    let entry = entry.ok_or_else(|| format!("no case {label:?}"))?;
    let mut case = (entry.make)(&Device::cpu_with_threads(NonZeroUsize::MIN))?;
    for call in 0..=calls {
        case.run()?;
        case.wait()?;
        if call == 0 {
            case.check()?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let asked = match words.as_slice() {
        // (Not an option of criterion's, which `cargo bench` passes to all.)
        [label, calls] if !label.starts_with('-') => calls.parse().ok().map(|calls| (label, calls)),
        _ => None,
    };
    let Some((label, calls)) = asked else {
        guarded().iter().for_each(|entry| println!("{}", entry.label()));
        return ExitCode::SUCCESS;
    };
    match run(label, calls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
