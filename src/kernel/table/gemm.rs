//! Rows of `gemm`: what sits in the inner loop is the storage type and the layout of the operands.
//! Everything else (epilogue, derivative, gate, groups, output type) is uniform over a launch and
//! travels in the parameter block.

use super::{Source, Team};

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
    /// stored transposed, rows and columns of a tile. `None` for rows that are no products.
    pub product: Option<(u32, bool, bool, u32)>,
}

impl Row {
    /// Symbol, block and source.
    pub const fn entry(&self) -> super::Entry {
        super::Entry { symbol: self.symbol, block: self.block, device: Some(self.source) }
    }
}

macro_rules! rows {
    ($($header:literal $tile:literal $team:expr, { $($symbol:literal: $storage:literal, $a:literal, $b:literal, $function:literal;)* })*) => {
        &[
            $($(Row {
                symbol: $symbol,
                block: "Product",
                source: Source { header: $header, function: $function, team: $team },
                product: Some(($storage, $a, $b, $tile)),
            },)*)*
            other("hs_gemm_prepare", "Product", "gemm/prepare.h", "prepare"),
            other("hs_gemm_finish", "Product", "gemm/finish.h", "finish"),
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
    Row { symbol, block, source: Source { header, function, team: Team::Threads }, product: None }
}

/// Rows and columns of the tile of the path that takes every product.
pub const SMALL_TILE: u32 = 64;
/// Rows and columns of the tile of the path for large products of aligned 16-bit operands.
pub const LARGE_TILE: u32 = 128;

/// Every row.
pub const ROWS: &[Row] = rows! {
    "gemm/product.h" 64 Team::FourWaves(3), {
        "hs_gemm_product_bf16_nn": 0, false, false, "product<0, false, false>";
        "hs_gemm_product_bf16_nt": 0, false, true, "product<0, false, true>";
        "hs_gemm_product_bf16_tn": 0, true, false, "product<0, true, false>";
        "hs_gemm_product_bf16_tt": 0, true, true, "product<0, true, true>";
        "hs_gemm_product_f16_nn": 1, false, false, "product<1, false, false>";
        "hs_gemm_product_f16_nt": 1, false, true, "product<1, false, true>";
        "hs_gemm_product_f16_tn": 1, true, false, "product<1, true, false>";
        "hs_gemm_product_f16_tt": 1, true, true, "product<1, true, true>";
    }
    "gemm/product.h" 64 Team::Threads, {
        "hs_gemm_product_f32_nn": 2, false, false, "product<2, false, false>";
        "hs_gemm_product_f32_nt": 2, false, true, "product<2, false, true>";
        "hs_gemm_product_f32_tn": 2, true, false, "product<2, true, false>";
        "hs_gemm_product_f32_tt": 2, true, true, "product<2, true, true>";
    }
    "gemm/aligned.h" 128 Team::FourWaves(2), {
        "hs_gemm_product_bf16_nn_128": 0, false, false, "aligned<0, false, false>";
        "hs_gemm_product_bf16_nt_128": 0, false, true, "aligned<0, false, true>";
        "hs_gemm_product_bf16_tn_128": 0, true, false, "aligned<0, true, false>";
        "hs_gemm_product_bf16_tt_128": 0, true, true, "aligned<0, true, true>";
        "hs_gemm_product_f16_nn_128": 1, false, false, "aligned<1, false, false>";
        "hs_gemm_product_f16_nt_128": 1, false, true, "aligned<1, false, true>";
        "hs_gemm_product_f16_tn_128": 1, true, false, "aligned<1, true, false>";
        "hs_gemm_product_f16_tt_128": 1, true, true, "aligned<1, true, true>";
    }
};

/// The row that prepares A: the last but two.
pub fn prepare() -> &'static Row {
    &ROWS[ROWS.len() - 3]
}

/// The row that finishes a weight gradient: the last but one.
pub fn finish() -> &'static Row {
    &ROWS[ROWS.len() - 2]
}

/// The row of SwiGLU's gradient: the last.
pub fn swiglu_grad() -> &'static Row {
    &ROWS[ROWS.len() - 1]
}

/// The product's row for a storage type, layout and tile.
pub fn product(storage: u32, a_transposed: bool, b_transposed: bool, tile: u32) -> &'static Row {
    let wanted = Some((storage, a_transposed, b_transposed, tile));
    ROWS.iter().find(|row| row.product == wanted).expect("plans ask for rows that are there")
}
