//! Operands between guard pads. A stray read brings NaN into the result; a stray write breaks a pad, or changes an operand
//! that is only read: `check` and `unchanged` compare bit by bit what the device has.

use halfstep::{Lent, LentMut, Read, Result, Storage, Stream, Write};

use super::memory::Values;

/// At least one tile of any kernel.
const PAD: usize = 4096;

/// `len` values with a pad of NaN (one that no arithmetic makes) on either side, at an address
/// that is `shift` elements away from a 64-byte boundary, on any device.
pub struct Guarded<T: Storage> {
    memory: Values<T>,
    start: usize,
    given: Vec<T>,
}

// SAFETY: lends what `Values` does.
unsafe impl<T: Storage> Read<T> for Guarded<T> {
    fn lend<'a>(&'a self, stream: &'a Stream) -> Result<Lent<'a, T>> {
        self.memory.lend(stream)
    }
}

// SAFETY: as above.
unsafe impl<T: Storage> Write<T> for Guarded<T> {
    fn lend_mut<'a>(&'a mut self, stream: &'a Stream) -> Result<LentMut<'a, T>> {
        self.memory.lend_mut(stream)
    }
}

impl<T: Storage> Guarded<T> {
    pub fn new(values: &[T], shift: usize) -> Self {
        let mut memory = vec![Self::canary(); values.len() + 2 * PAD + 64];
        let misfit = memory.as_ptr() as usize % 64 / size_of::<T>();
        let start = PAD + 64 / size_of::<T>() - misfit + shift % (32 / size_of::<T>());
        memory[start..start + values.len()].copy_from_slice(values);
        // A GPU's copy starts as far off a boundary as the host's.
        let part = start..start + values.len();
        Self { memory: Values::shifted(memory, misfit).part(part), start, given: values.to_vec() }
    }

    /// An output, filled with the pad's NaN: what is not written shows.
    pub fn output(len: usize, shift: usize) -> Self {
        Self::new(&vec![Self::canary(); len], shift)
    }

    /// A quiet NaN with a payload.
    pub fn canary() -> T {
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        match bytes.len() {
            2 => bytes.copy_from_slice(&0x7fedu16.to_le_bytes()),
            _ => bytes.copy_from_slice(&0x7fed_beadu32.to_le_bytes()),
        }
        value
    }

    pub fn get(&self) -> &[T] {
        &self.memory[self.start..self.start + self.given.len()]
    }

    pub fn get_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..self.start + self.given.len()]
    }

    /// Whether no element of the values has been written.
    pub fn untouched(&self) -> bool {
        is_canary(self.get())
    }

    /// Panics if a pad has been written.
    pub fn check(&self, name: &str) {
        let memory = self.memory.anywhere();
        let end = self.start + self.given.len();
        assert!(is_canary(&memory[..self.start]), "{name}: written before its start");
        assert!(is_canary(&memory[end..]), "{name}: written past its end");
    }

    /// The same, and of an operand that is only read: panics if one of its values is another.
    pub fn unchanged(&self, name: &str) {
        self.check(name);
        assert!(bytes(self.get()) == bytes(&self.given), "{name}: written, though only read");
    }
}

fn bytes<T: Storage>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

fn is_canary<T: Storage>(values: &[T]) -> bool {
    let canary = [Guarded::<T>::canary()];
    values.chunks(1).all(|value| bytes(value) == bytes(&canary))
}
