//! Tensors that a test reads and writes as slices, wherever the operation under test runs: on a GPU
//! they have a copy there, brought up to date when one side has changed what the other needs.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut, Range};

use halfstep::{Buffer, DeviceKind, Element, Lent, LentMut, Raw, Read, Result, Stream, Write};

/// `len` values that any device can use.
pub struct Values<T: Element> {
    /// Elements by which the address on a device misses a multiple of 256 bytes.
    shift: usize,
    /// Those that operations get; all, unless [`part`](Self::part) has said otherwise.
    part: Range<usize>,
    copies: UnsafeCell<Copies<T>>,
}

struct Copies<T: Element> {
    host: Vec<T>,
    device: Option<OnDevice<T>>,
}

struct OnDevice<T: Element> {
    buffer: Buffer<T>,
    lent: Raw<T>,
    /// The device has what the host has.
    current: bool,
    /// The device may have changed it.
    newer: bool,
}

impl<T: Element> Values<T> {
    /// Values at an address that is `shift` elements off.
    pub fn shifted(values: Vec<T>, shift: usize) -> Self {
        let part = 0..values.len();
        Self { shift, part, copies: UnsafeCell::new(Copies { host: values, device: None }) }
    }

    /// The same values, of which operations get a part.
    pub fn part(self, part: Range<usize>) -> Self {
        Self { part, ..self }
    }

    /// SAFETY of each use: a test's tensors stay on one thread (`Values` is not `Sync`), and a slice
    /// of the host's copy is not kept across a call that lends it.
    #[allow(clippy::mut_from_ref)]
    fn copies(&self) -> &mut Copies<T> {
        // SAFETY: as above.
        unsafe { &mut *self.copies.get() }
    }

    /// The host's copy, fetched if the device has changed it.
    #[allow(clippy::mut_from_ref)]
    fn fetched(&self) -> &mut Vec<T> {
        let Copies { host, device } = self.copies();
        if let Some(device) = device.as_mut().filter(|device| device.newer) {
            let of = device.buffer.device();
            of.sync().unwrap();
            device.buffer.read(&of.stream().unwrap(), self.shift, host).unwrap();
            (device.newer, device.current) = (false, true);
        }
        host
    }

    /// What a device has after work on it: also where the tensor was lent to be read only.
    pub fn anywhere(&self) -> &[T] {
        if let Some(device) = &mut self.copies().device {
            device.newer |= device.current;
        }
        self.fetched()
    }

    /// The device's copy, sent if the host has changed it.
    #[allow(clippy::mut_from_ref)]
    fn sent(&self, stream: &Stream, write: bool) -> Result<&mut Raw<T>> {
        let Copies { host, device } = self.copies();
        let here = |device: &OnDevice<T>| device.buffer.device().same_as(stream.device());
        if !device.as_ref().is_some_and(here) {
            let buffer: Buffer<T> = stream.device().zeros(self.shift + host.len())?;
            let first = self.shift + self.part.start;
            let address = buffer.address() + (first * size_of::<T>()) as u64;
            // SAFETY: inside the buffer, which lives beside it; used as the test uses the tensor.
            let lent = unsafe { Raw::new(address, self.part.len()) };
            *device = Some(OnDevice { buffer, lent, current: false, newer: false });
        }
        let device = device.as_mut().expect("made above");
        if !device.current && !device.newer {
            device.buffer.write(stream, self.shift, host)?;
            device.current = true;
        }
        device.newer |= write;
        Ok(&mut device.lent)
    }
}

// SAFETY: a host slice on the CPU; on a GPU memory of our own, which outlives the call's work.
unsafe impl<T: Element> Read<T> for Values<T> {
    fn lend<'a>(&'a self, stream: &'a Stream) -> Result<Lent<'a, T>> {
        match stream.device().info().kind {
            DeviceKind::Cpu => self.fetched()[self.part.clone()].lend(stream),
            _ => self.sent(stream, false)?.lend(stream),
        }
    }
}

// SAFETY: as for reading, and the borrow is exclusive.
unsafe impl<T: Element> Write<T> for Values<T> {
    fn lend_mut<'a>(&'a mut self, stream: &'a Stream) -> Result<LentMut<'a, T>> {
        match stream.device().info().kind {
            DeviceKind::Cpu => {
                self.deref_mut(); // a copy elsewhere is old now
                let part = self.part.clone();
                self.copies().host[part].lend_mut(stream)
            }
            _ => self.sent(stream, true)?.lend_mut(stream),
        }
    }
}

impl<T: Element> Deref for Values<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.fetched()
    }
}

impl<T: Element> DerefMut for Values<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.fetched();
        let Copies { host, device } = self.copies();
        if let Some(device) = device {
            device.current = false;
        }
        host
    }
}

impl<T: Element> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Self {
        Self::shifted(values, 0)
    }
}

impl<T: Element, const N: usize> From<[T; N]> for Values<T> {
    fn from(values: [T; N]) -> Self {
        Self::from(values.to_vec())
    }
}

impl<T: Element> FromIterator<T> for Values<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::from(values.into_iter().collect::<Vec<T>>())
    }
}

impl<T: Element> Clone for Values<T> {
    fn clone(&self) -> Self {
        Self::shifted(self.to_vec(), self.shift).part(self.part.clone())
    }
}

impl<T: Element + std::fmt::Debug> std::fmt::Debug for Values<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Element + PartialEq> PartialEq for Values<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Element + PartialEq, const N: usize> PartialEq<[T; N]> for Values<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == *other
    }
}

impl<T: Element + PartialEq> PartialEq<[T]> for Values<T> {
    fn eq(&self, other: &[T]) -> bool {
        **self == *other
    }
}

impl<T: Element + PartialEq> PartialEq<Vec<T>> for Values<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}
