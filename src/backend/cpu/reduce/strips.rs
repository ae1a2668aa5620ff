//! Arrays made strip by strip: each in the first-level cache, from where whole lines go past the caches if what is made
//! does not fit into them.

use super::super::past;
use super::super::wide::Work;
use crate::Storage;

/// Elements of a strip: few enough for the first-level cache, in f32, too.
pub(super) const STRIP: usize = 256;
/// Bytes that memory takes at once.
const LINE: usize = 64;

/// Makes elements.
pub(super) trait Make<T> {
    /// `to` becomes the elements from `at` on, a strip of them at most. To be inlined: see [`Work`].
    fn make(&mut self, at: usize, to: &mut [T]);
}

/// Makes all of `to`; `past` the caches but for what is beside whole strips.
#[inline(always)]
pub(super) fn make_all<T: Storage>(to: &mut [T], maker: &mut impl Make<T>, past: bool) {
    let past = past && has_store();
    let head = if past { to.as_ptr().align_offset(LINE).min(to.len()) } else { 0 };
    let (head, rest) = to.split_at_mut(head);
    let (strips, tail) = rest.as_chunks_mut::<STRIP>();
    let (start, end) = (head.len(), head.len() + STRIP * strips.len());
    let mut room = Room([T::narrow(0.0); STRIP]);
    // A length that the compiler knows makes better loops.
    for (i, strip) in strips.iter_mut().enumerate() {
        maker.make(start + i * STRIP, if past { &mut room.0 } else { &mut *strip });
        if past {
            // SAFETY: there is a way, and the head ends where a line starts.
            unsafe { store(&room, strip) };
        }
    }
    // (In a loop, as above in one place, for what is made is compiled in each.)
    for (at, beside) in [(0, head), (end, tail)] {
        maker.make(at, beside);
    }
    if past {
        past::drain();
    }
}

/// What makes elements, and where they go.
pub(super) struct Making<'a, M, T> {
    pub maker: M,
    pub to: &'a mut [T],
    pub past: bool,
}

impl<M: Make<T>, T: Storage> Work for Making<'_, M, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(mut self) {
        make_all(self.to, &mut self.maker, self.past);
    }
}

/// A strip whose vectors do not cross lines.
#[repr(align(64))]
struct Room<T>([T; STRIP]);

/// Whether [`store`] has a way past the caches.
#[inline(always)]
fn has_store() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::super::has_avx2();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `to = from`, past the caches. By halves of lines: by quarters, as every x86-64 could, takes as long as if lines
/// were read first (Zen 5).
///
/// # Safety
/// Where [`has_store`]; `to` starts with a line.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<T: Storage>(from: &Room<T>, to: &mut [T; STRIP]) {
    use std::arch::x86_64::{__m256i, _mm256_load_si256, _mm256_stream_si256};
    let (from, to) = (from.0.as_ptr().cast::<__m256i>(), to.as_mut_ptr().cast::<__m256i>());
    for i in 0..size_of::<[T; STRIP]>() / size_of::<__m256i>() {
        // SAFETY: inside both strips, which start with a line.
        unsafe { _mm256_stream_si256(to.add(i), _mm256_load_si256(from.add(i))) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn store<T: Storage>(from: &Room<T>, to: &mut [T; STRIP]) {
    to.copy_from_slice(&from.0);
}
