//! Sharded steps have the bits of steps of whole tensors: every rule, kind of state and number of ranks.
#![allow(missing_docs)]

mod common;

use common::cpu;
use common::optim::rules;
use common::sharded::{Case, same, same_bf16};
use halfstep::optim::{AdamW, Config, Dynamic, Lamb, Master, Moments, Rule, Scaler};
use halfstep::reduce::Unscale;
use halfstep::{Dtype, bf16, f16};

/// Around a chunk, several chunks, one element, none; 16,384 and its multiples exactly.
const LENS: [usize; 8] = [1, 40_000, 0, 16_384, 5, 70_001, 32_768, 255];

fn adamw() -> Rule {
    AdamW { lr: 0.01, ..AdamW::default() }.into()
}

#[test]
fn every_rule_on_one_to_four_ranks() {
    for rule in rules() {
        for ranks in 1..=4 {
            let config = Config { clip: Some(0.5), ..Config::default() };
            same_bf16(&Case::new(ranks, &LENS, rule, config), &cpu(1));
        }
    }
}

#[test]
fn every_kind_of_state() {
    for rule in [adamw(), Lamb { lr: 0.01, ..Lamb::default() }.into()] {
        for master in [Master::F32, Master::Remainder, Master::Stochastic, Master::Nearest] {
            for moments in [Moments::F32, Moments::Bf16] {
                let config = Config { master, moments, seed: 11, ..Config::default() };
                same_bf16(&Case { reversed: true, ..Case::new(3, &LENS, rule, config) }, &cpu(2));
            }
        }
    }
}

#[test]
fn every_pair_of_types() {
    let case = |wire| Case { wire, ..Case::new(2, &LENS, adamw(), Config::default()) };
    for wire in Dtype::ALL {
        same::<f32, f32>(&case(wire), &cpu(1));
        same::<f16, f16>(&case(wire), &cpu(1));
        same::<bf16, f32>(&case(wire), &cpu(1));
        same::<f32, bf16>(&case(wire), &cpu(1));
    }
}

/// A loss scale that grows and backs off; a NaN on one rank skips the step on all.
#[test]
fn a_nan_on_one_rank_skips_the_step_on_every_rank() {
    for rule in [adamw(), Lamb { lr: 0.01, ..Lamb::default() }.into()] {
        for param in [1, 5, 7] {
            let dynamic = Dynamic { init: 8.0, interval: 2, ..Dynamic::PYTORCH };
            let scaler = Scaler::Dynamic(dynamic);
            let config =
                Config { scaler, clip: Some(0.1), moments: Moments::Bf16, ..Config::default() };
            let case = Case::new(3, &LENS, rule, config);
            same_bf16(&Case { nan: Some((2, 1, param)), steps: 5, ..case }, &cpu(1));
        }
    }
}

#[test]
fn gradients_can_leave_the_reduction_unscaled() {
    let config = Config { scaler: Scaler::Fixed(4.0), clip: Some(0.1), ..Config::default() };
    let case = Case::new(3, &LENS, adamw(), config);
    same_bf16(&Case { unscale: Unscale::Factor(0.25), nan: Some((1, 0, 1)), ..case }, &cpu(1));
}

#[test]
fn micro_batches_are_accumulated() {
    let mut case = Case::new(3, &LENS, adamw(), Config::default());
    case.config.accumulate = true;
    same_bf16(&case, &cpu(1));
}

#[test]
fn what_nobody_uses_is_left_alone() {
    for rule in [adamw(), Lamb { lr: 0.01, ..Lamb::default() }.into()] {
        for param in [0, 2, 5] {
            let case = Case::new(4, &LENS, rule, Config::default());
            same_bf16(&Case { unused: Some((1, param)), reversed: true, ..case }, &cpu(1));
        }
    }
}

/// Fewer chunks than ranks, fewer elements than ranks, and buckets of one parameter or of all.
#[test]
fn some_ranks_have_nothing() {
    let master = Master::Stochastic;
    let config = Config { master, ..Config::default() };
    for lens in [&[3][..], &[1, 0, 2], &[16_385], &[100_000], &[0, 0, 1], &[]] {
        for caps in [(1, 1), (1 << 30, 1 << 30)] {
            for rule in [adamw(), Lamb { lr: 0.01, ..Lamb::default() }.into()] {
                same_bf16(&Case { caps, ..Case::new(5, lens, rule, config) }, &cpu(1));
            }
        }
    }
}
