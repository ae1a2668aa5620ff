//! What stands where NCCL and RCCL stand: communicators whose ranks are threads, each with a device of
//! its own. A collective is one operation of a stream of each rank; all of them are done together,
//! once each has come to its stream's front.
//!
//! What real libraries allow and this one does not, so that a program that needs it is found:
//! communicators that block; a group whose calls are of several communicators or streams; a group that
//! not every rank takes part in, or whose parts do not fit (elsewhere a hang). Calls in progress take a
//! random while, and until they have ended the work is not in its stream.

mod call;
mod exchange;
mod front;

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Driver;
use super::context::thread;
use super::error::{Error, Result};
use super::table::Table;
use super::work::Place;

pub use call::{Call, Value};
pub use front::Config;

/// Bytes of what a communicator is known by.
pub const ID_BYTES: usize = 128;
/// What a communicator is known by.
pub type Id = [u8; ID_BYTES];
/// What this one says of itself: 2.18.3.
pub const VERSION: i32 = 21803;

const INTERNAL: Error = Error::Injected(3);
const INVALID_ARGUMENT: Error = Error::Injected(4);
const INVALID_USAGE: Error = Error::Injected(5);
const IN_PROGRESS: Error = Error::Injected(7);

/// What a result is called.
pub fn describe(code: u32) -> &'static std::ffi::CStr {
    match code {
        0 => c"no error",
        1 => c"unhandled cuda error",
        2 => c"unhandled system error",
        3 => c"internal error",
        4 => c"invalid argument",
        5 => c"invalid usage",
        6 => c"remote process exited or there was a network error",
        7 => c"operation in progress",
        _ => c"unknown result code",
    }
}

/// Calls between `ncclGroupStart` and `ncclGroupEnd`, of one thread.
#[derive(Debug, Default)]
struct Group {
    depth: u32,
    calls: Vec<(u64, u64, Call)>,
    /// What one of its calls failed with: nothing of it will be done.
    failed: Option<Error>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

/// Takes note of a failed function, for the group that it was called in.
pub fn spoil(function: &str, error: Error) {
    GROUP.with_borrow_mut(|group| {
        if function == "ncclGroupEnd" {
            *group = Group::default();
        } else if function.starts_with("nccl") && group.depth > 0 && error != IN_PROGRESS {
            group.failed.get_or_insert(error);
        }
    });
}

/// One rank of a communicator.
#[derive(Debug)]
pub struct Comm {
    id: Id,
    rank: usize,
    context: u64,
    /// Groups given so far.
    groups: u64,
    /// How often it says yet that its last call is in progress.
    delay: usize,
    /// The last group, which is not in its stream yet.
    waiting: Option<(u64, Vec<Call>)>,
    /// The error that it has from now on.
    error: Option<Error>,
}

/// All ranks of a communicator.
#[derive(Debug)]
struct Clique {
    key: u64,
    members: Vec<Option<u64>>,
    rounds: BTreeMap<u64, Vec<Option<Vec<Call>>>>,
}

/// All communicators.
#[derive(Debug)]
pub struct Cliques {
    ids: u64,
    list: BTreeMap<Id, Clique>,
    comms: Table<Comm>,
    /// Which round a meeting is.
    meetings: BTreeMap<u64, (Id, u64)>,
}

impl Default for Cliques {
    fn default() -> Self {
        Self { ids: 0, list: BTreeMap::new(), comms: Table::new(0x20), meetings: BTreeMap::new() }
    }
}

impl Cliques {
    /// Communicators that were made and not ended.
    pub fn handles(&self) -> impl Iterator<Item = u64> {
        self.comms.iter().map(|(handle, _)| handle)
    }
}

impl Driver {
    /// What a new communicator will be known by.
    pub fn nccl_id(&mut self) -> Id {
        self.cliques.ids += 1;
        let mut id = [0x5a; ID_BYTES];
        id[..8].copy_from_slice(&self.cliques.ids.to_le_bytes());
        id
    }

