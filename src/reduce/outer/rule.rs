//! The arithmetic of one element. f64, nothing fused: Rust does not contract `a * b + c`.
#![forbid(unsafe_code)]

use super::Outer;

/// Adds a worker's weighted difference.
pub(super) fn add(sum: &mut f64, weight: f64, master: f32, worker: f32) {
    *sum += weight * (f64::from(master) - f64::from(worker));
}

/// (new master, new momentum) from the sum of weighted differences.
pub(super) fn step(rule: &Outer, sum: f64, total: f64, master: f32, momentum: f32) -> (f32, f32) {
    let delta = sum / total;
    let velocity = rule.momentum * f64::from(momentum) + delta;
    let direction = if rule.nesterov { delta + rule.momentum * velocity } else { velocity };
    let next = f64::from(master) - rule.learning_rate * direction;
    (next as f32, velocity as f32)
}
