//! From files to files: all but values is checked before the first write, and values before a file has its name.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use bytemuck::cast_slice;
use half::bf16;
use safetensors::Dtype;

use super::sink::Sink;
use super::source::{Source, wrong};
use super::{OP, OnNonFinite, Outer, OuterInputs, OuterOutputs, OuterReport, Worker, rule};
use crate::environment::Environment;
use crate::optim::state::little_endian;
use crate::{Error, Result};

const ANY: [Dtype; 3] = [Dtype::F32, Dtype::BF16, Dtype::F16];

/// Memory of one piece.
struct Piece {
    bytes: Vec<u32>,
    values: Vec<f32>,
    master: Vec<f32>,
    sum: Vec<f64>,
}

pub(super) fn run(
    rule: &Outer,
    inputs: OuterInputs<'_>,
    outputs: OuterOutputs<'_>,
) -> Result<OuterReport> {
    little_endian(OP)?;
    let _environment = Environment::standard();
    check_rule(rule, inputs.workers)?;
    check_paths(&inputs, &outputs)?;
    let mut master = Source::open(inputs.master)?;
    let entries = master.entries.clone();
    for entry in &entries {
        master.like(entry, &[Dtype::F32])?;
    }
    let step = master.step.unwrap_or(0);
    let mut momentum = inputs.momentum.map(Source::open).transpose()?;
    match &momentum {
        Some(momentum) if momentum.step.unwrap_or(0) != step => {
            return Err(momentum.wrong("outer_step", step, momentum.step.unwrap_or(0)));
        }
        None if step > 0 && rule.momentum > 0.0 => {
            return Err(Error::state(OP, format!("the momentum of step {step}"), "none"));
        }
        _ => {}
    }
    let mut places = Vec::new();
    if let Some(momentum) = &momentum {
        for entry in &entries {
            places.push(momentum.like(entry, &[Dtype::F32])?);
        }
    }
    let mut workers = Vec::new();
    for worker in inputs.workers {
        let source = Source::open(worker.path)?;
        if let Some(found) = source.step.filter(|&found| found != step) {
            return Err(source.wrong("outer_step", step, found));
        }
        let places =
            entries.iter().map(|entry| source.like(entry, &ANY)).collect::<Result<Vec<_>>>()?;
        workers.push((source, places, worker.weight));
    }
    let next = step
        .checked_add(1)
        .ok_or_else(|| wrong(inputs.master, "outer_step", "below 2^64 - 1", step))?;

    // No larger than the largest tensor, so that small models take little.
    let most = entries.iter().map(|entry| entry.len).max().unwrap_or(0).max(1);
    let size = rule.piece.min(most);
    let mut piece = Piece {
        bytes: vec![0; size],
        values: vec![0.0; size],
        master: vec![0.0; size],
        sum: vec![0.0; size],
    };
    let mut left_out = Vec::new();
    if rule.on_non_finite == OnNonFinite::LeaveOut {
        for (index, (source, places, weight)) in workers.iter_mut().enumerate() {
            if !finite(source, places, &mut piece)? {
                left_out.push(index);
                *weight = 0.0;
            }
        }
    }
    let total: f64 = workers.iter().map(|(_, _, weight)| weight).sum();
    if total <= 0.0 {
        return Err(Error::range(OP, "weights", "a sum above 0 of finite workers", total));
    }
    // A worker without weight is checked, but its data is not read.
    workers.retain(|(_, _, weight)| *weight > 0.0);

    let mut new_master = Sink::new(outputs.master, &entries, next, "F32")?;
    let mut new_momentum = Sink::new(outputs.momentum, &entries, next, "F32")?;
    let mut start =
        outputs.start.map(|path| Sink::new(path, &entries, next, "BF16")).transpose()?;
    for (index, entry) in entries.iter().enumerate() {
        for first in (0..entry.len).step_by(size) {
            let count = size.min(entry.len - first);
            let Piece { bytes, values, master: now, sum } = &mut piece;
            let (values, now, sum) = (&mut values[..count], &mut now[..count], &mut sum[..count]);
            master.read(index, first, bytes, now)?;
            sum.fill(0.0);
            for (source, places, weight) in &mut workers {
                source.read(places[index], first, bytes, values)?;
                for ((sum, &now), &value) in sum.iter_mut().zip(&*now).zip(&*values) {
                    rule::add(sum, *weight, now, value);
                }
            }
            match &mut momentum {
                Some(momentum) => momentum.read(places[index], first, bytes, values)?,
                None => values.fill(0.0),
            }
            for (place, ((now, value), &sum)) in
                now.iter_mut().zip(&mut *values).zip(&*sum).enumerate()
            {
                (*now, *value) = rule::step(rule, sum, total, *now, *value);
                let copied = start.is_none() || bf16::from_f32(*now).is_finite();
                if !(now.is_finite() && value.is_finite() && copied) {
                    let item = format!("{}[{}]", entry.name, first + place);
                    return Err(wrong(outputs.master, &item, "a finite result", *now));
                }
            }
            new_master.write(cast_slice(now))?;
            new_momentum.write(cast_slice(values))?;
            if let Some(start) = &mut start {
                let copy: &mut [bf16] = &mut bytemuck::cast_slice_mut(bytes)[..count];
                for (copy, &now) in copy.iter_mut().zip(&*now) {
                    *copy = bf16::from_f32(now);
                }
                start.write(cast_slice(copy))?;
            }
        }
        new_master.end();
        new_momentum.end();
        if let Some(start) = &mut start {
            start.end();
        }
    }
    let start = start.map(|start| start.finish(&entries)).transpose()?;
    let (new_master, new_momentum) = (new_master.finish(&entries)?, new_momentum.finish(&entries)?);
    if let Some(start) = start {
        start.commit()?;
    }
    new_momentum.commit()?;
    new_master.commit()?;
    let elements = entries.iter().map(|entry| entry.len as u64).sum();
    Ok(OuterReport { step: next, tensors: entries.len(), elements, left_out })
}

