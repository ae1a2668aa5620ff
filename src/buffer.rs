//! Typed device memory that we own.

use std::marker::PhantomData;
use std::ops::Range;

use crate::backend::{Address, StreamId};
use crate::{Device, DeviceKind, Element, Error, Result, Stream};

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
        let address = self.offset("Buffer::view", &range)?;
        Ok(View { device: &self.device, address, len: range.len(), memory: PhantomData })
    }

    /// Elements `range`, to write.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is not inside the buffer.
    pub fn view_mut(&mut self, range: Range<usize>) -> Result<ViewMut<'_, T>> {
        let address = self.offset("Buffer::view_mut", &range)?;
        Ok(ViewMut { device: &self.device, address, len: range.len(), memory: PhantomData })
    }

    /// Copies `values` into the buffer from element `start` on, in the stream's order.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit; [`Error::Device`] if the stream is another device's.
    pub fn write(&mut self, stream: &Stream, start: usize, values: &[T]) -> Result<()> {
        let to = self.offset("Buffer::write", &(start..start.saturating_add(values.len())))?;
        let id = self.stream_id("Buffer::write", stream)?;
        // SAFETY: `offset` checked that the bytes are inside the allocation, which `self` owns.
        unsafe { stream.device().backend.upload(id, to, bytemuck::cast_slice(values)) }
    }

    /// Copies from element `start` on into `values`, and waits until they have arrived.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are fewer; [`Error::Device`] if the stream is another device's.
    pub fn read(&self, stream: &Stream, start: usize, values: &mut [T]) -> Result<()> {
        let from = self.offset("Buffer::read", &(start..start.saturating_add(values.len())))?;
        let id = self.stream_id("Buffer::read", stream)?;
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
        self.clear_range(stream, 0..self.len)
    }

    /// Sets every byte of these elements to zero, in the stream's order.
    pub(crate) fn clear_range(&mut self, stream: &Stream, range: Range<usize>) -> Result<()> {
        const OP: &str = "Buffer::clear";
        let (id, start) = (self.stream_id(OP, stream)?, self.offset(OP, &range)?);
        // SAFETY: a part of the allocation, which `self` owns.
        unsafe { stream.device().backend.fill(id, start, 0, range.len() * size_of::<T>()) }
    }

    fn offset(&self, op: &'static str, range: &Range<usize>) -> Result<Address> {
        if range.start > range.end || range.end > self.len {
            let expected = format!("a range inside 0..{}", self.len);
            return Err(Error::shape(op, "range", expected, format!("{range:?}")));
        }
        Ok(self.address.offset(range.start * size_of::<T>()))
    }

    fn stream_id(&self, op: &'static str, stream: &Stream) -> Result<StreamId> {
        stream_id(op, &self.device, stream)
    }
}

fn stream_id(op: &'static str, owner: &Device, stream: &Stream) -> Result<StreamId> {
    if !stream.device().reaches(owner) {
        return Err(Error::Device {
            op,
            arg: "stream".into(),
            expected: owner.info().to_string(),
            found: stream.device().info().to_string(),
        });
    }
    Ok(stream.id())
}

fn same_length(op: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::shape(op, "values", format!("{expected} elements"), found))
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

impl Buffer<u8> {
    /// `len` elements of another type from byte `start` on. The caller has laid them out there.
    pub(crate) fn view_as<T: Element>(&self, start: usize, len: usize) -> Result<View<'_, T>> {
        let address = self.offset("view_as", &elements::<T>(start, len))?;
        Ok(View { device: &self.device, address, len, memory: PhantomData })
    }

    /// As [`Buffer::view_as`], to write.
    pub(crate) fn view_as_mut<T: Element>(
        &mut self,
        start: usize,
        len: usize,
    ) -> Result<ViewMut<'_, T>> {
        let address = self.offset("view_as_mut", &elements::<T>(start, len))?;
        Ok(ViewMut { device: &self.device, address, len, memory: PhantomData })
    }
}

/// The bytes of elements.
///
/// # Panics
/// If `start` does not align them: buffers do, so that places in them are the caller's business.
fn elements<T: Element>(start: usize, len: usize) -> Range<usize> {
    assert!(start.is_multiple_of(align_of::<T>()), "laid out for its type");
    start..start.saturating_add(len.saturating_mul(size_of::<T>()))
}

/// A range of a [`Buffer`], to read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T: Element> {
    pub(crate) device: &'a Device,
    pub(crate) address: Address,
    pub(crate) len: usize,
    memory: PhantomData<&'a [T]>,
}

