//! What `scale` prints.

use std::io::{self, Write};

use halfstep::Dtype;
use serde_json::{Value, json};

use super::exchange::NETWORK_SHARE;
use super::machine::F32Unit;
use super::step::{STATE_BYTES, UPDATE_BYTES};
use super::{Batch, Between, Outcome, Step, Strategy};
use crate::chart::{Axis, Chart, Kind, Point, Series};

/// A share of a step that is worth an effort: 1 %.
const CLEAR: f64 = 0.01;

/// Assumptions, table, comparison, curve.
pub fn print(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let Outcome { job, chosen, baseline, rows, others, .. } = outcome;
    writeln!(
        out,
        "{} on {}, {}: {}\n",
        job.model.name,
        job.machine.name,
        chosen.name,
        about(outcome, chosen)
    )?;
    for line in assumptions(outcome) {
        writeln!(out, "  {line}")?;
    }
    writeln!(
        out,
        "\n{:>7} {:>6} {:>10} {:>9} {:>9} {:>9} {:>8} {:>12} {:>7}  algorithm",
        "ranks",
        "nodes",
        "step ms",
        "compute",
        "waiting",
        "exposed",
        "effic.",
        format!("{}/s", job.model.unit),
        "buckets"
    )?;
    for row in rows {
        let algorithm = row.algorithm.map_or("-", |algorithm| algorithm.name());
        writeln!(
            out,
            "{:>6}{} {:>6} {:>10.2} {:>9.2} {:>9.2} {:>9.2} {:>7.1}% {:>12.1} {:>7}  {algorithm}",
            row.ranks,
            if row.ranks > job.machine.ranks() { "*" } else { " " },
            row.nodes,
            1e3 * row.seconds(),
            1e3 * row.compute,
            1e3 * row.waiting,
            1e3 * row.exposed,
            100.0 * row.efficiency(baseline),
            row.rate(),
            row.buckets,
        )?;
    }
    if rows.iter().any(|row| row.ranks > job.machine.ranks()) {
        writeln!(out, "     * more than the machine has ({})", job.machine.ranks())?;
    }
    writeln!(out, "\nstep in ms, and the exposed exchange in it, by strategy")?;
    write!(out, "{:>7}", "ranks")?;
    for (strategy, ..) in others {
        write!(out, " {:>18}", strategy.name)?;
    }
    writeln!(out)?;
    for (index, row) in rows.iter().enumerate() {
        write!(out, "{:>7}", row.ranks)?;
        for (.., rows) in others {
            let row = &rows[index];
            let cell = format!("{:.2} ({:.2})", 1e3 * row.seconds(), 1e3 * row.exposed);
            write!(out, " {cell:>18}")?;
        }
        writeln!(out)?;
    }
    for (strategy, ..) in others {
        writeln!(out, "  {:<10} {}", strategy.name, about(outcome, strategy))?;
    }
    if outcome.pinned.is_none() {
        writeln!(out, "  {}", two_level(outcome))?;
    }
    if rows.len() > 1 {
        writeln!(out, "\n{}", crate::chart::draw_text(&chart(outcome)))?;
    }
    Ok(())
}

/// What a strategy is, and by which algorithm if one is pinned.
fn about(outcome: &Outcome, strategy: &Strategy) -> String {
    let pinned = outcome.pinned.filter(|_| strategy.name == outcome.chosen.name);
    let pinned = pinned.map(|algorithm| format!("; here by {} alone", algorithm.name()));
    format!("{}{}", strategy.about, pinned.unwrap_or_default())
}

/// Which of this crate's exchanges is for how many ranks.
fn two_level(outcome: &Outcome) -> String {
    match (outcome.two_level_from(0.0), outcome.two_level_from(CLEAR)) {
        (None, _) => "`reduce::Hierarchical` is not the faster for the most of these ranks".into(),
        (Some(ranks), None) => {
            format!("from {ranks} ranks on: `reduce::Hierarchical`, by less than 1 % of a step")
        }
        (Some(ranks), Some(clear)) => format!(
            "from {ranks} ranks on: `reduce::Hierarchical`, by more than 1 % of a step from {clear} on"
        ),
    }
}

