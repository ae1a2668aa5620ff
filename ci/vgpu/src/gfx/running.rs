//! Which lane masks are known to have lanes: alone, or one of two.
//!
//! Where code branches by lane, exec is saved, cut into those that go one way and those that go the other, and put
//! together again: that lanes run behind it follows from identities of sets, not of what the masks are.

use std::collections::BTreeSet;

use super::decode::{EXEC, Operand, VCC};
use super::program::Step;

/// Pairs of masks, by their first registers, of which one at least has lanes; a pair of the same, if it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running(BTreeSet<(u8, u8)>);

impl Running {
    /// Where a kernel begins: lanes run.
    pub fn start() -> Self {
        Self(BTreeSet::from([(EXEC, EXEC)]))
    }

    /// Whether lanes run.
    pub fn runs(&self) -> bool {
        self.0.contains(&(EXEC, EXEC))
    }

    /// A branch has told whether lanes run.
    pub fn told(&mut self, runs: bool) {
        if runs {
            self.add(EXEC, EXEC);
        } else {
            // The other of two is what has lanes.
            let others: Vec<u8> = self.with(EXEC).collect();
            others.into_iter().for_each(|other| self.add(other, other));
        }
    }

    fn add(&mut self, a: u8, b: u8) {
        if !self.either(a, b) {
            self.0.insert((a.min(b), a.max(b)));
            if a == b {
                self.0.retain(|(x, y)| x == y || *x != a && *y != a);
            }
        }
    }

    /// Whether one of the two has lanes.
    fn either(&self, a: u8, b: u8) -> bool {
        [(a.min(b), a.max(b)), (a, a), (b, b)].iter().any(|pair| self.0.contains(pair))
    }

    /// What a mask is in a pair with; itself, if it has lanes.
    fn with(&self, mask: u8) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().filter_map(move |(a, b)| match (*a == mask, *b == mask) {
            (true, _) => Some(*b),
            (_, true) => Some(*a),
            _ => None,
        })
    }

    /// What is still known after an instruction.
    pub fn after(&mut self, step: &Step) {
        let i = &step.instruction;
        let old = self.clone();
        self.0.retain(|(a, b)| ![*a, *b].iter().any(|mask| written(step, *mask)));
        // Facts about masks that are still what they were, and the new one.
        let known = |mask: u8| !written(step, mask);
        // All of a mask is in another now.
        let mut grows = |from: u8, to: u8| {
            for other in old.with(from) {
                if other == from {
                    self.add(to, to);
                } else if known(other) {
                    self.add(to, other);
                }
            }
        };
        let scalar = |operand: Operand| match operand {
            Operand::Scalar(n) => Some(n),
            _ => None,
        };
        let (dst, a, b) = (scalar(i.dst), scalar(i.src[0].operand), scalar(i.src[1].operand));
        match (i.name, dst, a, b) {
            ("s_andn2_saveexec_b64", Some(to), Some(a), _) => {
                grows(EXEC, to);
                // a & ~exec, or what was exec: all of both.
                if old.either(a, EXEC) {
                    self.add(EXEC, to);
                }
            }
            ("s_or_saveexec_b64", Some(to), a, _) => {
                grows(EXEC, to);
                a.into_iter().chain([EXEC]).for_each(|from| grows(from, EXEC));
            }
            (name, Some(to), ..) if name.ends_with("saveexec_b64") => grows(EXEC, to),
            ("s_mov_b64", Some(to), Some(a), _) => grows(a, to),
            ("s_or_b64", Some(to), a, b) => {
                a.into_iter().chain(b).for_each(|from| grows(from, to));
                if let (Some(a), Some(b)) = (a, b)
                    && old.either(a, b)
                {
                    self.add(to, to);
                }
            }
            // With either of them, all of both.
            ("s_xor_b64", Some(to), Some(a), Some(b)) if old.either(a, b) => {
                [a, b].into_iter().filter(|mask| known(*mask)).for_each(|mask| self.add(to, mask));
            }
            // With what is taken away, all.
            ("s_andn2_b64", Some(to), Some(a), Some(b)) if old.either(a, b) && known(b) => {
                self.add(to, b);
            }
            _ => {}
        }
    }
}

/// Whether an instruction writes a mask, or half of it.
fn written(step: &Step, mask: u8) -> bool {
    let i = &step.instruction;
    // Comparisons of vectors write vcc without naming it.
    if mask == EXEC && step.writes_exec || mask == VCC && i.name.starts_with("v_") {
        return true;
    }
    [(i.dst, i.dst_type.words()), (i.mask, 2)].into_iter().any(|(operand, words)| match operand {
        Operand::Scalar(n) => {
            (n..n + words).contains(&mask) || (n..n + words).contains(&(mask + 1))
        }
        _ => false,
    })
}
