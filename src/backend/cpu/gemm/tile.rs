//! One tile of D: its sums, by a form's tiles of registers, and its epilogue.

use super::epilogue::{Tile, epilogue, past_caches};
use super::form::{Form, Rows};
use super::pack::Source;
use super::panels::PackedA;
use super::prefetch::{Ahead, Rectangle};
use super::product::{Job, Part};
use crate::Storage;
use crate::kernel::params::gemm as params;

/// The packed panels that a tile is computed of.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    /// Of A: all tiles' or its row's.
    pub a: PackedA,
    /// Room for those of B for a range, where the tile packs its own: `[half][panel]`.
    pub own_b: Option<*mut f32>,
}

impl<T: Storage> Job<'_, T> {
    /// Computes the tile at a row and a column of the part, and writes it where the part is the last of `k`.
    ///
    /// # Safety
    /// As for [`Self::compute`]; the tile is inside the part, and nothing else uses its sums and its own panels of B.
    pub(super) unsafe fn tile<F: Form, O: Storage>(
        &self,
        part: Part,
        (row, column): (usize, usize),
        sums: *mut f32,
        panels: Panels,
    ) {
        let columns = self.cut.tile_columns.min(part.columns - column);
        let tile = Tile {
            row: part.row + row,
            rows: self.cut.tile_rows.min(part.rows - row),
            column: part.column + column,
            columns,
            sums,
            ld: self.cut.tile_columns * self.halves,
            up: columns.next_multiple_of(F::NR),
        };
        // A tile of 16 bits is written as fast without.
        let of_epilogue = match (self.ahead, size_of::<O>()) {
            (true, 4) => self.of_epilogue::<F, O>(tile),
            _ => [Rectangle::NONE; 5],
        };
        // SAFETY: the form's instructions are there; for the rest the caller's promise.
        unsafe {
            F::begin();
            self.sum::<F>(part, tile, panels, &of_epilogue);
            F::end();
            if part.last {
                epilogue::<F, T, O>(self.block, tile);
            }
        }
    }

    /// What the tile's epilogue reads and writes.
    fn of_epilogue<F: Form, O: Storage>(&self, tile: Tile) -> [Rectangle; 5] {
        let block = self.block;
        let size = (tile.rows, tile.columns);
        let transposed = self.has(params::FLAG_D_TRANSPOSED);
        let output = |address: u64, ld: u64| {
            let matrix =
                Source { start: address as *const O, ld: ld as usize, lanes_together: transposed };
            matrix.from(tile.row, tile.column).rectangle(size.0, size.1)
        };
        let input = |address: u64, ld: u64| {
            let matrix =
                Source { start: address as *const T, ld: ld as usize, lanes_together: false };
            matrix.from(tile.row, tile.column).rectangle(size.0, size.1)
        };
        let z = if block.role == params::ROLE_DERIVATIVE { block.z } else { 0 };
        let d = if past_caches::<F>(block) { 0 } else { block.d };
        [
            output(d, block.ldd),
            output(block.c, block.ldc),
            output(block.residual, block.ldr),
            input(z, block.ldz),
            input(block.preactivation, block.ldp),
        ]
    }

    /// The source of the panels of B that a tile packs itself after those of range `i` and a half: the next ones of its
    /// own, or the first of the next tile.
    fn next_b(&self, part: Part, tile: Tile, i: usize, half: usize) -> Rectangle {
        let next = i * self.halves + half + 1;
        let (mut i, mut column, half) = (next / self.halves, tile.column, next % self.halves);
        if i == part.steps.div_ceil(self.cut.steps) {
            (i, column) = (0, tile.column + tile.columns);
        }
        let columns =
            self.cut.tile_columns.min((part.column + part.columns).saturating_sub(column));
        let (step, steps) = self.range(part, i);
        let lane = half * self.block.n as usize + column;
        self.b.from(lane, step).rectangle(columns, steps)
    }

    /// The source of range `i` of the panels of A that the next row of tiles packs itself.
    fn next_a(&self, part: Part, tile: Tile, i: usize) -> Rectangle {
        let row = tile.row + tile.rows;
        let rows = self.cut.tile_rows.min(part.row + part.rows - row);
        let (step, steps) = self.range(part, i);
        self.a.from(row, step).rectangle(rows, steps)
    }

    /// Adds the part's steps to a tile's sums: range after range, and of each both halves.
    ///
    /// # Safety
    /// As for [`Self::compute`].
    unsafe fn sum<F: Form>(
        &self,
        part: Part,
        tile: Tile,
        panels: Panels,
        of_epilogue: &[Rectangle],
    ) {
        if part.steps == 0 {
            // SAFETY: the tile's sums.
            unsafe { tile.sums.write_bytes(0, tile.rows * tile.ld) };
            return;
        }
        let ranges = part.steps.div_ceil(self.cut.steps);
        for i in 0..ranges {
            for half in 0..self.halves {
                if let Some(own) = panels.own_b {
                    // SAFETY: the caller's promise.
                    unsafe { self.pack_own_b::<F>(part, tile, (i, half), own) };
                }
                let last = part.last && (i + 1, half + 1) == (ranges, self.halves);
                let then = if last { of_epilogue } else { &[] };
                let ahead = self.ahead::<F>(part, tile, (i, half), panels.own_b.is_some(), then);
                // SAFETY: the caller's promise; the panels are packed.
                unsafe { self.multiply::<F>(part, tile, (i, half), panels, &ahead) };
            }
        }
    }

    /// Packs the panels of B of one range and half that the tile has.
    ///
    /// # Safety
    /// As for [`Self::compute`]; there is room for them.
    unsafe fn pack_own_b<F: Form>(
        &self,
        part: Part,
        tile: Tile,
        (i, half): (usize, usize),
        own: *mut f32,
    ) {
        let panels = tile.columns.div_ceil(F::NR);
        let first = (tile.column - part.column) / F::NR;
        // SAFETY: the form's instructions are there; for the rest the caller's promise.
        unsafe {
            F::vectorized(
                #[inline(always)]
                || {
                    self.pack_b::<F>(part, i, half, first..first + panels, |panel| {
                        let index = half * panels + panel - first;
                        own.wrapping_add(index * self.sizes.b_panel)
                    });
                },
            );
        }
    }

    /// What is asked for while one range and half are multiplied: what is packed next, and what the epilogue needs.
    fn ahead<F: Form>(
        &self,
        part: Part,
        tile: Tile,
        (i, half): (usize, usize),
        own_b: bool,
        of_epilogue: &[Rectangle],
    ) -> Ahead {
        let mut ahead = Ahead::new(tile.columns.div_ceil(F::NR) * tile.rows.div_ceil(F::MR));
        if self.ahead && own_b {
            ahead.add(self.next_b(part, tile, i, half));
        }
        if self.ahead && self.cut.own_a && (tile.column, half) == (part.column, 0) {
            ahead.add(self.next_a(part, tile, i));
        }
        of_epilogue.iter().for_each(|rectangle| ahead.add(*rectangle));
        ahead
    }

    /// Adds one range and half to the tile's sums, by tiles of registers, down each panel of B.
    ///
    /// # Safety
    /// As for [`Self::compute`]; the panels are packed.
    unsafe fn multiply<F: Form>(
        &self,
        part: Part,
        tile: Tile,
        (i, half): (usize, usize),
        panels: Panels,
        ahead: &Ahead,
    ) {
        let (step, steps) = self.range(part, i);
        let words = steps.div_ceil(F::WORD_STEPS);
        let [all_down, all_across] = [part.rows.div_ceil(F::MR), part.columns.div_ceil(F::NR)];
        let [down, across] = [tile.rows.div_ceil(F::MR), tile.columns.div_ceil(F::NR)];
        let first_a = (tile.row - part.row) / F::MR;
        let first_b = (tile.column - part.column) / F::NR;
        for panel in 0..across {
            let b = match panels.own_b {
                Some(own) => own.wrapping_add((half * across + panel) * self.sizes.b_panel),
                None => self.shared_b::<F>(part, i, half, first_b + panel),
            };
            let entry_b = (i * self.halves + half) * all_across + first_b + panel;
            let column = half * tile.up + panel * F::NR;
            let columns = F::NR.min(tile.columns - panel * F::NR);
            for row in (0..tile.rows).step_by(F::MR) {
                let rows = F::MR.min(tile.rows - row);
                let panel_a = first_a + row / F::MR;
                ahead.share(panel * down + row / F::MR);
                // SAFETY: packed panels of `steps` steps, and their entries; the tile's sums have whole tiles of rows
                // and columns.
                unsafe {
                    let least_a = *self.least_a.add(i * all_down + panel_a);
                    let normal = least_a.all_normal(*self.least_b(part).add(entry_b));
                    let (c, ld, add) = (tile.sums.add(row * tile.ld + column), tile.ld, step > 0);
                    if self.in_place && rows == F::MR {
                        let start = self.a.at(tile.row + row, step).cast();
                        let a = Rows { start, apart: self.a.ld * size_of::<T>() };
                        F::tile_in_place(columns, words, a, b, c, ld, add, normal);
                    } else {
                        let a = panels.a.panel(i, panel_a);
                        F::tile((rows, columns), words, a, b, c, ld, add, normal);
                    }
                }
            }
        }
    }
}
