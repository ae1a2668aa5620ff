//! Who comes before whom: streams, and events that mark points in their order.
//!
//! A stream's work is counted. A ticket is (stream, count); an event is recorded only where a
//! ticket is asked for, and goes back to a list of spare ones when the driver says that it was
//! reached.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::ThreadId;

use super::driver::{Driver, Failure, Handle};
use crate::backend::{StreamId, Ticket};

/// An event without a clock, which is cheaper.
const NO_TIMING: u32 = 2;
const TIMING: u32 = 0;
/// A stream that does not wait for the default stream.
const NON_BLOCKING: u32 = 1;
/// The calling thread's own default stream, of both vendors: on every thread another one.
const PER_THREAD: usize = 2;

/// One stream.
struct Queue {
    handle: Handle,
    /// Destroyed with us; a framework's streams are not, and it gives them work of its own.
    owned: bool,
    /// Whose default stream it is, where that is one thread's own.
    thread: Option<ThreadId>,
    /// Nobody can enqueue any more.
    closed: bool,
    /// Pieces of work given so far.
    given: u64,
    /// Pieces known to have run.
    reached: u64,
    /// Recorded points that are not known to be reached, in order.
    marks: VecDeque<(u64, Handle)>,
}

impl Queue {
    /// Whether its handle means this stream on the calling thread.
    fn is_here(&self) -> bool {
        self.thread.is_none_or(|thread| thread == std::thread::current().id())
    }
}

/// All streams of a device.
pub(super) struct Order {
    driver: Arc<Driver>,
    queues: HashMap<u64, Queue>,
    next: u64,
    spare: Vec<Handle>,
    /// Events that the host is waiting for, by some thread: they mark nothing else until it is done.
    awaited: Vec<Handle>,
}

// SAFETY: handles are the driver's, which may be used from any thread; `Order` is behind a lock.
unsafe impl Send for Order {}

impl Order {
    pub(super) fn new(driver: Arc<Driver>) -> Self {
        let (spare, awaited) = (Vec::new(), Vec::new());
        Self { driver, queues: HashMap::new(), next: 0, spare, awaited }
    }

