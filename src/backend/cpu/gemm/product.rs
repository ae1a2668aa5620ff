//! The fast path of one product: pack panels, then compute tile by tile.

use super::super::threads::Threads;
use super::cut::{Cut, Sizes};
use super::form::Form;
use super::pack::{LANES, Source};
use super::pairs::Least;
use super::panels::PackedA;
use super::tile::Panels;
use super::workspace::{self, Floats, SCRATCH};
use crate::kernel::params::gemm::{self as params, Product};
use crate::{Dtype, Storage};

/// Panels of A that one task packs, of 8 lanes: long rows of it, or where its rows are steps, many lines of one.
const A_PANELS: [usize; 2] = [8, 32];
/// Panels of B that one task packs.
const B_PANELS: usize = 4;

/// Bytes of operands and D that are likely in the second cache.
const SMALL: usize = 256 << 10;

/// A product, cut, with its workspace.
pub(super) struct Job<'a, T> {
    pub block: &'a Product,
    pub cut: Cut,
    pub a: Source<T>,
    pub b: Source<T>,
    pub halves: usize,
    /// Whether tiles take A from where it lies, as far as they have whole panels of it.
    pub in_place: bool,
    /// Whether what is needed next is asked for: not where all of it is in the second cache anyway.
    pub ahead: bool,
    pub sizes: Sizes,
    pub packed_a: *mut f32,
    pub packed_b: *mut f32,
    /// For panels of pairs, the least of what is in them and in those of earlier steps: `[range][panel]` of A,
    /// `[range][half][panel]` of B.
    pub least_a: *mut Least,
    pub least_b: *mut Least,
    /// Unfinished tiles; null where `k` is not cut.
    pub tiles: *mut f32,
    /// Sums of rows of A so far.
    pub a_sums: *mut f32,
}

// SAFETY: tasks share the job; each writes a part of the workspace and of the outputs of its own.
unsafe impl<T: Sync> Sync for Job<'_, T> {}

/// A block of the product: rows, columns and steps of `k`.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    pub step: usize,
    pub steps: usize,
    /// Which block of columns of its group it is.
    pub index: usize,
    /// Whether it is the last block of `k`.
    pub last: bool,
}

/// # Safety
/// As for `super::run`, for this one product; the processor has the form's instructions.
pub(super) unsafe fn product<F: Form, T: Storage, O: Storage>(threads: &Threads, block: &Product) {
    let has = |flag: u32| block.flags & flag != 0;
    let (m, n, k) = (block.m as usize, block.n as usize, block.k as usize);
    let halves = if has(params::FLAG_GATED) { 2 } else { 1 };
    let in_place = F::IN_PLACE && can_stay::<F, T>(block);
    let cut = Cut::new::<F>((m, n, k), halves, in_place, threads.count());
    let cuts_k = k > cut.block_steps;
    let sizes = cut.sizes::<F>(halves, in_place, cuts_k);

    workspace::with(|workspace| {
        let job = Job::<T> {
            block,
            cut,
            a: Source {
                start: block.a as *const T,
                ld: block.lda as usize,
                lanes_together: has(params::FLAG_A_TRANSPOSED),
            },
            b: Source {
                start: block.b as *const T,
                ld: block.ldb as usize,
                lanes_together: !has(params::FLAG_B_TRANSPOSED),
            },
            halves,
            in_place,
            ahead: size_of::<T>() * (m * k + k * halves * n + m * n) > SMALL,
            packed_a: workspace.a.reserve(sizes.packed_a),
            packed_b: workspace.b.reserve(sizes.packed_b),
            least_a: workspace.least_of(0, sizes.a_panels),
            least_b: workspace.least_of(1, sizes.group_blocks * sizes.b_panels),
            tiles: if cuts_k { workspace.sums.reserve(sizes.sums) } else { std::ptr::null_mut() },
            sizes,
            a_sums: workspace.a_sums.reserve(cut.block_rows),
        };
        let parts = |total: usize, size: usize| {
            (0..total.max(1)).step_by(size.max(1)).map(move |i| (i, size.min(total - i)))
        };
        // A block of A is packed once for a group of columns, and the much smaller ones of B for each block of A.
        for (row, rows) in parts(m, cut.block_rows) {
            for (group, group_columns) in parts(n, cut.group_columns) {
                for (step, steps) in parts(k, cut.block_steps) {
                    for (column, columns) in parts(group_columns, cut.block_columns) {
                        let (index, column) = (column / cut.block_columns, group + column);
                        let last = step + steps == k;
                        let part = Part { row, rows, column, columns, step, steps, index, last };
                        let a_is_packed = cut.own_a || index > 0 || (group > 0 && !cuts_k);
                        let one_b = n <= cut.block_columns && !cuts_k;
                        let b_is_packed = cut.own_b || (row > 0 && one_b);
                        // SAFETY: the caller's promise; parts are inside the product.
                        unsafe {
                            job.pack::<F>(threads, part, !a_is_packed, !b_is_packed);
                            job.compute::<F, O>(threads, part);
                        }
                    }
                }
            }
        }
    });
}

