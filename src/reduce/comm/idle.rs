//! Waiting for what only asking tells.

#![forbid(unsafe_code)]

use std::time::Duration;

/// Waiting that leaves the processor to others after a moment, and then for longer. A rank may wait for as
/// long as another computes, on the same cores.
#[derive(Default)]
pub(super) struct Idle(u32);

impl Idle {
    pub fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            0..500 => std::hint::spin_loop(),
            500..1000 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}
