//! How a product is cut: into blocks that the workspace holds, panels, tiles. The steps of `k` of an element
//! are added in the same order however it is, so results do not depend on it.

use super::epilogue::WIDEST;
use super::form::Form;

/// Words of steps of `k` in a panel: so many that what a tile costs besides does not count.
const STEPS: usize = 256;
/// Steps of `k` in a panel, at most: words of two.
pub(super) const MOST_STEPS: usize = 2 * STEPS;
/// Words of steps of `k` packed at once; a multiple of `STEPS`, and of the blocks of a sum of a row of A. (Twice as many, of
/// which B's block is beyond a second cache, or half as many: 1 to 3 % longer on a server.)
const BLOCK_WORDS: usize = 2048;
/// Floats of sums that wait for the next block of `k`: 16 MiB.
const SUM_FLOATS: usize = 4 << 20;
/// Floats of packed A, and of packed B, at once: 12 and 16 MiB.
const A_FLOATS: usize = 3 << 20;
const B_FLOATS: usize = 4 << 20;
/// Floats of packed B at once for each thread, where tiles share it: what has been packed stays in the second caches until
/// it is used, and then the next is packed in its place. (4 MiB of them took 2 % longer on a server, and 5 to 12 % where
/// operands and workspace came from memory.)
const B_FLOATS_OF_THREAD: usize = 1 << 18;
/// Rows of a tile, where there are many tiles and where there are few.
const TILE_ROWS: [usize; 2] = [192, 96];
const MANY_TILES: usize = 64;
/// Rows of a tile where threads could not share a block of larger ones; B's panels are read again for each.
const FEW_ROWS: usize = 64;
/// Columns of a product of few rows with which it is one row of tiles, each of which packs B for itself: so that there
/// are tiles enough for threads.
const MANY_COLUMNS: usize = 1536;
/// Rows of a tile with panels of A of its own, and floats of those, at most. So where A is more than a second cache holds
/// and B is not: A's panels stay there too, and the next are asked for meanwhile. (On a server, operands in memory,
/// 4096×256×1024 of bf16 is 1.2 times as fast, 1000×333×777 1.05 to 1.1.)
const OWN_ROWS: usize = 64;
const OWN_A_FLOATS: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    /// Steps of `k` in a block; all but the last.
    pub block_steps: usize,
    /// Steps of a panel; all but the last of a block.
    pub steps: usize,
    /// Rows in a block.
    pub block_rows: usize,
    /// Columns whose blocks have a block of A in common, of one half where gated.
    pub group_columns: usize,
    /// Columns in a block, of one half where gated.
    pub block_columns: usize,
    /// Rows and columns of a tile, of one half where gated.
    pub tile_rows: usize,
    pub tile_columns: usize,
    /// Whether each tile packs the panels of B that it needs itself: no other tile needs them.
    pub own_b: bool,
    /// Whether each row of tiles packs the panels of A that it needs itself: no other row needs them, and they stay in
    /// the second cache.
    pub own_a: bool,
}

/// `total` in equal parts of at most `most`, each a multiple of `unit`.
fn even(total: usize, most: usize, unit: usize) -> usize {
    let parts = total.div_ceil(most).max(1);
    total.div_ceil(parts).next_multiple_of(unit).max(unit)
}

/// Rows of a tile, at most so many: fewer where some threads would wait for others at the end of a block, which is `across`
/// tiles wide. As many as leave no thread more than a sixteenth over its share, or where none do, the best.
fn shared_rows(rows: usize, most: usize, unit: usize, across: usize, threads: usize) -> usize {
    let largest = even(rows, most, unit);
    if threads == 1 {
        return largest;
    }
    // Of all threads together, if each took as long as the one with most tiles.
    let longest = |tile_rows: &usize| {
        (rows.div_ceil(*tile_rows) * across).div_ceil(threads) * tile_rows * threads
    };
    let first = rows.div_ceil(most).max(1);
    let all = (first..=rows / FEW_ROWS).map(|parts| even(rows, rows.div_ceil(parts), unit));
    let enough = all.clone().find(|tile_rows| 16 * longest(tile_rows) <= 17 * rows * across);
    enough.or_else(|| all.min_by_key(longest)).unwrap_or(largest)
}

