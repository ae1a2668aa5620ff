//! The machine's memory bandwidth, measured between timed rounds: an in-place update, which reads
//! and writes the same array, as an optimizer's step does.

use std::time::Instant;

/// An array larger than any cache.
pub struct Bandwidth {
    values: Vec<f32>,
}

impl Bandwidth {
    /// An array of so many f32, touched.
    pub fn new(len: usize) -> Self {
        Self { values: vec![1.0; len] }
    }

    /// Bytes a second of `x = x·a + b` with so many threads, each on its own part.
    pub fn measure(&mut self, threads: usize) -> f64 {
        let bytes = 2 * size_of_val(self.values.as_slice());
        let part = self.values.len().div_ceil(threads);
        let start = Instant::now();
        if threads == 1 {
            update(&mut self.values);
        } else {
            std::thread::scope(|scope| {
                for part in self.values.chunks_mut(part) {
                    scope.spawn(|| update(part));
                }
            });
        }
        bytes as f64 / start.elapsed().as_secs_f64()
    }
}

fn update(values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide(values: &mut [f32]) {
            body(values);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: both features were just found.
            return unsafe { wide(values) };
        }
    }
    body(values);
}

#[inline(always)]
fn body(values: &mut [f32]) {
    for value in values {
        *value = value.mul_add(0.999, 0.001);
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
