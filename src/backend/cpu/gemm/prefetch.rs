//! Hints of what is read or written next, so that it is in the second cache by then.

/// Memory of a matrix: so many rows of so many bytes, `ld` bytes apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rectangle {
    start: *const u8,
    ld: usize,
    rows: usize,
    bytes: usize,
}

impl Rectangle {
    /// Nothing.
    pub const NONE: Self = Self { start: std::ptr::null(), ld: 0, rows: 0, bytes: 0 };

    /// Rows and columns of elements; nothing where there is no address.
    pub fn new<T>(start: *const T, ld: usize, (rows, columns): (usize, usize)) -> Self {
        if start.is_null() {
            return Self::NONE;
        }
        let size = size_of::<T>();
        Self { start: start.cast(), ld: ld * size, rows, bytes: columns * size }
    }

    /// Asks for all of it.
    #[inline(always)]
    pub fn prefetch(self) {
        self.rows(0, self.rows);
    }

    /// Asks for rows `first..last`, as far as they are there.
    #[inline(always)]
    fn rows(self, first: usize, last: usize) {
        for row in first..last.min(self.rows) {
            let start = self.start.wrapping_add(row * self.ld);
            // From the start of a line on, for the last one not to be left out.
            let before = start.addr() % LINE;
            prefetch(start.wrapping_sub(before), self.bytes + before);
        }
    }
}

/// Rectangles, asked for a share at a time: by each of so many calls.
pub(super) struct Ahead {
    rectangles: [Rectangle; 6],
    shares: [usize; 6],
    len: usize,
    calls: usize,
}

impl Ahead {
    pub fn new(calls: usize) -> Self {
        Self { rectangles: [Rectangle::NONE; 6], shares: [0; 6], len: 0, calls: calls.max(1) }
    }

    /// One more, of at most six.
    pub fn add(&mut self, rectangle: Rectangle) {
        if rectangle.rows > 0 {
            self.rectangles[self.len] = rectangle;
            self.shares[self.len] = rectangle.rows.div_ceil(self.calls);
            self.len += 1;
        }
    }

    /// The share of call `i` of all.
    #[inline(always)]
    pub fn share(&self, i: usize) {
        for (rectangle, share) in self.rectangles.iter().zip(self.shares).take(self.len) {
            rectangle.rows(i * share, (i + 1) * share);
        }
    }
}

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Asks the second cache for so many bytes from an address on, which need not be valid.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for byte in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.wrapping_byte_add(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, bytes);
}
