//! One kernel of one file, run on its cases with or without a change.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use halfstep_vgpu::gfx::{self, CodeObject, Outstanding};
use halfstep_vgpu::launch::{Checks, Report};
use halfstep_vgpu::memory::GlobalMemory;
use halfstep_vgpu::ptx::{self, Module};

use crate::cases::{Case, of};
use crate::mutant::{Change, Mutant};
use crate::ptx::Text;

/// A file that a compiler made.
pub enum Image {
    Ptx(String),
    Gfx(CodeObject),
}

/// What a run gave: all of memory, and how many instructions it took.
struct Outcome {
    memory: Vec<Vec<u8>>,
    executed: u64,
    /// Places of instructions that were executed.
    reached: HashSet<u64>,
}

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Survived,
    /// Other results.
    Result,
    /// A check fired.
    Finding,
    /// It cannot be read or run, or does not end.
    Error,
}

impl Image {
    pub fn read(path: &std::path::Path) -> Result<Self, String> {
        let data = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        match String::from_utf8(data) {
            Ok(text) if text.contains(".address_size") => Ok(Self::Ptx(text)),
            Ok(_) => Err(format!("{}: not PTX", path.display())),
            Err(other) => CodeObject::parse(other.as_bytes())
                .map(Self::Gfx)
                .map_err(|e| format!("{}: {e}", path.display())),
        }
    }

    pub fn vendor(&self) -> &'static str {
        match self {
            Self::Ptx(_) => "ptx",
            Self::Gfx(_) => "gfx90a",
        }
    }

    pub fn kernels(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Ptx(text) => Ok(Text::cut(text).names().iter().map(|n| n.to_string()).collect()),
            Self::Gfx(object) => {
                let loaded = object.clone().load(&mut GlobalMemory::new());
                let loaded = loaded.map_err(|e| e.to_string())?;
                Ok(loaded.kernels().map(str::to_string).collect())
            }
        }
    }

    pub fn mutants(&self, kernel: &str) -> Result<Vec<Mutant>, String> {
        match self {
            Self::Ptx(text) => Ok(Text::cut(text).mutants(kernel)),
            Self::Gfx(object) => {
                let loaded = object.clone().load(&mut GlobalMemory::new());
                let program = loaded.and_then(|l| l.program(kernel)).map_err(|e| e.to_string())?;
                let code: Vec<_> = program.disassembly().collect();
                Ok(crate::gfx::mutants(object, &code))
            }
        }
    }

    /// What can be on its way in a kernel with or without a change, of gfx90a.
    fn outstanding(&self, kernel: &str, change: Option<&Change>) -> Option<Outstanding> {
        let Changed::Gfx(object) = self.changed(kernel, change).ok()? else { return None };
        object.load(&mut GlobalMemory::new()).ok()?.program(kernel).ok()?.outstanding()
    }

    /// The file with one change, as far as one kernel needs it.
    fn changed(&self, kernel: &str, change: Option<&Change>) -> Result<Changed, String> {
        match self {
            Self::Ptx(text) => {
                let change = match change {
                    Some(Change::Line(at, with)) => Some((*at, with.as_str())),
                    _ => None,
                };
                let text = Text::cut(text).with(kernel, change);
                Module::parse(&text).map(Changed::Ptx).map_err(|e| e.to_string())
            }
            Self::Gfx(object) => {
                let mut object = object.clone();
                if let Some(Change::Words(words)) = change {
                    words.iter().for_each(|(at, word)| object.patch(*at, *word));
                }
                Ok(Changed::Gfx(Box::new(object)))
            }
        }
    }
}

/// A file with one change.
enum Changed {
    Ptx(Arc<Module>),
    Gfx(Box<CodeObject>),
}

impl Changed {
    /// One launch. Inputs come first in memory, so that no change of the code moves them.
    fn run(
        &self,
        kernel: &str,
        case: &Case,
        checks: Checks,
    ) -> Result<(Report, GlobalMemory, usize), String> {
        let mut memory = GlobalMemory::new();
        case.place(&mut memory);
        let inputs = memory.allocations().len();
        let report = match self {
            Self::Ptx(module) => {
                let loaded = module.clone().load(&mut memory);
                let program = loaded.and_then(|m| m.program(kernel)).map_err(|e| e.to_string())?;
                ptx::launch(&program, case.grid, &case.params, &mut memory, checks)
                    .map_err(|e| e.to_string())?
            }
            Self::Gfx(object) => {
                let loaded = (**object).clone().load(&mut memory);
                let program = loaded.and_then(|l| l.program(kernel)).map_err(|e| e.to_string())?;
                gfx::launch(&program, case.grid, &case.params, &mut memory, checks)
                    .map_err(|e| e.to_string())?
            }
        };
        Ok((report, memory, inputs))
    }
}

/// A kernel with its cases, and what it does on each.
pub struct Subject<'a> {
    image: &'a Image,
    kernel: &'a str,
    cases: Vec<(Case, Outcome)>,
    /// Lines before the kernel's own, which its mutants count from.
    before: u64,
    /// What its waits leave on its way.
    outstanding: Option<Outstanding>,
}