/// Whether tiles can take A from where it lies: it has their type, and nothing else is asked of it.
fn can_stay<F: Form, T: Storage>(block: &Product) -> bool {
    let has = |flag: u32| block.flags & flag != 0;
    let rows = !has(params::FLAG_A_TRANSPOSED);
    let plain = block.role != params::ROLE_FUSED_A && block.fused_a == 0 && block.a_sums == 0;
    if F::WORD_STEPS == 1 {
        return T::DTYPE == Dtype::F32 && rows && plain;
    }
    // More columns than this, and what packing takes is less than what tiles gain.
    let few = block.n < 2048;
    let whole = block.k.is_multiple_of((F::WORD_STEPS * F::LANE_WORDS) as u64);
    // A row of a tile register that lies in two lines of the cache takes twice as long to load, each time.
    let aligned = block.a.is_multiple_of(64) && (2 * block.lda).is_multiple_of(64);
    rows && plain && few && whole && aligned && !has(params::FLAG_FLUSH)
}

impl<T: Storage> Job<'_, T> {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.block.flags & flag != 0
    }

    /// # Safety
    /// As for [`product`]; the part is inside the product.
    unsafe fn pack<F: Form>(&self, threads: &Threads, part: Part, a: bool, b: bool) {
        let groups =
            |lanes: usize, width: usize, panels: usize| lanes.div_ceil(width).div_ceil(panels);
        let a_tasks = if a { groups(part.rows, F::MR, self.a_panels::<F>()) } else { 0 };
        let b_panels = self.b_panels::<F>(threads.count(), part);
        let b_tasks = if b { groups(part.columns, F::NR, b_panels) } else { 0 };
        let shared_a = self.shared_a::<F>(part);
        threads.run(a_tasks + self.halves * b_tasks, |task| {
            if task < a_tasks {
                let first = task * self.a_panels::<F>();
                let panels = first..first + self.a_panels::<F>();
                // SAFETY: the caller's promise; each task packs its own panels.
                return unsafe { self.pack_a::<F>(part, panels, shared_a) };
            }
            // SAFETY: the form's instructions are there; each task packs its own panels.
            unsafe {
                F::vectorized(
                    #[inline(always)]
                    || {
                        let half = (task - a_tasks) / b_tasks;
                        let first = (task - a_tasks) % b_tasks * b_panels;
                        let last = (first + b_panels).min(part.columns.div_ceil(F::NR));
                        for i in 0..part.steps.div_ceil(self.cut.steps.max(1)) {
                            let to = |panel| self.shared_b::<F>(part, i, half, panel);
                            self.pack_b::<F>(part, i, half, first..last, to);
                        }
                    },
                );
            }
        });
    }

    /// Panels of A that one task packs.
    pub(super) fn a_panels<F: Form>(&self) -> usize {
        A_PANELS[usize::from(self.a.lanes_together)] / F::MR.div_ceil(LANES)
    }

    /// Panels of B that one task packs: fewer where threads would wait for the last of a few tasks.
    fn b_panels<F: Form>(&self, threads: usize, part: Part) -> usize {
        let panels = self.halves * part.columns.div_ceil(F::NR);
        if threads == 1 { B_PANELS } else { panels.div_ceil(4 * threads).clamp(1, B_PANELS) }
    }

    /// The packed A that all tiles share: where whole panels stay in place, a last one that is not.
    fn shared_a<F: Form>(&self, part: Part) -> PackedA {
        let (first, count) =
            if self.in_place { (part.rows / F::MR, 1) } else { (0, part.rows.div_ceil(F::MR)) };
        PackedA { start: self.packed_a, first, count, apart: self.sizes.a_panel }
    }

    /// Packs the panels of A that rows `row..` of the part need which one row of tiles has.
    ///
    /// # Safety
    /// As for [`Self::pack`].
    unsafe fn own_a<F: Form>(&self, part: Part, row: usize, scratch: &mut Floats) -> PackedA {
        let (first, count) = (row / F::MR, self.cut.tile_rows / F::MR);
        let ranges = part.steps.div_ceil(self.cut.steps.max(1));
        let start = scratch.reserve(ranges * count * self.sizes.a_panel);
        let own = PackedA { start, first, count, apart: self.sizes.a_panel };
        // SAFETY: the caller's promise; there is room for them.
        unsafe { self.pack_a::<F>(part, first..first + count, own) };
        own
    }

    /// A panel of the packed B that all tiles share.
    pub(super) fn shared_b<F: Form>(
        &self,
        part: Part,
        range: usize,
        half: usize,
        panel: usize,
    ) -> *mut f32 {
        let panels = part.columns.div_ceil(F::NR);
        let index = (range * self.halves + half) * panels + panel;
        self.packed_b.wrapping_add(index * self.sizes.b_panel)
    }

    /// The entries of the part's panels of B.
    pub(super) fn least_b(&self, part: Part) -> *mut Least {
        self.least_b.wrapping_add(part.index * self.sizes.b_panels)
    }

    /// Steps `i·steps..` of the part: the first, and how many.
    pub(super) fn range(&self, part: Part, i: usize) -> (usize, usize) {
        let start = i * self.cut.steps;
        (part.step + start, self.cut.steps.min(part.steps - start))
    }

    /// Computes the part's tiles, and writes them where the part is the last of `k`.
    ///
    /// # Safety
    /// As for [`product`]; the part's panels are packed.
    unsafe fn compute<F: Form, O: Storage>(&self, threads: &Threads, part: Part) {
        let cut = &self.cut;
        let down = part.rows.div_ceil(cut.tile_rows);
        let across = part.columns.div_ceil(cut.tile_columns);
        let floats = cut.tile_rows * cut.tile_columns * self.halves;
        // Tiles side by side that one task computes: all of a row where they have panels of A of their own.
        let (tasks, side_by_side) = if cut.own_a { (down, across) } else { (down * across, 1) };
        threads.run(tasks, |task| {
            // Down first: threads work on one range of columns, whose panels of B they share.
            let (row, first) = (task % down * cut.tile_rows, task / down * side_by_side);
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: the caller's promise.
                let own_a =
                    cut.own_a.then(|| unsafe { self.own_a::<F>(part, row, &mut scratch.a) });
                let a = own_a.unwrap_or_else(|| self.shared_a::<F>(part));
                for index in first..first + side_by_side {
                    let sums = match self.tiles.is_null() {
                        true => scratch.tile.reserve(floats),
                        false => {
                            let block = part.index * self.sizes.block_sums;
                            self.tiles.wrapping_add(block + task * floats)
                        }
                    };
                    let own_b = cut.own_b.then(|| {
                        let panels = cut.tile_columns / F::NR * self.halves;
                        scratch.b.reserve(panels * self.sizes.b_panel)
                    });
                    let (place, panels) = ((row, index * cut.tile_columns), Panels { a, own_b });
                    // SAFETY: the caller's promise; the tile is inside the part; the memory is this task's own.
                    unsafe { self.tile::<F, O>(part, place, sums, panels) };
                }
            });
        });
    }
}
