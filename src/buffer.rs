//! Typed device memory that we own.

use std::marker::PhantomData;
use std::ops::Range;

use crate::backend::{Address, StreamId};
use crate::{Device, Element, Error, Result, Stream};

/// `len` elements of `T` in a device's memory, aligned to 256 bytes, initialised.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// let device = halfstep::Device::cpu();
/// let stream = device.stream()?;
/// let mut buffer = device.upload(&[1.0f32, 2.0, 3.0])?;
/// buffer.write(&stream, 1, &[5.0])?;
/// assert_eq!(buffer.to_vec(&stream)?, [1.0, 5.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Buffer<T: Element> {
    device: Device,
    address: Address,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// See [`Device::zeros`].
    pub(crate) fn zeros(device: &Device, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|&b| b <= isize::MAX as usize);
        let Some(bytes) = bytes else {
            let device = device.info().to_string();
            return Err(Error::OutOfMemory { bytes: usize::MAX, device });
        };
        let address = device.backend.alloc(bytes)?;
        Ok(Self { device: device.clone(), address, len, element: PhantomData })
    }

    pub(crate) fn from_slice(device: &Device, values: &[T]) -> Result<Self> {
        let mut buffer = Self::zeros(device, values.len())?;
        let stream = device.stream()?;
        buffer.write(&stream, 0, values)?;
        stream.sync()?;
        Ok(buffer)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device whose memory this is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device address of the first element, for kernels and libraries of others; 0 if there are
    /// no elements. Memory is in the device's hands: whoever uses the address orders that use by
    /// streams, and not beyond the buffer's life.
    pub fn address(&self) -> u64 {
        self.address.0
    }

    /// Elements `range`, to read.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is not inside the buffer.
    pub fn view(&self, range: Range<usize>) -> Result<View<'_, T>> {
        let address = self.offset("view", &range)?;
        Ok(View { buffer: self, address, len: range.len() })
    }

    /// Elements `range`, to write.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is not inside the buffer.
    pub fn view_mut(&mut self, range: Range<usize>) -> Result<ViewMut<'_, T>> {
        let address = self.offset("view_mut", &range)?;
        Ok(ViewMut { buffer: self, address, len: range.len() })
    }

    /// Copies `values` into the buffer from element `start` on, in the stream's order.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit; [`Error::Device`] if the stream is another device's.
    pub fn write(&mut self, stream: &Stream, start: usize, values: &[T]) -> Result<()> {
        let to = self.offset("write", &(start..start.saturating_add(values.len())))?;
        let id = self.stream_id("write", stream)?;
        // SAFETY: `offset` checked that the bytes are inside the allocation, which `self` owns.
        unsafe { stream.device().backend.upload(id, to, bytemuck::cast_slice(values)) }
    }

    /// Copies from element `start` on into `values`, and waits until they have arrived.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are fewer; [`Error::Device`] if the stream is another device's.
    pub fn read(&self, stream: &Stream, start: usize, values: &mut [T]) -> Result<()> {
        let from = self.offset("read", &(start..start.saturating_add(values.len())))?;
        let id = self.stream_id("read", stream)?;
        // SAFETY: `offset` checked that the bytes are inside the allocation; it is initialised.
        unsafe { stream.device().backend.download(id, from, bytemuck::cast_slice_mut(values)) }
    }

    /// The whole buffer as a vector; waits until it has arrived.
    ///
    /// # Errors
    /// [`Error::Device`] if the stream is another device's.
    pub fn to_vec(&self, stream: &Stream) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len];
        self.read(stream, 0, &mut values)?;
        Ok(values)
    }

    /// Sets every byte to zero, in the stream's order.
    ///
    /// # Errors
    /// [`Error::Device`] if the stream is another device's.
    pub fn clear(&mut self, stream: &Stream) -> Result<()> {
        let id = self.stream_id("clear", stream)?;
        // SAFETY: the whole allocation, which `self` owns.
        unsafe { stream.device().backend.fill(id, self.address, 0, self.len * size_of::<T>()) }
    }

    fn offset(&self, op: &'static str, range: &Range<usize>) -> Result<Address> {
        if range.start > range.end || range.end > self.len {
            let expected = format!("a range inside 0..{}", self.len);
            return Err(Error::shape(op, "range", expected, format!("{range:?}")));
        }
        Ok(self.address.offset(range.start * size_of::<T>()))
    }

    fn stream_id(&self, op: &'static str, stream: &Stream) -> Result<StreamId> {
        if !stream.device().reaches(&self.device) {
            return Err(Error::Device {
                op,
                arg: "stream".into(),
                expected: self.device.info().to_string(),
                found: stream.device().info().to_string(),
            });
        }
        Ok(stream.id())
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by this backend with this size, freed once, here. The backend orders
        // the release after the buffer's last use.
        unsafe { self.device.backend.free(self.address, self.len * size_of::<T>()) }
    }
}

/// One value in memory of the host that kernels can write.
#[derive(Debug)]
pub(crate) struct HostCell<T: Element> {
    device: Device,
    address: Address,
    element: PhantomData<T>,
}

impl<T: Element> HostCell<T> {
    /// A cell of zeros.
    pub(crate) fn new(device: &Device) -> Result<Self> {
        let address = device.backend.alloc_host(size_of::<T>())?;
        Ok(Self { device: device.clone(), address, element: PhantomData })
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// What is there now; a kernel may be writing it.
    pub(crate) fn read(&self) -> T {
        // SAFETY: allocated for one `T`, aligned to 256, initialised; any bytes are a `T`. A kernel
        // may write meanwhile, so that parts may be of different ages: the caller can tell.
        unsafe { std::ptr::read_volatile(self.address.0 as *const T) }
    }
}

impl<T: Element> Drop for HostCell<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by this backend with this size, freed once, here.
        unsafe { self.device.backend.free_host(self.address, size_of::<T>()) }
    }
}

/// A range of a [`Buffer`], to read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T: Element> {
    pub(crate) buffer: &'a Buffer<T>,
    pub(crate) address: Address,
    pub(crate) len: usize,
}

/// A range of a [`Buffer`], to write.
#[derive(Debug)]
pub struct ViewMut<'a, T: Element> {
    pub(crate) buffer: &'a mut Buffer<T>,
    pub(crate) address: Address,
    pub(crate) len: usize,
}