/// Everything that the numbers rest on.
fn assumptions(outcome: &Outcome) -> Vec<String> {
    let Outcome { job, .. } = outcome;
    let (model, machine) = (&job.model, &job.machine);
    let (peak, share) = job.rate();
    let batch = match job.batch {
        Batch::PerRank(samples) => format!("{samples} a rank"),
        Batch::Global(samples) => {
            let idle = outcome.rows.iter().any(|row| row.ranks > samples);
            let idle = if idle { "; of more ranks, some have nothing to do" } else { "" };
            format!("{samples} of all ranks together{idle}")
        }
    };
    let by = match (job.precision, machine.f32_unit) {
        (Dtype::F32, F32Unit::Matrix) => " by the matrix unit (NVIDIA's takes it as TF32)",
        _ => "",
    };
    let mut lines = vec![
        format!(
            "model     {} tensors, {} parameters, {:.1} GFLOP forward for {}; backward twice that",
            model.weights.len(),
            model.len(),
            1e-9 * model.forward_flops(),
            model.sample
        ),
        format!("          ({})", model.source),
        format!("batch     {batch}"),
        format!(
            "compute   {}{by} at {:.0} % of {:.1} TFLOP/s; update {UPDATE_BYTES} bytes a parameter, packing beside it",
            job.precision,
            100.0 * share,
            1e-12 * peak
        ),
        format!("machine   {}", machine.about),
        format!("          ({})", machine.source),
        format!(
            "links     {:.0} GB/s from rank to rank inside a node; {}",
            1e-9 * machine.inside_rate,
            between(&machine.between)
        ),
        format!(
            "ranks     equal work takes exp({}·z) of its time, z normal; all wait for the slowest; mean of {} \
             steps, seed {}",
            job.spread, job.steps, job.seed
        ),
        "exchange  one bucket at a time, latencies of NCCL's model; it slows nothing else down".into(),
        "buckets   optimal: for the slowest rank's mean step, by a line through the costs of 4 KiB and of everything".into(),
    ];
    let uneven = outcome.uneven();
    if let Some(first) = uneven.first() {
        lines.push(format!(
            "nodes     two-level takes nodes of as many ranks each: of {first} ranks{}, as if the last were full, too",
            if uneven.len() > 1 { " and others" } else { "" }
        ));
    }
    let state = STATE_BYTES * model.len() as f64;
    if state > machine.memory {
        lines.push(format!(
            "memory    weights, gradients and AdamW's state are {:.0} GB; a rank has {:.0}: this needs \
             sharding, which is not modelled",
            1e-9 * state,
            1e-9 * machine.memory
        ));
    }
    lines
}

/// What the numbers between nodes are.
fn between(between: &Between) -> String {
    match between {
        Between::Nominal(rate) => {
            format!(
                "{:.1} GB/s a node outside, of which {:.0} %",
                1e-9 * rate,
                100.0 * NETWORK_SHARE
            )
        }
        Between::Measured(link) => format!(
            "outside as measured (reduce::calibrate): between all ranks of two nodes {:.1} µs and {:.2} GB/s an \
             exchange",
            1e6 * link.alpha,
            1e-9 / link.beta
        ),
    }
}

/// Efficiency over ranks, a curve for each strategy.
pub fn chart(outcome: &Outcome) -> Chart {
    let Outcome { job, rows, others, .. } = outcome;
    let curve = |(strategy, baseline, rows): &(Strategy, Step, Vec<Step>)| {
        let point = |row: &Step| {
            let (name, efficiency) = (strategy.name, 100.0 * row.efficiency(baseline));
            let about = format!("{name}: {} ranks, {efficiency:.1} %", row.ranks);
            Point { x: row.ranks as f64, y: efficiency, about }
        };
        let points = rows.iter().map(point).collect();
        Series { name: strategy.name.into(), points, kind: Kind::Curve }
    };
    let series: Vec<Series> = others.iter().map(curve).collect();
    let ranks: Vec<f64> = rows.iter().map(|row| row.ranks as f64).collect();
    let efficiencies = series.iter().flat_map(|series| &series.points).map(|point| point.y);
    let label = format!("efficiency in %, {} rank(s) = 100", outcome.baseline.ranks);
    let mut y = Axis::linear(&label, efficiencies);
    if y.from > 0.0 {
        y.label += &format!(" (the axis starts at {})", y.from);
    }
    let title = format!("{} on {}: predicted efficiency", job.model.name, job.machine.name);
    Chart { title, x: Axis::of("ranks", &ranks), y, series }
}