impl Cut {
    /// Of a product whose A stays `in_place`, or is packed.
    pub fn new<F: Form>(
        (m, n, k): (usize, usize, usize),
        halves: usize,
        in_place: bool,
        threads: usize,
    ) -> Self {
        let block_steps = k.min(BLOCK_WORDS * F::WORD_STEPS);
        let block_words = block_steps.div_ceil(F::WORD_STEPS);
        let unit = 8.max(F::LANE_WORDS * F::WORD_STEPS);
        let steps = even(block_steps, STEPS * F::WORD_STEPS, unit).min(block_steps.max(1));
        let widest = WIDEST / halves / F::NR * F::NR;
        let tile_columns = even(n, widest, F::NR);
        let count = |rows: usize| m.div_ceil(rows) * n.div_ceil(tile_columns);
        let one_row = m <= TILE_ROWS[0] && n >= MANY_COLUMNS;
        let most =
            if one_row || count(TILE_ROWS[0]) >= MANY_TILES { TILE_ROWS[0] } else { TILE_ROWS[1] };
        let own_b = m <= even(m, most, F::MR);
        // Few tiles in one row of them: narrower ones, so that threads share the work evenly.
        let narrow = own_b && n.div_ceil(tile_columns) < 16;
        let tile_columns = if narrow {
            even(n, (widest / 2).max(F::NR) / F::NR * F::NR, F::NR)
        } else {
            tile_columns
        };
        let b_floats = if own_b { B_FLOATS } else { B_FLOATS.min(threads * B_FLOATS_OF_THREAD) };
        // What a lane takes, with what panels have besides.
        let padded = block_words.next_multiple_of(F::LANE_WORDS) + 4;
        let fit = |floats: usize, tile: usize| (floats / padded / tile).max(1) * tile;
        let block_columns = fit(b_floats / halves, tile_columns);
        let own_rows = even(m, OWN_ROWS, F::MR);
        let words = k.div_ceil(F::WORD_STEPS);
        let own_a = !(own_b || in_place)
            && k <= block_steps
            && 2 * n * halves * words <= 3 * B_FLOATS_OF_THREAD
            && m * words > B_FLOATS_OF_THREAD
            && own_rows * words <= OWN_A_FLOATS
            && (threads == 1 || m.div_ceil(own_rows) >= 4 * threads);
        let block_columns = if own_a { n } else { block_columns };
        let block_columns = block_columns.min(n.next_multiple_of(tile_columns)).max(1);
        // Hardly anything is packed where A stays in place, and no sums wait where k is not cut.
        let block_of = |tile_rows: usize| match in_place && k <= block_steps {
            true => m,
            false => fit(A_FLOATS, tile_rows).min(m),
        };
        let tile_rows = match () {
            _ if own_a => own_rows,
            _ if own_b => even(m, most, F::MR),
            _ => {
                let across = block_columns.div_ceil(tile_columns);
                shared_rows(block_of(most), most, F::MR, across, threads)
            }
        };
        let block_rows = if own_a { m } else { block_of(tile_rows) };
        let block_rows = block_rows.min(m.next_multiple_of(tile_rows)).max(1);
        let block_sums = block_rows.next_multiple_of(tile_rows) * halves * block_columns;
        let most = (SUM_FLOATS / block_sums).max(1) * block_columns;
        let group_columns = if k > block_steps { most.min(n.max(1)) } else { n };
        Self {
            block_steps,
            steps,
            block_rows,
            group_columns,
            block_columns,
            tile_rows,
            tile_columns,
            own_b,
            own_a,
        }
    }
}

/// What a cut product's workspace holds, in floats, and how many panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// From panel to panel.
    pub a_panel: usize,
    pub b_panel: usize,
    /// Panels of a block of A and of one of B.
    pub a_panels: usize,
    pub b_panels: usize,
    /// Blocks of columns in a group.
    pub group_blocks: usize,
    pub packed_a: usize,
    pub packed_b: usize,
    /// Sums that wait for the next block of `k`: of a block, and of all of a group.
    pub block_sums: usize,
    pub sums: usize,
}

