//! Rows of `gemm`: what sits in the inner loop is the storage type and the layout of the operands.
//! Everything else (epilogue, derivative, gate, groups, output type) is uniform over a launch and
//! travels in the parameter block.

use super::{CUDA, HIP, Source, Team};

/// One device entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Symbol.
    pub symbol: &'static str,
    /// Parameter block.
    pub block: &'static str,
    /// Device code.
    pub source: Source,
    /// Which products it computes: the number of the operands' storage type, whether A and B are
    /// stored transposed, and the tile. `None` for rows that are no products.
    pub product: Option<(u32, bool, bool, Tile)>,
}

/// What a block of a GPU computes of a product at a time: so many rows and columns of D.
///
/// Those that there are: 64×64 for every product; and for large ones of 16-bit operands aligned to 4 bytes, unless both are
/// stored transposed, 128×128, 256×128 and 128×256, on CUDA 128×64 and on HIP 256×256.
///
/// ```
/// use halfstep::{Device, bf16, gemm::{Gemm, Tile}};
/// # fn main() -> halfstep::Result<()> {
/// let gemm = Gemm::new(512, 512, 64).tile(Tile::new(256, 128));
/// let plan = gemm.plan::<bf16, bf16>(&Device::cpu())?; // which has tiles of its own
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Rows of D.
    pub rows: u16,
    /// Columns of D.
    pub columns: u16,
}

#[allow(dead_code, reason = "build scripts read the rows only")]
impl Tile {
    /// `rows` × `columns`. Whether there is such a tile, and a product can have it, is for the plan to say.
    pub const fn new(rows: u16, columns: u16) -> Self {
        Self { rows, columns }
    }

    /// Every tile, the smallest last.
    pub const ALL: [Self; 6] =
        [LARGEST_TILE, TALL_TILE, WIDE_TILE, LARGE_TILE, MEDIUM_TILE, SMALL_TILE];

    /// As a parameter block has it.
    pub const fn code(self) -> u32 {
        (self.rows as u32) << 16 | self.columns as u32
    }

    /// From a parameter block.
    pub const fn from_code(code: u32) -> Self {
        Self { rows: (code >> 16) as u16, columns: code as u16 }
    }

    /// How many elements.
    pub const fn elements(self) -> u32 {
        self.rows as u32 * self.columns as u32
    }

    /// Bytes of shared memory that a launch asks for: as many stages of 32 or 64 steps of k as fit. Of the largest two, a
    /// multiprocessor holds one block, of 128×64 two. Others have the 48 KiB that a kernel may declare.
    pub const fn asked(self) -> u32 {
        match (self.rows, self.columns) {
            (256, 128) | (128, 256) => 96 * 1024,
            (128, 64) => 72 * 1024,
            _ => 0,
        }
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}", self.rows, self.columns)
    }
}

impl Row {
    /// Symbol, block and source.
    pub const fn entry(&self) -> super::Entry {
        super::Entry { symbol: self.symbol, block: self.block, device: Some(self.source) }
    }
}

macro_rules! rows {
    ($($header:literal $tile:ident $team:expr, $only:expr, { $($symbol:literal: $storage:literal, $a:literal, $b:literal, $function:literal;)* })*) => {
        &[
            $($(Row {
                symbol: $symbol,
                block: "Product",
                source: Source { header: $header, function: $function, team: $team, asked: $tile.asked(), only: $only },
                product: Some(($storage, $a, $b, $tile)),
            },)*)*
            other("hs_gemm_prepare", "Product", "gemm/prepare.h", "prepare"),
            other("hs_gemm_combine", "Product", "gemm/combine.h", "combine"),
            other("hs_gemm_swiglu_grad", "SwigluGrad", "gemm/swiglu_grad.h", "swiglu_grad"),
        ]
    };
}

const fn other(
    symbol: &'static str,
    block: &'static str,
    header: &'static str,
    function: &'static str,
) -> Row {
    let source = Source { header, function, team: Team::Threads, asked: 0, only: None };
    Row { symbol, block, source, product: None }
}

/// The tile of the path that takes every product.
pub const SMALL_TILE: Tile = Tile::new(64, 64);
/// The tile of the path for aligned 16-bit operands of which two blocks share a unit of a device.
pub const LARGE_TILE: Tile = Tile::new(128, 128);
/// Tiles of that path for large products: fewer bytes of A and B for each product.
pub const TALL_TILE: Tile = Tile::new(256, 128);
/// The same, lying.
pub const WIDE_TILE: Tile = Tile::new(128, 256);
/// Between the two smallest, where shared memory keeps up with the matrix unit better than in the smallest (CUDA).
pub const MEDIUM_TILE: Tile = Tile::new(128, 64);
/// As large as a wave's accumulation registers allow (HIP).
pub const LARGEST_TILE: Tile = Tile::new(256, 256);

