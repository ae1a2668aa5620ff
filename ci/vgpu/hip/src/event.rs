//! Events.

use std::ffi::c_uint;

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::{query, wait};

use crate::call::{driver, export, lock, put};

/// hipEventDisableTiming.
const UNTIMED: c_uint = 2;

fn record(event: u64, stream: u64) -> Result {
    let mut d = lock();
    let stream = d.stream(stream)?;
    d.record(event, stream)
}

export! {
    #[doc = "A new event."]
    fn hipEventCreate(event: *mut u64) {
        put(event, lock().create_event(true)?)
    }

    #[doc = "A new event."]
    fn hipEventCreateWithFlags(event: *mut u64, flags: c_uint) {
        // The two highest say how far what was written is seen.
        if flags & !0xc000_0007 != 0 {
            return Err(Error::InvalidValue);
        }
        put(event, lock().create_event(flags & UNTIMED == 0)?)
    }

    #[doc = "Ends an event."]
    fn hipEventDestroy(event: u64) {
        lock().destroy_event(event)
    }

    #[doc = "The event stands for what the stream has been given."]
    fn hipEventRecord(event: u64, stream: u64) {
        record(event, stream)
    }

    #[doc = "The same."]
    fn hipEventRecordWithFlags(event: u64, stream: u64, flags: c_uint) {
        record(event, stream)
    }

    #[doc = "Waits for what the event stands for."]
    fn hipEventSynchronize(event: u64) {
        let (context, mark) = {
            let mut d = lock();
            d.ask_stream_of(event)?;
            let mark = d.event_mark(event)?;
            d.forbid_unsafe()?;
            (d.events.get(event)?.context, mark)
        };
        wait(driver(), context, &mark)
    }

    #[doc = "Whether it is done."]
    fn hipEventQuery(event: u64) {
        let (context, mark) = {
            let mut d = lock();
            d.ask_stream_of(event)?;
            let mark = d.event_mark(event)?;
            d.forbid_unsafe()?;
            (d.events.get(event)?.context, mark)
        };
        query(driver(), context, &mark)
    }

    #[doc = "Milliseconds between two events."]
    fn hipEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) {
        put(milliseconds, lock().elapsed(start, end)?)
    }

}
