//! Times as rates, and as shares of the roof.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

use crate::suite::{Entry, On, Roof, median};

/// What one call does, in the unit of what bounds it: bytes, too, where that is links between GPUs.
pub fn throughput(entry: &Entry, roof: Option<Roof>) -> Throughput {
    match (roof, &entry.on) {
        (Some(Roof::Memory), _) | (_, On::All(_)) => Throughput::BytesDecimal(entry.bytes as u64),
        _ => Throughput::Elements(entry.flops as u64), // floating-point operations
    }
}

/// Time, by whichever clock, whose rates criterion prints with their shares of a roof that is measured beside.
#[derive(Clone, Default)]
pub struct Rates(Rc<RefCell<Beside>>);

/// The roof over the case that is being measured.
#[derive(Default)]
struct Beside {
    roof: Option<Roof>,
    /// The least that a call can take, measured before each sample.
    seconds: Vec<f64>,
}

impl Rates {
    /// Another case begins.
    pub fn begin(&self, roof: Option<Roof>) {
        *self.0.borrow_mut() = Beside { roof, seconds: Vec::new() };
    }

    /// One more measurement of the roof.
    pub fn beside(&self, seconds: Option<f64>) {
        self.0.borrow_mut().seconds.extend(seconds);
    }

    /// ` (77.0% of FMA)` of a call that takes so many seconds.
    fn share(&self, seconds: f64) -> String {
        let beside = self.0.borrow();
        match beside.roof {
            Some(roof) if !beside.seconds.is_empty() => {
                let least = median(beside.seconds.clone());
                format!(" ({:.1}% of {})", 100.0 * least / seconds, roof.name())
            }
            _ => String::new(),
        }
    }
}

impl Measurement for Rates {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, start: Instant) -> Duration {
        WallTime.end(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        WallTime.add(one, other)
    }

    fn zero(&self) -> Duration {
        WallTime.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

/// Values are nanoseconds.
impl ValueFormatter for Rates {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let (amount, giga, tera) = match *throughput {
            Throughput::BytesDecimal(bytes) => (bytes as f64, "GB/s", "TB/s"),
            Throughput::Elements(flops) => (flops as f64, "GFLOP/s", "TFLOP/s"),
            _ => return WallTime.formatter().scale_throughputs(typical, throughput, values),
        };
        let (unit, scale) = if amount / typical < 1e4 { (giga, 1.0) } else { (tera, 1e-3) };
        values.iter_mut().for_each(|value| *value = scale * amount / *value);
        unit
    }

    fn format_throughput(&self, throughput: &Throughput, value: f64) -> String {
        let mut rate = [value];
        let unit = self.scale_throughputs(value, throughput, &mut rate);
        format!("{:.1} {unit}{}", rate[0], self.share(1e-9 * value))
    }
}