    /// Rank `rank` of `size` on the current device.
    pub fn nccl_init(&mut self, id: Id, size: i32, rank: i32) -> Result<u64> {
        let key = u64::from_le_bytes(id[..8].try_into().expect("eight bytes"));
        let known =
            id[8..].iter().all(|byte| *byte == 0x5a) && (1..=self.cliques.ids).contains(&key);
        let (Ok(size), Ok(rank)) = (usize::try_from(size), usize::try_from(rank)) else {
            return Err(INVALID_ARGUMENT);
        };
        if !known || rank >= size {
            return Err(INVALID_ARGUMENT);
        }
        let context = self.here()?;
        let clique = self.cliques.list.entry(id).or_insert_with(|| Clique {
            key,
            members: vec![None; size],
            rounds: BTreeMap::new(),
        });
        if clique.members.len() != size || clique.members[rank].is_some() {
            return Err(INVALID_ARGUMENT);
        }
        // One device is one rank's.
        let others: Vec<u64> = clique.members.iter().copied().flatten().collect();
        for other in others {
            let other = self.cliques.comms.get(other)?.context;
            if self.device_of(other) == self.device_of(context) {
                return Err(INVALID_USAGE);
            }
        }
        let delay = self.random.below(4);
        let comm = Comm { id, rank, context, groups: 0, delay, waiting: None, error: None };
        let comm = self.cliques.comms.add(comm);
        let clique = self.cliques.list.get_mut(&id).expect("made above");
        clique.members[rank] = Some(comm);
        Ok(comm)
    }

    /// How the communicator's last call stands: done, in progress, or failed for ever.
    pub fn nccl_state(&mut self, comm: u64) -> Result {
        self.nccl_sound(comm)?;
        let one = self.cliques.comms.get_mut(comm).map_err(|_| INVALID_ARGUMENT)?;
        let all = self.cliques.list.get(&one.id).ok_or(INTERNAL)?;
        if all.members.iter().any(Option::is_none) {
            return Err(IN_PROGRESS);
        }
        if one.delay > 0 {
            one.delay -= 1;
            return Err(IN_PROGRESS);
        }
        match one.waiting.take() {
            Some((stream, calls)) => self.nccl_enqueue(comm, stream, calls),
            None => Ok(()),
        }
    }

    /// The error that the communicator has, or gets here, if somebody asked for a call of
    /// `ncclAsyncError` to fail: a link that breaks, or (with "in progress") one that does nothing more.
    fn nccl_sound(&mut self, comm: u64) -> Result {
        let asked = self.journal.begin("ncclAsyncError", thread()).err();
        let one = self.cliques.comms.get_mut(comm).map_err(|_| INVALID_ARGUMENT)?;
        one.error = one.error.or(asked);
        one.error.map_or(Ok(()), Err)
    }

    /// Begins a group.
    pub fn nccl_group_start(&mut self) -> Result {
        GROUP.with_borrow_mut(|group| group.depth += 1);
        Ok(())
    }

    /// Adds a call to the thread's group, or makes a group of it.
    pub fn nccl_call(&mut self, comm: u64, stream: u64, call: Call) -> Result {
        self.nccl_group_start()?;
        GROUP.with_borrow_mut(|group| group.calls.push((comm, stream, call)));
        self.nccl_group_end()
    }

    /// Ends a group, and lets it go.
    pub fn nccl_group_end(&mut self) -> Result {
        let calls = GROUP.with_borrow_mut(|group| {
            group.depth = group.depth.checked_sub(1).ok_or(INVALID_USAGE)?;
            if group.depth > 0 {
                return Ok(Vec::new());
            }
            let Group { calls, failed, .. } = std::mem::take(group);
            failed.map_or(Ok(calls), Err)
        })?;
        let Some(&(comm, stream, _)) = calls.first() else { return Ok(()) };
        if calls.iter().any(|other| (other.0, other.1) != (comm, stream)) {
            return self.nccl_refuse("a group of several communicators or streams");
        }
        let calls: Vec<Call> = calls.into_iter().map(|(.., call)| call).collect();
        let stream = self.stream(stream).map_err(|_| INVALID_ARGUMENT)?;
        let delay = self.random.below(4);
        self.nccl_sound(comm)?;
        let one = self.cliques.comms.get_mut(comm).map_err(|_| INVALID_ARGUMENT)?;
        if one.delay > 0 || one.waiting.is_some() {
            return self.nccl_refuse("a call of a communicator whose last call is in progress");
        }
        if self.streams.get(stream)?.context != one.context {
            return self.nccl_refuse("a stream of another device than the communicator's");
        }
        if delay == 0 {
            return self.nccl_enqueue(comm, stream, calls);
        }
        (one.delay, one.waiting) = (delay, Some((stream, calls)));
        Err(IN_PROGRESS)
    }

