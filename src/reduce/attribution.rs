//! Where the time of many steps went, as a table.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use super::report::{BucketTimes, Phase, Reduced};

/// Times of a number of steps, bucket by bucket. Prints as a table of means:
///
/// ```text
///   bucket       MB   ready    pack    skew    wire     sum exposed  unpack   GB/s
///        0     3.18     1.2     0.1     0.4     0.3     0.2     0.0     0.1   10.6
///        1    34.09    30.4     1.1     0.1     3.2     2.1     1.9     1.0   10.7
///      all    37.27    30.4     1.2     0.5     3.5     2.3     1.9     1.1   10.6
/// milliseconds of a step, means over 10; ready: since the first mark; GB/s: bytes over wire and sum
/// ```
///
/// `skew`, `wire` and `sum` run beside the backward pass; `exposed` is what that did not hide of them.
/// Long `skew` is other ranks' lateness (uneven batches, slow storage), which no bucket size and no
/// faster network cures; long `wire` is the network's.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let plan = BucketPlan::ddp(&[Param::new("w", 4)], Dtype::F32, 1, 1)?;
/// let comm = Box::new(local(1.try_into().unwrap()).remove(0));
/// let device = Device::cpu();
/// let mut reducer = Reducer::<f32>::new(&device, plan, comm, Config::default())?;
/// let (stream, mut w) = (device.stream()?, vec![1.0; 4]);
/// let mut attribution = Attribution::default();
/// for _ in 0..3 {
///     reducer.ready(&stream, 0, &w)?;
///     attribution.add(&reducer.finish(&stream, &mut [&mut w], Unscale::Keep)?);
/// }
/// println!("{attribution}");
/// assert_eq!(attribution.steps(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attribution {
    steps: u32,
    sums: Vec<BucketTimes>,
}

impl Attribution {
    /// Takes one more step into account.
    pub fn add(&mut self, step: &Reduced) {
        self.steps += 1;
        self.sums.resize(self.sums.len().max(step.times.len()), BucketTimes::default());
        for (sum, times) in self.sums.iter_mut().zip(&step.times) {
            sum.add(times);
        }
    }

    /// How many steps there were.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Each bucket's mean over the steps, in plan order.
    pub fn means(&self) -> Vec<BucketTimes> {
        let steps = self.steps.max(1);
        let mean = |sum: &BucketTimes| BucketTimes {
            bytes: sum.bytes / steps as usize,
            ready: sum.ready / steps,
            pack: sum.pack / steps,
            skew: sum.skew / steps,
            wire: sum.wire / steps,
            sum: sum.sum / steps,
            unpack: sum.unpack / steps,
            exposed: sum.exposed / steps,
        };
        self.sums.iter().map(mean).collect()
    }

    /// The mean over the steps, summed over the buckets; `ready` is the last bucket's.
    pub fn total(&self) -> BucketTimes {
        let mut total = BucketTimes::default();
        let mut ready = Duration::ZERO;
        for mean in self.means() {
            total.add(&mean);
            ready = ready.max(mean.ready);
        }
        BucketTimes { ready, ..total }
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} {:>8} {:>7}", "bucket", "MB", "ready")?;
        for phase in Phase::ALL {
            write!(f, " {:>7}", phase.name())?;
        }
        writeln!(f, " {:>6}", "GB/s")?;
        for (index, times) in self.means().iter().enumerate() {
            row(f, &index.to_string(), times)?;
        }
        row(f, "all", &self.total())?;
        write!(
            f,
            "milliseconds of a step, means over {}; ready: since the first mark; GB/s: bytes over wire \
             and sum",
            self.steps
        )
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, times: &BucketTimes) -> fmt::Result {
    let ms = |time: Duration| 1e3 * time.as_secs_f64();
    write!(f, "{name:>8} {:>8.2} {:>7.1}", 1e-6 * times.bytes as f64, ms(times.ready))?;
    for phase in Phase::ALL {
        write!(f, " {:>7.1}", ms(times.phase(phase)))?;
    }
    let busy = (times.wire + times.sum).as_secs_f64();
    match busy > 0.0 {
        true => writeln!(f, " {:>6.1}", 1e-9 * times.bytes as f64 / busy),
        false => writeln!(f, " {:>6}", "-"),
    }
}

/// The step's own table.
impl fmt::Display for Reduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut attribution = Attribution::default();
        attribution.add(self);
        attribution.fmt(f)
    }
}
