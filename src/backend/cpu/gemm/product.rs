//! The fast path of one product: pack panels, then compute tile by tile, each with its epilogue.

use super::super::threads::Threads;
use super::cut::Cut;
use super::epilogue::{Tile, epilogue};
use super::form::Form;
use super::pack::{self, Fused, STEPS, Source};
use super::pairs::{AFTER_LAST_OF_A, Least};
use super::workspace::{self, SCRATCH};
use crate::Storage;
use crate::gemm::Activation;
use crate::gemm::reference::SUM_BLOCK;
use crate::kernel::params::gemm::{self as params, Product};

/// Panels of A, and of B, that one task packs.
const A_PANELS: usize = 8;
const B_PANELS: usize = 4;

/// A product, cut, with its workspace.
struct Job<'a, T> {
    block: &'a Product,
    cut: Cut,
    a: Source<T>,
    b: Source<T>,
    halves: usize,
    /// Words from panel to panel.
    a_panel: usize,
    b_panel: usize,
    packed_a: *mut f32,
    packed_b: *mut f32,
    /// For panels of pairs, the least of what is in them and in those of earlier steps: `[range][panel]` of A,
    /// `[range][half][panel]` of B.
    least_a: *mut Least,
    least_b: *mut Least,
    /// Unfinished tiles; null where `k` is not cut.
    tiles: *mut f32,
    /// Sums of rows of A so far.
    a_sums: *mut f32,
}

// SAFETY: tasks share the job; each writes a part of the workspace and of the outputs of its own.
unsafe impl<T: Sync> Sync for Job<'_, T> {}

/// A block of the product: rows, columns and steps of `k`.
#[derive(Clone, Copy)]
struct Part {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    step: usize,
    steps: usize,
    /// Whether it is the last block of `k`.
    last: bool,
}

/// # Safety
/// As for `super::run`, for this one product; the processor has the form's instructions.
pub(super) unsafe fn product<F: Form, T: Storage, O: Storage>(threads: &Threads, block: &Product) {
    let has = |flag: u32| block.flags & flag != 0;
    let (m, n, k) = (block.m as usize, block.n as usize, block.k as usize);
    let halves = if has(params::FLAG_GATED) { 2 } else { 1 };
    let cut = Cut::new::<F>(m, n, k, halves);
    let words = cut.steps.div_ceil(F::WORD_STEPS);
    let a_panel = (words * F::MR + 8).next_multiple_of(16);
    let b_panel = words * F::NR;
    let k_parts = cut.block_steps.div_ceil(cut.steps.max(1));
    let a_panels = k_parts * cut.block_rows.div_ceil(F::MR);
    let b_panels = k_parts * halves * cut.block_columns.div_ceil(F::NR);
    let cuts_k = k > cut.block_steps;
    let block_tiles =
        cut.block_rows.div_ceil(cut.tile_rows) * cut.block_columns.div_ceil(cut.tile_columns);
    let tile_floats = cut.tile_rows * cut.tile_columns * halves;

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
            a_panel,
            b_panel,
            packed_a: workspace.a.reserve(a_panels * a_panel),
            packed_b: workspace.b.reserve(if cut.own_b { 0 } else { b_panels * b_panel }),
            least_a: workspace.least_of(0, a_panels),
            least_b: workspace.least_of(1, b_panels),
            tiles: if cuts_k {
                workspace.sums.reserve(block_tiles * tile_floats)
            } else {
                std::ptr::null_mut()
            },
            a_sums: workspace.a_sums.reserve(cut.block_rows),
        };
        let parts = |total: usize, size: usize| {
            (0..total.max(1)).step_by(size.max(1)).map(move |i| (i, size.min(total - i)))
        };
        for (column, columns) in parts(n, cut.block_columns) {
            for (row, rows) in parts(m, cut.block_rows) {
                for (step, steps) in parts(k, cut.block_steps) {
                    let last = step + steps == k;
                    let part = Part { row, rows, column, columns, step, steps, last };
                    let a_is_packed = column > 0 && m <= cut.block_rows && !cuts_k;
                    let b_is_packed = cut.own_b || (row > 0 && !cuts_k);
                    // SAFETY: the caller's promise; parts are inside the product.
                    unsafe {
                        job.pack::<F>(threads, part, !a_is_packed, !b_is_packed);
                        job.compute::<F, O>(threads, part);
                    }
                }
            }
        }
    });
}

