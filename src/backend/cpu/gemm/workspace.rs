//! Memory that packing needs: taken from a pool of the process, grown on first use, given back.

use super::pairs::Least;
use std::sync::{Mutex, PoisonError};

/// Floats that start at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub(super) struct Floats(Vec<Line>);

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Floats {
    /// At least `len` floats; what they hold is left from earlier.
    pub fn reserve(&mut self, len: usize) -> *mut f32 {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        self.0.as_mut_ptr().cast()
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
    /// Panels of B that only this tile needs.
    pub b: Floats,
}

thread_local! {
    /// Of each thread that computes tiles.
    pub(super) static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}