    pub(super) fn open(&mut self) -> Result<StreamId, Failure> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: one handle is written.
        unsafe { self.driver.stream_create(&mut handle, NON_BLOCKING) }?;
        Ok(self.insert(handle, true))
    }

    /// A stream that somebody else owns.
    pub(super) fn adopt(&mut self, handle: Handle) -> StreamId {
        self.insert(handle, false)
    }

    fn insert(&mut self, handle: Handle, owned: bool) -> StreamId {
        self.next += 1;
        let own = handle.addr() == PER_THREAD;
        let queue = Queue {
            handle,
            owned,
            thread: own.then(|| std::thread::current().id()),
            closed: false,
            given: 0,
            reached: 0,
            marks: VecDeque::new(),
        };
        self.queues.insert(self.next, queue);
        StreamId(self.next)
    }

    /// The driver's stream, for one more piece of work.
    pub(super) fn enqueue(&mut self, stream: StreamId) -> Handle {
        let queue = self.queue(stream);
        queue.given += 1;
        queue.handle
    }

    /// After a piece of work. Where other threads could not mark it, it is marked at once: they may ask whether it has run.
    pub(super) fn enqueued(&mut self, stream: StreamId) -> Result<(), Failure> {
        if self.queue(stream).thread.is_none() {
            return Ok(());
        }
        if self.capturing(stream)? {
            self.queue(stream).given -= 1; // it is a graph's, and does not run now
            return Ok(());
        }
        self.record(stream).map(|_| ())
    }

    /// Whether the calling thread can reach the stream.
    pub(super) fn is_here(&mut self, stream: StreamId) -> bool {
        self.queue(stream).is_here()
    }

    pub(super) fn handle(&mut self, stream: StreamId) -> Handle {
        self.queue(stream).handle
    }

    fn queue(&mut self, stream: StreamId) -> &mut Queue {
        self.queues.get_mut(&stream.0).expect("a `Stream` is open for as long as it lives")
    }

    /// The point after everything given so far. No graph is being made of the stream.
    pub(super) fn record(&mut self, stream: StreamId) -> Result<Ticket, Failure> {
        let queue = self.queue(stream);
        // Of a framework's work nobody tells us: there may be some since the last point.
        queue.given += u64::from(!queue.owned);
        let (handle, sequence) = (queue.handle, queue.given);
        let ticket = Ticket { stream, sequence };
        let marked = queue.marks.back().map_or(queue.reached, |(sequence, _)| *sequence);
        if marked >= sequence {
            return Ok(ticket);
        }
        self.prune(stream)?;
        let free = self.spare.iter().rposition(|event| !self.awaited.contains(event));
        let event = match free {
            Some(at) => self.spare.swap_remove(at),
            None => {
                let mut event = std::ptr::null_mut();
                // SAFETY: one handle is written.
                unsafe { self.driver.event_create(&mut event, NO_TIMING) }?;
                event
            }
        };
        // SAFETY: an event of ours that nobody waits for any more, and a living stream.
        if let Err(failure) = unsafe { self.driver.event_record(event, handle) } {
            self.spare.push(event);
            return Err(failure);
        }
        self.queue(stream).marks.push_back((sequence, event));
        Ok(ticket)
    }

    /// Marks that point; not while a graph is made of the stream, which then has none that can be waited for, and not
    /// where another thread has marked it as it was given.
    pub(super) fn mark_end(&mut self, stream: StreamId) -> Result<(), Failure> {
        if !self.is_here(stream) || self.capturing(stream)? {
            return Ok(());
        }
        self.record(stream).map(|_| ())
    }

    /// An event with a clock, recorded; the caller destroys it.
    pub(super) fn mark_time(&mut self, stream: StreamId) -> Result<Handle, Failure> {
        let handle = self.handle(stream);
        let mut event = std::ptr::null_mut();
        // SAFETY: one handle is written.
        unsafe { self.driver.event_create(&mut event, TIMING) }?;
        // SAFETY: an event of ours, and a living stream.
        if let Err(failure) = unsafe { self.driver.event_record(event, handle) } {
            // SAFETY: as above; nobody else has it. The first failure is the cause.
            let _ = unsafe { self.driver.event_destroy(event) };
            return Err(failure);
        }
        Ok(event)
    }

    /// Forgets the marks that were reached.
    fn prune(&mut self, stream: StreamId) -> Result<(), Failure> {
        let Self { driver, queues, spare, .. } = self;
        let Some(queue) = queues.get_mut(&stream.0) else { return Ok(()) };
        while let Some((sequence, event)) = queue.marks.front().copied() {
            // SAFETY: a recorded event of ours.
            match unsafe { driver.event_query(event) } {
                Ok(()) => {
                    queue.reached = queue.reached.max(sequence);
                    queue.marks.pop_front();
                    spare.push(event);
                }
                Err(failure) if failure.code == driver.vendor.not_ready => break,
                Err(failure) => return Err(failure),
            }
        }
        if !queue.closed || queue.reached < queue.given {
            return Ok(());
        }
        let Queue { handle, owned, .. } = *queue;
        queues.remove(&stream.0);
        match owned {
            // SAFETY: opened by us, destroyed once, with the last that is known of it.
            true => unsafe { driver.stream_destroy(handle) },
            false => Ok(()),
        }
    }

    /// The event of the first mark at or after a ticket; none if the ticket was reached.
    fn mark(&self, ticket: Ticket) -> Option<Handle> {
        let queue = self.queues.get(&ticket.stream.0)?;
        if queue.reached >= ticket.sequence {
            return None;
        }
        let mark = queue.marks.iter().find(|(sequence, _)| *sequence >= ticket.sequence);
        mark.map(|(_, event)| *event)
    }

    /// Work given to `stream` from now on runs after `ticket`.
    pub(super) fn wait(&mut self, stream: StreamId, ticket: Ticket) -> Result<(), Failure> {
        if stream == ticket.stream {
            return Ok(());
        }
        let Some(event) = self.mark(ticket) else { return Ok(()) };
        // A wait is work too: who waits for this stream waits for what it waits for.
        let handle = self.enqueue(stream);
        // SAFETY: a recorded event of ours and a living stream.
        unsafe { self.driver.stream_wait(handle, event, 0) }?;
        self.enqueued(stream)
    }

    /// The event to wait for until `ticket` is reached; none if it was. Whoever waits says when that is over.
    pub(super) fn await_event(&mut self, ticket: Ticket) -> Option<Handle> {
        let event = self.mark(ticket)?;
        self.awaited.push(event);
        Some(event)
    }

    /// Notes that a ticket's event was waited for, by one thread.
    pub(super) fn awaited(&mut self, ticket: Ticket, event: Handle) -> Result<(), Failure> {
        if let Some(at) = self.awaited.iter().position(|awaited| *awaited == event) {
            self.awaited.swap_remove(at);
        }
        self.prune(ticket.stream)
    }

    /// Everything that was given to any stream so far.
    pub(super) fn now(&self) -> Vec<Ticket> {
        let busy = self.queues.iter().filter(|(_, queue)| queue.given > queue.reached);
        busy.map(|(id, queue)| Ticket { stream: StreamId(*id), sequence: queue.given }).collect()
    }

    /// Whether a ticket was reached, without waiting. Marks the point where nobody has, so that
    /// the answer will be yes some day; on a stream that is being captured it is no until then.
    pub(super) fn reached(&mut self, ticket: Ticket) -> Result<bool, Failure> {
        let Some(queue) = self.queues.get(&ticket.stream.0) else { return Ok(true) };
        if queue.reached >= ticket.sequence {
            return Ok(true);
        }
        let open = !queue.closed;
        if self.mark(ticket).is_none() && open {
            self.mark_end(ticket.stream)?;
        }
        self.prune(ticket.stream)?;
        let queue = self.queues.get(&ticket.stream.0);
        Ok(queue.is_none_or(|queue| queue.reached >= ticket.sequence))
    }

    /// Whether a graph is being made of the stream's work.
    pub(super) fn capturing(&mut self, stream: StreamId) -> Result<bool, Failure> {
        let handle = self.handle(stream);
        let mut status = 0;
        // SAFETY: a living stream; one number is written.
        unsafe { self.driver.capture_status(handle, &mut status) }?;
        Ok(status != 0)
    }

    /// Whether a graph is being made of any stream that this thread can reach.
    pub(super) fn captures(&mut self) -> Result<bool, Failure> {
        let open = self.queues.iter().filter(|(_, queue)| !queue.closed && queue.is_here());
        for id in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.capturing(StreamId(id))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// No more work will be given to the stream; what was given is still ordered. If its end cannot be marked,
    /// it is waited for; or else nobody knows when it has come, and it counts as pending for ever. The driver's stream stays
    /// until nothing is asked any more about events that were recorded on it; one that is not ours may go at once.
    pub(super) fn close(&mut self, stream: StreamId) -> Result<(), Failure> {
        let marked = self.mark_end(stream);
        let driver = self.driver.clone();
        let queue = self.queue(stream);
        queue.closed = true;
        // SAFETY: a living stream.
        if marked.is_err() && unsafe { driver.stream_sync(queue.handle) }.is_ok() {
            queue.reached = queue.given;
        }
        let ended = match queue.marks.back() {
            Some((_, event)) if !queue.owned && !driver.vendor.events_outlive_streams => {
                // SAFETY: a recorded event of ours, and its stream still lives.
                unsafe { driver.event_sync(*event) }
            }
            _ => Ok(()),
        };
        // Those closed before, which nobody may ask for, have their ends by now.
        let closed = self.queues.iter().filter(|(_, queue)| queue.closed).map(|(id, _)| *id);
        for id in closed.collect::<Vec<_>>() {
            self.prune(StreamId(id))?;
        }
        marked.and(ended)
    }

    /// Waits for everything on every stream. What a graph is being made of does not run. Errors are the
    /// caller's to report.
    pub(super) fn drain(&mut self) -> Result<(), Failure> {
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            let stream = StreamId(id);
            if self.queues.get(&id).is_some_and(|queue| !queue.closed) {
                self.mark_end(stream)?;
            }
            if let Some((_, event)) = self.queues.get(&id).and_then(|queue| queue.marks.back()) {
                // SAFETY: a recorded event of ours.
                unsafe { self.driver.event_sync(*event) }?;
            }
            self.prune(stream)?;
        }
        Ok(())
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let marks = self.queues.values().flat_map(|queue| queue.marks.iter().map(|(_, e)| *e));
        for event in self.spare.iter().copied().chain(marks) {
            // SAFETY: an event of ours, destroyed once. A driver that fails here has lost it anyway.
            let _ = unsafe { self.driver.event_destroy(event) };
        }
        for queue in self.queues.values().filter(|queue| queue.owned) {
            // SAFETY: a stream of ours, destroyed once.
            let _ = unsafe { self.driver.stream_destroy(queue.handle) };
        }
    }
}