impl<T: Storage> Job<'_, T> {
    fn has(&self, flag: u32) -> bool {
        self.block.flags & flag != 0
    }

    /// # Safety
    /// As for [`product`]; the part is inside the product.
    unsafe fn pack<F: Form>(&self, threads: &Threads, part: Part, a: bool, b: bool) {
        let groups =
            |lanes: usize, width: usize, panels: usize| lanes.div_ceil(width).div_ceil(panels);
        let a_tasks = if a { groups(part.rows, F::MR, A_PANELS) } else { 0 };
        let b_tasks = if b { groups(part.columns, F::NR, B_PANELS) } else { 0 };
        threads.run(a_tasks + self.halves * b_tasks, |task| {
            // SAFETY: the form's instructions are there; each task packs its own panels.
            unsafe {
                F::vectorized(
                    #[inline(always)]
                    || {
                        if task < a_tasks {
                            self.pack_a::<F>(part, task * A_PANELS);
                        } else {
                            let half = (task - a_tasks) / b_tasks;
                            let first = (task - a_tasks) % b_tasks * B_PANELS;
                            let last = (first + B_PANELS).min(part.columns.div_ceil(F::NR));
                            for i in 0..part.steps.div_ceil(self.cut.steps.max(1)) {
                                let to = |panel| self.shared_b::<F>(part, i, half, panel);
                                self.pack_b::<F>(part, i, half, first..last, to);
                            }
                        }
                    },
                );
            }
        });
    }

    /// Floats from one range of steps to the next in packed A.
    fn a_range<F: Form>(&self, part: Part) -> usize {
        part.rows.div_ceil(F::MR) * self.a_panel
    }

    /// A panel of the packed B that all tiles share.
    fn shared_b<F: Form>(&self, part: Part, range: usize, half: usize, panel: usize) -> *mut f32 {
        let panels = part.columns.div_ceil(F::NR);
        let index = (range * self.halves + half) * panels + panel;
        self.packed_b.wrapping_add(index * self.b_panel)
    }

    /// Steps `i·steps..` of the part: the first, and how many.
    fn range(&self, part: Part, i: usize) -> (usize, usize) {
        let start = i * self.cut.steps;
        (part.step + start, self.cut.steps.min(part.steps - start))
    }

    /// Packs panels of B for one range of steps, a piece at a time.
    ///
    /// # Safety
    /// As for [`product`], inside `F::vectorized`; `to` gives room for a panel.
    #[inline(always)]
    unsafe fn pack_b<F: Form>(
        &self,
        part: Part,
        i: usize,
        half: usize,
        panels: std::ops::Range<usize>,
        to: impl Fn(usize) -> *mut f32,
    ) {
        let (first, steps) = self.range(part, i);
        let flushing = self.has(params::FLAG_FLUSH);
        let stride = self.halves * part.columns.div_ceil(F::NR);
        let piece = self.b.piece(steps);
        for step in (0..steps).step_by(piece) {
            let steps = piece.min(steps - step);
            for panel in panels.clone() {
                let lanes = F::NR.min(part.columns - panel * F::NR);
                let lane = half * self.block.n as usize + part.column + panel * F::NR;
                // SAFETY: lanes and steps of the operand, as the caller promised; an entry of this panel's own.
                unsafe {
                    let start = self.b.at(lane, first + step);
                    let to = to(panel).add(step / F::WORD_STEPS * F::NR);
                    let source = Source { start, ..self.b };
                    let least =
                        pack::words::<F, T>(source, F::NR, (lanes, steps), (flushing, 0), to);
                    if self.has(params::FLAG_THROUGH_BF16) {
                        pack::to_bf16(std::slice::from_raw_parts_mut(to, steps * F::NR));
                    }
                    let index = half * part.columns.div_ceil(F::NR) + panel;
                    self.lower(self.least_b, (i, stride, index), part, step, least);
                }
            }
        }
    }

    /// Notes what is least in a piece of a panel, which starts at a step of range `i`; the least of all earlier
    /// steps goes with it, since sums have all of them.
    ///
    /// # Safety
    /// The entries `[range][stride]` are those of one operand, and nothing else uses the panel's meanwhile.
    #[inline(always)]
    unsafe fn lower(
        &self,
        entries: *mut Least,
        (i, stride, index): (usize, usize, usize),
        part: Part,
        step: usize,
        least: Least,
    ) {
        let ranges = self.cut.block_steps.div_ceil(self.cut.steps);
        let before = match (step, i, part.step) {
            (0, 0, 0) => None,
            (0, 0, _) => Some(ranges - 1), // of the part before
            (0, _, _) => Some(i - 1),
            _ => Some(i),
        };
        // SAFETY: the caller's promise.
        unsafe {
            let before = before.map_or(Least::NONE, |i| *entries.add(i * stride + index));
            entries.add(i * stride + index).write(before.min(least));
        }
    }

    /// Packs panels `first..` of A for all steps of the part, with what is asked of A besides.
    ///
    /// # Safety
    /// As for [`product`], inside `F::vectorized`.
    #[inline(always)]
    unsafe fn pack_a<F: Form>(&self, part: Part, first: usize) {
        let last = (first + A_PANELS).min(part.rows.div_ceil(F::MR));
        let block = self.block;
        let flushing = self.has(params::FLAG_FLUSH);
        let activation = Activation::from_number(block.activation);
        let fused = block.role == params::ROLE_FUSED_A;
        let mut values = Fused::<T>::new();
        // SAFETY, for the blocks below: lanes and steps of the operands, as the caller promised; panels of
        // this task.
        for i in 0..part.steps.div_ceil(self.cut.steps.max(1)) {
            let (start, count) = self.range(part, i);
            let piece = if fused { STEPS } else { self.a.piece(count) };
            for step in (0..count).step_by(piece) {
                let steps = piece.min(count - step);
                for panel in first..last {
                    let lanes = F::MR.min(part.rows - panel * F::MR);
                    let lane = part.row + panel * F::MR;
                    let at = |address: u64, ld: u64| {
                        let whole = Source {
                            start: address as *const T,
                            ld: ld as usize,
                            lanes_together: self.a.lanes_together,
                        };
                        // SAFETY: see above.
                        let start = unsafe { whole.at(lane, start + step) };
                        Source { start, ..whole }
                    };
                    // SAFETY: see above.
                    unsafe {
                        let to = self
                            .packed_a
                            .add(i * self.a_range::<F>(part) + panel * self.a_panel)
                            .add(step / F::WORD_STEPS * F::MR);
                        let mut source = at(block.a, block.lda);
                        if fused {
                            let out = match block.fused_a {
                                0 => Source { start: std::ptr::null(), ..source },
                                address => at(address, block.ldf),
                            };
                            let operands = (source, at(block.z, block.ldz), out);
                            let size = (lanes, steps);
                            source =
                                values.compute::<F::Around>(operands, activation, size, flushing);
                        }
                        let size = (lanes, steps);
                        let how = (flushing && !fused, AFTER_LAST_OF_A);
                        let least = pack::words::<F, T>(source, F::MR, size, how, to);
                        let stride = part.rows.div_ceil(F::MR);
                        self.lower(self.least_a, (i, stride, panel), part, step, least);
                        if !fused && block.fused_a != 0 {
                            let out = at(block.fused_a, block.ldf);
                            unpack::<F, T>(to, out, (lanes, steps));
                        }
                    }
                }
            }
        }
        // Each column of blocks of D packs A again; the sums are of the first.
        if block.a_sums != 0 && part.column == 0 {
            for panel in first..last {
                // SAFETY: see above.
                unsafe { self.sum_a::<F>(part, panel) };
            }
        }
        // What is stored of A and summed is f16: factors are rounded behind it.
        let ranges = 0..part.steps.div_ceil(self.cut.steps.max(1));
        for i in ranges.filter(|_| self.has(params::FLAG_THROUGH_BF16)) {
            for panel in first..last {
                let at = i * self.a_range::<F>(part) + panel * self.a_panel;
                let len = self.range(part, i).1 * F::MR;
                // SAFETY: the panel is packed, steps of f32 (pairs of steps are of bf16 only), and this task's.
                let to = unsafe { std::slice::from_raw_parts_mut(self.packed_a.add(at), len) };
                pack::to_bf16(to);
            }
        }
    }

    /// Adds a packed panel of A to the sums of its rows.
    ///
    /// # Safety
    /// As for [`Self::pack_a`]; the panel is packed.
    #[inline(always)]
    unsafe fn sum_a<F: Form>(&self, part: Part, panel: usize) {
        let mut total = [0.0f32; 8];
        let mut sum = [0.0f32; 8];
        let lanes = F::MR.min(part.rows - panel * F::MR);
        // SAFETY: `a_sums` has a float for each row of the block, and the panel is packed.
        unsafe {
            let so_far = self.a_sums.add(panel * F::MR);
            if part.step > 0 {
                for (i, total) in total.iter_mut().enumerate().take(lanes) {
                    *total = *so_far.add(i);
                }
            }
            for step in 0..part.steps {
                let (i, inside) = (step / self.cut.steps, step % self.cut.steps);
                let packed = self.packed_a.add(i * self.a_range::<F>(part) + panel * self.a_panel);
                for (lane, sum) in sum.iter_mut().enumerate().take(F::MR) {
                    *sum += pack::element::<F>(packed, F::MR, (lane, inside));
                }
                if (step + 1) % SUM_BLOCK == 0 || (part.last && step + 1 == part.steps) {
                    for (total, sum) in total.iter_mut().zip(&mut sum) {
                        *total += *sum;
                        *sum = 0.0;
                    }
                }
            }
            let out = (self.block.a_sums as *mut f32).add(part.row + panel * F::MR);
            for (i, total) in total.iter().enumerate().take(lanes) {
                if !part.last {
                    *so_far.add(i) = *total;
                } else if self.has(params::FLAG_ADD_A_SUMS) {
                    *out.add(i) += *total;
                } else {
                    *out.add(i) = *total;
                }
            }
        }
    }

    /// Computes the part's tiles, and writes them where the part is the last of `k`.
    ///
    /// # Safety
    /// As for [`product`]; the part's panels are packed.
    unsafe fn compute<F: Form, O: Storage>(&self, threads: &Threads, part: Part) {
        let cut = &self.cut;
        let down = part.rows.div_ceil(cut.tile_rows);
        let across = part.columns.div_ceil(cut.tile_columns);
        let ld = cut.tile_columns * self.halves;
        let floats = cut.tile_rows * ld;
        threads.run(down * across, |task| {
            // Down first: threads work on one range of columns, whose panels of B they share.
            let (row, column) = (task % down * cut.tile_rows, task / down * cut.tile_columns);
            let columns = cut.tile_columns.min(part.columns - column);
            SCRATCH.with_borrow_mut(|scratch| {
                let sums = match self.tiles.is_null() {
                    true => scratch.tile.reserve(floats),
                    false => self.tiles.wrapping_add(task * floats),
                };
                let own_b = cut.own_b.then(|| {
                    let panels = cut.tile_columns / F::NR * self.halves;
                    scratch.b.reserve(panels * self.b_panel)
                });
                let tile = Tile {
                    row: part.row + row,
                    rows: cut.tile_rows.min(part.rows - row),
                    column: part.column + column,
                    columns,
                    sums,
                    ld,
                    up: columns.next_multiple_of(F::NR),
                };
                // SAFETY: the form's instructions are there; the tile is inside the part; its sums are this
                // task's own.
                unsafe {
                    self.sum::<F>(part, tile, own_b);
                    if part.last {
                        F::vectorized(
                            #[inline(always)]
                            || epilogue::<F::Around, T, O>(self.block, tile),
                        );
                    }
                }
            });
        });
    }

    /// Adds the part's steps to a tile's sums.
    ///
    /// # Safety
    /// As for [`Self::compute`].
    unsafe fn sum<F: Form>(&self, part: Part, tile: Tile, own_b: Option<*mut f32>) {
        if part.steps == 0 {
            // SAFETY: the tile's sums.
            unsafe { tile.sums.write_bytes(0, tile.rows * tile.ld) };
            return;
        }
        let panels = tile.columns.div_ceil(F::NR);
        let first_a = (tile.row - part.row) / F::MR;
        let first_b = (tile.column - part.column) / F::NR;
        for i in 0..part.steps.div_ceil(self.cut.steps) {
            let (step, steps) = self.range(part, i);
            for half in 0..self.halves {
                if let Some(own) = own_b {
                    // SAFETY: the form's instructions are there; `own` has room for a tile's panels.
                    unsafe {
                        F::vectorized(
                            #[inline(always)]
                            || {
                                let range = first_b..first_b + panels;
                                self.pack_b::<F>(part, i, half, range, |panel| {
                                    let index = half * panels + panel - first_b;
                                    own.wrapping_add(index * self.b_panel)
                                });
                            },
                        );
                    }
                }
                for panel in 0..panels {
                    let b = match own_b {
                        Some(own) => own.wrapping_add((half * panels + panel) * self.b_panel),
                        None => self.shared_b::<F>(part, i, half, first_b + panel),
                    };
                    let column = half * tile.up + panel * F::NR;
                    let columns = F::NR.min(tile.columns - panel * F::NR);
                    for row in (0..tile.rows).step_by(F::MR) {
                        let rows = F::MR.min(tile.rows - row);
                        let words = steps.div_ceil(F::WORD_STEPS);
                        let index_a = first_a + row / F::MR;
                        let index_b = half * part.columns.div_ceil(F::NR) + first_b + panel;
                        // SAFETY: packed panels of `steps` steps, and their entries; the tile's sums have whole tiles
                        // of rows and columns.
                        unsafe {
                            let least_a =
                                *self.least_a.add(i * part.rows.div_ceil(F::MR) + index_a);
                            let stride = self.halves * part.columns.div_ceil(F::NR);
                            let least_b = *self.least_b.add(i * stride + index_b);
                            let a = self
                                .packed_a
                                .add(i * self.a_range::<F>(part))
                                .add(index_a * self.a_panel);
                            let c = tile.sums.add(row * tile.ld + column);
                            let normal = least_a.all_normal(least_b);
                            F::tile((rows, columns), words, a, b, c, tile.ld, step > 0, normal);
                        }
                    }
                }
            }
        }
    }
}

/// Stores a packed panel of A as elements: `dz` where there is no derivative to take.
///
/// # Safety
/// The panel is packed; lanes and steps of `out` are valid for writes.
#[inline(always)]
unsafe fn unpack<F: Form, T: Storage>(
    panel: *const f32,
    out: Source<T>,
    (lanes, steps): (usize, usize),
) {
    for step in 0..steps {
        for lane in 0..lanes {
            // SAFETY: the caller's promise.
            unsafe {
                let value = T::narrow(pack::element::<F>(panel, F::MR, (lane, step)));
                out.at(lane, step).cast_mut().write(value);
            }
        }
    }
}
