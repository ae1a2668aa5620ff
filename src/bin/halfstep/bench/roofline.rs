//! Rooflines (Williams, Waterman, Patterson 2009): what a case reaches over how much arithmetic it does
//! on a byte, under what the machine's arithmetic and its memory allow.

use super::Outcome;
use crate::chart::{Axis, Chart, Kind, Series};
use crate::suite::{OPS, Traffic};

/// One chart for each device whose roofs have been measured, with the name of its file.
pub fn charts(outcome: &Outcome) -> Vec<(String, Chart)> {
    let of = |roofs: &crate::suite::Roofs| {
        let lines: Vec<_> =
            outcome.lines.iter().filter(|line| line.device == roofs.device).collect();
        if lines.is_empty() {
            return None;
        }
        let (from, to) = (0.05, 2000.0);
        let [f32, bf16, _] = roofs.flops.map(|flops| 1e-9 * flops);
        if !bf16.is_finite() {
            return None; // an architecture whose peak is not known
        }
        // bf16 has a roof of its own where the processor has dot products of it.
        let mut peaks = vec![(f32, "")];
        if bf16 > 1.2 * f32 {
            peaks.push((bf16, " bf16"));
        }
        let peak = f32.max(bf16);
        let mut series = Vec::new();
        for (peak, name) in peaks {
            let traffics = [Traffic::Update, Traffic::Read];
            // A GPU's are one.
            let distinct = if roofs.threads.is_some() { 2 } else { 1 };
            for traffic in traffics.into_iter().take(distinct) {
                let bandwidth = 1e-9 * roofs.bandwidth(traffic);
                let ridge = peak / bandwidth;
                series.push(Series {
                    name: format!(
                        "{peak:.0} GFLOP/s{name}, {} {bandwidth:.1} GB/s",
                        if distinct == 1 { "copy" } else { traffic.name() }
                    ),
                    points: vec![(from, from * bandwidth), (ridge, peak), (to, peak)],
                    kind: Kind::Bound,
                });
            }
        }
        for op in OPS {
            let points: Vec<(f64, f64)> = lines
                .iter()
                .filter(|line| line.op == op)
                .map(|line| (line.flops / line.bytes, line.gflops()))
                .collect();
            if !points.is_empty() {
                series.push(Series { name: op.into(), points, kind: Kind::Points });
            }
        }
        let lowest = lines.iter().map(|line| line.gflops()).fold(1.0, f64::min);
        let chart = Chart {
            title: match roofs.threads {
                Some(threads) => format!("roofline, {threads} thread(s)"),
                None => format!("roofline, {}", roofs.device),
            },
            x: axis("FLOP a byte (a conversion counts as one)", from, to),
            y: axis("GFLOP/s", 0.5 * lowest, 2.0 * peak),
            series,
        };
        let name = roofs.device.replace(['×', ':'], "");
        Some((format!("roofline-{name}"), chart))
    };
    outcome.roofs.iter().filter_map(of).collect()
}

fn axis(label: &str, from: f64, to: f64) -> Axis {
    Axis { label: label.into(), from, to, log: true }
}
