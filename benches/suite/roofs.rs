//! What the machine can do at best: multiply-adds and bytes.

use super::bandwidth::Bandwidth;
use super::peak;

/// How memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Much is read, little written.
    Read,
    /// One array is read, another written.
    Copy,
    /// An array is read and written in place.
    Update,
}

impl Traffic {
    pub const ALL: [Self; 3] = [Self::Read, Self::Copy, Self::Update];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Copy => "copy",
            Self::Update => "in-place update",
        }
    }
}

/// What arithmetic is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 multiply-adds.
    F32,
    /// Products of bf16: where the processor has dot products of it, those.
    Bf16,
}

impl Arithmetic {
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];
}

/// Roofs of so many threads: FLOP/s by arithmetic, bytes/s by traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofs {
    pub threads: usize,
    pub flops: [f64; 2],
    pub bytes: [f64; 3],
}

impl Roofs {
    /// The best of a few measurements of each.
    pub fn measure(meter: &mut Bandwidth, threads: usize) -> Self {
        let best = |values: &mut dyn FnMut() -> f64| (0..5).map(|_| values()).fold(0.0, f64::max);
        let flops = Arithmetic::ALL.map(|kind| best(&mut || peak_flops(threads, kind)));
        let bytes = Traffic::ALL.map(|traffic| best(&mut || meter.measure(traffic, threads)));
        Self { threads, flops, bytes }
    }

    pub fn arithmetic(&self, kind: Arithmetic) -> f64 {
        self.flops[kind as usize]
    }

    pub fn bandwidth(&self, traffic: Traffic) -> f64 {
        self.bytes[traffic as usize]
    }
}

/// FLOP/s of so many threads at once.
pub fn peak_flops(threads: usize, arithmetic: Arithmetic) -> f64 {
    let one = || match arithmetic {
        Arithmetic::F32 => peak::fma_gflops(),
        Arithmetic::Bf16 => peak::bf16_gflops().unwrap_or_else(peak::fma_gflops),
    };
    if threads == 1 {
        return 1e9 * one();
    }
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        1e9 * all.into_iter().map(|one| one.join().unwrap_or(0.0)).sum::<f64>()
    })
}
