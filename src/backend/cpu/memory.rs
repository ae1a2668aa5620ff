//! Host memory. Large blocks lie in huge pages where the system has them: gradients, moments and buckets
//! are walked from end to end, and part of the time of such a walk, a third of it where another process
//! reads them, is spent on looking up small pages.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};

/// Allocations start at a multiple of this many bytes, as on the other backends.
const ALIGN: usize = 256;
/// Bytes of a huge page (x86-64; a multiple of what other processors have).
const HUGE: usize = 2 << 20;
/// Blocks from this size on are laid out in huge pages: at most a third of what they take is not used.
const LARGE: usize = 2 * HUGE;
/// Large blocks start at different offsets in their first page: loops that walk several at once would else
/// meet in the same sets of the first-level cache, and in the same banks of memory. (An optimizer's step on
/// one thread of a server took 11 % more time with offsets that were all 0, and with multiples of 256 bytes.)
const COLOURS: usize = 16;
/// Bytes between two such offsets.
const COLOUR: usize = (32 << 10) + ALIGN;

/// The layout of the block that a buffer of so many bytes lies in. `None` where no such can exist.
fn layout(bytes: usize) -> Option<Layout> {
    match bytes < LARGE {
        true => Layout::from_size_align(bytes, ALIGN).ok(),
        false => {
            let size = bytes.checked_add(COLOURS * COLOUR)?.checked_next_multiple_of(HUGE)?;
            Layout::from_size_align(size, HUGE).ok()
        }
    }
}

/// Memory of zeros; null if there is none, or so many bytes cannot be. `colour` is any number, best
/// another one in each call.
pub(super) fn zeros(bytes: usize, colour: u64) -> *mut u8 {
    let Some(layout) = layout(bytes).filter(|layout| layout.size() > 0) else {
        return std::ptr::null_mut();
    };
    if bytes < LARGE {
        // SAFETY: the size is not zero.
        return unsafe { alloc_zeroed(layout) };
    }
    // SAFETY: the size is not zero.
    let block = unsafe { alloc(layout) };
    if !block.is_null() {
        prefer_huge_pages(block, layout.size());
        // SAFETY: that many bytes have just been allocated. Touched after the advice, they come in huge
        // pages.
        unsafe { block.write_bytes(0, layout.size()) }
        let offset = colour as usize % COLOURS * COLOUR;
        return block.wrapping_add(offset);
    }
    block
}

/// # Safety
/// `pointer` is of [`zeros`] with this size, not freed yet, and not used any more.
pub(super) unsafe fn free(pointer: *mut u8, bytes: usize) {
    let Some(layout) = layout(bytes) else { return };
    // Blocks of huge pages start at a multiple of their size, the buffer a little later.
    let offset = if bytes < LARGE { 0 } else { pointer.addr() % HUGE };
    // SAFETY: the caller's promise: so is the block.
    unsafe { dealloc(pointer.wrapping_sub(offset), layout) }
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
        for bytes in [1, 255, LARGE - 1, LARGE, LARGE + 1, 3 * HUGE + 77] {
            let blocks: Vec<*mut u8> = (0..3).map(|colour| zeros(bytes, colour)).collect();
            for &block in &blocks {
                assert!(!block.is_null() && block.addr().is_multiple_of(ALIGN));
                // SAFETY: so many bytes, which nobody else uses.
                let all = unsafe { std::slice::from_raw_parts_mut(block, bytes) };
                assert!(all.iter().all(|&byte| byte == 0));
                all.fill(7);
            }
            let colours: Vec<usize> = blocks.iter().map(|block| block.addr() % HUGE).collect();
            assert!(bytes < LARGE || colours == [0, COLOUR, 2 * COLOUR]);
            // SAFETY: of `zeros`, once each.
            blocks.into_iter().for_each(|block| unsafe { free(block, bytes) });
        }
        assert!(zeros(0, 0).is_null() && zeros(usize::MAX, 0).is_null());
        assert!(zeros(usize::MAX - HUGE, 0).is_null());
    }
}
