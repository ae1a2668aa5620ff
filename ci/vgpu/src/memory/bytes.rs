//! Bytes, each with a shadow byte that says whether it is defined.

use super::region::Region;

/// Up to eight bytes as they sit in a register: the value, and one bit for each byte that is
/// defined. Bytes beyond the width are zero and defined, so that 0xff is "all defined" at any width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Little-endian value.
    pub bits: u64,
    /// Bit i: byte i is defined.
    pub defined: u8,
}

impl Word {
    /// A defined value.
    pub fn known(bits: u64) -> Self {
        Self { bits, defined: 0xff }
    }
}

/// What undefined bytes hold: a NaN in every floating type, and no address.
pub const POISON: u8 = 0xfd;

/// A piece of memory with a shadow. Fresh memory is zero in both, so that a page costs nothing until
/// it is touched; an undefined byte is poison whatever is stored in its place.
#[derive(Debug, Clone, Default)]
pub struct Bytes {
    data: Region,
    /// 1 where the byte is defined.
    defined: Region,
}

impl Bytes {
    /// `len` undefined bytes.
    pub fn undefined(len: usize) -> Self {
        Self { data: Region::zeroed(len), defined: Region::zeroed(len) }
    }

    /// Defined bytes.
    pub fn known(data: Vec<u8>) -> Self {
        Self { defined: Region::ones(data.len()), data: data.into() }
    }

    /// The host's memory, which is always defined: the host may write it at any time.
    ///
    /// # Safety
    /// As for [`Region::host`].
    pub unsafe fn host(start: *mut u8, len: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { data: unsafe { Region::host(start, len) }, defined: Region::ones(len) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Whether it is the host's memory.
    pub fn is_host(&self) -> bool {
        self.data.is_host()
    }

    /// Reads `size` (1, 2, 4 or 8) bytes. The caller has checked the bounds.
    #[inline]
    pub fn load(&self, at: usize, size: usize) -> Word {
        match size {
            1 => self.load_fixed::<1>(at),
            2 => self.load_fixed::<2>(at),
            4 => self.load_fixed::<4>(at),
            _ => self.load_fixed::<8>(at),
        }
    }

    /// As [`load`](Self::load); of a width that is known, copies are moves.
    #[inline(always)]
    fn load_fixed<const N: usize>(&self, at: usize) -> Word {
        let (data, shadow) = (&self.data[at..at + N], &self.defined[at..at + N]);
        let mut bits = [0; 8];
        bits[..N].copy_from_slice(data);
        if shadow == [1; N] {
            return Word { bits: u64::from_le_bytes(bits), defined: 0xff };
        }
        let mut defined = 0xff;
        for i in (0..N).filter(|i| shadow[*i] == 0) {
            bits[i] = POISON;
            defined &= !(1 << i);
        }
        Word { bits: u64::from_le_bytes(bits), defined }
    }

    /// Reads words of `size` bytes side by side. The caller has checked the bounds.
    #[inline]
    pub fn load_words(&self, at: usize, size: usize, words: &mut [Word]) {
        fn each<const N: usize>(bytes: &Bytes, at: usize, words: &mut [Word]) {
            for (n, word) in words.iter_mut().enumerate() {
                *word = bytes.load_fixed::<N>(at + n * N);
            }
        }
        match size {
            1 => each::<1>(self, at, words),
            2 => each::<2>(self, at, words),
            4 => each::<4>(self, at, words),
            _ => each::<8>(self, at, words),
        }
    }

    /// Writes `size` (1, 2, 4 or 8) bytes. The caller has checked the bounds.
    #[inline]
    pub fn store(&mut self, at: usize, size: usize, word: Word) {
        match size {
            1 => self.store_fixed::<1>(at, word),
            2 => self.store_fixed::<2>(at, word),
            4 => self.store_fixed::<4>(at, word),
            _ => self.store_fixed::<8>(at, word),
        }
    }

    #[inline(always)]
    fn store_fixed<const N: usize>(&mut self, at: usize, word: Word) {
        self.data[at..at + N].copy_from_slice(&word.bits.to_le_bytes()[..N]);
        if word.defined == 0xff {
            self.defined[at..at + N].copy_from_slice(&[1; N]);
        } else if !self.is_host() {
            for i in 0..N {
                self.defined[at + i] = word.defined >> i & 1;
            }
        }
    }

    /// Writes defined bytes.
    pub fn write(&mut self, at: usize, data: &[u8]) {
        self.data[at..at + data.len()].copy_from_slice(data);
        self.defined[at..at + data.len()].fill(1);
    }

    /// Writes `pattern` `count` times, one after the other.
    pub fn repeat(&mut self, at: usize, pattern: &[u8], count: usize) {
        let range = at..at + pattern.len() * count;
        match pattern {
            [byte] => self.data[range.clone()].fill(*byte),
            _ => self.data[range.clone()]
                .chunks_exact_mut(pattern.len())
                .for_each(|chunk| chunk.copy_from_slice(pattern)),
        }
        self.defined[range].fill(1);
    }

    /// Makes a range undefined again.
    pub fn poison(&mut self, at: usize, len: usize) {
        self.defined[at..at + len].fill(0);
    }

    /// Copies a range out, undefined bytes as poison.
    pub fn read(&self, at: usize, out: &mut [u8]) {
        let range = at..at + out.len();
        out.copy_from_slice(&self.data[range.clone()]);
        for (byte, defined) in out.iter_mut().zip(&self.defined[range]) {
            *byte = if *defined == 0 { POISON } else { *byte };
        }
    }

    /// The first undefined byte of a range.
    pub fn first_undefined(&self, at: usize, len: usize) -> Option<usize> {
        self.defined[at..at + len].iter().position(|d| *d == 0).map(|i| at + i)
    }

    /// Copies a range of `from`, definedness included.
    pub fn copy_from(&mut self, at: usize, from: &Self, start: usize, len: usize) {
        from.read(start, &mut self.data[at..at + len]);
        if !self.is_host() {
            self.defined[at..at + len].copy_from_slice(&from.defined[start..start + len]);
        }
    }

    /// Copies a range to another of the same memory; they may overlap.
    pub fn copy_within(&mut self, at: usize, start: usize, len: usize) {
        self.data.copy_within(start..start + len, at);
        self.defined.copy_within(start..start + len, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definedness_is_kept_byte_by_byte() {
        let mut bytes = Bytes::undefined(16);
        assert_eq!(bytes.load(0, 4).defined, 0xf0);
        bytes.store(1, 2, Word::known(0xbeef));
        assert_eq!(bytes.load(0, 4).defined, 0xf6);
        assert_eq!(bytes.load(0, 8).defined, 0x06);
        assert_eq!(bytes.load(1, 2), Word::known(0xbeef));
        let mixed = bytes.load(0, 4);
        bytes.store(8, 4, mixed);
        assert_eq!(bytes.load(8, 4), mixed);
        assert_eq!(bytes.first_undefined(9, 4), Some(11));
    }
}
