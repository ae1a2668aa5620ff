//! What ranks set for themselves in a step, and must set alike: each steps parts of the same tensors.

#![forbid(unsafe_code)]

use super::super::config::Unscale;
use crate::optim::Rule;
use crate::{Error, Result};

/// One value, in a row as wide as a partial: it travels with a rank's partials.
pub(super) type Said = [f64; 2];

/// What says [`Unscale::Keep`]: no factor is 0.
const KEEP: f64 = 0.0;

/// The factor of gradients, and the learning rate of each group.
pub(super) fn say<'a>(unscale: Unscale, rules: impl Iterator<Item = &'a Rule>) -> Vec<Said> {
    let factor = match unscale {
        Unscale::Keep => KEEP,
        Unscale::Factor(factor) => factor.into(),
    };
    std::iter::once(factor).chain(rules.map(Rule::lr)).map(|value| [value, 0.0]).collect()
}

/// All ranks say the same: `all` has `each` values of every rank, in rank order.
pub(super) fn check(op: &'static str, all: &[Said], each: usize) -> Result<()> {
    for (rank, said) in all.chunks_exact(each).enumerate() {
        let Some(at) = (0..each).find(|&at| said[at] != all[at]) else { continue };
        let [zero, other] = [all[at][0], said[at][0]];
        let (what, zero, other) = match at {
            0 => ("factor of gradients".into(), factor(zero), factor(other)),
            _ => {
                let what = format!("learning rate of groups[{}]", at - 1);
                (what, zero.to_string(), other.to_string())
            }
        };
        let found = format!("{zero} on rank 0, {other} on rank {rank}");
        return Err(Error::state(op, format!("one {what} on every rank"), found));
    }
    Ok(())
}

fn factor(value: f64) -> String {
    if value == KEEP { "Keep".into() } else { format!("Factor({value})") }
}
