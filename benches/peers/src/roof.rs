//! What the machine can do at best, by the same loops as in `cargo bench`.

#[allow(dead_code)]
#[path = "../../suite/bandwidth.rs"]
mod bandwidth;
#[allow(dead_code)]
#[path = "../../suite/caches.rs"]
mod caches;
#[allow(dead_code)]
#[path = "../../suite/limits.rs"]
mod limits;
#[allow(dead_code)]
#[path = "../../suite/peak.rs"]
mod peak;
#[path = "../../suite/together.rs"]
mod together;

use bandwidth::Bandwidth;
use limits::{Traffic, Unit};

/// Elements of the array that bandwidth is measured with, at least: 256 MB.
const LEN: usize = 1 << 26;

pub struct Roof(Bandwidth);

impl Roof {
    pub fn new() -> Self {
        Self(Bandwidth::new(LEN).expect("memory for the roofs"))
    }

    /// FLOP/s or bytes/s.
    pub fn measure(&mut self, kind: &str, threads: usize) -> f64 {
        match kind {
            "flops" => limits::peak_flops(threads, Unit::Fma),
            "read" => self.0.measure(Traffic::Read, threads),
            "copy" => self.0.measure(Traffic::Copy, threads),
            _ => self.0.measure(Traffic::Update, threads),
        }
    }
}