    /// Ends the communicator, whose last call has ended.
    pub fn nccl_destroy(&mut self, comm: u64) -> Result {
        let one = self.cliques.comms.get(comm).map_err(|_| INVALID_ARGUMENT)?;
        if one.delay > 0 || one.waiting.is_some() {
            return self.nccl_refuse("the end of a communicator whose last call is in progress");
        }
        self.nccl_abort(comm)
    }

    /// Ends the communicator: what it has in streams does nothing, and others wait for it for ever.
    pub fn nccl_abort(&mut self, comm: u64) -> Result {
        let one = self.cliques.comms.remove(comm).map_err(|_| INVALID_ARGUMENT)?;
        let Some(clique) = self.cliques.list.get(&one.id) else { return Ok(()) };
        for round in clique.rounds.keys() {
            self.lanes.leave(clique.key << 32 | round, one.rank);
        }
        let comms = &self.cliques.comms;
        let living = |member: &Option<u64>| member.is_some_and(|comm| comms.get(comm).is_ok());
        if !clique.members.iter().any(living) {
            self.cliques.list.remove(&one.id);
        }
        Ok(())
    }

    fn nccl_refuse(&mut self, what: &str) -> Result {
        self.journal.complain(format!("nccl: {what}"), None);
        Err(INVALID_USAGE)
    }

    /// Gives a group to its stream.
    fn nccl_enqueue(&mut self, comm: u64, stream: u64, calls: Vec<Call>) -> Result {
        self.forbid_captured(stream)?;
        let size = {
            let one = self.cliques.comms.get(comm)?;
            self.cliques.list[&one.id].members.len() as u64
        };
        for call in &calls {
            let mut part = |address, bytes, write| {
                self.check("collective", Place::Mapped(address), bytes, write, stream)
            };
            let fits = match *call {
                Call::Send { from, bytes, .. } => part(from, bytes, false),
                Call::Receive { to, bytes, .. } => part(to, bytes, true),
                Call::AllGather { from, to, bytes } => {
                    part(from, bytes, false).and(part(to, bytes * size, true))
                }
                Call::AllReduce { from, to, count, kind, .. } => {
                    let bytes = count * kind.bytes();
                    part(from, bytes, false).and(part(to, bytes, true))
                }
            };
            fits.map_err(|_| INVALID_ARGUMENT)?;
        }
        self.order_default(stream)?;
        let lane = self.streams.get(stream)?.lane;
        let one = self.cliques.comms.get_mut(comm)?;
        let (id, rank, round) = (one.id, one.rank, one.groups);
        one.groups += 1;
        let clique = self.cliques.list.get_mut(&id).ok_or(INTERNAL)?;
        let meeting = clique.key << 32 | round;
        let size = clique.members.len();
        let groups = clique.rounds.entry(round).or_insert_with(|| {
            self.cliques.meetings.insert(meeting, (id, round));
            self.lanes.open_meeting(meeting, size);
            vec![None; size]
        });
        groups[rank] = Some(calls);
        let unfit = groups.iter().all(Option::is_some).then(|| exchange::unfit(groups)).flatten();
        self.lanes.meet(lane, meeting, rank, stream, thread());
        unfit.map_or(Ok(()), |what| self.nccl_refuse(&what))
    }
}
