//! What waits in lanes, and doing it.

use std::sync::Arc;

use super::Driver;
use super::error::{Error, Result};
use super::journal::Launched;
use super::lane::Operation;
use super::module::Kernel;
use super::order::Label;
use crate::finding::{Finding, Kind};
use crate::launch::Grid;
use crate::memory::{Fault, Footprint, HOST};

/// A launch of a kernel.
#[derive(Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Its shape.
    pub grid: Grid,
    /// The bytes of its parameters.
    pub params: Vec<u8>,
}

/// One end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the address space of the devices, pinned memory of the host included.
    Mapped(u64),
    /// Pageable memory of the host.
    Host(usize),
}

/// A function of the host.
#[derive(Debug, Clone, Copy)]
pub struct HostCall {
    /// The function.
    pub function: extern "C" fn(*mut std::ffi::c_void),
    /// Its argument.
    pub data: usize,
}

/// What an operation does.
#[derive(Debug, Clone)]
pub enum Work {
    /// Runs a kernel.
    Launch(Arc<Launch>),
    /// Copies bytes.
    Copy {
        /// Where to.
        to: Place,
        /// Where from, read when it is done.
        from: Place,
        /// How many.
        bytes: u64,
    },
    /// Writes bytes that were read when it was asked for.
    Upload {
        /// Where to.
        to: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// Writes a pattern again and again.
    Fill {
        /// Where to.
        to: u64,
        /// What.
        pattern: Vec<u8>,
        /// How often.
        count: u64,
    },
    /// Memory begins to be there, in the order of a stream.
    Allocate {
        /// Its start.
        base: u64,
    },
    /// Memory ends to be there.
    Free {
        /// Its start.
        base: u64,
    },
    /// An event is reached for the `nth` time.
    Reach {
        /// The event.
        event: u64,
        /// Which recording of it.
        nth: u64,
    },
    /// Calls the host.
    Host(HostCall),
    /// Takes part in a collective, together with operations of other streams.
    Meet {
        /// Which one.
        meeting: u64,
    },
    /// Nothing, in its place.
    Nothing,
}

impl Work {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Launch(launch) => launch.kernel.name(),
            Self::Copy { .. } => "copy",
            Self::Upload { .. } => "upload",
            Self::Fill { .. } => "fill",
            Self::Allocate { .. } => "allocation",
            Self::Free { .. } => "free",
            Self::Reach { .. } => "event",
            Self::Host(_) => "host function",
            Self::Meet { .. } => "collective",
            Self::Nothing => "nothing",
        }
    }
}

impl Driver {
    /// Does an operation of `lane`. What is wrong with it is written down; the error is the one that
    /// the context has from now on.
    pub(super) fn perform(&mut self, lane: usize, operation: &Operation) -> Result {
        let context = self.lanes.context(lane);
        let label = Label { what: operation.work.name().to_string(), stream: operation.stream };
        let (footprint, result) = match &operation.work {
            Work::Launch(launch) => self.launch(context, operation, launch),
            work => {
                let mut footprint = Footprint::default();
                let result = self.move_bytes(work, &mut footprint);
                (
                    footprint,
                    result.map_err(|(address, fault)| {
                        let kind = fault.kind;
                        self.note(&label, context, kind, address, fault.detail);
                        error_of(kind)
                    }),
                )
            }
        };
        let compared = self.compare(lane, operation, &label, footprint);
        result.and(compared)
    }

    /// Compares what an operation touched with all that nothing orders it with.
    pub(super) fn compare(
        &mut self,
        lane: usize,
        operation: &Operation,
        label: &Label,
        footprint: Footprint,
    ) -> Result {
        let context = self.lanes.context(lane);
        let meeting = self.history.add(lane, &operation.clock, label.clone(), footprint);
        let Some(meeting) = meeting else { return Ok(()) };
        let place = self.memory.allocation(meeting.address);
        let name = place.map_or("freed memory".into(), |a| {
            format!("byte {} of {}", meeting.address - a.base, a.name)
        });
        let detail = format!(
            "{name}: {:?} in stream {:#x} after {:?} of {} in stream {:#x}, and nothing orders them",
            meeting.mine, label.stream, meeting.theirs, meeting.other.what, meeting.other.stream
        );
        self.note(label, context, Kind::StreamRace, meeting.address, detail);
        if self.settings.report_only { Ok(()) } else { Err(Error::LaunchFailed) }
    }

    fn launch(
        &mut self,
        context: u64,
        operation: &Operation,
        launch: &Launch,
    ) -> (Footprint, Result) {
        self.memory.visible = self.visible_from(context);
        self.memory.note_footprint = true;
        let result = launch.kernel.run(launch.grid, &launch.params, &mut self.memory);
        let footprint = self.memory.take_footprint();
        let name = launch.kernel.name();
        let report = match result {
            Ok(report) => report,
            Err(what) => {
                self.journal.complain(format!("{name}: {what}"), None);
                return (footprint, Err(Error::LaunchFailed));
            }
        };
        self.clock += 2_000 + report.counters.total();
        self.journal.launched(Launched {
            kernel: name.to_string(),
            device: self.device_of(context),
            stream: operation.stream,
            thread: operation.thread,
            grid: launch.grid,
            bytes_read: footprint.reads.bytes(),
            bytes_written: footprint.writes.bytes(),
            sectors_read: footprint.reads.sectors(),
            sectors_written: footprint.writes.sectors(),
            findings: report.findings.len(),
            counters: report.counters,
        });
        let errors: Vec<Error> = report.findings.iter().map(|f| error_of(f.kind)).collect();
        for finding in report.findings {
            self.journal.complain(finding.to_string(), Some(finding));
        }
        // Hardware would stop at the first of the first two; the rest only shows here.
        let stops = |e: &&Error| matches!(e, Error::IllegalAddress | Error::Misaligned);
        let fatal = errors.iter().find(stops).or(errors.first()).copied();
        let result = match fatal {
            Some(error) if stops(&&error) || !self.settings.report_only => Err(error),
            _ => Ok(()),
        };
        (footprint, result)
    }