impl<'a> Subject<'a> {
    /// Runs the kernel as it is: a finding or an error here is not a mutant's.
    pub fn new(image: &'a Image, kernel: &'a str) -> Result<Self, String> {
        let mut cases = Vec::new();
        let unchanged = image.changed(kernel, None)?;
        for case in of(kernel, matches!(image, Image::Ptx(_))) {
            let run = unchanged.run(kernel, &case, Checks::default());
            let (report, memory, inputs) = run.map_err(|e| format!("case {}: {e}", cases.len()))?;
            if let Some(finding) = report.findings.first() {
                return Err(format!("case {}: {finding}", cases.len()));
            }
            let executed = report.counters.instructions().map(|(_, n)| n).sum();
            let reached = report.reached.into_iter().collect();
            let outcome = Outcome { memory: contents(memory, inputs), executed, reached };
            cases.push((case, outcome));
        }
        let before = match image {
            Image::Ptx(text) => Text::cut(text).before(),
            Image::Gfx(_) => 0,
        };
        let outstanding = image.outstanding(kernel, None);
        for (i, (_, outcome)) in cases.iter().enumerate() {
            let known =
                |address: &u64| outstanding.as_ref().is_none_or(|all| all.reaches(*address));
            if let Some(address) = outcome.reached.iter().filter(|a| !known(a)).min() {
                return Err(format!(
                    "case {i}: {address:x} is executed, and on no path that proofs follow"
                ));
            }
        }
        Ok(Self { image, kernel, cases, before, outstanding })
    }

    pub fn cases(&self) -> usize {
        self.cases.len()
    }

    /// Why a mutant does what the kernel does, whatever it is run on, if the code's text shows that.
    pub fn proof(&self, mutant: &Mutant) -> Option<&'static str> {
        let all = self.outstanding.as_ref()?;
        if !all.reaches(self.place(mutant)) {
            return Some("path");
        }
        match mutant.operator {
            "drop-wait" | "widen-wait" => {
                let changed = self.image.outstanding(self.kernel, Some(&mutant.change))?;
                changed.within(all).then_some("wait")
            }
            _ => None,
        }
    }

    /// Where a weaker wait may leave something on its way that is needed, if there is no proof that it does not:
    /// the first such instruction.
    pub fn suspect(&self, mutant: &Mutant) -> Option<String> {
        let (Image::Gfx(object), Some(all)) = (self.image, &self.outstanding) else { return None };
        let changed = self.image.outstanding(self.kernel, Some(&mutant.change))?;
        let pc = changed.beyond(all).next()?;
        let loaded = object.clone().load(&mut GlobalMemory::new()).ok()?;
        let (address, text) = loaded.program(self.kernel).ok()?.disassembly().nth(pc)?;
        Some(format!("{address:x}: {text}"))
    }

    /// The cases that come to a mutant's place.
    pub fn reaching(&self, mutant: &Mutant) -> Vec<usize> {
        let place = self.place(mutant);
        let cases = self.cases.iter().enumerate();
        cases.filter(|(_, (_, all))| all.reached.contains(&place)).map(|(i, _)| i).collect()
    }

    /// A mutant's place as a report has it.
    fn place(&self, mutant: &Mutant) -> u64 {
        match &mutant.change {
            Change::Line(line, _) => self.before + *line as u64 + 1,
            Change::Words(words) => words[0].0,
        }
    }

    /// What becomes of mutants, in their order: on every core that there is.
    pub fn fates(&self, mutants: &[Mutant]) -> Vec<Fate> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut mine = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(mutant) = mutants.get(i) else { return mine };
                mine.push((i, self.fate(mutant)));
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut all: Vec<(usize, Fate)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let results = threads.into_iter().map(|t| t.join().expect("panics are caught"));
            results.flatten().collect()
        });
        all.sort_unstable_by_key(|(i, _)| *i);
        all.into_iter().map(|(_, fate)| fate).collect()
    }

    /// Runs a mutant on case after case until one shows a difference.
    pub fn fate(&self, mutant: &Mutant) -> Fate {
        let reaching = self.reaching(mutant);
        if reaching.is_empty() {
            return Fate::Survived;
        }
        let Ok(changed) = self.image.changed(self.kernel, Some(&mutant.change)) else {
            return Fate::Error;
        };
        for (case, wanted) in reaching.iter().map(|i| &self.cases[*i]) {
            let checks =
                Checks { max_instructions: 3 * wanted.executed + 10_000, ..Checks::default() };
            let run = || changed.run(self.kernel, case, checks);
            // What stops the interpreter is found, too; its text would be in the way.
            match catch_unwind(AssertUnwindSafe(run)) {
                Err(_) | Ok(Err(_)) => return Fate::Error,
                Ok(Ok((report, _, _))) if !report.findings.is_empty() => return Fate::Finding,
                Ok(Ok((_, memory, inputs))) => {
                    if contents(memory, inputs) != wanted.memory {
                        return Fate::Result;
                    }
                }
            }
        }
        Fate::Survived
    }
}

/// What is in memory, the image not counted.
fn contents(mut memory: GlobalMemory, inputs: usize) -> Vec<Vec<u8>> {
    let places: Vec<(u64, u64)> =
        memory.allocations()[..inputs].iter().map(|a| (a.base, a.len)).collect();
    places.into_iter().map(|(at, len)| memory.read(at, len).unwrap_or_default()).collect()
}