/// A range of a [`Buffer`], to write.
#[derive(Debug)]
pub struct ViewMut<'a, T: Element> {
    pub(crate) device: &'a Device,
    pub(crate) address: Address,
    pub(crate) len: usize,
    memory: PhantomData<&'a mut [T]>,
}

impl<'a, T: Element> View<'a, T> {
    /// Copies the elements, and waits until they have arrived.
    ///
    /// # Errors
    /// [`Error::Shape`] for another length; [`Error::Device`] if the stream is another device's.
    pub fn copy_to(&self, stream: &Stream, values: &mut [T]) -> Result<()> {
        const OP: &str = "View::copy_to";
        same_length(OP, self.len, values.len())?;
        let id = stream_id(OP, self.device, stream)?;
        // SAFETY: inside the buffer, checked when the view was made; it is initialised.
        unsafe {
            let values = bytemuck::cast_slice_mut(values);
            stream.device().backend.download(id, self.address, values)
        }
    }

    /// The elements, where they are the host's memory; `None` on a GPU.
    ///
    /// ```
    /// # fn main() -> halfstep::Result<()> {
    /// let buffer = halfstep::Device::cpu().upload(&[1.0f32, 2.0, 3.0])?;
    /// assert_eq!(buffer.view(1..3)?.host(), Some(&[2.0f32, 3.0][..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn host(&self) -> Option<&'a [T]> {
        // SAFETY: inside the buffer (checked when the view was made), which is borrowed for `'a`;
        // aligned, initialised. What was enqueued on a CPU has run.
        on_host(self.device)
            .then(|| unsafe { std::slice::from_raw_parts(pointer(self.address), self.len) })
    }
}

impl<T: Element> ViewMut<'_, T> {
    /// Copies `values` to the elements, in the stream's order.
    ///
    /// # Errors
    /// [`Error::Shape`] for another length; [`Error::Device`] if the stream is another device's.
    pub fn copy_from(&mut self, stream: &Stream, values: &[T]) -> Result<()> {
        const OP: &str = "ViewMut::copy_from";
        same_length(OP, self.len, values.len())?;
        let id = stream_id(OP, self.device, stream)?;
        // SAFETY: inside the buffer, checked when the view was made, which is exclusive.
        unsafe {
            let values = bytemuck::cast_slice(values);
            stream.device().backend.upload(id, self.address, values)
        }
    }

    /// Copies the elements of another range of the same device, in the stream's order.
    ///
    /// ```
    /// # fn main() -> halfstep::Result<()> {
    /// let device = halfstep::Device::cpu();
    /// let stream = device.stream()?;
    /// let (from, mut to) = (device.upload(&[1.0f32, 2.0, 3.0])?, device.zeros::<f32>(2)?);
    /// to.view_mut(0..2)?.copy_from_view(&stream, &from.view(1..3)?)?;
    /// assert_eq!(to.to_vec(&stream)?, [2.0, 3.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] for another length; [`Error::Device`] if the stream or the other range is another device's.
    pub fn copy_from_view(&mut self, stream: &Stream, from: &View<'_, T>) -> Result<()> {
        const OP: &str = "ViewMut::copy_from_view";
        same_length(OP, self.len, from.len)?;
        stream_id(OP, from.device, stream)?;
        let id = stream_id(OP, self.device, stream)?;
        let bytes = self.len * size_of::<T>();
        // SAFETY: both inside their buffers, checked when the views were made; one is exclusive, so that they do not
        // overlap. Buffers outlive the work that was enqueued on them.
        unsafe { stream.device().backend.copy(id, self.address, from.address, bytes) }
    }

    /// The elements, where they are the host's memory; `None` on a GPU.
    ///
    /// ```
    /// # fn main() -> halfstep::Result<()> {
    /// let device = halfstep::Device::cpu();
    /// let mut buffer = device.upload(&[1.0f32, 2.0, 3.0])?;
    /// buffer.view_mut(1..3)?.host().expect("a CPU's memory").fill(5.0);
    /// assert_eq!(buffer.to_vec(&device.stream()?)?, [1.0, 5.0, 5.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn host(&mut self) -> Option<&mut [T]> {
        // SAFETY: as for `View::host`, and the borrow is exclusive.
        on_host(self.device)
            .then(|| unsafe { std::slice::from_raw_parts_mut(pointer(self.address), self.len) })
    }
}

fn on_host(device: &Device) -> bool {
    device.info().kind == DeviceKind::Cpu
}

/// A pointer for a slice; no elements have no address.
fn pointer<T>(address: Address) -> *mut T {
    if address == Address::NULL { std::ptr::dangling_mut() } else { address.0 as *mut T }
}