impl Cut {
    pub fn sizes<F: Form>(&self, halves: usize, in_place: bool, cuts_k: bool) -> Sizes {
        let words = self.steps.div_ceil(F::WORD_STEPS).next_multiple_of(F::LANE_WORDS);
        let a_panel = (words * F::MR + 8).next_multiple_of(16);
        let b_panel = words * F::NR;
        let ranges = self.block_steps.div_ceil(self.steps.max(1));
        let a_panels = ranges * self.block_rows.div_ceil(F::MR);
        let b_panels = ranges * halves * self.block_columns.div_ceil(F::NR);
        let tiles = self.block_rows.div_ceil(self.tile_rows)
            * self.block_columns.div_ceil(self.tile_columns);
        let block_sums = tiles * self.tile_rows * self.tile_columns * halves;
        let group_blocks = self.group_columns.div_ceil(self.block_columns);
        Sizes {
            a_panel,
            b_panel,
            a_panels,
            b_panels,
            group_blocks,
            packed_a: match () {
                _ if self.own_a => 0,
                _ if in_place => ranges * a_panel, // of the rows behind the last whole panel
                _ => a_panels * a_panel,
            },
            packed_b: if self.own_b { 0 } else { b_panels * b_panel },
            block_sums,
            sums: if cuts_k { group_blocks * block_sums } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::portable::Portable;
    use super::*;

    /// As documented (`gemm`, Memory).
    fn fits<F: Form>() {
        let sizes = [0, 1, 7, 48, 97, 500, 2048, 5000, 100_000, 10_000_000];
        for (m, n) in sizes.iter().flat_map(|m| sizes.map(|n| (*m, n))) {
            for (k, threads) in sizes.iter().flat_map(|k| [1, 4, 256].map(|t| (*k, t))) {
                for (halves, in_place) in [(1, false), (2, false), (1, true)] {
                    let cut = Cut::new::<F>((m, n, k), halves, in_place, threads);
                    assert!(cut.steps <= MOST_STEPS, "{m} {n} {k}: {cut:?}");
                    let sizes = cut.sizes::<F>(halves, in_place, k > cut.block_steps);
                    let floats = sizes.packed_a + sizes.packed_b + sizes.sums;
                    assert!(4 * floats <= 47_000_000, "{m} {n} {k} {threads}: {cut:?} {sizes:?}");
                }
            }
        }
    }

    /// What `blocks_of_a_huge_product_have_the_bits_of_small_ones` (tests/gemm_bits.rs) multiplies has several of each.
    fn cuts_everything<F: Form>() {
        let (m, n, k) = (1700, 3500, 4500);
        let cut = Cut::new::<F>((m, n, k), 1, false, 3);
        assert!(cut.block_rows < m && cut.block_steps < k, "{cut:?}");
        assert!(cut.block_columns < cut.group_columns && cut.group_columns < n, "{cut:?}");
    }

    /// No thread has a fifth more of a block than its share.
    fn is_shared<F: Form>() {
        for (m, n, k) in [(512, 14_336, 4096), (2048, 3072, 768), (1000, 4096, 11_008)] {
            for threads in [1, 2, 3, 4, 8, 16] {
                let cut = Cut::new::<F>((m, n, k), 1, false, threads);
                let across = cut.block_columns.div_ceil(cut.tile_columns);
                let tiles = cut.block_rows.div_ceil(cut.tile_rows) * across;
                let longest = tiles.div_ceil(threads) * cut.tile_rows * threads;
                let share = cut.block_rows * across;
                assert!(
                    5 * longest <= 6 * share,
                    "{m} {n} {k} {threads}: {longest} {share}, {cut:?}"
                );
            }
        }
    }

    fn all<F: Form>() {
        fits::<F>();
        is_shared::<F>();
        cuts_everything::<F>();
    }

    #[test]
    fn every_form_cuts_as_documented() {
        all::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            all::<super::super::avx2::Avx2>();
            all::<super::super::avx512bf16::Avx512Bf16>();
            all::<super::super::amx::Amx>();
        }
    }
}
