//! What is known on a path through a kernel's code, by which branches that it cannot take are told.

use std::collections::BTreeMap;

use super::decode::{EXEC, Operand, VCC};
use super::exec::{Action, Condition};
use super::isa::Format;
use super::program::Step;
use super::running::Running;
use super::values::{Kinds, Values, changes};

/// A comparison of a scalar register with a constant: its name, the register, the constant.
pub type Comparison = (&'static str, u8, u64);

/// A lane mask that has all lanes or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mask {
    Constant(bool),
    /// All if the comparison came out as the second says.
    Outcome(Comparison, bool),
}

/// What a program's branches ask.
#[derive(Debug, Default)]
pub struct Asked {
    /// How often each comparison is made: only what is asked again is worth remembering.
    often: BTreeMap<Comparison, u32>,
    kinds: Kinds,
}

impl Asked {
    /// Of all of a program's comparisons.
    pub fn by(comparisons: impl Iterator<Item = Comparison> + Clone) -> Self {
        let mut often = BTreeMap::new();
        comparisons.clone().for_each(|comparison| *often.entry(comparison).or_default() += 1);
        Self { often, kinds: Kinds::of(comparisons) }
    }
}

/// What a path knows: how comparisons came out, which one is in SCC, masks by their first register, and
/// whether any lane runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facts {
    known: BTreeMap<Comparison, bool>,
    scc: Option<Comparison>,
    masks: BTreeMap<u8, Mask>,
    values: Values,
    running: Running,
}

impl Facts {
    /// Where a kernel begins: lanes run.
    pub fn start() -> Self {
        Self { running: Running::start(), ..Self::default() }
    }

    /// What is still known after an instruction.
    pub fn after(&mut self, step: &Step) {
        let i = &step.instruction;
        let mask = self.mask(step);
        for (operand, words) in [(i.dst, i.dst_type.words()), (i.mask, 2)] {
            let Operand::Scalar(n) = operand else { continue };
            let written = |register: u8| (n..n + words).contains(&register);
            self.known.retain(|comparison, _| !changes(comparison, written));
            self.values.forget(written);
            self.scc = self.scc.filter(|comparison| !changes(comparison, written));
            self.masks.retain(|first, mask| {
                let of_it = matches!(mask, Mask::Outcome(c, _) if changes(c, written));
                !(written(*first) || written(*first + 1) || of_it)
            });
        }
        // Comparisons of vectors write vcc without naming it.
        if i.name.starts_with("v_") {
            self.masks.remove(&VCC);
        }
        if let (Operand::Scalar(n), Some(mask)) = (i.dst, mask) {
            self.masks.insert(n, mask);
        }
        self.running.after(step);
        if matches!(step.action, Action::Scalar(_)) && !i.name.starts_with("s_mov") {
            self.scc = comparison(step);
        }
    }

    /// The mask that an instruction makes, if it has all lanes, or all that run, or none.
    fn mask(&self, step: &Step) -> Option<Mask> {
        let i = &step.instruction;
        let all = |n: usize, bits: u64| matches!(i.src[n].operand, Operand::Constant { bits: b, .. } if b == bits);
        let exec = matches!(i.src[0].operand, Operand::Scalar(EXEC));
        let second = match i.src[1].operand {
            Operand::Scalar(n) => self.masks.get(&n).copied(),
            _ => None,
        };
        match i.name {
            "s_mov_b64" if all(0, 0) => Some(Mask::Constant(false)),
            "s_mov_b64" if all(0, u64::MAX) => Some(Mask::Constant(true)),
            "s_cselect_b64" if all(0, u64::MAX) && all(1, 0) => {
                Some(Mask::Outcome(self.scc?, true))
            }
            "s_cselect_b64" if all(0, 0) && all(1, u64::MAX) => {
                Some(Mask::Outcome(self.scc?, false))
            }
            "s_and_b64" if exec => second,
            "s_andn2_b64" if exec => Some(match second? {
                Mask::Constant(truth) => Mask::Constant(!truth),
                Mask::Outcome(comparison, truth) => Mask::Outcome(comparison, !truth),
            }),
            _ => None,
        }
    }

    /// Whether a branch can go this way; what is known then is added.
    pub fn goes(&mut self, condition: Condition, taken: bool, asked: &Asked) -> bool {
        let mask = match condition {
            Condition::Always => return taken,
            Condition::Exec(some) => {
                let runs = taken == some;
                let possible = runs || !self.running.runs();
                self.running.told(runs);
                return possible;
            }
            Condition::Scc(wanted) => self.scc.map(|c| Mask::Outcome(c, taken == wanted)),
            // Of no lanes that run, no mask has any.
            Condition::Vcc(_) if !self.running.runs() => None,
            Condition::Vcc(some) => match self.masks.get(&VCC) {
                Some(Mask::Outcome(c, truth)) => Some(Mask::Outcome(*c, *truth == (taken == some))),
                Some(Mask::Constant(truth)) => return *truth == (taken == some),
                None => None,
            },
        };
        let Some(Mask::Outcome(comparison, truth)) = mask else { return true };
        if let Some(possible) = self.values.told(&comparison, truth, &asked.kinds) {
            return possible;
        }
        if let Some(known) = self.known.get(&comparison) {
            return *known == truth;
        }
        if asked.often.get(&comparison).is_some_and(|n| *n > 1) {
            self.known.insert(comparison, truth);
        }
        true
    }
}

/// The comparison that an instruction is.
pub fn comparison(step: &Step) -> Option<Comparison> {
    let i = &step.instruction;
    match (i.format, i.src[0].operand, i.src[1].operand) {
        (Format::Sopc, Operand::Scalar(n), Operand::Constant { bits, .. }) => {
            Some((i.name, n, bits))
        }
        _ => None,
    }
}
