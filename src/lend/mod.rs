//! Memory lent to an operation for the length of one call: ours ([`Buffer`]), host slices, and
//! through [`Raw`] whatever a framework owns.
//!
//! Nothing is held after the call but what the stream orders, so safe code can neither leak a
//! guard nor alias a tensor: an output needs `&mut`.

#[cfg(feature = "cuda")]
mod cudarc;
mod list;

use std::alloc::Layout;
use std::marker::PhantomData;

pub(crate) use self::list::List;
use crate::backend::Address;
use crate::{Buffer, Device, DeviceKind, Dtype, Element, Error, Result, Stream, View, ViewMut};

/// Where lent memory lives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Host,
    Device(&'a Device),
}

/// Elements lent to read for one call. Implementors of [`Read`] make one by [`from_raw`](Self::from_raw).
#[derive(Debug)]
pub struct Lent<'a, T: Element> {
    address: Address,
    len: usize,
    place: Place<'a>,
    memory: PhantomData<&'a [T]>,
}

/// Elements lent to write for one call. Implementors of [`Write`] make one by [`from_raw`](Self::from_raw).
#[derive(Debug)]
pub struct LentMut<'a, T: Element> {
    address: Address,
    len: usize,
    place: Place<'a>,
    memory: PhantomData<&'a mut [T]>,
}

/// Memory of `T` that an operation may read.
///
/// Operands are `&dyn Read`. A slice has no size of its own, so a part of a vector is passed as `&&x[3..]`, and to write as
/// `&mut &mut y[3..]`.
///
/// A framework implements this for its own tensors; operations then check that their device reaches the memory, and that
/// lengths and alignment fit:
///
/// ```
/// use halfstep::gemm::{Gemm, Operands};
/// use halfstep::{Device, Lent, LentMut, Read, Result, Stream, Write};
///
/// /// A part of a block that many tensors share.
/// struct Tensor {
///     address: u64,
///     len: usize,
///     device: Device,
/// }
///
/// // SAFETY: blocks outlive tensors, and tensors do not overlap.
/// unsafe impl Read<f32> for Tensor {
///     fn lend<'a>(&'a self, _: &'a Stream) -> Result<Lent<'a, f32>> {
///         // SAFETY: as above; `&self` keeps safe code from writing.
///         Ok(unsafe { Lent::from_raw(self.address, self.len, &self.device) })
///     }
/// }
///
/// // SAFETY: as above.
/// unsafe impl Write<f32> for Tensor {
///     fn lend_mut<'a>(&'a mut self, _: &'a Stream) -> Result<LentMut<'a, f32>> {
///         // SAFETY: as above; `&mut self` keeps others away.
///         Ok(unsafe { LentMut::from_raw(self.address, self.len, &self.device) })
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let device = Device::cpu();
/// let mut block = vec![2.0f32; 12];
/// let start = block.as_mut_ptr() as u64;
/// let tensor = |at: u64| Tensor { address: start + 16 * at, len: 4, device: device.clone() };
/// let (a, b, mut d) = (tensor(0), tensor(1), tensor(2));
/// let plan = Gemm::new(2, 2, 2).plan::<f32, f32>(&device)?;
/// plan.run(&device.stream()?, Operands::new(&a, &b, &mut d))?;
/// assert_eq!(block[8..], [8.0; 4]);
/// # Ok(())
/// # }
/// ```
///
/// # Safety
/// What `lend` returns must be valid and initialised for reads of its length, and not written by
/// others, for all work that the call enqueues on `stream`.
pub unsafe trait Read<T: Element> {
    /// Lends the memory for work on `stream`.
    ///
    /// # Errors
    /// [`Error::Device`] where the implementor can tell that the stream cannot reach it.
    fn lend<'a>(&'a self, stream: &'a Stream) -> Result<Lent<'a, T>>;
}

/// Memory of `T` that an operation may read and write. See [`Read`] for a framework's own.
///
/// # Safety
/// What `lend_mut` returns must be valid and initialised for reads and writes of its length, and
/// touched by nobody else, for all work that the call enqueues on `stream`.
pub unsafe trait Write<T: Element> {
    /// Lends the memory for work on `stream`.
    ///
    /// # Errors
    /// [`Error::Device`] where the implementor can tell that the stream cannot reach it.
    fn lend_mut<'a>(&'a mut self, stream: &'a Stream) -> Result<LentMut<'a, T>>;
}

/// Lent memory whose type of elements is left behind: what all types do with it is compiled once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory<'a> {
    address: Address,
    len: usize,
    /// An element's size and alignment.
    element: Layout,
    place: Place<'a>,
    /// Whether it is lent to be written.
    write: bool,
}

