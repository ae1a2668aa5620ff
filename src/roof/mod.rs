//! What a device's arithmetic reaches, measured.

mod launch;

use std::time::{Duration, Instant};

use crate::kernel::params::roof::{Block, MOST_STEPS, Roof};
use crate::{Buffer, Device, DeviceKind, Error, Result, Stream};

/// Rates that a GPU's units reach from registers to registers, on its own clock: roofs of arithmetic under the clocks and
/// the power that the device has now. [`Peak`](crate::Peak) is what its clocks would allow at best.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// # #[cfg(feature = "cuda")] {
/// use halfstep::{Device, Rates};
/// for index in 0..Device::cuda_count() {
///     let rates = Rates::measure(&Device::cuda(index)?)?;
///     println!("{:.1} TFLOP/s of bf16 products", 1e-12 * rates.matrix_flops);
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// f32 multiply-adds, of the vector units, or of the matrix unit where that is faster (gfx90a): FLOP/s.
    pub f32_flops: f64,
    /// Products of bf16 summed in f32, of the matrix unit, by the instruction that this crate's kernels are made of: FLOP/s.
    /// (`mma.sync` on NVIDIA's: sm_90 has another that is faster.)
    pub matrix_flops: f64,
}

/// Long enough that starting does not count, and that clocks have risen.
const ENOUGH: Duration = Duration::from_millis(10);
/// Of so many measurements the best: what disturbs them makes them slower.
const TRIALS: usize = 3;

impl Rates {
    /// Measures them, in some tenths of a second. Numbers are ones: what is multiplied in earnest takes more power, which
    /// lowers clocks where power is what limits them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on the CPU, and without device code; [`Error::Driver`].
    pub fn measure(device: &Device) -> Result<Self> {
        if device.info().kind == DeviceKind::Cpu {
            let reason = "roofs are measured of GPUs; of the CPU by `halfstep bench`";
            return Err(Error::unsupported("Rates::measure", reason));
        }
        let mut units = Units::new(device, u64::MAX)?;
        Ok(Self { f32_flops: units.rate(Block::F32)?, matrix_flops: units.rate(Block::Bf16)? })
    }
}

/// Blocks of threads that do nothing but multiply and add.
struct Units {
    stream: Stream,
    count: Buffer<u64>,
    blocks: u64,
}

impl Units {
    fn new(device: &Device, blocks: u64) -> Result<Self> {
        Ok(Self { stream: device.stream()?, count: device.zeros(1)?, blocks })
    }

    /// FLOP/s of a row.
    fn rate(&mut self, row: fn(Roof) -> Block) -> Result<f64> {
        let mut steps = 4;
        self.run(row, steps)?; // what a driver does the first time
        loop {
            let start = Instant::now();
            self.run(row, steps)?;
            if start.elapsed() >= ENOUGH || steps >= MOST_STEPS {
                break;
            }
            steps *= 4;
        }
        let mut best = 0.0f64;
        for _ in 0..TRIALS {
            let (multiply_adds, taken) = self.run(row, steps)?;
            best = best.max(2.0 * multiply_adds as f64 / taken.as_secs_f64());
        }
        Ok(best)
    }

    /// How many multiply-adds there were in so many steps, and how long they took.
    fn run(&mut self, row: fn(Roof) -> Block, steps: u64) -> Result<(u64, Duration)> {
        let Self { stream, count, blocks } = self;
        count.clear(stream)?;
        let taken = stream.time(|| launch::enqueue(stream, row, count, (*blocks, steps)))?;
        Ok((count.to_vec(stream)?[0], taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_none() {
        let error = Rates::measure(&Device::cpu()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { op: "Rates::measure", .. }), "{error}");
    }

    /// Each thread adds as often as it is told to.
    #[cfg(any(feature = "cuda", feature = "hip"))]
    #[test]
    fn multiply_adds_are_counted() {
        // What a thread adds in a step: sums in its registers, times what is added to each at once.
        let mut devices: Vec<(Device, [u64; 2])> = Vec::new();
        #[cfg(feature = "cuda")]
        if Device::cuda_count() > 0 {
            devices.push((Device::cuda(0).unwrap(), [16, 8 * 4 * 16]));
        }
        #[cfg(feature = "hip")]
        if Device::hip_count() > 0 {
            devices.push((Device::hip(0).unwrap(), [4 * 16, 4 * 16 * 8]));
        }
        if devices.is_empty() {
            println!("skipped: no GPU");
        }
        for (device, adds) in devices {
            let mut units = Units::new(&device, 3).unwrap();
            for (row, adds) in [Block::F32 as fn(Roof) -> Block, Block::Bf16].into_iter().zip(adds)
            {
                for steps in [0, 1, 7, 64] {
                    let found = units.run(row, steps).unwrap().0;
                    assert_eq!(found, 3 * 256 * adds * steps, "{}", device.info());
                }
                assert!(units.rate(row).unwrap() > 0.0);
            }
        }
    }
}
