//! The table, and the whole of a `cargo bench` program.

use super::bandwidth::Bandwidth;
use super::roofs::Roof;
use super::{Arithmetic, Failure, Line, Options, Roofs, Traffic, entries, measure};

/// The head of the table.
pub fn header() -> String {
    format!(
        "{:8} {:34} {:>15} {:>7} {:>10} {:>9} {:>7} {:>7} {:>8} {:>6}",
        "op", "case", "size", "device", "ms", "GFLOP/s", "GB/s", "share", "of", "ratio"
    )
}

/// What its columns are.
pub const LEGEND: &str = "size: rows × inputs × outputs of a product; elements; ranks × tensors
share: the least time that the roof allows, over the time taken; of: which roof, measured beside each case: memory, or arithmetic by multiply-adds (FMA),
       dot products or tiles (AMX) of bf16; a GPU's arithmetic is computed, its memory's roof a copy; -: none is known
ratio: times faster than on the first device of the table
";

/// A line of it.
pub fn row(line: &Line) -> String {
    let share = line.share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share));
    let ratio = line.speedup.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let of = match line.roof {
        None => "-",
        Some(Roof::Arithmetic(unit)) => unit.name(),
        Some(Roof::Memory) => "memory",
    };
    format!(
        "{:8} {:34} {:>15} {:>7} {:>10.3} {:>9.1} {:>7.1} {share:>7} {of:>8} {ratio:>6}",
        line.op,
        line.name,
        line.size,
        line.device,
        1e3 * line.seconds,
        line.gflops(),
        line.gbs(),
    )
}

/// Roofs in words.
pub fn roof_lines(roofs: &[Roofs]) -> Vec<String> {
    let line = |roofs: &Roofs| {
        let Some(threads) = roofs.threads else { return gpu_line(roofs) };
        let bytes = Traffic::ALL.map(|traffic| {
            format!("{} {:.1} GB/s", traffic.name(), 1e-9 * roofs.bandwidth(traffic))
        });
        let noun = if threads == 1 { "thread" } else { "threads" };
        format!(
            "roofs, {threads} {noun}: f32 {:.1} GFLOP/s ({}), bf16 {:.1} ({}); {}",
            1e-9 * roofs.arithmetic(Arithmetic::F32),
            roofs.units[Arithmetic::F32 as usize].name(),
            1e-9 * roofs.arithmetic(Arithmetic::Bf16),
            roofs.units[Arithmetic::Bf16 as usize].name(),
            bytes.join(", ")
        )
    };
    roofs.iter().map(line).collect()
}

/// A GPU's: what its clocks allow, and what a copy takes.
fn gpu_line(roofs: &Roofs) -> String {
    let tera = |value: f64| match value > 0.0 {
        true => format!("{:.1} TFLOP/s", 1e-12 * value),
        false => "not known".into(),
    };
    let computed = roofs.computed.map_or("nothing".into(), |peak| {
        format!(
            "f32 multiply-adds {}, products of 16 bits {}, memory {:.0} GB/s",
            tera(peak.f32_flops),
            tera(peak.matrix_flops),
            1e-9 * peak.bytes
        )
    });
    let copy = 1e-9 * roofs.bandwidth(Traffic::Copy);
    format!("roofs, {}: computed: {computed}; measured: copy {copy:.0} GB/s", roofs.device)
}

/// The number in a variable of the environment.
pub fn number(name: &str, default: usize) -> Result<usize, Failure> {
    let Some(text) = std::env::var_os(name) else { return Ok(default) };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name}: expected a number from 1, found {text:?}"))
}

/// `cargo bench --bench OP [-- FILTER]`: rounds with `HALFSTEP_BENCH_ROUNDS`, elements of arrays with
/// `HALFSTEP_BENCH_LEN`. `cargo test --benches` passes no `--bench`: then it only shows that it runs.
pub fn main(op: &str) {
    if let Err(failure) = run(op) {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}

fn run(op: &str) -> Result<(), Failure> {
    let timed = std::env::args().any(|argument| argument == "--bench");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let options = Options {
        rounds: number("HALFSTEP_BENCH_ROUNDS", if timed { 9 } else { 1 })?,
        len: number("HALFSTEP_BENCH_LEN", if timed { 100_000_000 } else { 100_000 })?,
        filter: filter.unwrap_or_default(),
    };
    let (devices, broken) = super::devices();
    for device in &devices {
        println!("{}", device.info());
    }
    broken.iter().for_each(|reason| eprintln!("{reason}"));
    let mut meter = Bandwidth::new(if timed { 64 << 20 } else { 0 }).map_err(super::text)?;
    let entries = entries(&[op], &options);
    let roofs = Roofs::of(&mut meter, &devices, &entries)?;
    for line in roof_lines(&roofs) {
        println!("{line}");
    }
    println!("{LEGEND}\n{}", header());
    for entry in &entries {
        for line in measure(entry, &devices, options.rounds, &mut meter, &roofs)? {
            println!("{}", row(&line));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err("not all devices could be opened".into()) }
}
