//! What moves the bytes, once all ranks have met: the one place of this communicator that hands memory to
//! the library.

use std::sync::Arc;
use std::time::Instant;

use super::library::Message;
use super::{END, NcclComm};
use crate::reduce::comm::idle::Idle;
use crate::reduce::comm::pool::slot;
use crate::reduce::comm::{ALIGN, Collective, Communicator, Fault};
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
        let given = |this: &Self| {
            let stream = stream.lend().map_err(|error| this.gave_up(&error))?;
            let comm = this.comm.as_ref().expect("whole: there was no fault");
            // SAFETY: the ranges lie in buffers of this device (checked by the caller), as long as computed
            // above, and the receive buffer is nobody else's. Both are kept until the stream has come past it,
            // here below or, after a fault, in `settle`.
            unsafe {
                if whole {
                    comm.gather(send.address(), receive.address(), len, stream)
                } else {
                    comm.exchange(&sends, &receives, stream)
                }
            }
            .map_err(|failed| this.failed(failed))
        };
        let moved = given(self).and_then(|()| {
            // The work is in the stream once the call has ended.
            self.wait(deadline, |this| this.progress())?;
            let end = stream.record().map_err(|error| self.gave_up(&error))?;
            let reached = |this: &Self| stream.reached(&end).map_err(|error| this.gave_up(&error));
            self.wait(deadline, reached)
        });
        match moved {
            Ok(()) => Ok(self.pool.keep(receive)),
            Err(fault) => {
                let fault = self.fail(fault);
                if !settle(stream) {
                    // Somebody may write there for as long as the process lives.
                    std::mem::forget((send.clone(), receive));
                }
                Err(fault)
            }
        }
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