/// Whether a worker's tensors hold no NaN and no ±Inf; damage is an error.
fn finite(source: &mut Source, places: &[usize], piece: &mut Piece) -> Result<bool> {
    for &place in places {
        let len = source.entries[place].len;
        for first in (0..len).step_by(piece.values.len()) {
            let count = piece.values.len().min(len - first);
            let values = &mut piece.values[..count];
            values.fill(0.0); // so that what an earlier worker left is not taken for this one's
            match source.read(place, first, &mut piece.bytes, values) {
                Err(Error::Checkpoint { .. }) if values.iter().any(|v| !v.is_finite()) => {
                    return Ok(false);
                }
                other => other?,
            }
        }
    }
    Ok(true)
}

fn check_rule(rule: &Outer, workers: &[Worker<'_>]) -> Result<()> {
    let lr = rule.learning_rate;
    if !(lr.is_finite() && lr >= 0.0) {
        return Err(Error::range(OP, "learning_rate", "finite, not negative", lr));
    }
    if !(0.0..1.0).contains(&rule.momentum) {
        return Err(Error::range(OP, "momentum", "from 0 to below 1", rule.momentum));
    }
    if rule.piece == 0 {
        return Err(Error::range(OP, "piece", "at least 1", 0));
    }
    let mut total = 0.0;
    for (index, worker) in workers.iter().enumerate() {
        if !(worker.weight.is_finite() && worker.weight >= 0.0) {
            let arg = format!("workers[{index}].weight");
            return Err(Error::range(OP, arg, "finite, not negative", worker.weight));
        }
        total += worker.weight;
    }
    if !(total > 0.0 && total.is_finite()) {
        return Err(Error::range(OP, "weights", "a finite sum above 0", total));
    }
    Ok(())
}

/// That no output is another output, or a file that a worker gave. What replaces the master must
/// not be the momentum, either.
fn check_paths(inputs: &OuterInputs<'_>, outputs: &OuterOutputs<'_>) -> Result<()> {
    let mut written =
        vec![("outputs.master", outputs.master), ("outputs.momentum", outputs.momentum)];
    written.extend(outputs.start.map(|path| ("outputs.start", path)));
    for (index, &(name, path)) in written.iter().enumerate() {
        let overlap = |second: String| {
            Err(Error::Overlap { op: OP, first: name.into(), second: second.into() })
        };
        for &(other, there) in &written[..index] {
            if same(path, there) {
                return overlap(other.into());
            }
        }
        for (number, worker) in inputs.workers.iter().enumerate() {
            if same(path, worker.path) {
                return overlap(format!("workers[{number}]"));
            }
        }
        if name != "outputs.master" && same(path, inputs.master) {
            return overlap("inputs.master".into());
        }
        if name != "outputs.momentum" && inputs.momentum.is_some_and(|there| same(path, there)) {
            return overlap("inputs.momentum".into());
        }
    }
    Ok(())
}

/// Whether two paths name one file, there or to be.
fn same(one: &Path, two: &Path) -> bool {
    let whole = |path: &Path| -> PathBuf {
        fs::canonicalize(path).unwrap_or_else(|_| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            // Of folders that are not there, each is its own.
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
            folder.join(path.file_name().unwrap_or_default())
        })
    };
    whole(one) == whole(two)
}
