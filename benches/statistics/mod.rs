//! The suite under criterion: a benchmark for each case and device, `op/case size workload/device`.
//!
//! `cargo bench --bench OP [-- FILTER]`, and criterion's options; the filter is a regular expression. Elements of arrays with
//! `HALFSTEP_BENCH_LEN`. `cargo test --benches` runs each once, short, and only checks it.

mod rates;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode};
use halfstep::Device;

use crate::suite::{self, Bandwidth, Entry, Failure, Roof, Roofs};
use rates::Rates;

/// Says what failed.
pub fn told(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there is time for many calls of long arrays: `cargo test` passes no `--bench`.
pub fn is_timed() -> bool {
    given("--bench") && !given("--test")
}

/// Whether names are all that is wanted.
pub fn is_list() -> bool {
    given("--list")
}

fn given(option: &str) -> bool {
    std::env::args().any(|argument| argument == option)
}

/// The number in a variable of the environment.
pub fn number(name: &str, default: usize) -> Result<usize, Failure> {
    let Some(text) = std::env::var_os(name) else { return Ok(default) };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name}: expected a number from 1, found {text:?}"))
}

/// Checks and times everything of an operation that passes the filter. A case that fails does not keep others from it.
pub fn run(op: &str) -> Result<(), Failure> {
    let rates = Rates::default();
    // Short: there are a hundred cases.
    let mut criterion = Criterion::default()
        .with_measurement(rates.clone())
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    let len = number("HALFSTEP_BENCH_LEN", if is_timed() { suite::large() } else { 100_000 })?;
    let (devices, broken) = suite::devices();
    let entries = suite::entries(&[op], len, &devices);
    broken.iter().for_each(|reason| eprintln!("{reason}"));
    let mut machine = match is_timed() && !is_list() {
        true => Some(Machine::new(&devices, &entries)?),
        false => None,
    };

    let mut failed = Vec::new();
    let mut group = criterion.benchmark_group(op);
    group.sampling_mode(SamplingMode::Flat); // as many calls beside each measurement of the roof
    for entry in &entries {
        for (name, device) in entry.places(&devices) {
            let id = format!("{op}/{}/{name}", entry.case());
            let roof = machine.as_ref().and_then(|machine| machine.over(entry, &name));
            rates.begin(roof);
            group.throughput(rates::throughput(entry, roof));
            // Made where it is first called: what is filtered out takes no memory.
            let mut case = None;
            let bench = |bencher: &mut Bencher<Rates>| {
                let case = case.get_or_insert_with(|| or_panic(&id, entry.checked(device)).0);
                rates.beside(machine.as_mut().and_then(|machine| machine.least(entry, &name)));
                bencher.iter_custom(|calls| {
                    let one = or_panic(&id, suite::seconds(case.as_mut(), calls as usize));
                    Duration::from_secs_f64(one * calls as f64)
                });
            };
            let short = BenchmarkId::new(entry.case(), &name);
            let run = AssertUnwindSafe(|| _ = group.bench_function(short, bench));
            if catch_unwind(run).is_err() {
                failed.push(id);
            }
        }
    }
    match (failed.is_empty(), broken.is_empty()) {
        (false, _) => Err(format!("failed: {}", failed.join(", "))),
        (_, false) => Err("not all devices could be opened".into()),
        _ => Ok(()),
    }
}

/// Criterion's way for a benchmark to fail.
fn or_panic<T>(id: &str, outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{id}: {failure}"))
}

/// What devices can do at best, and what that is measured with.
struct Machine {
    meter: Bandwidth,
    roofs: Vec<Roofs>,
}

impl Machine {
    /// Measures it, and says what there is.
    fn new(devices: &[Device], entries: &[Entry]) -> Result<Self, Failure> {
        let mut meter = Bandwidth::new(64 << 20).map_err(|error| error.to_string())?; // 256 MB
        let roofs = Roofs::of(&mut meter, devices, entries)?;
        devices.iter().for_each(|device| println!("{}", device.info()));
        suite::roof_lines(&roofs).iter().for_each(|line| println!("{line}"));
        println!();
        Ok(Self { meter, roofs })
    }

    /// What bounds an entry on a device.
    fn over(&self, entry: &Entry, device: &str) -> Option<Roof> {
        Roofs::named(&self.roofs, device)?.over(entry)
    }

    /// The least seconds that a call of it can take as the machine is now.
    fn least(&mut self, entry: &Entry, device: &str) -> Option<f64> {
        Roofs::named(&self.roofs, device)?.seconds_now(entry, &mut self.meter)
    }
}
