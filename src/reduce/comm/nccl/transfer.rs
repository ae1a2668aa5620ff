//! What moves the bytes, once all ranks have met: the one place of this communicator that hands memory to
//! the library.

use std::sync::Arc;
use std::time::Instant;

use super::library::{Comm, Failed, Message};
use super::{END, NcclComm};
use crate::reduce::comm::idle::Idle;
use crate::reduce::comm::pool::slot;
use crate::reduce::comm::{ALIGN, Collective, Communicator, Fault, Reduction};
use crate::{Buffer, Stream};

impl NcclComm {
    /// Moves the bytes: what rank `q` sent lies in the buffer returned, at the returned place.
    pub(super) fn transfer(
        &mut self,
        (collective, len): (Collective, usize),
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Arc<Buffer<u8>>, Fault> {
        let (rank, size) = (self.rank(), self.size());
        let whole = gathers_whole(collective, len);
        let bytes = if whole { len * size } else { len.next_multiple_of(ALIGN) * (size - 1) };
        let receive = self.pool.take(&self.device, bytes).map_err(|error| self.gave_up(&error))?;
        let peers = || (1..size).map(|step| (rank + step) % size);
        let message = |peer: usize, address: u64| Message { peer, address, bytes: len };
        let sends: Vec<_> = peers()
            .map(|peer| match collective {
                Collective::AllToAll => message(peer, send.address() + (peer * len) as u64),
                Collective::AllGather => message(peer, send.address()),
            })
            .collect();
        let receives: Vec<_> = peers()
            .map(|peer| message(peer, receive.address() + slot(peer, rank, len) as u64))
            .collect();
        // SAFETY: the ranges lie in buffers of this device (checked by the caller), as long as computed above,
        // and the receive buffer is nobody else's. Both are kept until the stream has come past them.
        let give = |comm: &Comm, stream: u64| unsafe {
            match whole {
                true => comm.gather(send.address(), receive.address(), len, stream),
                false => comm.exchange(&sends, &receives, stream),
            }
        };
        match self.work(stream, deadline, give) {
            Ok(()) => Ok(self.pool.keep(receive)),
            Err((fault, settled)) => {
                if !settled {
                    // Somebody may write there for as long as the process lives.
                    std::mem::forget((send.clone(), receive));
                }
                Err(fault)
            }
        }
    }

    /// Reduces the first `count` values of the buffer, in place.
    pub(super) fn reduce(
        &mut self,
        (buffer, count): (Buffer<u8>, usize),
        reduction: Reduction,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Buffer<u8>, Fault> {
        // SAFETY: the values lie in the buffer, which is of this device (checked by the caller) and nobody
        // else's; it is kept until the stream has come past it.
        let give = |comm: &Comm, stream: u64| unsafe {
            comm.reduce(buffer.address(), count, reduction, stream)
        };
        match self.work(stream, deadline, give) {
            Ok(()) => Ok(buffer),
            Err((fault, settled)) => {
                if !settled {
                    std::mem::forget(buffer);
                }
                Err(fault)
            }
        }
    }

    /// Gives the library work in a stream, and waits for its end. With a fault: whether nobody works on it any more.
    /// (What the library has not put in the stream yet, it may put there as long as it is not ended.)
    fn work(
        &mut self,
        stream: &Stream,
        deadline: Instant,
        give: impl FnOnce(&Comm, u64) -> Result<(), Failed>,
    ) -> Result<(), (Fault, bool)> {
        let given = |this: &Self| {
            let handle = stream.lend().map_err(|error| this.gave_up(&error))?;
            let comm = this.comm.as_ref().expect("whole: there was no fault");
            give(comm, handle).map_err(|failed| this.failed(failed))
        };
        let done = given(self).and_then(|()| {
            // The work is in the stream once the call has ended.
            self.wait(deadline, |this| this.progress())?;
            let end = stream.record().map_err(|error| self.gave_up(&error))?;
            let reached = |this: &Self| stream.reached(&end).map_err(|error| this.gave_up(&error));
            self.wait(deadline, reached)
        });
        done.map_err(|fault| {
            let fault = self.fail(fault);
            (fault, !self.left && settle(stream))
        })
    }
}

/// Whether all parts can be gathered by one call: they lie side by side, aligned as parts are.
pub(super) fn gathers_whole(collective: Collective, len: usize) -> bool {
    collective == Collective::AllGather && len.is_multiple_of(ALIGN)
}

/// Whether a stream, of which the library's work was aborted, has come to its end.
fn settle(stream: &Stream) -> bool {
    let (deadline, mut idle) = (Instant::now() + END, Idle::default());
    let Ok(end) = stream.record() else { return false };
    while Instant::now() < deadline {
        match stream.reached(&end) {
            Ok(false) => idle.wait(),
            Ok(true) => return true,
            Err(_) => return false,
        }
    }
    false
}
