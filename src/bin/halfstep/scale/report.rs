//! What `scale` prints.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::exchange::NETWORK_SHARE;
use super::step::{STATE_BYTES, UPDATE_BYTES};
use super::{Batch, Between, Outcome, Step};
use crate::chart::{Axis, Chart, Kind, Series};

/// A share of a step that is worth an effort: 1 %.
const CLEAR: f64 = 0.01;

/// Assumptions, table, comparison, curve.
pub fn print(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let Outcome { job, chosen, baseline, rows, others } = outcome;
    writeln!(
        out,
        "{} on {}, {}: {}\n",
        job.model.name, job.machine.name, chosen.name, chosen.about
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
        writeln!(out, "  {:<10} {}", strategy.name, strategy.about)?;
    }
    writeln!(out, "  {}", two_level(outcome))?;
    if rows.len() > 1 {
        writeln!(out, "\n{}", crate::chart::draw_text(&chart(outcome)))?;
    }
    Ok(())
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
        Batch::Global(samples) => format!("{samples} of all ranks together"),
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
            "compute   {} at {:.0} % of {:.1} TFLOP/s; update {UPDATE_BYTES} bytes a parameter, packing beside it",
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
        "exchange  one bucket at a time, latencies of NCCL's model; it slows nothing else down"
            .into(),
    ];
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
    let curve = |baseline: &Step, rows: &[Step]| {
        let point = |row: &Step| (row.ranks as f64, 100.0 * row.efficiency(baseline));
        rows.iter().map(point).collect()
    };
    let series = |(strategy, baseline, rows): &(super::Strategy, Step, Vec<Step>)| Series {
        name: format!("{}: {}", strategy.name, strategy.about),
        points: curve(baseline, rows),
        kind: Kind::Curve,
    };
    let ends = |row: Option<&Step>| row.map_or(1.0, |row| row.ranks as f64);
    let (from, to) = (ends(rows.first()), ends(rows.last()));
    Chart {
        title: format!("{} on {}: predicted efficiency", job.model.name, job.machine.name),
        x: Axis { label: "ranks".into(), from, to: to.max(2.0 * from), log: true },
        y: Axis {
            label: format!("efficiency in %, {} rank(s) = 100", outcome.baseline.ranks),
            from: 0.0,
            to: 100.0,
            log: false,
        },
        series: others.iter().map(series).collect(),
    }
}

/// The same as data.
pub fn json(outcome: &Outcome) -> Value {
    let Outcome { job, chosen, baseline, rows, others } = outcome;
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
    json!({
        "format": "halfstep scale/1",
        "model": job.model.name,
        "machine": job.machine.name,
        "strategy": chosen.name,
        "baseline_ranks": baseline.ranks,
        "assumptions": assumptions(outcome),
        "rows": steps(baseline, rows),
        "strategies": strategies,
        "two_level_from_ranks": outcome.two_level_from(0.0),
        "two_level_clearly_from_ranks": outcome.two_level_from(CLEAR),
    })
}
