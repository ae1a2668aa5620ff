//! What a machine's work is limited by, and how much of it threads can do.

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
    /// Products of f16, which processors multiply as f32.
    F16,
}

impl Arithmetic {
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];
}

/// FLOP/s of so many threads at once.
pub fn peak_flops(threads: usize, arithmetic: Arithmetic) -> f64 {
    let one = || match arithmetic {
        Arithmetic::F32 | Arithmetic::F16 => peak::fma_gflops(),
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
