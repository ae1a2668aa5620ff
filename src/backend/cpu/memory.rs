//! Host memory. Large blocks lie in huge pages where the system has them: gradients, moments and buckets
//! are walked from end to end, and part of the time of such a walk, a third of it where another process
//! reads them, is spent on looking up small pages.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};

/// Allocations start at a multiple of this many bytes, as on the other backends.
const ALIGN: usize = 256;
/// Bytes of a huge page (x86-64; a multiple of what other processors have).
pub(super) const HUGE: usize = 2 << 20;
/// Large blocks start at different offsets in their first page: loops that walk several at once would else
/// meet in the same sets of the first-level cache, and in the same banks of memory. (An optimizer's step on
/// one thread of a server took 11 % more time with offsets that were all 0, and with multiples of 256 bytes.)
const COLOURS: usize = 16;
/// Bytes between two such offsets.
const COLOUR: usize = (32 << 10) + ALIGN;

/// The block that a buffer of so many bytes lies in.
#[derive(Debug, Clone, Copy)]
struct Block {
    layout: Layout,
    /// Offsets that its start may have; 0 where it is not in huge pages.
    colours: usize,
}

impl Block {
    /// `None` where no such can be. Huge pages are taken where at most a third of them is left over; blocks of less than
    /// two have what offsets there is room for.
    fn new(bytes: usize) -> Option<Self> {
        let room = if bytes < 2 * HUGE { 0 } else { COLOURS * COLOUR };
        let huge = bytes.checked_add(room)?.checked_next_multiple_of(HUGE)?;
        if bytes < huge - huge / 3 {
            let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
            return Some(Self { layout, colours: 0 });
        }
        let layout = Layout::from_size_align(huge, HUGE).ok()?;
        Some(Self { layout, colours: ((huge - bytes) / COLOUR).clamp(1, COLOURS) })
    }
}

/// Memory of zeros; null if there is none, or so many bytes cannot be. `colour` is any number, best
/// another one in each call.
pub(super) fn zeros(bytes: usize, colour: u64) -> *mut u8 {
    let Some(block) = Block::new(bytes).filter(|_| bytes > 0) else {
        return std::ptr::null_mut();
    };
    if block.colours == 0 {
        // SAFETY: the size is not zero.
        return unsafe { alloc_zeroed(block.layout) };
    }
    // SAFETY: as above.
    let start = unsafe { huge_zeros(block.layout) };
    match start.is_null() {
        true => start,
        false => start.wrapping_add(colour as usize % block.colours * COLOUR),
    }
}

/// A block of zeros in huge pages, of which the layout has whole ones; null if there is none. It is freed by `dealloc`.
///
/// # Safety
/// The layout's size is not zero.
pub(super) unsafe fn huge_zeros(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's promise.
    let block = unsafe { alloc(layout) };
    if !block.is_null() {
        prefer_huge_pages(block, layout.size());
        // SAFETY: that many bytes have just been allocated. Touched after the advice, they come in huge
        // pages.
        unsafe { block.write_bytes(0, layout.size()) }
    }
    block
}

/// # Safety
/// `pointer` is of [`zeros`] with this size, not freed yet, and not used any more.
pub(super) unsafe fn free(pointer: *mut u8, bytes: usize) {
    let Some(block) = Block::new(bytes) else { return };
    // Blocks of huge pages start at a multiple of their size, the buffer a little later.
    let offset = if block.colours == 0 { 0 } else { pointer.addr() % HUGE };
    // SAFETY: the caller's promise: so is the block.
    unsafe { dealloc(pointer.wrapping_sub(offset), block.layout) }
}

/// Asks for huge pages: advice, which may be refused.
fn prefer_huge_pages(block: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::{c_int, c_void};
        unsafe extern "C" {
            fn madvise(address: *mut c_void, bytes: usize, advice: c_int) -> c_int;
        }
        /// Of `linux/mman.h`.
        const MADV_HUGEPAGE: c_int = 14;
        // SAFETY: memory of ours; the advice changes nothing that is in it.
        unsafe { madvise(block.cast(), bytes, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zero_and_ours() {
        let (third, two) = (HUGE / 3, 2 * HUGE);
        let sizes = [
            (1, 0),
            (255, 0),
            (HUGE - third - 1, 0),
            (HUGE - third, 16),
            (HUGE - COLOUR - 1, 1),
            (HUGE, 1),
            (HUGE + 1, 0),
            (two - 2 * third, 16),
            (two - 1, 1),
            (two, 16),
            (3 * HUGE + 77, 16),
        ];
        for (bytes, colours) in sizes {
            let blocks: Vec<*mut u8> = (0..3).map(|colour| zeros(bytes, colour)).collect();
            for &block in &blocks {
                assert!(!block.is_null() && block.addr().is_multiple_of(ALIGN));
                // SAFETY: so many bytes, which nobody else uses.
                let all = unsafe { std::slice::from_raw_parts_mut(block, bytes) };
                assert!(all.iter().all(|&byte| byte == 0));
                all.fill(7);
            }
            let offsets = blocks.iter().map(|block| block.addr() % HUGE);
            let expected = (0..3).map(|i| i % colours.max(1) * COLOUR);
            assert!(colours == 0 || offsets.eq(expected), "{bytes} bytes");
            // SAFETY: of `zeros`, once each.
            blocks.into_iter().for_each(|block| unsafe { free(block, bytes) });
        }
        assert!(zeros(0, 0).is_null() && zeros(usize::MAX, 0).is_null());
        assert!(zeros(usize::MAX - HUGE, 0).is_null());
    }
}
