//! Captures: work that a stream remembers instead of doing it.

use super::Driver;
use super::context::thread;
use super::error::{Error, Result};
use super::graph::{Graph, Node};
use super::work::Work;

/// Which calls are forbidden while a capture goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of any thread that could disturb it.
    Global,
    /// Those of the thread that began it.
    ThreadLocal,
    /// None.
    Relaxed,
}

impl Mode {
    /// As the vendors number them.
    pub fn from_number(number: u32) -> Result<Self> {
        match number {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => Err(Error::InvalidValue),
        }
    }
}

/// Where a stream is in a capture: what its next operation comes after.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The capture.
    pub capture: u64,
    /// Nodes.
    pub after: Vec<usize>,
}

/// A capture that goes on.
#[derive(Debug)]
pub struct Capture {
    nodes: Vec<Node>,
    origin: u64,
    context: u64,
    blocking: bool,
    mode: Mode,
    thread: u64,
    invalid: bool,
}

/// What a stream says of its capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does not capture.
    None,
    /// It does, in the capture of this number.
    Active(u64),
    /// It does in vain.
    Invalidated,
}

impl Driver {
    /// From now on the stream remembers.
    pub fn begin_capture(&mut self, stream: u64, mode: Mode) -> Result {
        if self.is_legacy(stream)? {
            return Err(Error::CaptureUnsupported);
        }
        let one = self.streams.get(stream)?;
        if one.capture.is_some() {
            return Err(Error::IllegalState);
        }
        let (context, blocking) = (one.context, one.blocking);
        let capture = self.captures.add(Capture {
            nodes: Vec::new(),
            origin: stream,
            context,
            blocking,
            mode,
            thread: thread(),
            invalid: false,
        });
        self.streams.get_mut(stream)?.capture = Some(Tail { capture, after: Vec::new() });
        Ok(())
    }

    /// The capture that the stream began is a graph.
    pub fn end_capture(&mut self, stream: u64) -> Result<u64> {
        let tail = self.streams.get(stream)?.capture.clone().ok_or(Error::IllegalState)?;
        let capture = self.captures.get(tail.capture)?;
        if capture.origin != stream {
            self.invalidate(tail.capture);
            return Err(Error::CaptureUnmatched);
        }
        if capture.mode != Mode::Relaxed && capture.thread != thread() {
            self.invalidate(tail.capture);
            return Err(Error::CaptureWrongThread);
        }
        // It ends, one way or the other.
        let capture = self.captures.remove(tail.capture)?;
        let mut others = Vec::new();
        for (_, other) in self.streams.iter_mut() {
            if other.capture.as_ref().is_some_and(|t| t.capture == tail.capture) {
                others.extend(other.capture.take().map(|t| t.after).unwrap_or_default());
            }
        }
        if capture.invalid {
            return Err(Error::CaptureInvalidated);
        }
        let joined = ancestors(&capture.nodes, &tail.after);
        if others.iter().any(|node| !joined[*node]) {
            return Err(Error::CaptureUnjoined);
        }
        Ok(self.graphs.add(Graph { nodes: capture.nodes.into() }))
    }

    /// What a stream is about.
    pub fn capture_status(&self, stream: u64) -> Result<Status> {
        let Some(tail) = &self.streams.get(stream)?.capture else { return Ok(Status::None) };
        Ok(match self.captures.get(tail.capture) {
            Ok(capture) if !capture.invalid => Status::Active(tail.capture),
            _ => Status::Invalidated,
        })
    }

