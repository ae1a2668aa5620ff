//! Memory that belongs to cudarc: `CudaSlice` and its views, as candle, burn and others hold it.
//!
//! Such memory is touched only on the stream that it belongs to: there, order needs no events. So
//! the `Stream` of a call must have been made from the slice's own stream
//! ([`Stream::from_cudarc`](crate::Stream::from_cudarc)), and cudarc must not be ordering streams by
//! events meanwhile, since it would not learn of our work.

use cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceSlice,
};

use super::{Lent, LentMut, Place, Read, Write};
use crate::backend::Address;
use crate::{Element, Error, Result, Stream};

fn check(stream: &Stream, theirs: &CudaStream) -> Result<()> {
    let refuse = |expected: &str, found: &str| {
        Err(Error::Device {
            op: "lend",
            arg: "cudarc memory".into(),
            expected: expected.into(),
            found: found.into(),
        })
    };
    let Some(ours) = stream.cudarc() else {
        return refuse("a stream made from the slice's own (`Stream::from_cudarc`)", "another");
    };
    // Default streams of all devices have one handle.
    if (ours.cu_stream(), ours.context()) != (theirs.cu_stream(), theirs.context()) {
        return refuse("the slice's own stream", "another stream");
    }
    if theirs.context().is_managing_stream_synchronization() {
        return refuse(
            "a context in which cudarc does not order streams by events (one stream, or `disable_event_tracking`)",
            "one in which it does, and would not learn of this work",
        );
    }
    Ok(())
}

macro_rules! lend {
    (read: $($read:ty),*; write: $($write:ty),*) => {
        $(
            // SAFETY: the slice is borrowed, so alive and not written by safe code; work on its own
            // stream (checked) comes after what wrote it and before what frees it.
            unsafe impl<T: Element> Read<T> for $read {
                fn lend<'l>(&'l self, stream: &'l Stream) -> Result<Lent<'l, T>> {
                    check(stream, self.stream())?;
                    let (address, _order) = self.device_ptr(self.stream());
                    let len = <$read>::len(self);
                    Ok(Lent::new(Address(address), len, Place::Device(stream.device())))
                }
            }
        )*
        $(
            // SAFETY: as for reading, and the borrow is exclusive.
            unsafe impl<T: Element> Write<T> for $write {
                fn lend_mut<'l>(&'l mut self, stream: &'l Stream) -> Result<LentMut<'l, T>> {
                    check(stream, self.stream())?;
                    let len = <$write>::len(self);
                    let theirs = self.stream().clone();
                    let (address, _order) = self.device_ptr_mut(&theirs);
                    Ok(LentMut::new(Address(address), len, Place::Device(stream.device())))
                }
            }
        )*
    };
}
lend! {
    read: CudaSlice<T>, CudaView<'_, T>, CudaViewMut<'_, T>;
    write: CudaSlice<T>, CudaViewMut<'_, T>
}
