//! Memory that packing needs: taken from a pool of the process, grown on first use, given back.

use super::super::memory;
use super::pairs::Least;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// Floats that start at a multiple of 64 bytes; from some size on in huge pages, since those of the operands, panels and
/// sums of a product together, if small, are more than processors remember. (On a server 1024³ took 4 to 7 % longer.)
#[derive(Debug, Default)]
pub(super) struct Floats(Option<(NonNull<f32>, Layout)>);

// SAFETY: memory that only this owns.
unsafe impl Send for Floats {}

impl Floats {
    /// Bytes from which on a huge page is taken for less than a whole one.
    const LARGE: usize = memory::HUGE / 16;

    /// At least `len` floats; what they hold is left from earlier, or zeros.
    pub fn reserve(&mut self, len: usize) -> *mut f32 {
        let bytes = len.max(1) * size_of::<f32>();
        let (start, _) = match self.0 {
            Some(block) if bytes <= block.1.size() => block,
            _ => {
                *self = Self::default();
                *self.0.insert(Self::zeros(bytes))
            }
        };
        start.as_ptr()
    }

    /// A block of so many bytes.
    fn zeros(bytes: usize) -> (NonNull<f32>, Layout) {
        let huge = bytes >= Self::LARGE;
        let unit = if huge { memory::HUGE } else { 64 };
        let layout = Layout::from_size_align(bytes.next_multiple_of(unit), unit)
            .expect("less than what operands take");
        // SAFETY: the size is not zero.
        let block = unsafe { if huge { memory::huge_zeros(layout) } else { alloc_zeroed(layout) } };
        match NonNull::new(block.cast()) {
            Some(start) => (start, layout),
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Floats {
    fn drop(&mut self) {
        if let Some((start, layout)) = self.0 {
            // SAFETY: allocated with this layout, and not used any more.
            unsafe { dealloc(start.as_ptr().cast(), layout) }
        }
    }
}

/// The memory of one product that runs.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// Packed panels of A.
    pub a: Floats,
    /// Packed panels of B.
    pub b: Floats,
    /// Unfinished sums, where `k` is cut.
    pub sums: Floats,
    /// Unfinished sums of rows of A.
    pub a_sums: Floats,
    /// The least elements of panels of A, and of B.
    pub least: [Vec<Least>; 2],
}

impl Workspace {
    /// So many entries of the least elements of A's panels (0) or B's (1); what they hold is left from earlier.
    pub fn least_of(&mut self, operand: usize, panels: usize) -> *mut Least {
        let entries = &mut self.least[operand];
        if entries.len() < panels {
            entries.resize(panels, Least::NONE);
        }
        entries.as_mut_ptr()
    }
}

/// As many as products have ever run at the same time.
static POOL: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

/// Calls `f` with a workspace of its own.
pub(super) fn with<R>(f: impl FnOnce(&mut Workspace) -> R) -> R {
    let lock = || POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let mut workspace = lock().pop().unwrap_or_default();
    let result = f(&mut workspace);
    lock().push(workspace);
    result
}

/// What one thread works in while it computes a tile.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The sums of a tile.
    pub tile: Floats,
    /// Panels of A that only this row of tiles needs.
    pub a: Floats,
    /// Panels of B that only this tile needs.
    pub b: Floats,
}

thread_local! {
    /// Of each thread that computes tiles.
    pub(super) static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_aligned_and_stay_until_there_are_more() {
        let mut floats = Floats::default();
        for len in [0, 1, 17, Floats::LARGE / 4 - 1, Floats::LARGE / 4, memory::HUGE / 4 + 1] {
            let start = floats.reserve(len);
            assert!(start.addr().is_multiple_of(64));
            // SAFETY: so many floats, which nobody else uses.
            let all = unsafe { std::slice::from_raw_parts_mut(start, len) };
            all.fill(7.0);
            assert_eq!(floats.reserve(len / 2), start);
            assert!(all.iter().all(|&value| value == 7.0));
        }
        assert!(floats.reserve(memory::HUGE / 4).addr().is_multiple_of(memory::HUGE));
    }
}
