//! Rooflines (Williams, Waterman, Patterson 2009): what a case reaches over how much arithmetic it does
//! on a byte, under what the machine's arithmetic and its memory allow.

use super::Outcome;
use crate::chart::{Axis, Chart, Kind, Point, Series, Side};
use crate::machine;
use crate::suite::{Line, OPS, Roofs, Traffic};

/// One chart for each device whose roofs have been measured, with the name of its file.
pub fn charts(outcome: &Outcome) -> Vec<(String, Chart)> {
    let of = |roofs: &Roofs| {
        let name = roofs.device.replace(['×', ':'], "");
        Some((format!("roofline-{name}"), chart(outcome, roofs)?))
    };
    outcome.roofs.iter().filter_map(of).collect()
}

fn chart(outcome: &Outcome, roofs: &Roofs) -> Option<Chart> {
    let lines: Vec<_> = outcome.lines.iter().filter(|line| line.device == roofs.device).collect();
    let [f32, bf16, _] = roofs.flops.map(|flops| 1e-9 * flops);
    if lines.is_empty() || !bf16.is_finite() {
        return None; // the latter: a GPU without device code
    }
    let intensity = |line: &&Line| line.flops / line.bytes;
    let least = lines.iter().map(intensity).fold(0.1, f64::min);
    let most = lines.iter().map(intensity).fold(100.0, f64::max);
    let lowest = lines.iter().map(|line| line.gflops()).fold(1.0, f64::min);
    let highest = lines.iter().map(|line| line.gflops()).fold(f32.max(bf16), f64::max);
    // On the right there is room for the names of ceilings.
    let x = Axis::logarithmic("FLOP a byte (a conversion counts as one)", 0.5 * least, 12.0 * most);
    let y = Axis::logarithmic("GFLOP/s", 0.5 * lowest, 2.0 * highest);
    let mut series = bounds(roofs, (f32, bf16), &x, &y);
    for op in OPS {
        let point =
            |line: &&Line| Point { x: intensity(line), y: line.gflops(), about: about(line) };
        let points: Vec<_> = lines.iter().filter(|line| line.op == op).map(point).collect();
        if !points.is_empty() {
            series.push(Series { name: op.into(), points, kind: Kind::Points });
        }
    }
    Some(Chart { title: title(outcome, roofs), x, y, series })
}

/// What a case is, and its share of what bounds it.
fn about(line: &Line) -> String {
    let share = line.share.map(|share| format!(", {:.0} % of its roof", 100.0 * share));
    format!("{} {} {}{}", line.op, line.name, line.size, share.unwrap_or_default())
}

/// The processor or GPU.
fn title(outcome: &Outcome, roofs: &Roofs) -> String {
    match roofs.threads {
        Some(1) => format!("{}, 1 thread: roofline", machine::processor()),
        Some(threads) => format!("{}, {threads} threads: roofline", machine::processor()),
        None => {
            let named = format!("{} (", roofs.device);
            let own = outcome.devices.iter().find(|device| device.starts_with(&named));
            format!("{}: roofline", own.unwrap_or(&roofs.device))
        }
    }
}