    /// Everything that is no launch and calls nobody.
    fn move_bytes(
        &mut self,
        work: &Work,
        footprint: &mut Footprint,
    ) -> std::result::Result<(), (u64, Fault)> {
        // Copies need no peer access.
        self.memory.visible = u64::MAX;
        match work {
            Work::Copy { to, from, bytes } => {
                if let Place::Mapped(address) = to {
                    footprint.writes = (*address..address + bytes).into();
                }
                if let Place::Mapped(address) = from {
                    footprint.reads = (*address..address + bytes).into();
                }
                self.clock += bytes / 16;
                return self.copy_bytes(*to, *from, *bytes);
            }
            Work::Upload { to, data } => {
                footprint.writes = (*to..to + data.len() as u64).into();
                self.clock += data.len() as u64 / 16;
                self.memory.write(*to, data).map_err(|fault| (*to, as_write(fault)))?;
            }
            Work::Fill { to, pattern, count } => {
                let bytes = pattern.len() as u64 * count;
                footprint.writes = (*to..to + bytes).into();
                self.clock += bytes / 1024;
                self.memory.fill(*to, pattern, *count).map_err(|fault| (*to, fault))?;
            }
            Work::Allocate { base } => {
                let len = self.memory.allocation(*base).map_or(0, |a| a.len);
                footprint.writes = (*base..base + len).into();
            }
            Work::Free { base } => {
                let len = self.memory.allocation(*base).map_or(0, |a| a.len);
                footprint.writes = (*base..base + len).into();
                self.release(*base).map_err(|fault| (*base, fault))?;
            }
            Work::Reach { event, nth } => {
                let clock = self.clock;
                if let Ok(event) = self.events.get_mut(*event) {
                    event.reach(*nth, clock);
                }
            }
            Work::Launch(_) | Work::Host(_) | Work::Meet { .. } | Work::Nothing => {}
        }
        Ok(())
    }

    fn copy_bytes(
        &mut self,
        to: Place,
        from: Place,
        bytes: u64,
    ) -> std::result::Result<(), (u64, Fault)> {
        let len = bytes as usize;
        match (to, from) {
            (Place::Mapped(to), Place::Mapped(from)) => {
                let whose = |fault: Fault| match fault.kind {
                    Kind::ReadOutOfBounds => (from, fault),
                    _ => (to, fault),
                };
                self.memory.copy(to, from, bytes).map_err(whose)
            }
            (Place::Mapped(to), Place::Host(from)) => {
                // SAFETY: the caller of the driver promised `bytes` readable bytes until the copy is
                // done, as every driver demands.
                let data = unsafe { std::slice::from_raw_parts(from as *const u8, len) };
                self.memory.write(to, data).map_err(|fault| (to, as_write(fault)))
            }
            (Place::Host(to), Place::Mapped(from)) => {
                // SAFETY: as above, writable bytes that nobody else uses until the copy is done.
                let out = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, len) };
                self.memory.read_into(from, out).map_err(|fault| (from, fault))
            }
            (Place::Host(to), Place::Host(from)) => {
                // SAFETY: as above, both; they may overlap.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, len) };
                Ok(())
            }
        }
    }

    /// Writes down a finding that no kernel's instruction made.
    pub(super) fn note(
        &mut self,
        label: &Label,
        context: u64,
        kind: Kind,
        address: u64,
        detail: String,
    ) {
        let finding = Finding {
            kind,
            kernel: label.what.clone(),
            instruction: format!(
                "in stream {:#x} of device {}",
                label.stream,
                self.device_of(context)
            ),
            block: [0; 3],
            thread: 0,
            address: Some(address),
            detail,
            count: 1,
        };
        self.journal.complain(finding.to_string(), Some(finding));
    }

    /// Ends the life of memory.
    pub(super) fn release(&mut self, base: u64) -> std::result::Result<(), Fault> {
        let found = self.memory.allocation(base).map(|a| (a.home, a.len));
        self.memory.free(base)?;
        self.freeing.remove(&base);
        // Variables of modules are nobody's.
        let counted = self.owners.remove(&base).is_some();
        if let Some((home, len)) = found.filter(|(home, _)| counted && *home != HOST) {
            self.used[home as usize] -= len;
        }
        Ok(())
    }
}

/// Host writes are searched for as reads, which constant memory allows.
fn as_write(fault: Fault) -> Fault {
    match fault.kind {
        Kind::ReadOutOfBounds => Fault { kind: Kind::WriteOutOfBounds, ..fault },
        _ => fault,
    }
}

/// The error that a device answers with.
pub(super) fn error_of(kind: Kind) -> Error {
    match kind {
        Kind::ReadOutOfBounds
        | Kind::WriteOutOfBounds
        | Kind::UseAfterFree
        | Kind::WriteToConstant
        | Kind::UndefinedAddress => Error::IllegalAddress,
        Kind::Misaligned => Error::Misaligned,
        _ => Error::LaunchFailed,
    }
}