impl<'a> Memory<'a> {
    /// A buffer of values of this type, to be read.
    pub(crate) fn of(buffer: &'a Buffer<u8>, dtype: Dtype) -> Self {
        let element = match dtype {
            Dtype::F32 => Layout::new::<f32>(),
            Dtype::Bf16 | Dtype::F16 => Layout::new::<u16>(),
        };
        let (address, len) = (Address(buffer.address()), buffer.len() / element.size());
        Self { address, len, element, place: Place::Device(buffer.device()), write: false }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address, after the checks every operation makes on every operand: the stream's device can reach
    /// it, elements have one (0 says in parameter blocks that there is no operand), and it is aligned to them.
    pub(crate) fn address(
        &self,
        op: &'static str,
        arg: &dyn Fn() -> crate::error::Arg,
        stream: &Stream,
    ) -> Result<Address> {
        check_place(op, arg, self.place, stream)?;
        let address = self.address.0;
        if self.len > 0 && address == 0 {
            let expected = format!("{} elements", self.len);
            return Err(Error::shape(op, arg(), expected, "no memory, at address 0"));
        }
        if self.len > 0 && !address.is_multiple_of(self.element.align() as u64) {
            return Err(Error::Align { op, arg: arg(), need: self.element.align(), address });
        }
        Ok(self.address)
    }

    /// Copies elements from `start` on to a view of their bytes, in the stream's order.
    pub(crate) fn copy_to(
        &self,
        op: &'static str,
        arg: &dyn Fn() -> crate::error::Arg,
        stream: &Stream,
        start: usize,
        to: &mut ViewMut<'_, u8>,
    ) -> Result<()> {
        let from = self.range(op, arg, stream, start, to.len)?;
        check_place(op, arg, Place::Device(to.device), stream)?;
        // SAFETY: both ranges are inside what was lent and inside the view (checked above,
        // and when the view was made); memory lent to this call is not the buffer's, which
        // is borrowed exclusively.
        unsafe { stream.device().backend.copy(stream.id(), to.address, from, to.len) }
    }

    /// Copies a view of their bytes to elements from `start` on, in the stream's order.
    ///
    /// # Panics
    /// Unless it was lent to be written.
    pub(crate) fn copy_from(
        &self,
        op: &'static str,
        arg: &dyn Fn() -> crate::error::Arg,
        stream: &Stream,
        start: usize,
        from: &View<'_, u8>,
    ) -> Result<()> {
        assert!(self.write, "lent to be written");
        let to = self.range(op, arg, stream, start, from.len)?;
        check_place(op, arg, Place::Device(from.device), stream)?;
        // SAFETY: both ranges are inside what was lent and inside the view (checked above, and when
        // the view was made); memory lent to write is nobody else's.
        unsafe { stream.device().backend.copy(stream.id(), to, from.address, from.len) }
    }

    /// The address of element `start`, from which on so many bytes are inside.
    fn range(
        &self,
        op: &'static str,
        arg: &dyn Fn() -> crate::error::Arg,
        stream: &Stream,
        start: usize,
        bytes: usize,
    ) -> Result<Address> {
        let address = self.address(op, arg, stream)?;
        let len = bytes.div_ceil(self.element.size());
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            let expected = format!("elements {start} to {}", start.saturating_add(len));
            return Err(Error::shape(op, arg(), expected, format!("{} elements", self.len)));
        }
        Ok(address.offset(start * self.element.size()))
    }
}

macro_rules! lent {
    ($name:ident, $write:literal) => {
        impl<'a, T: Element> $name<'a, T> {
            fn new(address: Address, len: usize, place: Place<'a>) -> Self {
                Self { address, len, place, memory: PhantomData }
            }

            /// Number of elements lent.
            pub fn len(&self) -> usize {
                self.len
            }

            /// Whether none are lent.
            pub fn is_empty(&self) -> bool {
                self.len == 0
            }

            /// The address, after the checks every operation makes on every operand: see [`Memory::address`].
            pub(crate) fn address(
                &self,
                op: &'static str,
                arg: impl Fn() -> crate::error::Arg,
                stream: &Stream,
            ) -> Result<Address> {
                self.memory().address(op, &arg, stream)
            }

            /// The same, whatever its elements.
            pub(crate) fn memory(&self) -> Memory<'a> {
                let Self { address, len, place, .. } = *self;
                Memory { address, len, element: Layout::new::<T>(), place, write: $write }
            }
        }
    };
}
lent!(Lent, false);
lent!(LentMut, true);

impl<'a, T: Element> Lent<'a, T> {
    /// `len` elements at `address` in memory of `device`: see [`Read`] for an example.
    ///
    /// # Safety
    /// As for [`Read`]: the memory is `device`'s, valid and initialised for reads, and not written by others, for all work
    /// that the call enqueues.
    pub unsafe fn from_raw(address: u64, len: usize, device: &'a Device) -> Self {
        Self::new(Address(address), len, Place::Device(device))
    }
}

impl<'a, T: Element> LentMut<'a, T> {
    /// `len` elements at `address` in memory of `device`: see [`Read`] for an example.
    ///
    /// # Safety
    /// As for [`Write`]: the memory is `device`'s, valid and initialised for reads and writes, and touched by nobody else,
    /// for all work that the call enqueues.
    pub unsafe fn from_raw(address: u64, len: usize, device: &'a Device) -> Self {
        Self::new(Address(address), len, Place::Device(device))
    }
}