    /// Remembers an operation.
    pub(super) fn capture(&mut self, stream: u64, work: Work) -> Result {
        let tail = self.streams.get(stream)?.capture.clone().ok_or(Error::IllegalState)?;
        self.valid_capture(tail.capture)?;
        if matches!(work, Work::Allocate { .. } | Work::Free { .. }) {
            self.invalidate(tail.capture);
            self.journal.complain(
                format!("{}s of a stream that captures are not provided", work.name()),
                None,
            );
            return Err(Error::NotSupported);
        }
        let nodes = &mut self.captures.get_mut(tail.capture)?.nodes;
        nodes.push(Node { work, after: tail.after, thread: thread() });
        let after = vec![nodes.len() - 1];
        self.streams.get_mut(stream)?.capture = Some(Tail { capture: tail.capture, after });
        Ok(())
    }

    /// The stream waits for captured work, and so takes part in the capture.
    pub(super) fn join_capture(&mut self, stream: u64, other: Tail) -> Result {
        // A capture that ended left its events behind.
        self.valid_capture(other.capture).map_err(|error| match error {
            Error::InvalidHandle => Error::CapturedEvent,
            error => error,
        })?;
        if self.is_legacy(stream)? {
            self.invalidate(other.capture);
            return Err(Error::CaptureImplicit);
        }
        let one = self.streams.get_mut(stream)?;
        match &mut one.capture {
            None => one.capture = Some(other),
            Some(tail) if tail.capture == other.capture => {
                tail.after.extend(other.after);
                tail.after.sort_unstable();
                tail.after.dedup();
            }
            Some(tail) => {
                let mine = tail.capture;
                self.invalidate(mine);
                self.invalidate(other.capture);
                return Err(Error::CaptureMerge);
            }
        }
        Ok(())
    }

    /// Whether a capture may go on.
    pub(super) fn valid_capture(&self, capture: u64) -> Result {
        if self.captures.get(capture)?.invalid {
            return Err(Error::CaptureInvalidated);
        }
        Ok(())
    }

    /// A capture comes to nothing.
    pub(super) fn invalidate(&mut self, capture: u64) {
        if let Ok(capture) = self.captures.get_mut(capture) {
            capture.invalid = true;
        }
    }

    /// The stream's capture comes to nothing.
    pub(super) fn spoil(&mut self, stream: u64) -> Result {
        if let Some(tail) = &self.streams.get(stream)?.capture {
            let capture = tail.capture;
            self.invalidate(capture);
        }
        Ok(())
    }

    /// The host may not wait for a stream that captures.
    pub fn forbid_captured(&mut self, stream: u64) -> Result {
        if self.streams.get(stream)?.capture.is_some() {
            self.spoil(stream)?;
            return Err(Error::CaptureUnsupported);
        }
        Ok(())
    }

    /// Calls that could disturb a capture: they fail, and the capture with them.
    pub fn forbid_unsafe(&mut self) -> Result {
        let me = thread();
        let mine = super::capture_mode();
        let disturbs = |capture: &Capture| match (mine, capture.mode) {
            (Mode::Relaxed, _) | (_, Mode::Relaxed) => false,
            (Mode::Global, Mode::Global) => true,
            _ => capture.thread == me,
        };
        let mut any = false;
        for (_, capture) in self.captures.iter_mut().filter(|(_, c)| disturbs(c)) {
            capture.invalid = true;
            any = true;
        }
        if any { Err(Error::CaptureUnsupported) } else { Ok(()) }
    }

    /// The default stream would wait for captures of blocking streams.
    pub(super) fn forbid_implicit(&mut self, context: u64) -> Result {
        let mut any = false;
        for (_, capture) in self.captures.iter_mut() {
            if capture.context == context && capture.blocking {
                capture.invalid = true;
                any = true;
            }
        }
        if any { Err(Error::CaptureImplicit) } else { Ok(()) }
    }
}

/// Which nodes come before the given ones, those included.
fn ancestors(nodes: &[Node], of: &[usize]) -> Vec<bool> {
    let mut found = vec![false; nodes.len()];
    let mut list = of.to_vec();
    while let Some(node) = list.pop() {
        if !std::mem::replace(&mut found[node], true) {
            list.extend(&nodes[node].after);
        }
    }
    found
}
