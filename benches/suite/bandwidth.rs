//! The machine's memory bandwidth: reading an array, copying it, and updating it in place, as an
//! optimizer's step does.

use halfstep::{Buffer, Device};

use super::caches;
use super::limits::Traffic;
use super::together::together;

/// An array larger than any cache, in memory as the library takes it: in huge pages, where there are such.
pub struct Bandwidth {
    values: Buffer<f32>,
}

impl Bandwidth {
    /// An array of so many f32 at least, twice as large as the last caches together: walked from end to end, none of it is left in them.
    ///
    /// # Errors
    /// What the library says if there is no memory for it.
    pub fn new(len: usize) -> halfstep::Result<Self> {
        let len = len.max(2 * caches::last_level() / size_of::<f32>());
        Ok(Self { values: Device::cpu().upload(&vec![1.0; len.max(2)])? })
    }

    /// Elements of the array.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes a second with so many threads, each on its own part. A copy counts what is read and what
    /// is written; its target is the array's other half. Of a read and of an update, the better of two ways to walk a
    /// part: from end to end, and in four runs side by side, since some processors fetch further ahead for the one or
    /// the other.
    pub fn measure(&mut self, traffic: Traffic, threads: usize) -> f64 {
        let len = self.values.len();
        let mut view = self.values.view_mut(0..len).expect("all of it");
        let values = view.host().expect("of the CPU");
        let time = |values: &mut [f32], work: &(dyn Fn(&mut [f32]) + Sync)| {
            let parts = values.chunks_mut(values.len().div_ceil(threads));
            together(parts, work).1.as_secs_f64()
        };
        let (seconds, moved) = match traffic {
            Traffic::Update => {
                let one = time(values, &|part| run(Update::<1>(part)));
                (one.min(time(values, &|part| run(Update::<4>(part)))), 2 * len)
            }
            Traffic::Read => {
                let one = time(values, &|part| _ = std::hint::black_box(run(Sum::<1>(part))));
                let four = time(values, &|part| _ = std::hint::black_box(run(Sum::<4>(part))));
                (one.min(four), len)
            }
            Traffic::Copy => {
                let copy = |part: &mut [f32]| {
                    let half = part.len() / 2;
                    let (from, to) = part.split_at_mut(half);
                    to[..half].copy_from_slice(from);
                };
                (time(values, &copy), len)
            }
        };
        (moved * size_of::<f32>()) as f64 / seconds
    }
}

/// A loop that is compiled for the widest vectors there are.
trait Loop {
    type Output;
    fn body(self) -> Self::Output;
}

/// Elements that a loop takes of each of its runs by turns: a line of the caches.
const LINE: usize = 16;

/// Elements of each of so many runs.
const fn run_of(len: usize, runs: usize) -> usize {
    len / runs / LINE * LINE
}

struct Update<'a, const RUNS: usize>(&'a mut [f32]);

impl<const RUNS: usize> Loop for Update<'_, RUNS> {
    type Output = ();
    #[inline(always)]
    fn body(self) {
        let run = run_of(self.0.len(), RUNS);
        for start in (0..run).step_by(LINE) {
            for i in 0..RUNS {
                for value in &mut self.0[i * run + start..][..LINE] {
                    *value = value.mul_add(0.999, 0.001);
                }
            }
        }
    }
}

struct Sum<'a, const RUNS: usize>(&'a [f32]);

impl<const RUNS: usize> Loop for Sum<'_, RUNS> {
    type Output = [[f32; LINE]; 4];
    #[inline(always)]
    fn body(self) -> Self::Output {
        let run = run_of(self.0.len(), RUNS);
        let mut sums = [[0.0f32; LINE]; 4];
        for (turn, start) in (0..run).step_by(LINE).enumerate() {
            for i in 0..RUNS {
                let line = &self.0[i * run + start..][..LINE];
                for (sum, value) in sums[(turn + i) % 4].iter_mut().zip(line) {
                    *sum += value;
                }
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