/// The same as data.
pub fn json(outcome: &Outcome) -> Value {
    let Outcome { job, chosen, pinned, baseline, rows, others } = outcome;
    let steps = |baseline: &Step, rows: &[Step]| -> Value {
        let row = |row: &Step| {
            json!({
                "ranks": row.ranks,
                "nodes": row.nodes,
                "step_seconds": row.seconds(),
                "compute_seconds": row.compute,
                "waiting_seconds": row.waiting,
                "exposed_seconds": row.exposed,
                "exchange_seconds": row.exchange,
                "efficiency": row.efficiency(baseline),
                "samples_per_second": row.rate(),
                "buckets": row.buckets,
                "algorithm": row.algorithm.map(|algorithm| algorithm.name()),
            })
        };
        rows.iter().map(row).collect()
    };
    let strategies: serde_json::Map<_, _> = others
        .iter()
        .map(|(strategy, baseline, rows)| (strategy.name.to_string(), steps(baseline, rows)))
        .collect();
    // Of what this crate does, whatever else is pinned.
    let two_level_from = |gain| outcome.two_level_from(gain).filter(|_| pinned.is_none());
    json!({
        "format": "halfstep scale/1",
        "model": job.model.name,
        "machine": job.machine.name,
        "strategy": chosen.name,
        "algorithm": pinned.map(|algorithm| algorithm.name()),
        "baseline_ranks": baseline.ranks,
        "assumptions": assumptions(outcome),
        "rows": steps(baseline, rows),
        "strategies": strategies,
        "two_level_from_ranks": two_level_from(0.0),
        "two_level_clearly_from_ranks": two_level_from(CLEAR),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::tests::assert_readable;
    use crate::scale::{Job, Machine, Ranks, simulate};
    use crate::workloads::Model;

    /// Whatever is asked for, nothing lies on anything, the first and the last number of ranks are named, and
    /// the curves fill the plot.
    #[test]
    fn curves_are_readable() {
        let many: Vec<String> = (1..200).map(|ranks| ranks.to_string()).collect();
        let many = many.join(",");
        for ranks in ["1..4096", "4,8,3664", "1..1000", "64", "999999,1000000", &many] {
            for batch in [Batch::PerRank(8), Batch::Global(100)] {
                let job = Job {
                    model: Model::named("wav2vec2-base").unwrap(),
                    machine: Machine::named("juwels-booster").unwrap(),
                    precision: Dtype::Bf16,
                    batch,
                    share: None,
                    spread: 0.01,
                    steps: 1,
                    seed: 1,
                };
                let chosen = Strategy::named("halfstep").unwrap();
                let ranks: Ranks = ranks.parse().unwrap();
                let chart = chart(&simulate(job, chosen, None, ranks.list(), 4).unwrap());
                if ranks.list() != [999_999, 1_000_000] {
                    assert_readable(&chart); // those lie on each other
                }
                assert_eq!(chart.x.ticks[0], ranks.list()[0] as f64);
                let heights = || chart.series.iter().flat_map(|s| &s.points).map(|point| point.y);
                let span = heights().fold(0.0, f64::max) - heights().fold(f64::MAX, f64::min);
                assert!(span > 0.5 * (chart.y.to - chart.y.from), "{:?}: {span}", chart.y);
                let said = chart.y.label.contains("the axis starts at");
                assert_eq!(said, chart.y.from > 0.0, "{}", chart.y.label);
            }
        }
    }
}