/// A slope for each bandwidth, up to the highest peak; a ceiling for each peak, from the steepest slope on.
fn bounds(roofs: &Roofs, (f32, bf16): (f64, f64), x: &Axis, y: &Axis) -> Vec<Series> {
    // A GPU's bandwidths are one.
    let traffics: &[Traffic] = match roofs.threads {
        Some(_) => &[Traffic::Update, Traffic::Read],
        None => &[Traffic::Update],
    };
    let mut slopes: Vec<(f64, String)> = traffics
        .iter()
        .map(|&traffic| {
            let name = if roofs.threads.is_some() { traffic.name() } else { "copy" };
            let rate = 1e-9 * roofs.bandwidth(traffic);
            (rate, format!("{name} {rate:.1} GB/s"))
        })
        .collect();
    let mut peaks = vec![(f32, format!("{f32:.0} GFLOP/s"))];
    // bf16 has a roof of its own where there are dot products of it.
    if bf16 > 1.2 * f32 {
        peaks[0].1 += " f32";
        peaks.push((bf16, format!("{bf16:.0} GFLOP/s bf16")));
    }
    for bounds in [&mut slopes, &mut peaks] {
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    let steepest = slopes[0].0;
    let slope = |rate: f64| {
        let from = x.from.max(y.from / rate);
        // Its name ends below the lowest ceiling.
        let ends = peaks.iter().rev().map(|(peak, _)| Point::at(peak / rate, *peak));
        std::iter::once(Point::at(from, from * rate)).chain(ends).collect()
    };
    let ceiling = |peak: f64| vec![Point::at(peak / steepest, peak), Point::at(x.to, peak)];
    let slopes = slopes.iter().map(|(rate, name)| (slope(*rate), name)).enumerate();
    let ceilings = peaks.iter().map(|(peak, name)| (ceiling(*peak), name)).enumerate();
    // The highest is named above, others below.
    let series = |(index, (points, name)): (usize, (Vec<Point>, &String))| Series {
        name: name.clone(),
        points,
        kind: Kind::Bound(if index == 0 { Side::Above } else { Side::Below }),
    };
    slopes.chain(ceilings).map(series).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::tests::assert_readable;
    use crate::suite::Unit;

    fn outcome(device: &str, threads: Option<usize>, bf16: f64) -> Outcome {
        let roofs = Roofs {
            device: device.into(),
            threads,
            flops: [100e9, bf16, 100e9],
            bytes: [8e9, 9e9, 10e9],
            computed: None,
            units: [Unit::Fma, Unit::Dot, Unit::Fma],
        };
        let line = |(op, intensity): (&str, f64)| Line {
            op: op.into(),
            name: "a case".into(),
            size: "64×64".into(),
            device: device.into(),
            seconds: 1.0,
            flops: intensity * 5e9,
            bytes: 5e9,
            roof: None,
            share: Some(0.5),
            speedup: None,
        };
        let lines = OPS.into_iter().zip([10.0, 0.3, 0.2, 0.02]).map(line).collect();
        let gpus = ["Another GPU", "A GPU with a name"].map(String::from).to_vec();
        let devices = ["cuda:0 (Another GPU, sm_90)", "cuda:1 (A GPU with a name, sm_80)"];
        let devices = devices.map(String::from).to_vec();
        Outcome { devices, gpus, roofs: vec![roofs], lines }
    }

    /// Each slope and each ceiling is drawn once, whatever their number, and nothing lies on anything.
    #[test]
    fn rooflines_are_readable() {
        let slopes = ["in-place update 10.0 GB/s", "read 8.0 GB/s"];
        for (device, threads, bf16, slopes, ceilings) in [
            ("cpu×2", Some(2), 100e9, &slopes[..], &["100 GFLOP/s"][..]),
            ("cpu×1", Some(1), 130e9, &slopes, &["130 GFLOP/s bf16", "100 GFLOP/s f32"]),
            ("cuda:1", None, 900e9, &["copy 10.0 GB/s"], &["900 GFLOP/s bf16", "100 GFLOP/s f32"]),
        ] {
            let (name, chart) = charts(&outcome(device, threads, bf16)).remove(0);
            assert_eq!(name, format!("roofline-{}", device.replace(['×', ':'], "")));
            assert_readable(&chart);
            let names: Vec<_> = chart.series.iter().map(|series| series.name.as_str()).collect();
            assert_eq!(names, [slopes, ceilings, &OPS].concat());
            let gemm = &chart.series[names.len() - OPS.len()].points[0];
            assert_eq!(gemm.about, "gemm a case 64×64, 50 % of its roof");
            // What it is, and how much of it.
            let words = match threads {
                Some(2) => format!("{}, 2 threads", machine::processor()),
                Some(_) => format!("{}, 1 thread:", machine::processor()),
                None => "cuda:1 (A GPU with a name, sm_80)".into(),
            };
            assert!(chart.title.contains(&words), "{}", chart.title);
        }
    }
}
