//! The kernels of `roof`: no step, one, and some; a count that has begun. What is multiplied is 2, for which a sum and a
//! factor are not the same.

use super::{Builder, Case, Plain};
use crate::params::roof::Roof;

pub fn cases() -> Vec<Case> {
    [0, 1, 2, 7].map(case).into()
}

fn case(steps: u64) -> Case {
    let mut b = Builder::default();
    let multiply_adds = b.table(&[u64::from(u32::MAX)]);
    let block = Roof { multiply_adds, steps, blocks: 3, one: 2.0, padding: 0 };
    b.launch([3, 1, 1], 256, block.bytes())
}
