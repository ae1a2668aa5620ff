//! Timing of one entry on several devices, by turns.

use std::rc::Rc;
use std::time::Instant;

use halfstep::{Device, DeviceKind, Stream};

use super::bandwidth::Bandwidth;
use super::roofs::{Roof, Roofs};
use super::{Case, Entry, Failure};

/// Seconds that calls are repeated for, so that the clock's grain does not matter.
const ENOUGH: f64 = 4e-3;

/// What was measured of one entry on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub op: String,
    pub name: String,
    pub size: String,
    pub device: String,
    /// Of one call, the median.
    pub seconds: f64,
    pub flops: f64,
    pub bytes: f64,
    /// What bounds it, where that is known.
    pub roof: Option<Roof>,
    /// The least time that the roof allows over the time taken.
    pub share: Option<f64>,
    /// How many times faster than on the first device, the median over rounds.
    pub speedup: Option<f64>,
}

impl Line {
    pub fn gflops(&self) -> f64 {
        1e-9 * self.flops / self.seconds
    }

    pub fn gbs(&self) -> f64 {
        1e-9 * self.bytes / self.seconds
    }
}

/// A case being timed.
struct Runner {
    /// What its device is called.
    name: String,
    case: Box<dyn Case>,
    calls: usize,
    seconds: Vec<f64>,
    shares: Vec<f64>,
}

/// Makes, checks, then times an entry on each device. `roofs` are those of the devices.
pub fn measure(
    entry: &Entry,
    devices: &[Device],
    rounds: usize,
    meter: &mut Bandwidth,
    roofs: &[Roofs],
) -> Result<Vec<Line>, Failure> {
    let label = entry.label();
    let said = |failure: Failure| format!("{label}: {failure}");
    let mut runners = Vec::new();
    for (name, device) in entry.places(devices) {
        let (mut case, first) = entry.checked(device).map_err(said)?;
        // A driver loads a kernel, and a system gives memory, when they are first used.
        let second = seconds(case.as_mut(), 1).map_err(said)?;
        let calls = ((ENOUGH / first.min(second)) as usize).clamp(1, 1000);
        let (seconds, shares) = (Vec::new(), Vec::new());
        runners.push(Runner { name, case, calls, seconds, shares });
    }
    for _ in 0..rounds {
        for runner in &mut runners {
            let known = Roofs::named(roofs, &runner.name);
            let mut roof = || known.and_then(|roofs| roofs.seconds_now(entry, meter));
            let before = roof();
            let taken = seconds(runner.case.as_mut(), runner.calls).map_err(said)?;
            runner.seconds.push(taken);
            if let (Some(before), Some(after)) = (before, roof()) {
                // The roof is the better of both: what disturbs it does not make shares larger.
                runner.shares.push(before.min(after) / taken);
            }
        }
    }
    let first = runners.first().map(|runner| runner.seconds.clone()).unwrap_or_default();
    let line = |(index, runner): (usize, Runner)| {
        let ratios = first.iter().zip(&runner.seconds).map(|(one, many)| one / many).collect();
        Line {
            op: entry.op.into(),
            name: entry.name.clone(),
            size: entry.size.clone(),
            roof: Roofs::named(roofs, &runner.name).and_then(|roofs| roofs.over(entry)),
            device: runner.name,
            seconds: median(runner.seconds),
            flops: entry.flops,
            bytes: entry.bytes,
            share: (!runner.shares.is_empty()).then(|| median(runner.shares)),
            speedup: (index > 0).then(|| median(ratios)),
        }
    };
    Ok(runners.into_iter().enumerate().map(line).collect())
}

/// Seconds of one call among so many: by the device's clock where all of it is on one stream of a GPU, else by ours.
pub fn seconds(case: &mut dyn Case, calls: usize) -> Result<f64, Failure> {
    let gpu = |stream: &Rc<Stream>| stream.device().info().kind != DeviceKind::Cpu;
    let taken = if let Some(stream) = case.stream().filter(gpu) {
        let mut done = Ok(());
        let taken = stream.time(|| {
            done = (0..calls).try_for_each(|_| case.run());
            Ok(())
        });
        done?;
        taken.map_err(super::text)?
    } else {
        let start = Instant::now();
        (0..calls).try_for_each(|_| case.run())?;
        case.wait()?;
        start.elapsed()
    };
    Ok(taken.as_secs_f64() / calls as f64)
}

/// The middle one; of an even number, the mean of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 0 => 0.5 * (values[upper - 1] + values[upper]),
        _ => values[upper],
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::{Arithmetic, On, Traffic};
    use super::*;

    /// Only its first call takes long.
    struct Lazy(Rc<Cell<usize>>);

    impl Case for Lazy {
        fn run(&mut self) -> Result<(), Failure> {
            if self.0.replace(self.0.get() + 1) == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Ok(())
        }

        fn wait(&self) -> Result<(), Failure> {
            Ok(())
        }

        fn stream(&self) -> Option<Rc<Stream>> {
            None
        }

        fn check(&mut self) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn calls_are_as_many_as_take_long_enough_after_the_first() {
        let calls = Rc::new(Cell::new(0));
        let counted = calls.clone();
        let entry = Entry {
            op: "convert",
            name: "lazy".into(),
            size: "1".into(),
            workload: "",
            flops: 1.0,
            bytes: 1.0,
            arithmetic: Arithmetic::F32,
            traffic: Traffic::Read,
            on: On::One,
            make: Box::new(move |_| Ok(Box::new(Lazy(counted.clone())))),
        };
        let mut meter = Bandwidth::new(2).unwrap();
        measure(&entry, &[Device::cpu()], 1, &mut meter, &[]).unwrap();
        assert!(calls.get() > 10, "{}", calls.get());
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert!(median(Vec::new()).is_nan());
        assert_eq!(
            [median(vec![3.0, 1.0, 2.0]), median(vec![3.0, 1.0]), median(vec![1.0])],
            [2.0, 2.0, 1.0]
        );
    }
}
