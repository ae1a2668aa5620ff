//! Streams, and capturing them.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::capture::{Mode, Status};
use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::{query, wait};
use halfstep_vgpu::driver::work::{HostCall, Work};
use halfstep_vgpu::driver::{capture_mode, exchange_capture_mode};

use crate::call::{driver, export, lock, put, put_if};

/// hipStreamNonBlocking.
const NON_BLOCKING: c_uint = 1;

fn create(stream: *mut u64, flags: c_uint, priority: c_int) -> Result {
    if flags & !NON_BLOCKING != 0 {
        return Err(Error::InvalidValue);
    }
    let mut d = lock();
    put(stream, d.create_stream(flags & NON_BLOCKING == 0, priority.clamp(-1, 1))?)
}

/// 0: none, 1: active, 2: invalidated.
fn status(stream: u64) -> Result<(c_uint, u64)> {
    let mut d = lock();
    let stream = d.stream(stream)?;
    Ok(match d.capture_status(stream)? {
        Status::None => (0, 0),
        Status::Active(id) => (1, id),
        Status::Invalidated => (2, 0),
    })
}

/// Only what needs no graph that is not finished.
fn capture_info(stream: u64, out: *mut c_uint, id: *mut u64, rest: [bool; 2]) -> Result {
    let (status, number) = status(stream)?;
    if status != 0 && rest.contains(&true) {
        lock().journal.complain("the graph of a capture that goes on is not provided".into(), None);
        return Err(Error::NotSupported);
    }
    put(out, status)?;
    put_if(id, number);
    Ok(())
}

export! {
    #[doc = "A new stream."]
    fn hipStreamCreate(stream: *mut u64) {
        create(stream, 0, 0)
    }

    #[doc = "A new stream."]
    fn hipStreamCreateWithFlags(stream: *mut u64, flags: c_uint) {
        create(stream, flags, 0)
    }

    #[doc = "A new stream; its priority is remembered and no more."]
    fn hipStreamCreateWithPriority(stream: *mut u64, flags: c_uint, priority: c_int) {
        create(stream, flags, priority)
    }

    #[doc = "Ends a stream."]
    fn hipStreamDestroy(stream: u64) {
        lock().destroy_stream(stream)
    }

    #[doc = "Waits for all work of a stream."]
    fn hipStreamSynchronize(stream: u64) {
        let (context, mark) = {
            let mut d = lock();
            let stream = d.stream(stream)?;
            d.to_wait_for(stream)?
        };
        wait(driver(), context, &mark)
    }

    #[doc = "Whether all work of a stream is done."]
    fn hipStreamQuery(stream: u64) {
        let (context, mark) = {
            let mut d = lock();
            let stream = d.stream(stream)?;
            d.to_wait_for(stream)?
        };
        query(driver(), context, &mark)
    }

    #[doc = "What the stream is given from now on waits for the event."]
    fn hipStreamWaitEvent(stream: u64, event: u64, flags: c_uint) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        d.living_stream_of(event)?;
        d.wait_event(stream, event)
    }

    #[doc = "The stream remembers from now on."]
    fn hipStreamBeginCapture(stream: u64, mode: c_uint) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        d.begin_capture(stream, Mode::from_number(mode)?)
    }

    #[doc = "What it remembered is a graph."]
    fn hipStreamEndCapture(stream: u64, graph: *mut u64) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        match d.end_capture(stream) {
            Ok(found) => put(graph, found),
            Err(error) => {
                put_if(graph, 0);
                Err(error)
            }
        }
    }

    #[doc = "Whether it remembers."]
    fn hipStreamIsCapturing(stream: u64, out: *mut c_uint) {
        put(out, status(stream)?.0)
    }

    #[doc = "The same, with a number."]
    fn hipStreamGetCaptureInfo(stream: u64, out: *mut c_uint, id: *mut u64) {
        capture_info(stream, out, id, [false; 2])
    }

    #[doc = "The same, with a number."]
    fn hipStreamGetCaptureInfo_v2(
        stream: u64,
        out: *mut c_uint,
        id: *mut u64,
        graph: *mut u64,
        dependencies: *mut *const u64,
        count: *mut usize,
    ) {
        capture_info(stream, out, id, [!graph.is_null(), !dependencies.is_null()])
    }

    #[doc = "How careful the thread is of captures."]
    fn hipThreadExchangeStreamCaptureMode(mode: *mut c_uint) {
        if mode.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null; readable and writable by the caller's promise.
        let new = Mode::from_number(unsafe { mode.read() })?;
        let old = capture_mode();
        exchange_capture_mode(new);
        put(mode, old as c_uint)
    }

    #[doc = "A stream's device."]
    fn hipStreamGetDevice(stream: u64, device: *mut c_int) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        let context = d.streams.get(stream)?.context;
        put(device, d.device_of(context) as c_int)
    }

    #[doc = "A stream's flags."]
    fn hipStreamGetFlags(stream: u64, flags: *mut c_uint) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        put(flags, if d.streams.get(stream)?.blocking { 0 } else { NON_BLOCKING })
    }

    #[doc = "A stream's priority."]
    fn hipStreamGetPriority(stream: u64, priority: *mut c_int) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        put(priority, d.streams.get(stream)?.priority)
    }

    #[doc = "Calls the host in the order of the stream."]
    fn hipLaunchHostFunc(
        stream: u64,
        function: Option<extern "C" fn(*mut c_void)>,
        data: *mut c_void,
    ) {
        let function = function.ok_or(Error::InvalidValue)?;
        let mut d = lock();
        let stream = d.stream(stream)?;
        d.submit(stream, Work::Host(HostCall { function, data: data as usize }))
    }
}