/// Every row.
pub const ROWS: &[Row] = rows! {
    "gemm/product.h" SMALL_TILE Team::FourWaves(3), None, {
        "hs_gemm_product_bf16_nn": 0, false, false, "product<0, false, false>";
        "hs_gemm_product_bf16_nt": 0, false, true, "product<0, false, true>";
        "hs_gemm_product_bf16_tn": 0, true, false, "product<0, true, false>";
        "hs_gemm_product_bf16_tt": 0, true, true, "product<0, true, true>";
        "hs_gemm_product_f16_nn": 1, false, false, "product<1, false, false>";
        "hs_gemm_product_f16_nt": 1, false, true, "product<1, false, true>";
        "hs_gemm_product_f16_tn": 1, true, false, "product<1, true, false>";
        "hs_gemm_product_f16_tt": 1, true, true, "product<1, true, true>";
    }
    "gemm/product.h" SMALL_TILE Team::Threads, None, {
        "hs_gemm_product_f32_nn": 2, false, false, "product<2, false, false>";
        "hs_gemm_product_f32_nt": 2, false, true, "product<2, false, true>";
        "hs_gemm_product_f32_tn": 2, true, false, "product<2, true, false>";
        "hs_gemm_product_f32_tt": 2, true, true, "product<2, true, true>";
    }
    "gemm/aligned.h" LARGE_TILE Team::FourWaves(2), None, {
        "hs_gemm_product_bf16_nn_128": 0, false, false, "aligned<0, false, false, 128, 128>";
        "hs_gemm_product_bf16_nt_128": 0, false, true, "aligned<0, false, true, 128, 128>";
        "hs_gemm_product_bf16_tn_128": 0, true, false, "aligned<0, true, false, 128, 128>";
        "hs_gemm_product_f16_nn_128": 1, false, false, "aligned<1, false, false, 128, 128>";
        "hs_gemm_product_f16_nt_128": 1, false, true, "aligned<1, false, true, 128, 128>";
        "hs_gemm_product_f16_tn_128": 1, true, false, "aligned<1, true, false, 128, 128>";
    }
    "gemm/aligned.h" TALL_TILE Team::Alone, None, {
        "hs_gemm_product_bf16_nn_256x128": 0, false, false, "aligned<0, false, false, 256, 128>";
        "hs_gemm_product_bf16_nt_256x128": 0, false, true, "aligned<0, false, true, 256, 128>";
        "hs_gemm_product_bf16_tn_256x128": 0, true, false, "aligned<0, true, false, 256, 128>";
        "hs_gemm_product_f16_nn_256x128": 1, false, false, "aligned<1, false, false, 256, 128>";
        "hs_gemm_product_f16_nt_256x128": 1, false, true, "aligned<1, false, true, 256, 128>";
        "hs_gemm_product_f16_tn_256x128": 1, true, false, "aligned<1, true, false, 256, 128>";
    }
    "gemm/aligned.h" WIDE_TILE Team::Alone, None, {
        "hs_gemm_product_bf16_nn_128x256": 0, false, false, "aligned<0, false, false, 128, 256>";
        "hs_gemm_product_bf16_nt_128x256": 0, false, true, "aligned<0, false, true, 128, 256>";
        "hs_gemm_product_bf16_tn_128x256": 0, true, false, "aligned<0, true, false, 128, 256>";
        "hs_gemm_product_f16_nn_128x256": 1, false, false, "aligned<1, false, false, 128, 256>";
        "hs_gemm_product_f16_nt_128x256": 1, false, true, "aligned<1, false, true, 128, 256>";
        "hs_gemm_product_f16_tn_128x256": 1, true, false, "aligned<1, true, false, 128, 256>";
    }
    "gemm/aligned.h" MEDIUM_TILE Team::FourWaves(2), Some(CUDA), {
        "hs_gemm_product_bf16_nn_128x64": 0, false, false, "aligned<0, false, false, 128, 64>";
        "hs_gemm_product_bf16_nt_128x64": 0, false, true, "aligned<0, false, true, 128, 64>";
        "hs_gemm_product_bf16_tn_128x64": 0, true, false, "aligned<0, true, false, 128, 64>";
        "hs_gemm_product_f16_nn_128x64": 1, false, false, "aligned<1, false, false, 128, 64>";
        "hs_gemm_product_f16_nt_128x64": 1, false, true, "aligned<1, false, true, 128, 64>";
        "hs_gemm_product_f16_tn_128x64": 1, true, false, "aligned<1, true, false, 128, 64>";
    }
    "gemm/aligned.h" LARGEST_TILE Team::Alone, Some(HIP), {
        "hs_gemm_product_bf16_nn_256x256": 0, false, false, "aligned<0, false, false, 256, 256>";
        "hs_gemm_product_bf16_nt_256x256": 0, false, true, "aligned<0, false, true, 256, 256>";
        "hs_gemm_product_bf16_tn_256x256": 0, true, false, "aligned<0, true, false, 256, 256>";
        "hs_gemm_product_f16_nn_256x256": 1, false, false, "aligned<1, false, false, 256, 256>";
        "hs_gemm_product_f16_nt_256x256": 1, false, true, "aligned<1, false, true, 256, 256>";
        "hs_gemm_product_f16_tn_256x256": 1, true, false, "aligned<1, true, false, 256, 256>";
    }
};

/// The row that prepares A: the last but two.
pub fn prepare() -> &'static Row {
    &ROWS[ROWS.len() - 3]
}

/// The row that adds the parts of k: the last but one.
pub fn combine() -> &'static Row {
    &ROWS[ROWS.len() - 2]
}

/// The row of SwiGLU's gradient: the last.
pub fn swiglu_grad() -> &'static Row {
    &ROWS[ROWS.len() - 1]
}

/// The tiles that products of a storage type and layout have on a target, the smallest last.
pub fn tiles(storage: u32, a_transposed: bool, b_transposed: bool, target: &str) -> Vec<Tile> {
    let has = |tile: &Tile| {
        let wanted = Some((storage, a_transposed, b_transposed, *tile));
        ROWS.iter().any(|row| row.product == wanted && row.source.is_on(target))
    };
    Tile::ALL.into_iter().filter(has).collect()
}

/// The product's row for a storage type, layout and tile.
pub fn product(storage: u32, a_transposed: bool, b_transposed: bool, tile: Tile) -> &'static Row {
    let wanted = Some((storage, a_transposed, b_transposed, tile));
    ROWS.iter().find(|row| row.product == wanted).expect("plans ask for rows that are there")
}
