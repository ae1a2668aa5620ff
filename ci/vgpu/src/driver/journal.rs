//! What happened: findings, launches, calls; and the calls that are made to fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use serde_json::{Value, json};

use super::error::Error;
use super::settings::{Rule, Settings};
use crate::counters::Counters;
use crate::finding::Finding;
use crate::launch::Grid;

/// A launch that was executed.
#[derive(Debug, Clone)]
pub struct Launched {
    /// The kernel's name.
    pub kernel: String,
    /// The device.
    pub device: u32,
    /// The stream.
    pub stream: u64,
    /// The thread that asked for it.
    pub thread: u64,
    /// Its shape.
    pub grid: Grid,
    /// Different bytes that were read.
    pub bytes_read: u64,
    /// Different bytes that were written.
    pub bytes_written: u64,
    /// Different sectors of 32 bytes that were read.
    pub sectors_read: u64,
    /// Different sectors of 32 bytes that were written.
    pub sectors_written: u64,
    /// How many findings it gave.
    pub findings: usize,
    /// What it did.
    pub counters: Counters,
}

impl Launched {
    /// For programs.
    pub fn json(&self) -> Value {
        let c = &self.counters;
        let classes = c.instructions().map(|(class, n)| (format!("{class:?}"), n.into()));
        json!({
            "kernel": self.kernel,
            "device": self.device,
            "stream": self.stream,
            "thread": self.thread,
            "blocks": self.grid.blocks,
            "threads": self.grid.threads,
            "shared": self.grid.shared,
            "findings": self.findings,
            "instructions": serde_json::Map::from_iter(classes),
            "total": c.total(),
            "lane_instructions": c.lane_instructions,
            "divergent": c.divergent,
            "bank_conflicts": c.bank_conflicts,
            "sectors": c.sectors,
            "ideal_sectors": c.ideal_sectors,
            "sector_bytes": 32 * c.sectors,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "sectors_read": self.sectors_read,
            "sectors_written": self.sectors_written,
        })
    }
}

/// Something that is wrong, which nobody has taken note of yet.
#[derive(Debug, Clone)]
pub struct Complaint {
    /// All of it in words.
    pub text: String,
    /// The finding, if a check made it.
    pub finding: Option<Finding>,
}

impl Complaint {
    /// For programs.
    pub fn json(&self) -> Value {
        let Some(f) = &self.finding else { return json!({ "kind": "Error", "text": self.text }) };
        json!({
            "kind": format!("{:?}", f.kind),
            "text": self.text,
            "kernel": f.kernel,
            "instruction": f.instruction,
            "block": f.block,
            "thread": f.thread,
            "address": f.address,
            "detail": f.detail,
            "count": f.count,
        })
    }
}

/// All that is written down.
#[derive(Debug, Default)]
pub struct Journal {
    complaints: Vec<Complaint>,
    launches: Vec<Launched>,
    calls: BTreeMap<&'static str, u64>,
    rules: Vec<Rule>,
    trace: Option<File>,
    trace_to_stderr: bool,
    /// Lines for whoever asked to keep them.
    kept: Option<Vec<String>>,
    counters: Option<File>,
}

impl Journal {
    /// As the settings say. A file that cannot be opened is an error that says so.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        // Processes that begin each other share the file.
        let open = |path: &String| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|error| format!("{path}: {error}"))
        };
        let to_stderr = settings.trace.as_deref() == Some("stderr");
        let trace = settings.trace.as_ref().filter(|_| !to_stderr).map(open).transpose()?;
        Ok(Self {
            rules: settings.fail.clone(),
            trace,
            trace_to_stderr: to_stderr,
            counters: settings.counters.as_ref().map(open).transpose()?,
            ..Self::default()
        })
    }

    /// Something is wrong.
    pub fn complain(&mut self, text: String, finding: Option<Finding>) {
        eprintln!("vgpu: {text}");
        self.complaints.push(Complaint { text, finding });
    }

    /// What was wrong since this was asked last.
    pub fn take_complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    /// A launch was executed.
    pub fn launched(&mut self, launch: Launched) {
        if let Some(file) = &mut self.counters {
            // The file is a courtesy; a full disk is no reason to stop.
            let _ = writeln!(file, "{}", launch.json());
        }
        self.launches.push(launch);
    }

    /// The launches since this was asked last.
    pub fn take_launches(&mut self) -> Vec<Launched> {
        std::mem::take(&mut self.launches)
    }

    /// A call begins: the error that it was asked to give, if any.
    pub fn begin(&mut self, call: &'static str, thread: u64) -> Result<(), Error> {
        *self.calls.entry(call).or_default() += 1;
        let mut fail = None;
        self.rules.retain_mut(|rule| {
            let counts = rule.is_about(call) && rule.thread.is_none_or(|only| only == thread);
            rule.nth -= u64::from(counts);
            if rule.nth == 0 {
                fail.get_or_insert(rule.code);
            }
            rule.nth > 0
        });
        fail.map_or(Ok(()), |code| Err(Error::Injected(code)))
    }

    /// More calls to fail.
    pub fn add_rules(&mut self, rules: Vec<Rule>) {
        self.rules.extend(rules);
    }

    /// Rules that have not come true; they are dropped.
    pub fn take_rules(&mut self) -> usize {
        std::mem::take(&mut self.rules).len()
    }

    /// How often each function was called.
    pub fn calls(&self) -> &BTreeMap<&'static str, u64> {
        &self.calls
    }

    /// Whether anybody reads the trace.
    pub fn traces(&self) -> bool {
        self.trace.is_some() || self.trace_to_stderr || self.kept.is_some()
    }

    /// A line of the trace.
    pub fn trace(&mut self, line: String) {
        if let Some(file) = &mut self.trace {
            let _ = writeln!(file, "{line}");
        }
        if self.trace_to_stderr {
            eprintln!("vgpu: {line}");
        }
        if let Some(kept) = &mut self.kept {
            kept.push(line);
        }
    }

    /// The lines kept since this was asked last; from now on they are kept or not.
    pub fn take_trace(&mut self, keep: bool) -> Vec<String> {
        let old = std::mem::replace(&mut self.kept, keep.then(Vec::new));
        old.unwrap_or_default()
    }
}
