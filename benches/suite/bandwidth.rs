//! The machine's memory bandwidth: reading an array, copying it, and updating it in place, as an
//! optimizer's step does.

use std::time::Instant;

use super::limits::Traffic;

/// An array larger than any cache.
pub struct Bandwidth {
    values: Vec<f32>,
}

impl Bandwidth {
    /// An array of so many f32, touched.
    pub fn new(len: usize) -> Self {
        Self { values: vec![1.0; len.max(2)] }
    }

    /// Elements of the array.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes a second with so many threads, each on its own part. A copy counts what is read and what
    /// is written; its target is the array's other half.
    pub fn measure(&mut self, traffic: Traffic, threads: usize) -> f64 {
        let start = Instant::now();
        let moved = match traffic {
            Traffic::Update => {
                split(&mut self.values, threads, |part| run(Update(part)));
                2 * self.values.len()
            }
            Traffic::Read => {
                split(&mut self.values, threads, |part| {
                    std::hint::black_box(run(Sum(part)));
                });
                self.values.len()
            }
            Traffic::Copy => {
                split(&mut self.values, threads, |part| {
                    let half = part.len() / 2;
                    let (from, to) = part.split_at_mut(half);
                    to[..half].copy_from_slice(from);
                });
                self.values.len()
            }
        };
        (moved * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64()
    }
}

fn split(values: &mut [f32], threads: usize, work: impl Fn(&mut [f32]) + Sync) {
    if threads == 1 {
        return work(values);
    }
    let part = values.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for part in values.chunks_mut(part) {
            scope.spawn(|| work(part));
        }
    });
}

/// A loop that is compiled for the widest vectors there are.
trait Loop {
    type Output;
    fn body(self) -> Self::Output;
}

struct Update<'a>(&'a mut [f32]);

impl Loop for Update<'_> {
    type Output = ();
    #[inline(always)]
    fn body(self) {
        for value in self.0 {
            *value = value.mul_add(0.999, 0.001);
        }
    }
}

struct Sum<'a>(&'a [f32]);

impl Loop for Sum<'_> {
    type Output = [f32; 64];
    #[inline(always)]
    fn body(self) -> [f32; 64] {
        let mut sums = [0.0f32; 64];
        for chunk in self.0.chunks_exact(64) {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += value;
            }
        }
        sums
    }
}

fn run<L: Loop>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide<L: Loop>(work: L) -> L::Output {
            work.body()
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: both features were just found.
            return unsafe { wide(work) };
        }
    }
    work.body()
}
