//! Rows of `gemm`: what sits in the inner loop is the storage type and the layout of the operands.
//! Everything else (epilogue, derivative, gate, groups, output type) is uniform over a launch and
//! travels in the parameter block.

/// One device entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Symbol.
    pub symbol: &'static str,
    /// Parameter block.
    pub block: &'static str,
    /// Number of the operands' storage type; `None` where it is a run-time branch.
    pub storage: Option<u32>,
    /// Whether A and B are stored transposed.
    pub transposed: (bool, bool),
}

impl Row {
    /// Symbol and block.
    pub const fn entry(&self) -> super::Entry {
        super::Entry { symbol: self.symbol, block: self.block, device: None }
    }
}

macro_rules! products {
    ($($symbol:literal: $storage:literal, $a:literal, $b:literal;)*) => {
        &[
            $(Row {
                symbol: $symbol,
                block: "Product",
                storage: Some($storage),
                transposed: ($a, $b),
            },)*
            Row {
                symbol: "hs_gemm_swiglu_grad",
                block: "SwigluGrad",
                storage: None,
                transposed: (false, false),
            },
        ]
    };
}

/// Every row.
pub const ROWS: &[Row] = products! {
    "hs_gemm_product_bf16_nn": 0, false, false;
    "hs_gemm_product_bf16_nt": 0, false, true;
    "hs_gemm_product_bf16_tn": 0, true, false;
    "hs_gemm_product_bf16_tt": 0, true, true;
    "hs_gemm_product_f16_nn": 1, false, false;
    "hs_gemm_product_f16_nt": 1, false, true;
    "hs_gemm_product_f16_tn": 1, true, false;
    "hs_gemm_product_f16_tt": 1, true, true;
    "hs_gemm_product_f32_nn": 2, false, false;
    "hs_gemm_product_f32_nt": 2, false, true;
    "hs_gemm_product_f32_tn": 2, true, false;
    "hs_gemm_product_f32_tt": 2, true, true;
};

/// The row of SwiGLU's gradient: the last.
pub fn swiglu_grad() -> &'static Row {
    &ROWS[ROWS.len() - 1]
}

/// The product's row for a storage type and layout.
pub fn product(storage: u32, a_transposed: bool, b_transposed: bool) -> &'static Row {
    ROWS.iter()
        .find(|row| row.storage == Some(storage) && row.transposed == (a_transposed, b_transposed))
        .unwrap_or(swiglu_grad())
}
