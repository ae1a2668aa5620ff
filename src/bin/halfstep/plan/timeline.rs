//! When buckets are exchanged, as a table, as bars and as data.

use std::io::{self, Write};

use halfstep::reduce::{BucketPlan, Slot};
use serde_json::{Value, json};

/// Columns of the bars.
const COLUMNS: usize = 60;

/// A plan and its times.
pub struct Timeline<'a> {
    pub plan: &'a BucketPlan,
    pub slots: &'a [Slot],
    pub backward: f64,
}

impl Timeline<'_> {
    /// A row for each bucket, then bars: `.` waiting for the one before, `#` on the wire.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:>6} {:>8} {:>10} {:>9} {:>9} {:>9}  from … to",
            "bucket", "tensors", "MiB", "ready ms", "start", "end"
        )?;
        let bytes = self.plan.bytes();
        for (index, (bucket, slot)) in self.plan.buckets().iter().zip(self.slots).enumerate() {
            let name = |param: Option<&usize>| {
                param.map_or(String::new(), |&param| printable(&self.plan.params()[param].name))
            };
            writeln!(
                out,
                "{index:>6} {:>8} {:>10.3} {:>9.3} {:>9.3} {:>9.3}  {} … {}",
                bucket.params.len(),
                bytes[index] as f64 / f64::from(1 << 20),
                1e3 * slot.ready,
                1e3 * slot.start,
                1e3 * slot.end,
                name(bucket.params.first()),
                name(bucket.params.last()),
            )?;
        }
        let end = self.slots.last().map_or(0.0, |slot| slot.end).max(self.backward);
        let column = |time: f64| (time / end * COLUMNS as f64).round() as usize;
        writeln!(out, "\n{:>9} |{}", "backward", "=".repeat(column(self.backward)))?;
        for (index, slot) in self.slots.iter().enumerate() {
            let (ready, start) = (column(slot.ready), column(slot.start));
            let last = column(slot.end).max(start + 1);
            writeln!(
                out,
                "{index:>9} |{}{}{}",
                " ".repeat(ready.min(start)),
                ".".repeat(start - ready.min(start)),
                "#".repeat(last - start)
            )?;
        }
        writeln!(out, "{:>9} 0{:>2$.2} ms", "", 1e3 * end, COLUMNS)
    }

    /// The same as data.
    pub fn json(&self) -> Value {
        let bucket = |(bucket, slot): (&halfstep::reduce::Bucket, &Slot)| {
            json!({
                "params": bucket.params.iter().map(|&p| &self.plan.params()[p].name).collect::<Vec<_>>(),
                "len": bucket.len,
                "ready_seconds": slot.ready,
                "start_seconds": slot.start,
                "end_seconds": slot.end,
            })
        };
        let buckets: Value = self.plan.buckets().iter().zip(self.slots).map(bucket).collect();
        json!({
            "format": "halfstep plan/1",
            "wire": self.plan.wire().name(),
            "hash": format!("{:016x}", self.plan.hash()),
            "backward_seconds": self.backward,
            "buckets": buckets,
        })
    }
}

/// A name from a file, on one line and without what a terminal would obey.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