fn check_place(
    op: &'static str,
    arg: &dyn Fn() -> crate::error::Arg,
    place: Place<'_>,
    stream: &Stream,
) -> Result<()> {
    let device = stream.device();
    let found = match place {
        Place::Host if device.info().kind == DeviceKind::Cpu => return Ok(()),
        Place::Host => "host memory".to_string(),
        Place::Device(owner) if device.reaches(owner) => return Ok(()),
        Place::Device(owner) => owner.info().to_string(),
    };
    Err(Error::Device { op, arg: arg(), expected: device.info().to_string(), found })
}

macro_rules! lend_slice {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        // SAFETY: a slice is valid and unchanged while borrowed; CPU work has run when the call
        // returns, and other devices refuse host memory.
        unsafe impl<T: Element, $($generics)*> Read<T> for $type {
            fn lend<'l>(&'l self, _: &'l Stream) -> Result<Lent<'l, T>> {
                Ok(Lent::new(Address(self.as_ptr() as u64), self.len(), Place::Host))
            }
        }
        // SAFETY: as for reading, and the borrow is exclusive.
        unsafe impl<T: Element, $($generics)*> Write<T> for $type {
            fn lend_mut<'l>(&'l mut self, _: &'l Stream) -> Result<LentMut<'l, T>> {
                Ok(LentMut::new(Address(self.as_mut_ptr() as u64), self.len(), Place::Host))
            }
        }
    )*};
}
lend_slice! {
    [] [T];
    [] Vec<T>;
    [const N: usize] [T; N];
}

// SAFETY: passed on to what is referred to. A `[T]` has no size and cannot be a `dyn Read<T>`; with
// this, a `&[T]` can.
unsafe impl<T: Element, R: Read<T> + ?Sized> Read<T> for &R {
    fn lend<'a>(&'a self, stream: &'a Stream) -> Result<Lent<'a, T>> {
        (**self).lend(stream)
    }
}

// SAFETY: passed on to what is referred to; the outer borrow is exclusive, so is the inner one.
unsafe impl<T: Element, W: Write<T> + ?Sized> Write<T> for &mut W {
    fn lend_mut<'a>(&'a mut self, stream: &'a Stream) -> Result<LentMut<'a, T>> {
        (**self).lend_mut(stream)
    }
}

// SAFETY: a buffer owns its memory and frees it only after its last enqueued use.
unsafe impl<T: Element> Read<T> for Buffer<T> {
    fn lend<'a>(&'a self, _: &'a Stream) -> Result<Lent<'a, T>> {
        Ok(Lent::new(Address(self.address()), self.len(), Place::Device(self.device())))
    }
}

// SAFETY: as above, and the borrow is exclusive.
unsafe impl<T: Element> Write<T> for Buffer<T> {
    fn lend_mut<'a>(&'a mut self, _: &'a Stream) -> Result<LentMut<'a, T>> {
        Ok(LentMut::new(Address(self.address()), self.len(), Place::Device(self.device())))
    }
}

// SAFETY: a view is inside its buffer (checked when it was made).
unsafe impl<T: Element> Read<T> for View<'_, T> {
    fn lend<'a>(&'a self, _: &'a Stream) -> Result<Lent<'a, T>> {
        Ok(Lent::new(self.address, self.len, Place::Device(self.device)))
    }
}

// SAFETY: a view is inside its buffer (checked when it was made), and exclusive.
unsafe impl<T: Element> Write<T> for ViewMut<'_, T> {
    fn lend_mut<'a>(&'a mut self, _: &'a Stream) -> Result<LentMut<'a, T>> {
        Ok(LentMut::new(self.address, self.len, Place::Device(self.device)))
    }
}

/// Memory known only by its address: a framework's own tensors.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::Raw;
/// let mut tensor = vec![0.0f32; 8];
/// // SAFETY: `tensor` outlives `raw`, and nobody else uses it meanwhile.
/// let raw = unsafe { Raw::<f32>::new(tensor.as_mut_ptr() as u64, tensor.len()) };
/// # let _ = raw;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Raw<T: Element> {
    address: Address,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Raw<T> {
    /// `len` elements at `address`, in memory that the device of every stream it is used with can
    /// reach.
    ///
    /// # Safety
    /// While the value exists: the memory is alive, initialised, reachable by the device, and
    /// used by others only in an order that the streams involved already guarantee. While it is
    /// lent to write, nothing else reads or writes it. (Alignment is checked by each operation, and so are overlap
    /// between the arguments of one call, and that elements have an address other than 0.)
    pub unsafe fn new(address: u64, len: usize) -> Self {
        Self { address: Address(address), len, element: PhantomData }
    }
}

// SAFETY: promised by whoever called `Raw::new`.
unsafe impl<T: Element> Read<T> for Raw<T> {
    fn lend<'a>(&'a self, stream: &'a Stream) -> Result<Lent<'a, T>> {
        Ok(Lent::new(self.address, self.len, Place::Device(stream.device())))
    }
}

// SAFETY: promised by whoever called `Raw::new`.
unsafe impl<T: Element> Write<T> for Raw<T> {
    fn lend_mut<'a>(&'a mut self, stream: &'a Stream) -> Result<LentMut<'a, T>> {
        Ok(LentMut::new(self.address, self.len, Place::Device(stream.device())))
    }
}
