//! Device memory that is used again, and pinned host memory through which uploads go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::driver::{Driver, Failure, Handle};
use super::order::Order;
use crate::backend::Ticket;

/// Memory that was freed, and the work that may still touch it.
struct Freed {
    address: u64,
    bytes: usize,
    after: Vec<Ticket>,
}

/// Freed memory, kept for requests of the same size: training asks for the same sizes again, and a
/// driver's own allocation waits for the whole device.
pub(super) struct Pool {
    driver: Arc<Driver>,
    /// Blocks that nothing touches any more, by size.
    idle: HashMap<usize, Vec<u64>>,
    /// Blocks that enqueued work may touch.
    limbo: Vec<Freed>,
}

impl Pool {
    pub(super) fn new(driver: Arc<Driver>) -> Self {
        Self { driver, idle: HashMap::new(), limbo: Vec::new() }
    }

    /// `bytes` bytes, contents unknown. `None`: there is no memory left, not even after giving back
    /// what is kept here.
    pub(super) fn take(&mut self, bytes: usize, order: &mut Order) -> Result<Option<u64>, Failure> {
        self.settle(order)?;
        if let Some(address) = self.idle.get_mut(&bytes).and_then(Vec::pop) {
            return Ok(Some(address));
        }
        match self.fresh(bytes)? {
            Some(address) => Ok(Some(address)),
            None => {
                order.drain()?;
                self.trim(order)?;
                self.fresh(bytes)
            }
        }
    }

    fn fresh(&mut self, bytes: usize) -> Result<Option<u64>, Failure> {
        let mut address = 0;
        // SAFETY: one address is written.
        match unsafe { self.driver.malloc(&mut address, bytes) } {
            Ok(()) => Ok(Some(address)),
            Err(failure) if failure.code == self.driver.vendor.out_of_memory => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Memory that is nobody's any more, once everything enqueued so far has run.
    pub(super) fn put(&mut self, address: u64, bytes: usize, order: &Order) {
        self.limbo.push(Freed { address, bytes, after: order.now() });
    }

    /// Finds out which blocks nothing touches any more.
    fn settle(&mut self, order: &mut Order) -> Result<(), Failure> {
        let mut asked = Ok(());
        for mut freed in std::mem::take(&mut self.limbo) {
            freed.after.retain(|&ticket| {
                if asked.is_err() {
                    return true; // nothing is known of it
                }
                let open = order.reached(ticket).map(|reached| !reached);
                open.unwrap_or_else(|failure| {
                    asked = Err(failure);
                    true
                })
            });
            match freed.after.is_empty() {
                true => self.idle.entry(freed.bytes).or_default().push(freed.address),
                false => self.limbo.push(freed),
            }
        }
        asked
    }

    /// Gives back what is kept and nothing touches any more.
    pub(super) fn trim(&mut self, order: &mut Order) -> Result<(), Failure> {
        self.settle(order)?;
        for address in self.idle.drain().flat_map(|(_, blocks)| blocks).collect::<Vec<_>>() {
            // SAFETY: allocated here, touched by nothing, freed once.
            unsafe { self.driver.free(address) }?;
        }
        Ok(())
    }

    /// Frees all that is kept. Only when no work is left.
    pub(super) fn clear(&mut self) {
        let limbo = self.limbo.drain(..).map(|freed| freed.address);
        let idle = self.idle.drain().flat_map(|(_, blocks)| blocks);
        for address in limbo.chain(idle).collect::<Vec<_>>() {
            // SAFETY: allocated here, freed once. A driver that fails here has lost it anyway.
            let _ = unsafe { self.driver.free(address) };
        }
    }
}

/// Bytes of the ring that uploads go through.
const RING: usize = 4 << 20;
/// Bytes of one piece of an upload: two can be under way at once.
const PIECE: usize = RING / 2;

/// A ring of pinned host memory. A source is copied here, so that it may be reused at once; the copy
/// to the device goes on in the stream's order. Whoever uploads has it alone from [`room`](Self::room) to
/// [`note`](Self::note).
pub(super) struct Staging {
    driver: Arc<Driver>,
    base: *mut u8,
    /// Where the next piece may start. Places count on from lap to lap.
    head: usize,
    /// Where pieces under way start, with the work that reads them, oldest first.
    pending: VecDeque<(usize, Ticket)>,
}

// SAFETY: pinned memory may be used from any thread; `Staging` is behind a lock.
unsafe impl Send for Staging {}

impl Staging {
    pub(super) fn new(driver: Arc<Driver>) -> Self {
        Self { driver, base: std::ptr::null_mut(), head: 0, pending: VecDeque::new() }
    }

    /// Cuts an upload into pieces that fit.
    pub(super) fn pieces(bytes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..bytes).step_by(PIECE).map(move |at| at..(at + PIECE).min(bytes))
    }

    /// Room for `len` bytes: where, and the tickets to wait for first, if the ring is full.
    pub(super) fn room(&mut self, len: usize) -> Result<(usize, Vec<Ticket>), Failure> {
        if self.base.is_null() {
            let mut pointer: Handle = std::ptr::null_mut();
            // SAFETY: one pointer is written.
            unsafe { self.driver.host_alloc(&mut pointer, RING, 0) }?;
            self.base = pointer.cast();
        }
        let (lap, place) = (self.head / RING, self.head % RING);
        let at = if place + len > RING { (lap + 1) * RING } else { self.head };
        // A stream's last ticket is reached after its others.
        let mut waits: Vec<Ticket> = Vec::new();
        for (_, ticket) in self.pending.range(..self.passed(at + len)) {
            match waits.iter_mut().find(|last| last.stream == ticket.stream) {
                Some(last) => *last = *ticket,
                None => waits.push(*ticket),
            }
        }
        Ok((at, waits))
    }

    /// How many pieces are in the way of one that ends there, a lap later.
    fn passed(&self, end: usize) -> usize {
        self.pending.partition_point(|(start, _)| start + RING < end)
    }

    /// Copies a piece to its place; nothing reads what is there any more.
    pub(super) fn fill(&mut self, at: usize, from: &[u8]) -> *const u8 {
        let place = at % RING;
        assert!(place + from.len() <= RING, "`room` found a place inside the ring");
        // SAFETY: inside the ring (asserted), which the host owns there: `room` gave the tickets of
        // whoever read it, and the caller has waited for them.
        unsafe {
            let to = self.base.add(place);
            std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
            to
        }
    }

    /// Notes who reads a piece, and forgets those that were in its way.
    pub(super) fn note(&mut self, at: usize, len: usize, ticket: Ticket) {
        self.pending.drain(..self.passed(at + len));
        self.pending.push_back((at, ticket));
        self.head = (at + len).next_multiple_of(16);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.base.is_null() {
            // SAFETY: allocated here, freed once; the device has been drained before.
            let _ = unsafe { self.driver.host_free(self.base.cast()) };
        }
    }
}
